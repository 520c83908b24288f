// SPDX-License-Identifier: Apache-2.0
//! Node proxies killed at random moments while everybody talks to everybody.

use anyhow::{Context, Result, ensure};
use harness::{Bed, mesh};

use crate::{
    chance::{Chance, setting},
    field::Field,
    load::Load,
    watch::{self, Watch},
};

const NODES: [&str; 2] = ["n1", "n2"];

/// See the module's text.
pub(crate) fn killed(field: &mut Field) -> Result<()> {
    watch::prove(&field.bed)?;
    let watch = Watch::start(&field.bed)?;
    let mut load = Load::start(&field.bed, 3, 2)?;
    load.goes_on(3)?;
    let before = load.report()?;
    for number in 0..setting("PRESSURE_ROUNDS", 6) {
        let victims = &NODES[field.chance.pick::<std::ops::Range<usize>>(&[0..1, 1..2, 0..2]).clone()];
        round(&mut field.bed, &mut field.chance, &mut load, victims)
            .with_context(|| format!("round {number}, {victims:?} killed"))?;
    }
    let report = load.stop()?;
    report.none_hung()?;
    let during = report.since(&before);
    ensure!(during.bad() > 0, "not one operation was hit:{during}");
    println!("    killed proxies cut off {} operations of {}", during.bad(), during.ended());
    watch.stop()
}

fn round(bed: &mut Bed, chance: &mut Chance, load: &mut Load, victims: &[&str]) -> Result<()> {
    load.ends(chance.below(40))?;
    let before = load.report()?;
    kill(bed, victims)?;
    // Until some have felt it, or at once.
    load.fails(chance.below(3) * 10)?;
    start(bed, victims)?;
    if chance.below(2) == 0 {
        // Once more, somewhere on its way up.
        load.ends(chance.below(200))?;
        kill(bed, victims)?;
        start(bed, victims)?;
    }
    let is_down = |node: &&&str| victims.contains(*node);
    for node in NODES.iter().filter(is_down) {
        bed.mesh.ready(bed.world.node(node)?)?;
    }
    bed.mesh.settle(&bed.world)?;
    let after = load.goes_on(3).context("new connections, with all proxies back")?;
    // Who has nothing to do with a proxy is not hurt by its end.
    for node in NODES.iter().filter(|node| !is_down(node)) {
        let number = node.trim_start_matches('n');
        let (client, server) = (format!("demo/client{number}"), format!("demo/server{number}"));
        let hurt = |report: &crate::load::Report| report.bad_between(&client, &server);
        ensure!(hurt(&after) == hurt(&before), "on {node}, whose proxy lived:{}", after.since(&before));
    }
    Ok(())
}

fn kill(bed: &mut Bed, victims: &[&str]) -> Result<()> {
    victims.iter().try_for_each(|node| bed.mesh.take(&format!("{node}-ztunnel"))?.kill())
}

fn start(bed: &mut Bed, victims: &[&str]) -> Result<()> {
    victims.iter().try_for_each(|node| bed.mesh.start_ztunnel(&bed.world, bed.world.node(node)?))
}

/// The certificates in force on both nodes: node and identity, and the serial number.
pub(crate) fn certificates(bed: &Bed) -> Result<std::collections::BTreeMap<(String, String), String>> {
    let mut all = std::collections::BTreeMap::new();
    for node in bed.world.nodes() {
        for entry in mesh::entries(&mesh::config_dump(node)?, "certificates") {
            let identity = entry["identity"].as_str().context("a certificate without an identity")?;
            let serial = entry["certChain"][0]["serialNumber"].as_str().unwrap_or_default();
            all.insert((node.name.clone(), identity.to_owned()), serial.to_owned());
        }
    }
    Ok(all)
}
