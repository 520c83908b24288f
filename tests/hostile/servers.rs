// SPDX-License-Identifier: Apache-2.0
//! Servers with the right certificate and the wrong manners, as our client meets them.

use anyhow::{Context, Result, ensure};

use crate::{
    identities::{meet, pose, with_swapped_addresses},
    siege::{LITTLE, NODES, Siege},
};

/// Manner, and what the proxy of the client logs.
const MANNERS: [(&str, &str); 14] = [
    ("answers-in-http1", "h2 failed"),
    ("teapot", "http status: 418"),
    ("refuses-streams", "REFUSED_STREAM"),
    ("resets-streams", "stream reset by the peer: INTERNAL_ERROR"),
    ("data-before-the-answer", "data before the answer"),
    ("answer-without-status", "answer without :status"),
    ("pushes", "protocol error by the peer"),
    ("leaves", "REFUSED_STREAM"),
    ("pings", "too many PING frames"),
    ("settings", "too many SETTINGS"),
    ("window-updates", "WINDOW_UPDATE frames"),
    ("interim-answers", "frames without content"),
    ("continuations", "header block over"),
    ("long-answer", "header block over"),
];

pub(crate) fn manners(siege: &mut Siege) -> Result<()> {
    let before = NODES.map(|node| siege.watch(node));
    let mut poser = pose(siege, "spiffe://cluster.local/ns/demo/sa/bait")?;
    with_swapped_addresses(siege, |siege| {
        for (manner, reason) in MANNERS {
            // Whose certificate is right may hear what goes out with the request.
            meet(siege, &mut poser, manner, reason)?;
        }
        siege.neighbours()?;
        // Refusals are worth one other try each, no more.
        poser.ask("* refuses-streams")?;
        ensure!(!siege.bed.who("demo/alice", siege.bed.pod("plain/poser")?.v4.into(), 9000)?.is_good(), "served");
        let seen = poser.ask("* refuses-streams")?;
        ensure!(
            seen.starts_with("2 connections 2 requests ") || seen.starts_with("1 connections 2 requests "),
            "{seen}"
        );
        Ok(())
    })?;
    for (node, before) in NODES.into_iter().zip(before) {
        siege.bounded(node, before?, LITTLE)?;
    }
    Ok(())
}

/// Who asks, of what kind of server, and what the proxy logs when its patience ends.
const HANGING: [(&str, &str, &str); 4] = [
    ("demo/alice", "silent", "the peer did not finish the TLS handshake within"),
    ("demo/mallory", "mute", "the peer did not answer the request within"),
    ("demo/carol", "no-settings", "the peer has not sent its SETTINGS"),
    ("demo/dave", "black hole", "maybe a NetworkPolicy is blocking HBONE port 15008"),
];
/// Connections of each that wait together.
const WAITING: usize = 40;
/// Each data thread (two at most here) dials for itself, and perhaps once more for those who come when the first dial has failed.
const DIALS: u64 = 4;

/// Nothing waits for ever, and many who wait for the same thing cost one dial per thread.
pub(crate) fn deadlines(siege: &mut Siege) -> Result<()> {
    let before = NODES.map(|node| siege.watch(node));
    let mut poser = pose(siege, "spiffe://cluster.local/ns/demo/sa/bait")?;
    with_swapped_addresses(siege, |siege| {
        let (mark, to) = (siege.mark("n1")?, siege.app("plain/poser")?);
        let mut crowds = Vec::new();
        for (from, manner, _) in HANGING {
            let of = siege.bed.pod(from)?.v4;
            poser.ask(&format!("{of} {manner}"))?;
            if manner == "black hole" {
                // Whatever comes from there is not answered.
                siege.bed.pod("plain/poser")?.netns.ip(&format!("route add blackhole {of}/32"))?;
            }
            crowds.push(siege.launch(from, &siege.words("demo/server", &to, &["greedy", &WAITING.to_string()])?)?);
        }
        siege.neighbours().context("while all of them hang")?;
        for ((from, manner, _), crowd) in HANGING.iter().zip(&mut crowds) {
            let said = crowd.hear()?;
            ensure!(said == format!("0 open {WAITING} refused 0 unanswered"), "{manner}: {said}");
            let seen = poser.ask(&format!("{} {manner}", siege.bed.pod(from)?.v4))?;
            let dials: u64 = seen.split(' ').next().unwrap_or_default().parse()?;
            ensure!(
                (dials == 0) == (*manner == "black hole") && dials <= DIALS,
                "{WAITING} connections to a server that is {manner} cost {dials} dials"
            );
        }
        siege.logged("n1", mark, &HANGING.map(|(_, _, reason)| reason))
    })?;
    let dave = siege.bed.pod("demo/dave")?.v4;
    siege.bed.pod("plain/poser")?.netns.ip(&format!("route del blackhole {dave}/32"))?;
    for (node, before) in NODES.into_iter().zip(before) {
        siege.bounded(node, before?, LITTLE)?;
    }
    Ok(())
}
