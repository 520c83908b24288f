// SPDX-License-Identifier: Apache-2.0
//! Garbage, half messages, slow bytes, early closes and resets on the three ports a proxy has in a pod.

use anyhow::{Result, anyhow, ensure};
use harness::{access, mesh, wait};

use crate::siege::Siege;

/// Name and who ends it.
const MANNERS: [(&str, &str); 12] = [
    ("garbage", "refused"),
    ("zeros", "refused"),
    ("http", "refused"),
    ("plaintext-hbone", "refused"),
    ("record-too-large", "refused"),
    ("garbage-behind-a-hello", "refused"),
    ("endless-hello", "refused"),
    ("silence", "left"),
    ("half-hello", "refused"),
    ("half-garbage", "refused"),
    ("reset", "left"),
    ("reset-behind-a-hello", "left"),
];

fn words<'a>(how: &'a str, expected: &[(&'a str, &str)]) -> Vec<&'a str> {
    std::iter::once(how).chain(expected.iter().map(|(name, _)| *name)).collect()
}

pub(crate) fn hbone_port(siege: &mut Siege) -> Result<()> {
    let expected: Vec<_> = MANNERS.into_iter().chain([("slow", "left")]).collect();
    // From another pod, and from within the pod itself.
    let outside = siege.tunnel("demo/server")?;
    for (from, to) in
        [("plain/attacker", outside.as_str()), ("demo/server", "127.0.0.1:15008"), ("demo/server", "[::1]:15008")]
    {
        let mark = siege.mark("n2")?;
        let words = siege.words("demo/server", to, &words("raw", &expected))?;
        siege.endure(from, &words)?.all(&expected)?;
        let reasons = ["TLS: ", "the peer closed the tunnel", "the tunnel ended without goodbye"];
        siege.logged("n2", mark, &reasons)?;
    }
    Ok(())
}

/// On these ports only redirected connections have a destination. Whoever comes otherwise would go round in circles.
pub(crate) fn redirect_ports(siege: &mut Siege) -> Result<()> {
    // Whoever waits for an end is given one, whatever comes or does not.
    let refused =
        ["garbage", "http", "half-garbage", "half-close", "mute", "slow-for-ever"].map(|name| (name, "refused"));
    // Whoever leaves at once may be faster than the refusal.
    let hasty = ["silence", "reset", "reset-behind-a-hello"].map(|name| (name, "left"));
    let all = [&refused[..], &hasty].concat();
    let server = siege.bed.pod("demo/server")?.v4;
    let (outside, inside) = (|port| format!("{server}:{port}"), |port| format!("127.0.0.1:{port}"));
    for (from, to, node) in [
        ("plain/attacker", outside(15001), "n2"),
        ("plain/attacker", outside(15006), "n2"),
        ("demo/mallory", outside(15006), "n2"),
        ("demo/server", inside(15001), "n2"),
        ("demo/server", inside(15006), "n2"),
        ("demo/mallory", inside(15001), "n1"),
    ] {
        let mark = siege.mark(node)?;
        let words = siege.words("demo/server", &to, &words("raw", &all))?;
        let report = siege.endure(from, &words)?;
        report.all(&refused)?;
        for (name, left) in hasty {
            let fates = report.fates.get(name).map_or(&[][..], Vec::as_slice);
            let is_over = |fate: &String| fate == left || fate == "refused";
            ensure!(!fates.is_empty() && fates.iter().all(is_over), "{name} at {to} from {from}: {fates:?}");
        }
        siege.logged(node, mark, &["attempted recursive call to ourselves"])?;
    }
    Ok(())
}

/// With the limits a proxy has by itself: every refusal is counted, and some are logged.
pub(crate) fn log_flood(siege: &mut Siege) -> Result<()> {
    const REFUSALS: u64 = 2000;
    /// A burst of each thread, and what a second brings, for longer than this can take.
    const LINES: usize = 1000;
    siege.bed.mesh.take("n1-ztunnel")?.stop()?;
    siege.bed.mesh.set(&[]);
    let node = siege.bed.world.node("n1")?;
    siege.bed.mesh.start_ztunnel(&siege.bed.world, node)?;
    siege.bed.mesh.ready(node)?;
    siege.bed.mesh.settle(&siege.bed.world)?;
    let mark = siege.mark("n1")?;
    let words = siege.words("demo/alice", &siege.tunnel("demo/alice")?, &["raw", "http"])?;
    let mut attack = siege.launch("plain/attacker", &words)?;
    attack.hear()?;
    wait::until("many refusals to be counted", wait::PATIENCE, || {
        let page = mesh::metrics(node)?;
        let counted = |line: &str| {
            let of_tls = line.starts_with("mesh_refused_connections_total{") && line.contains("reason=\"tls\"");
            of_tls.then(|| line.rsplit(' ').next()?.parse::<u64>().ok()).flatten()
        };
        let refused: u64 = page.lines().filter_map(counted).sum();
        (refused >= REFUSALS).then_some(()).ok_or_else(|| anyhow!("{refused} are counted"))
    })?;
    attack.finish();
    let lines = access::connections(siege.bed.mesh.program("n1-ztunnel")?.log(), mark).len();
    ensure!(lines > 0 && lines <= LINES, "{lines} lines for {REFUSALS} refusals and more");
    Ok(())
}
