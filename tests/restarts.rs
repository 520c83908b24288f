// SPDX-License-Identifier: Apache-2.0
//! Parts of the mesh stop, crash and come back: what goes on meanwhile, what fails closed, and that all is well afterwards.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use harness::{Bed, Suite, mesh, process::Said, wait};

const OBJECTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: demo, labels: {istio.io/dataplane-mode: ambient}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: plain}}
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

const LATE: &str = "
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: late}
spec: {nodeName: n1, serviceAccountName: late}
";

const DENY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {namespace: demo, name: not-client}
spec:
  selector: {matchLabels: {app: far}}
  action: DENY
  rules: [{from: [{source: {serviceAccounts: [client]}}]}]
";

fn main() -> ExitCode {
    Suite::new("restarts", |world| Bed::start(world, OBJECTS))
        .test("without_its_proxy_a_pod_sends_nothing_in_the_clear", fails_closed)
        .test("a_proxy_that_was_killed_comes_back_and_serves_every_pod", proxy_back)
        .test("a_proxy_that_was_told_to_stop_ends_and_another_takes_its_place", proxy_restarted)
        .test("without_the_control_plane_traffic_goes_on", without_control)
        .test("a_pod_without_a_certificate_sends_nothing_in_the_clear", without_certificate)
        .test("after_the_control_plane_restarted_changes_arrive_and_certificates_are_of_the_same_root", control_back)
        .test("without_the_agent_traffic_goes_on_and_new_ambient_pods_do_not_start", without_agent)
        .test("after_the_agent_restarted_pods_are_enrolled_again_as_they_were", agent_back)
        .test("a_pod_deleted_while_the_agent_was_away_is_forgotten_when_it_is_back", deleted_meanwhile)
        .test("a_node_whose_agent_and_proxy_both_crashed_finds_its_pods_again", whole_node)
        .main()
}

fn ask(bed: &Bed) -> Result<Said> {
    bed.who("demo/client", bed.pod("demo/far")?.v4.into(), 9000)
}

fn carried(bed: &Bed) -> Result<()> {
    bed.carried("demo/client", "demo/far", |bed| ask(bed)?.good().map(drop)).map(drop)
}

fn fails_closed(bed: &mut Bed) -> Result<()> {
    carried(bed)?;
    for node in ["n1", "n2"] {
        bed.mesh.take(&format!("{node}-ztunnel"))?.kill()?;
        let capture = bed.world.listen()?;
        let said = ask(bed)?;
        let caught = capture.stop()?;
        ensure!(!said.is_good(), "served without the proxy of {node}: {}", said.story());
        ensure!(caught.bytes_on(9000) == 0, "without the proxy of {node}, in the clear: {}", caught.summary());
        bed.mesh.start_ztunnel(&bed.world, bed.world.node(node)?)?;
        bed.mesh.ready(bed.world.node(node)?)?;
        bed.mesh.settle(&bed.world)?;
        // A failed dial speaks for those that come within half a second.
        wait::until("connections to be carried again", mesh::SETTLING, || carried(bed))?;
    }
    Ok(())
}

fn proxy_back(bed: &mut Bed) -> Result<()> {
    let server = bed.pod("demo/far")?.addresses();
    for node in ["n1", "n2"] {
        bed.mesh.take(&format!("{node}-ztunnel"))?.kill()?;
        bed.mesh.start_ztunnel(&bed.world, bed.world.node(node)?)?;
    }
    for node in ["n1", "n2"] {
        bed.mesh.ready(bed.world.node(node)?)?;
    }
    bed.mesh.settle(&bed.world)?;
    for address in server {
        bed.who("demo/client", address, 9000)?.good()?;
    }
    carried(bed)
}

fn proxy_restarted(bed: &mut Bed) -> Result<()> {
    bed.mesh.take("n1-ztunnel")?.stop()?;
    bed.mesh.start_ztunnel(&bed.world, bed.world.node("n1")?)?;
    bed.mesh.ready(bed.world.node("n1")?)?;
    bed.mesh.settle(&bed.world)?;
    carried(bed)
}

fn without_control(bed: &mut Bed) -> Result<()> {
    let far = format!("{}:9000", bed.pod("demo/far")?.v4);
    let mut open = bed.pod("demo/client")?.talk(&["peer", "talk", &far])?;
    open.hear()?;
    bed.mesh.take("control")?.kill()?;
    carried(bed)?;
    ensure!(open.ask("still there?")? == "still there?", "an open connection broke");
    Ok(())
}

/// Nobody can say who the new pod is, or give it a certificate.
fn without_certificate(bed: &mut Bed) -> Result<()> {
    bed.world.apply(LATE)?;
    let capture = bed.world.listen()?;
    let said = late(bed)?;
    let caught = capture.stop()?;
    ensure!(!said.is_good(), "served without a certificate: {}", said.story());
    ensure!(caught.bytes == 0, "something was sent without a certificate: {}", caught.summary());
    Ok(())
}

