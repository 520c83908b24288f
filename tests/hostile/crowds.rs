// SPDX-License-Identifier: Apache-2.0
//! Many at once.

use anyhow::{Context, Result, ensure};
use harness::{pod::listens, wait};

use crate::siege::{NODES, Siege};

/// What the streams of one pod may hold.
const POD_BUDGET: usize = 32 << 20;
/// What else thousands of connections cost: their own state, buffers in flight, what the allocator has not given back.
const AROUND: usize = 96 << 20;

/// Starts a crowd, looks after the neighbours while it stands, and lets it go.
fn crowd(siege: &mut Siege, from: &str, words: &[String], room: usize) -> Result<String> {
    let before = NODES.map(|node| siege.watch(node));
    let mut crowd = siege.launch(from, words)?;
    let said = crowd.hear()?;
    let fared = siege.neighbours();
    crowd.finish();
    let end = crowd.hear();
    ensure!(end.is_err(), "it goes on: {end:?}");
    fared.with_context(|| format!("while there were {said}"))?;
    for (node, before) in NODES.into_iter().zip(before) {
        siege.bounded(node, before?, room)?;
    }
    Ok(said)
}

pub(crate) fn parallel(siege: &mut Siege) -> Result<()> {
    let words = siege.words("demo/server", &siege.app("demo/server")?, &["parallel", "2000"])?;
    let said = crowd(siege, "demo/mallory", &words, AROUND)?;
    ensure!(said == "2000 answered", "{said}");
    Ok(())
}

/// The kernel keeps little for the application, so that it is the proxy that has to.
fn small_buffers(siege: &Siege, pod: &str) -> Result<()> {
    let netns = &siege.bed.pod(pod)?.netns;
    netns.sysctl("net/ipv4/tcp_rmem", "4096 16384 32768")?;
    netns.sysctl("net/ipv4/tcp_wmem", "4096 16384 32768")
}

pub(crate) fn stalled_streams(siege: &mut Siege) -> Result<()> {
    const PORT: u16 = 9001;
    small_buffers(siege, "demo/sleeper")?;
    let sleeper = siege.bed.pod("demo/sleeper")?;
    // A listener hands on the buffers it was made with.
    let serving = sleeper.talk(&["peer", "serve", &PORT.to_string()])?;
    wait::until("the sleeper to serve", wait::PATIENCE, || {
        ensure!(listens(&sleeper.netns, PORT)?, "nothing listens");
        Ok::<(), anyhow::Error>(())
    })?;
    let mark = siege.mark("n2")?;
    let mut words = siege.words("demo/sleeper", &siege.tunnel("demo/sleeper")?, &["stalled-streams", "1000"])?;
    words.splice(2..2, ["--to-port".to_owned(), PORT.to_string()]);
    let said = crowd(siege, "plain/attacker", &words, POD_BUDGET + AROUND)?;
    drop(serving);
    let numbers: Vec<usize> = said.split(' ').filter_map(|word| word.parse().ok()).collect();
    // Some of them fit, all of them do not, and no tunnel goes with its streams.
    ensure!(matches!(numbers[..], [1000, 100..1000, 0, _]), "{said}");
    siege.logged("n2", mark, &[&format!("buffered bytes reached the limit of {POD_BUDGET} for one pod")])
}

pub(crate) fn stalled_readers(siege: &mut Siege) -> Result<()> {
    small_buffers(siege, "demo/mallory")?;
    let words = siege.words("demo/sleeper", &siege.app("demo/sleeper")?, &["stalled-readers", "1000"])?;
    let said = crowd(siege, "demo/mallory", &words, POD_BUDGET + AROUND)?;
    ensure!(said == "1000 stalled", "{said}");
    Ok(())
}

/// Handshakes that nobody finishes: one address gets so many of them, everybody else shakes hands meanwhile, and a deadline ends them.
pub(crate) fn handshakes(siege: &mut Siege) -> Result<()> {
    const EACH: usize = 400;
    /// What one address may have under way at one pod.
    const ALLOWED: usize = 128;
    let before = siege.watch("n2")?;
    let mark = siege.mark("n2")?;
    let each = EACH.to_string();
    let mut crowds = Vec::new();
    for (from, how) in [("plain/attacker", "half-open"), ("plain/poser", "silent")] {
        let words = siege.words("demo/server", &siege.tunnel("demo/server")?, &[how, &each])?;
        let mut crowd = siege.launch(from, &words)?;
        let said = crowd.hear()?;
        let open: usize = said.split(' ').next().unwrap_or_default().parse()?;
        ensure!(open <= ALLOWED && open > ALLOWED / 4, "{from}: {said}, allowed are {ALLOWED}");
        crowds.push(crowd);
    }
    siege.logged("n2", mark, &["too many handshakes under way from this address"])?;
    // The addresses that have their share get no more; everybody else does.
    siege.others().context("while handshakes hang")?;
    // Nobody lets go of them; the deadline does.
    siege.bounded("n2", before, AROUND)?;
    siege.logged("n2", mark, &["did not finish the TLS handshake within"])?;
    drop(crowds);
    Ok(())
}

/// A pod that opens whatever it can gets half of what there is, and the others work on.
pub(crate) fn greedy(siege: &mut Siege) -> Result<()> {
    let marks = (siege.mark("n1")?, siege.mark("n2")?);
    let words = siege.words("demo/server", &siege.app("demo/sleeper")?, &["greedy", "3000"])?;
    let said = crowd(siege, "demo/mallory", &words, AROUND)?;
    let numbers: Vec<usize> = said.split(' ').filter_map(|word| word.parse().ok()).collect();
    ensure!(
        matches!(numbers[..], [open, refused, 0] if (1000..=2600).contains(&open) && open + refused == 3000),
        "{said}"
    );
    // Sockets of the client run out, or, on a slow machine and sooner, connections that the server's pod has being opened.
    let reason = ["of this pod: it has"];
    siege.logged("n1", marks.0, &reason).or_else(|_| siege.logged("n2", marks.1, &reason))
}
