// SPDX-License-Identifier: Apache-2.0
//! Into the mesh and out of it: running pods by a label, new pods by CNI, exceptions, and what stays open meanwhile.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use harness::{Bed, Suite, objects, pod::listens, process::Dialogue, wait};

const OBJECTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: demo}}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: client}
spec: {nodeName: n1, serviceAccountName: client}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: far}
spec:
  nodeName: n2
  serviceAccountName: far
  containers: [{name: peer, command: [peer, serve, '9000', far], ports: [{containerPort: 9000}]}]
---
# Never enrolled: it says so itself.
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: none, labels: {istio.io/dataplane-mode: none}}
spec:
  nodeName: n2
  containers: [{name: peer, command: [peer, serve, '9000', none], ports: [{containerPort: 9000}]}]
";

const NEW: &str = "
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: new}
spec:
  nodeName: n1
  serviceAccountName: new
  containers:
  - name: peer
    # Before it does anything else it notes whether its redirection is in place: port 15001 is 3A99.
    command: [sh, -c, 'grep -c :3A99 /proc/self/net/tcp6; exec peer serve 9000 new']
    ports: [{containerPort: 9000}]
";

fn main() -> ExitCode {
    Suite::new("enrolment", |world| Bed::start(world, OBJECTS))
        .test("pods_of_an_unlabelled_namespace_are_left_alone", unlabelled)
        .test("labelling_the_namespace_enrols_running_pods_and_breaks_no_connection", enrol)
        .test("a_pod_that_opts_out_stays_out_and_is_reached_in_the_clear", opted_out)
        .test("a_new_pod_is_enrolled_before_anything_runs_in_it", new_pod)
        .test("the_plugin_checks_an_enrolled_pod", check)
        .test("a_deleted_pod_is_forgotten_and_its_network_goes", deleted)
        .test("labelling_a_single_pod_out_releases_it_alone", release_one)
        .test("taking_the_label_away_releases_every_pod_and_breaks_no_connection", release)
        .test("a_namespace_can_come_back", again)
        .test("no_new_connection_fails_while_pods_join_and_leave", storm)
        .main()
}

fn address(bed: &Bed) -> Result<String> {
    Ok(format!("{}:9000", bed.pod("demo/far")?.v4))
}

fn open(bed: &Bed) -> Result<Vec<Dialogue>> {
    let mut open = Vec::new();
    for address in bed.pod("demo/far")?.addresses() {
        let address = std::net::SocketAddr::new(address, 9000).to_string();
        let mut talk = bed.pod("demo/client")?.talk(&["peer", "talk", &address])?;
        talk.hear()?;
        ensure!(talk.ask("hello")? == "hello", "no echo");
        open.push(talk);
    }
    Ok(open)
}

fn all_alive(open: &mut [Dialogue]) -> Result<()> {
    for talk in open {
        let answer = talk.ask("still there?")?;
        ensure!(answer == "still there?", "an open connection says {answer:?}");
    }
    Ok(())
}

fn label(bed: &mut Bed, value: Option<&str>) -> Result<()> {
    bed.world.label_namespace("demo", "istio.io/dataplane-mode", value)?;
    bed.mesh.settle(&bed.world)
}

fn in_the_clear(bed: &Bed, port: u16, call: impl FnOnce() -> Result<()>) -> Result<bool> {
    let capture = bed.world.listen()?;
    call()?;
    let caught = capture.stop()?;
    ensure!(
        (caught.bytes_on(15008) > 0) != (caught.bytes_on(port) > 0),
        "neither one nor the other: {}",
        caught.summary()
    );
    Ok(caught.bytes_on(port) > 0)
}

fn unlabelled(bed: &mut Bed) -> Result<()> {
    for pod in bed.world.pods() {
        for port in [15001, 15006, 15008] {
            ensure!(!listens(&pod.netns, port)?, "port {port} is open in {}", pod.name);
        }
    }
    let clear =
        in_the_clear(bed, 9000, || bed.pod("demo/client")?.run(&["peer", "who", &address(bed)?])?.good().map(drop))?;
    ensure!(clear, "it went through a tunnel");
    Ok(())
}

fn enrol(bed: &mut Bed) -> Result<()> {
    let mut before = open(bed)?;
    label(bed, Some("ambient"))?;
    all_alive(&mut before)?;
    bed.carried("demo/client", "demo/far", |bed| {
        bed.pod("demo/client")?.run(&["peer", "who", &address(bed)?])?.good().map(drop)
    })?;
    all_alive(&mut before)
}

fn opted_out(bed: &mut Bed) -> Result<()> {
    let none = bed.pod("demo/none")?;
    ensure!(!listens(&none.netns, 15008)?, "a listener in a pod that opted out");
    let clear = in_the_clear(bed, 9000, || bed.who("demo/client", none.v4.into(), 9000)?.good().map(drop))?;
    ensure!(clear, "it went through a tunnel");
    Ok(())
}