fn late(bed: &Bed) -> Result<Said> {
    bed.who("demo/late", bed.pod("demo/far")?.v4.into(), 9000)
}

fn control_back(bed: &mut Bed) -> Result<()> {
    let root = mesh::root_certificate(bed.world.state());
    let before = std::fs::read(&root)?;
    bed.mesh.start_control(&bed.world)?;
    ensure!(std::fs::read(&root)? == before, "another root certificate");
    bed.world.apply(DENY)?;
    bed.mesh.await_policies(&bed.world, "demo", &["not-client"])?;
    let said = ask(bed)?;
    ensure!(!said.is_good(), "a policy made after the restart is not in force: {}", said.story());
    bed.world.objects.remove("AuthorizationPolicy", "demo", "not-client")?;
    bed.mesh.await_policies(&bed.world, "demo", &[])?;
    bed.mesh.settle(&bed.world)?;
    wait::until("the pod without a certificate to have one", mesh::SETTLING, || late(bed)?.good())?;
    bed.carried("demo/late", "demo/far", |bed| late(bed)?.good().map(drop))?;
    bed.world.delete_pod("demo/late")
}

fn without_agent(bed: &mut Bed) -> Result<()> {
    bed.mesh.take("n1-agent")?.kill()?;
    carried(bed)?;
    let manifest = harness::objects::parse(LATE)?.remove(0);
    bed.world.put(manifest.clone())?;
    let Err(refusal) = bed.world.start_once(&manifest) else {
        anyhow::bail!("a pod of an ambient namespace started without an agent")
    };
    let text = format!("{refusal:#}");
    ensure!(text.contains("agent"), "the plugin does not say what is missing: {text}");
    let outside = harness::objects::parse(
        "{apiVersion: v1, kind: Pod, metadata: {namespace: plain, name: outside}, spec: {nodeName: n1}}",
    )?;
    bed.world.put(outside[0].clone())?;
    bed.world.start_once(&outside[0])?;
    bed.world.delete_pod("plain/outside")
}

fn agent_back(bed: &mut Bed) -> Result<()> {
    let far = format!("{}:9000", bed.pod("demo/far")?.v4);
    let mut open = bed.pod("demo/client")?.talk(&["peer", "talk", &far])?;
    open.hear()?;
    ensure!(open.ask("hello")? == "hello", "no echo");
    bed.mesh.start_agent(&bed.world, bed.world.node("n1")?)?;
    bed.mesh.ready(bed.world.node("n1")?)?;
    let manifest = harness::objects::parse(LATE)?.remove(0);
    bed.world.start(&manifest)?;
    bed.mesh.settle(&bed.world)?;
    ensure!(open.ask("still there?")? == "still there?", "an open connection broke");
    carried(bed)?;
    let what = "the pod that could not start before to be carried";
    wait::until(what, mesh::SETTLING, || bed.who("demo/late", bed.pod("demo/far")?.v4.into(), 9000)?.good().map(drop))
}

fn deleted_meanwhile(bed: &mut Bed) -> Result<()> {
    let late = bed.pod("demo/late")?;
    let (uid, link) = (late.sandbox.uid.clone(), format!("p{}:", late.v4.octets()[3]));
    bed.mesh.take("n1-agent")?.kill()?;
    bed.world.delete_pod("demo/late")?;
    let node = bed.world.node("n1")?;
    bed.mesh.start_agent(&bed.world, node)?;
    bed.mesh.ready(node)?;
    bed.mesh.until_dump(node, "nothing of demo/late", |dump| {
        ensure!(!dump["workloadState"].to_string().contains(&uid), "still among the pods");
        Ok(())
    })?;
    wait::until("the pod's network to go, which any socket left in it would hold", wait::PATIENCE, || {
        let links = node.netns.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
        ensure!(!links.contains(&link), "its link is still there");
        ensure!(bed.world.objects.redirection("n1", "demo", "late").is_none(), "its annotation is still there");
        Ok::<(), anyhow::Error>(())
    })
}

/// Nobody is left who was told by the container runtime where the pod's network is: it has to be found by its processes.
fn whole_node(bed: &mut Bed) -> Result<()> {
    for program in ["n2-agent", "n2-ztunnel"] {
        bed.mesh.take(program)?.kill()?;
    }
    let node = bed.world.node("n2")?;
    bed.mesh.start_agent(&bed.world, node)?;
    bed.mesh.start_ztunnel(&bed.world, node)?;
    bed.mesh.ready(node)?;
    bed.mesh.settle(&bed.world)?;
    wait::until("connections to be carried again", mesh::SETTLING, || carried(bed))
}
