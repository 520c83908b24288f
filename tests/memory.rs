// SPDX-License-Identifier: Apache-2.0
//! What a proxy costs a node that does nothing: its memory with no pods, per idle pod and per idle connection.
//!
//! Only what is its own is counted (anonymous pages as `smaps_rollup` says): the pages of the program itself are shared with its file, and are several times as many in
//! a build for debugging.

use std::{fs, ops::Range, process::ExitCode};

use anyhow::{Context, Result, ensure};
use harness::{Bed, Suite, wait};

const OBJECTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: idle, labels: {istio.io/dataplane-mode: ambient}}}
";

/// Pods that do nothing, after a few that made the proxy get ready for pods at all.
const FIRST: usize = 4;
const PODS: usize = 24;

fn main() -> ExitCode {
    Suite::new("memory", |world| Bed::start(world, OBJECTS))
        .test("a_proxy_without_pods_is_small", without_pods)
        .test("an_idle_pod_costs_little", idle_pods)
        .main()
}

fn without_pods(bed: &mut Bed) -> Result<()> {
    let own = settled(bed)?;
    ensure!(own <= MOST_WITHOUT_PODS, "{own} bytes of its own without a pod, and {MOST_WITHOUT_PODS} is the most");
    Ok(())
}

fn idle_pods(bed: &mut Bed) -> Result<()> {
    add_pods(bed, 0..FIRST)?;
    let before = settled(bed)?;
    add_pods(bed, FIRST..FIRST + PODS)?;
    let after = settled(bed)?;
    let each = after.saturating_sub(before) / PODS as u64;
    ensure!(each <= MOST_PER_POD, "{each} bytes for each of {PODS} idle pods, and {MOST_PER_POD} is the most");
    Ok(())
}

fn add_pods(bed: &mut Bed, numbers: Range<usize>) -> Result<()> {
    let pod = |number| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: idle, name: pod-{number}}}\n\
             spec: {{nodeName: n1, serviceAccountName: idle}}\n"
        )
    };
    bed.world.apply(&numbers.map(pod).collect::<String>())?;
    bed.mesh.settle(&bed.world)
}

/// The first node's proxy's own memory, once it does not change any more.
fn settled(bed: &Bed) -> Result<u64> {
    let pid = bed.mesh.program("n1-ztunnel")?.pid();
    let mut last = None;
    wait::until("memory to settle", wait::PATIENCE, || {
        let now = own(pid)?;
        let is_settled = last.replace(now) == Some(now);
        ensure!(is_settled, "it is {now} bytes now");
        Ok(now)
    })
}

fn own(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).context("no such line in smaps_rollup")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}

const MOST_WITHOUT_PODS: u64 = 5 << 20;
const MOST_PER_POD: u64 = 64 << 10;
