// SPDX-License-Identifier: Apache-2.0
//! Pods that come and go by the dozen, with and without the agent of a node killed meanwhile.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use harness::{Bed, Mesh, World, wait};

use crate::{
    chance::setting,
    churn::Churn,
    field::{Field, Open, PATIENCE},
    load::Load,
    usage::{self, Slack, Usage},
};

/// As many as twenty a second are in `PRESSURE_SECONDS`. That they come and go so fast is not asserted, for how fast they do is what the machine makes of it: a slow
/// one takes longer. It is printed.
pub(crate) fn come_and_go(field: &mut Field) -> Result<()> {
    let Field { bed, .. } = field;
    let rate = setting("PRESSURE_RATE", 20);
    let churn = Churn::default();
    // Whatever is made once and kept is made now.
    churn.run(&bed.world, rate, 5 * rate).context("warming up")?;
    churn.clear(&bed.world)?;
    churn.is_gone(&bed.world)?;
    let before = field.start.comes_back(bed, Slack { descriptors: 8, kilobytes: 32 << 10 })?;
    println!("    before:\n{before}");

    let mut neighbours = Load::start(bed, 1, 20)?;
    neighbours.goes_on(1)?;
    let mut open = Open::all(bed)?;
    let count = rate * setting("PRESSURE_SECONDS", 20);
    let figures = churn.run(&bed.world, rate, count)?;
    println!("    {figures}");
    churn.clear(&bed.world)?;
    let took = churn.is_gone(&bed.world)?;
    println!("    the last network namespace was gone {took:.1?} after the last pod");
    neighbours.goes_on(1)?;
    neighbours.stop()?.is_clean().context("neighbours")?;
    open.live()?;
    drop(open);
    ensure!(figures.made == count, "not the {count} pods that were asked for: {figures}");
    ensure!(figures.hasty == 0, "sandboxes were refused before their time was over: {figures}");

    let after = before.comes_back(bed, Slack { descriptors: 8, kilobytes: 8 << 10 })?;
    println!("    after:\n{after}");
    Ok(())
}

/// The agent of a node is killed again and again meanwhile, and once more while the last pods are deleted.
pub(crate) fn agent_killed(field: &mut Field) -> Result<()> {
    let Field { bed: Bed { mesh, world }, chance, .. } = field;
    let world = &*world;
    let node = world.node("n1")?;
    let churn = Churn::default();
    churn.during(world, || {
        for _ in 0..2 {
            churn.makes(4 + chance.below(12))?;
            mesh.take("n1-agent")?.kill()?;
            churn.is_refused(1 + chance.below(3))?;
            mesh.start_agent(world, node)?;
            mesh.ready(node)?;
        }
        churn.makes(40)
    })?;
    all_stand(mesh, world, &churn)?;
    mesh.take("n1-agent")?.kill()?;
    churn.clear(world)?;
    mesh.start_agent(world, node)?;
    mesh.ready(node)?;
    none_left(mesh, world, &churn)
}

/// Both proxies are killed again and again meanwhile, one after the other.
pub(crate) fn proxies_killed(field: &mut Field) -> Result<()> {
    let Field { bed: Bed { mesh, world }, chance, .. } = field;
    let world = &*world;
    let churn = Churn::stuttering();
    churn.during(world, || {
        for node in world.nodes().iter().cycle().take(4) {
            churn.makes(1 + chance.below(12))?;
            mesh.take(&format!("{}-ztunnel", node.name))?.kill()?;
            churn.makes(chance.below(3))?;
            mesh.start_ztunnel(world, node)?;
        }
        churn.makes(40)
    })?;
    for node in world.nodes() {
        mesh.ready(node)?;
    }
    all_stand(mesh, world, &churn)?;
    churn.clear(world)?;
    none_left(mesh, world, &churn)
}

/// Waits until agents and proxies have just the pods that stand, and in the mesh.
fn all_stand(mesh: &Mesh, world: &World, churn: &Churn) -> Result<()> {
    let standing = churn.standing();
    for node in world.nodes() {
        let mine = standing.iter().filter(|(at, ..)| *at == node.name).map(|(_, _, uid)| uid.clone());
        let wanted: BTreeSet<String> = mine.collect();
        wait::until(&format!("the agent of {} to have its pods in the mesh", node.name), PATIENCE, || {
            let found = churned(node)?;
            ensure!(found == wanted, "it has {found:?}, wanted {wanted:?}");
            Ok::<(), anyhow::Error>(())
        })?;
        mesh.until_dump(node, "the pods that stand", |dump| {
            let carried = dump["workloadState"].as_object().into_iter().flatten();
            let carried = carried.filter(|(_, pod)| pod["info"]["namespace"] == "churn" && pod["state"] == "Up");
            let carried: BTreeSet<String> = carried.map(|(uid, _)| uid.clone()).collect();
            ensure!(carried == wanted, "it carries {carried:?}, wanted {wanted:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Waits until nothing is left of pods that were deleted: no network, no entry of any list.
fn none_left(mesh: &Mesh, world: &World, churn: &Churn) -> Result<()> {
    churn.is_gone(world)?;
    for node in world.nodes() {
        mesh.until_dump(node, "nothing of pods that are gone", |dump| {
            let text = dump["workloadState"].to_string();
            ensure!(!text.contains("\"churn\""), "still among the pods: {text}");
            ensure!(!dump["workloads"].to_string().contains("/Pod/churn/"), "still among the workloads");
            Ok(())
        })?;
        wait::until("the agents to forget them", PATIENCE, || {
            let found = churned(node)?;
            ensure!(found.is_empty(), "it has {found:?}");
            Ok::<(), anyhow::Error>(())
        })?;
    }
    Ok(())
}

/// The pods of the churn that an agent has in the mesh; any other state is an error.
fn churned(node: &harness::Node) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for pod in usage::pods(node)?.iter().filter(|pod| pod["namespace"] == "churn") {
        ensure!(pod["state"] == "enrolled", "one is not enrolled: {pod}");
        found.insert(pod["uid"].as_str().context("a pod without a uid")?.to_owned());
    }
    Ok(found)
}

/// After everything: nobody has grown. Programs that were killed count with the life they have now.
pub(crate) fn nobody_has_grown(field: &mut Field) -> Result<()> {
    let end: Usage = field.start.comes_back(&field.bed, Slack { descriptors: 8, kilobytes: 32 << 10 })?;
    println!("    at the end:\n{end}");
    Ok(())
}
