// SPDX-License-Identifier: Apache-2.0
//! Who is not who he should be: clients at our server, servers at our client.

use anyhow::{Context, Result, ensure};
use harness::{mesh, process::Dialogue, wait};

use crate::siege::{APP, NODES, Siege};

/// Flaw of a client's certificate, the alert it gets, what the proxy logs.
const CLIENTS: [(&str, &str, &str); 9] = [
    ("missing", "CertificateRequired", "peer sent no certificates"),
    ("expired", "CertificateExpired", "certificate expired"),
    ("too-young", "CertificateExpired", "certificate not valid yet"),
    ("other-root", "UnknownCA", "UnknownIssuer"),
    ("other-domain", "", "expected SAN (spiffe://cluster.local/...), got spiffe://elsewhere.example/"),
    ("no-identity", "", "expected SAN (spiffe://cluster.local/...), got none"),
    ("other-use", "", "extended key usage"),
    ("old-tls", "ProtocolVersion", "peer is incompatible"),
    ("other-protocol", "NoApplicationProtocol", "peer doesn't support any known protocol"),
];

pub(crate) fn clients(siege: &mut Siege) -> Result<()> {
    let mark = siege.mark("n2")?;
    let how: Vec<&str> = std::iter::once("shake").chain(CLIENTS.map(|(name, _, _)| name)).chain(["good"]).collect();
    let words = siege.words("demo/server", &siege.tunnel("demo/server")?, &how)?;
    let report = siege.endure("plain/attacker", &words)?;
    report.all(&[("good", "taken")])?;
    for (name, alert, _) in CLIENTS {
        let fates = report.fates.get(name).cloned().unwrap_or_default();
        ensure!(
            fates.len() == 1 && fates[0].starts_with("refused: received fatal alert") && fates[0].contains(alert),
            "{name}: {fates:?}"
        );
    }
    siege.logged("n2", mark, &CLIENTS.map(|(_, _, reason)| reason))
}

/// What a server does, and what the proxy of the client logs.
const SERVERS: [(&str, &str); 14] = [
    (
        "good",
        "peer did not present the expected SAN (spiffe://cluster.local/ns/demo/sa/bait), got spiffe://cluster.local/ns/demo/sa/mallory",
    ),
    ("expired", "certificate expired"),
    ("too-young", "certificate not valid yet"),
    ("other-root", "UnknownIssuer"),
    ("other-domain", "got spiffe://elsewhere.example/ns/demo/sa/mallory"),
    ("no-identity", "expected SAN (spiffe://cluster.local/ns/demo/sa/bait), got none"),
    ("other-use", "extended key usage"),
    ("old-tls", "ProtocolVersion"),
    ("other-protocol", "NoApplicationProtocol"),
    ("plaintext", "TLS: "),
    ("garbage", "TLS: "),
    ("close", "the peer closed the tunnel"),
    ("reset", "the tunnel ended without goodbye"),
    ("honest", "peer did not present the expected SAN"),
];

/// For a moment the control plane believes that the poser's address is the bait's.
pub(crate) fn servers(siege: &mut Siege) -> Result<()> {
    let mut poser = pose(siege, "spiffe://cluster.local/ns/demo/sa/mallory")?;
    with_swapped_addresses(siege, |siege| {
        for (manner, reason) in SERVERS {
            let seen = meet(siege, &mut poser, manner, reason)?;
            ensure!(seen.ends_with(" 0 bytes"), "{manner}: the server got something of the application: {seen}");
        }
        siege.neighbours()
    })
}

/// A server on the HBONE port of the poser.
pub(crate) fn pose(siege: &Siege, identity: &str) -> Result<Dialogue> {
    let mut words = siege.words("demo/server", &siege.tunnel("plain/poser")?, &["pose"])?;
    words.splice(4..4, ["--as".to_owned(), identity.to_owned()]);
    let mut poser = siege.launch("plain/poser", &words)?;
    ensure!(poser.hear()? == "posing", "nobody poses");
    Ok(poser)
}

/// One connection meets a server of that manner and fails for this reason; answers what the server has seen.
pub(crate) fn meet(siege: &Siege, poser: &mut Dialogue, manner: &str, reason: &str) -> Result<String> {
    poser.ask(&format!("* {manner}"))?;
    let to = siege.bed.pod("plain/poser")?.v4.into();
    let alice = siege.bed.pod("demo/alice")?;
    // A dial that has just failed speaks for those who come right after it.
    wait::until(&format!("a connection to meet a server that is {manner:?}"), mesh::SETTLING, || {
        let mark = siege.mark("n1")?;
        let said = siege.bed.who("demo/alice", to, APP)?;
        ensure!(!said.is_good(), "served: {}", said.story());
        let seen = siege.bed.reason("n1", mark, alice)?;
        ensure!(seen.contains(reason), "the log gives as its reason {seen:?}, expected {reason:?} in it");
        Ok::<(), anyhow::Error>(())
    })?;
    poser.ask(&format!("* {manner}"))
}

/// With the bait believed to be where the poser is.
pub(crate) fn with_swapped_addresses(siege: &mut Siege, check: impl FnOnce(&mut Siege) -> Result<()>) -> Result<()> {
    let of = |pod: &str| -> Result<_> {
        let pod = siege.bed.pod(pod)?;
        Ok((pod.v4, pod.v6))
    };
    let (bait, poser) = (of("demo/bait")?, of("plain/poser")?);
    let report = |siege: &Siege, of_bait: (_, _), of_poser: (_, _)| -> Result<()> {
        siege.bed.world.report_addresses("demo/bait", of_bait)?;
        siege.bed.world.report_addresses("plain/poser", of_poser)?;
        for node in NODES {
            siege.bed.mesh.until_dump(siege.bed.world.node(node)?, "where the bait is", |dump| {
                for (name, (v4, _)) in [("bait", of_bait), ("poser", of_poser)] {
                    let found = mesh::entries(dump, "workloads").find(|workload| workload["name"] == name);
                    let seen = found.map(|workload| workload["workloadIps"].to_string()).unwrap_or_default();
                    ensure!(seen.contains(&format!("\"{v4}\"")), "{name} at {seen}");
                }
                Ok(())
            })?;
        }
        Ok(())
    };
    report(siege, poser, bait)?;
    let checked = check(siege);
    report(siege, bait, poser).context("put the addresses back")?;
    checked
}
