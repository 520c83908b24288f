// SPDX-License-Identifier: Apache-2.0
//! Everything of the mesh that is not its data path, with peers that are broken or mean no good: the programs' ports and sockets, and what they connect to.
//! Each costs what it costs, is told of in a log, and nobody beside notices; afterwards no program holds more than before.

#[path = "edges/admin.rs"]
mod admin;
#[path = "edges/authority.rs"]
mod authority;
#[path = "edges/control.rs"]
mod control;
#[path = "edges/plugin.rs"]
mod plugin;
#[path = "pressure/usage.rs"]
mod usage;
#[path = "edges/zds.rs"]
mod zds;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use harness::{Bed, Suite, process::Said};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use usage::{Slack, Usage};

const OBJECTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: demo, labels: {istio.io/dataplane-mode: ambient}}}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: client}
spec: {nodeName: n1, serviceAccountName: client}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: far, labels: {app: far}}
spec:
  nodeName: n2
  serviceAccountName: far
  containers: [{name: peer, command: [peer, serve, '9000', far], ports: [{containerPort: 9000}]}]
";

fn main() -> ExitCode {
    Suite::new("edges", start)
        .test("a_thousand_idle_clients_of_any_admin_port_keep_nobody_from_it", admin::besieged)
        .test("heads_too_long_bodies_without_end_and_requests_sent_ahead_are_bounded", admin::absurd)
        .test("whoever_talks_nonsense_to_the_agent_is_no_proxy_and_takes_no_proxys_place", zds::strangers)
        .test("a_proxy_that_never_answers_holds_new_pods_up_for_seconds_only", zds::wedged)
        .test("an_agent_that_talks_nonsense_costs_connections_and_no_pod", zds::mad_agent)
        .test("plugins_that_never_end_their_request_keep_no_pod_from_starting", plugin::half_requests)
        .test("strangers_at_the_control_plane_keep_no_change_from_its_proxies", control::strangers)
        .test("a_ca_that_refuses_is_told_of_by_those_who_need_it_and_costs_nobody_else", authority::refuses)
        .main()
}

fn start(world: harness::World) -> Result<Bed> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("more descriptors for the test itself")?;
    let bed = Bed::start(world, OBJECTS)?;
    // What is made on first use is there before anything is counted.
    carried(&bed)?;
    Ok(bed)
}

/// Does `attack`, and sees that traffic went on and that no program kept anything of it.
fn unharmed(bed: &mut Bed, attack: impl FnOnce(&mut Bed) -> Result<()>) -> Result<()> {
    let before = Usage::of(bed)?;
    attack(bed)?;
    bed.mesh.check()?;
    carried(bed)?;
    before.comes_back(bed, Slack { descriptors: 2, kilobytes: 48 * 1024 }).map(drop)
}

fn ask(bed: &Bed) -> Result<Said> {
    bed.who("demo/client", bed.pod("demo/far")?.v4.into(), 9000)
}

/// A new connection is carried.
fn carried(bed: &Bed) -> Result<()> {
    bed.carried("demo/client", "demo/far", |bed| ask(bed)?.good().map(drop)).map(drop)
}

/// A pod that comes, is carried and goes.
fn a_pod_comes_and_goes(bed: &mut Bed, name: &str) -> Result<()> {
    let yaml = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{namespace: demo, name: {name}}}, spec: {{nodeName: n1, serviceAccountName: {name}}}}}"
    );
    bed.apply(&yaml)?;
    let path = format!("demo/{name}");
    bed.carried(&path, "demo/far", |bed| bed.who(&path, bed.pod("demo/far")?.v4.into(), 9000)?.good().map(drop))?;
    bed.world.delete_pod(&path)
}

/// The log of a program may have grown by so much only.
fn said_little(bed: &Bed, program: &str, before: u64, most: u64) -> Result<()> {
    let said = log_length(bed, program)? - before;
    ensure!(said <= most, "{program} wrote {said} bytes of log about it");
    Ok(())
}

fn log_length(bed: &Bed, program: &str) -> Result<u64> {
    Ok(std::fs::metadata(bed.mesh.program(program)?.log())?.len())
}