fn new_pod(bed: &mut Bed) -> Result<()> {
    bed.apply(NEW)?;
    let first = bed.pod("demo/new")?.output();
    ensure!(
        first.lines().next().is_some_and(|count| count != "0"),
        "when its first process started, it saw {first:?} of the proxy's listener"
    );
    bed.carried("demo/new", "demo/far", |bed| {
        bed.pod("demo/new")?.run(&["peer", "who", &address(bed)?])?.good().map(drop)
    })?;
    let new = bed.pod("demo/new")?.v4.into();
    bed.carried("demo/client", "demo/new", |bed| bed.who("demo/client", new, 9000)?.good().map(drop))?;
    Ok(())
}

fn check(bed: &mut Bed) -> Result<()> {
    bed.world.check_pod("demo/new")
}

fn deleted(bed: &mut Bed) -> Result<()> {
    let uid = bed.pod("demo/new")?.sandbox.uid.clone();
    let link = format!("p{}", bed.pod("demo/new")?.v4.octets()[3]);
    // With connections open both ways.
    let to_new = format!("{}:9000", bed.pod("demo/new")?.v4);
    let mut inward = bed.pod("demo/client")?.talk(&["peer", "talk", &to_new])?;
    let mut outward = bed.pod("demo/new")?.talk(&["peer", "talk", &address(bed)?])?;
    inward.hear()?;
    outward.hear()?;
    drop(outward);
    bed.world.delete_pod("demo/new")?;
    let answer = inward.ask("still there?")?;
    ensure!(answer.starts_with("broken"), "a deleted pod says {answer:?}");
    let node = bed.world.node("n1")?;
    bed.mesh.until_dump(node, "nothing of demo/new", |dump| {
        ensure!(!dump["workloadState"].to_string().contains(&uid), "still among the pods");
        ensure!(!dump["workloads"].to_string().contains("/Pod/demo/new\""), "still among the workloads");
        Ok(())
    })?;
    wait::until("the pod's network to go, which any socket left in it would hold", wait::PATIENCE, || {
        let links = node.netns.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
        ensure!(!links.contains(&format!("{link}:")), "its link is still there");
        ensure!(bed.world.objects.redirection("n1", "demo", "new").is_none(), "its annotation is still there");
        Ok::<(), anyhow::Error>(())
    })
}

fn label_pod(bed: &mut Bed, pod: &str, value: Option<&str>) -> Result<()> {
    bed.world
        .objects
        .change("Pod", "demo", pod, |object| objects::set_label(object, "istio.io/dataplane-mode", value))?;
    bed.mesh.settle(&bed.world)
}

fn release_one(bed: &mut Bed) -> Result<()> {
    let mut open = open(bed)?;
    label_pod(bed, "far", Some("none"))?;
    all_alive(&mut open)?;
    let clear =
        in_the_clear(bed, 9000, || bed.pod("demo/client")?.run(&["peer", "who", &address(bed)?])?.good().map(drop))?;
    ensure!(clear, "a released pod is still sent to through a tunnel");
    all_alive(&mut open)?;
    label_pod(bed, "far", None)?;
    all_alive(&mut open)
}

fn release(bed: &mut Bed) -> Result<()> {
    let mut within = open(bed)?;
    label(bed, None)?;
    all_alive(&mut within)?;
    let clear =
        in_the_clear(bed, 9000, || bed.pod("demo/client")?.run(&["peer", "who", &address(bed)?])?.good().map(drop))?;
    ensure!(clear, "it went through a tunnel");
    drop(within);
    // Its last connection gone, nothing of the proxy is left in the pod.
    for pod in ["demo/client", "demo/far"] {
        let netns = &bed.pod(pod)?.netns;
        wait::until("the proxy's listeners to go", wait::PATIENCE, || {
            for port in [15001, 15006, 15008] {
                ensure!(!listens(netns, port)?, "port {port} is open in {pod}");
            }
            Ok::<(), anyhow::Error>(())
        })?;
    }
    Ok(())
}

fn again(bed: &mut Bed) -> Result<()> {
    let mut before = open(bed)?;
    label(bed, Some("ambient"))?;
    all_alive(&mut before)?;
    bed.carried("demo/client", "demo/far", |bed| {
        bed.pod("demo/client")?.run(&["peer", "who", &address(bed)?])?.good().map(drop)
    })?;
    Ok(())
}

/// One connection after another, while client and server join and leave several times.
fn storm(bed: &mut Bed) -> Result<()> {
    let mut storms = Vec::new();
    for address in bed.pod("demo/far")?.addresses() {
        let address = std::net::SocketAddr::new(address, 9000).to_string();
        let mut storm = bed.pod("demo/client")?.talk(&["peer", "storm", &address])?;
        ensure!(storm.hear()? == "blowing", "no connection at all");
        storms.push(storm);
    }
    for mode in [None, Some("ambient"), None, Some("ambient"), None, Some("ambient")] {
        label(bed, mode)?;
    }
    for mut storm in storms {
        storm.finish();
        let result = storm.hear()?;
        ensure!(result.starts_with("0 of "), "{result}");
    }
    Ok(())
}
