// SPDX-License-Identifier: Apache-2.0
//! Who may connect: allow and deny policies, strict mutual TLS, strangers, and identities that are not what they should be.

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
metadata: {namespace: demo, name: alice}
spec: {nodeName: n1, serviceAccountName: alice}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: mallory}
spec: {nodeName: n1, serviceAccountName: mallory}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: server, labels: {app: server}}
spec:
  nodeName: n2
  serviceAccountName: server
  containers:
  - {name: one, command: [peer, serve, '9000', server], ports: [{containerPort: 9000}]}
  - {name: two, command: [peer, serve, '9001', server], ports: [{containerPort: 9001}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: other}
spec:
  nodeName: n2
  serviceAccountName: other
  containers: [{name: peer, command: [peer, serve, '9000', other], ports: [{containerPort: 9000}]}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: plain, name: outsider}
spec: {nodeName: n1}
";

fn main() -> ExitCode {
    Suite::new("policy", |world| Bed::start(world, OBJECTS))
        .test("an_allow_policy_admits_whom_it_names_and_nobody_else", allow)
        .test("a_deny_policy_refuses_whom_it_names_and_says_why", deny)
        .test("a_deny_policy_on_a_port_leaves_other_ports_alone", deny_port)
        .test("an_allow_policy_without_rules_admits_nobody", allow_nothing)
        .test("a_policy_closes_the_open_connections_it_no_longer_admits", open_connections)
        .test("a_policy_on_a_caller_outside_the_mesh_goes_by_its_address", by_address)
        .test("a_strict_namespace_refuses_plaintext_and_carries_mutual_tls", strict)
        .test("strict_with_one_port_permissive_lets_plaintext_in_on_that_port_only", strict_but_one)
        .test("a_caller_with_a_certificate_of_another_root_is_refused", stranger)
        .test("a_server_with_another_identity_than_expected_gets_nothing", wrong_identity)
        .main()
}

fn ask(bed: &Bed, from: &str, port: u16) -> Result<Said> {
    bed.who(from, bed.pod("demo/server")?.v4.into(), port)
}

fn served(bed: &Bed, from: &str, port: u16) -> Result<()> {
    ask(bed, from, port)?.good().map(drop)
}

/// Refused at the server's node, with `reason` in the access log.
fn refused(bed: &Bed, from: &str, port: u16, reason: &str) -> Result<()> {
    let mark = bed.mesh.mark("n2")?;
    let said = ask(bed, from, port)?;
    ensure!(!said.is_good(), "{from} was served on port {port}: {}", said.story());
    let seen = bed.reason("n2", mark, bed.pod(from)?)?;
    ensure!(seen.contains(reason), "the log gives as its reason {seen:?}, expected {reason:?} in it");
    Ok(())
}

/// With a policy in force for the length of `check`.
fn with_policy(bed: &mut Bed, name: &str, spec: &str, check: impl FnOnce(&Bed) -> Result<()>) -> Result<()> {
    bed.world.apply(&format!(
        "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{namespace: demo, name: {name}}}, spec: {spec}}}"
    ))?;
    bed.mesh.await_policies(&bed.world, "demo", &[name])?;
    let checked = check(bed);
    bed.world.objects.remove("AuthorizationPolicy", "demo", name)?;
    bed.mesh.await_policies(&bed.world, "demo", &[])?;
    checked
}

fn allow(bed: &mut Bed) -> Result<()> {
    let spec = "{selector: {matchLabels: {app: server}}, action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/demo/sa/alice]}}]}]}";
    with_policy(bed, "only-alice", spec, |bed| {
        served(bed, "demo/alice", 9000)?;
        refused(bed, "demo/mallory", 9000, "policy")?;
        refused(bed, "plain/outsider", 9000, "policy")
    })?;
    served(bed, "demo/mallory", 9000)
}

fn deny(bed: &mut Bed) -> Result<()> {
    let spec = "{action: DENY, rules: [{from: [{source: {serviceAccounts: [mallory]}}]}]}";
    with_policy(bed, "not-mallory", spec, |bed| {
        refused(bed, "demo/mallory", 9000, "demo/not-mallory")?;
        served(bed, "demo/alice", 9000)?;
        served(bed, "plain/outsider", 9000)
    })?;
    served(bed, "demo/mallory", 9000)
}

fn deny_port(bed: &mut Bed) -> Result<()> {
    let spec =
        "{selector: {matchLabels: {app: server}}, action: DENY, rules: [{to: [{operation: {ports: ['9001']}}]}]}";
    with_policy(bed, "not-9001", spec, |bed| {
        served(bed, "demo/alice", 9000)?;
        refused(bed, "demo/alice", 9001, "demo/not-9001")
    })
}

fn allow_nothing(bed: &mut Bed) -> Result<()> {
    with_policy(bed, "nobody", "{}", |bed| {
        refused(bed, "demo/alice", 9000, "policy")?;
        refused(bed, "plain/outsider", 9000, "policy")
    })
}

fn open_connections(bed: &mut Bed) -> Result<()> {
    let server = format!("{}:9000", bed.pod("demo/server")?.v4);
    let mut alice = bed.pod("demo/alice")?.talk(&["peer", "talk", &server])?;
    let mut mallory = bed.pod("demo/mallory")?.talk(&["peer", "talk", &server])?;
    for talk in [&mut alice, &mut mallory] {
        talk.hear()?;
        ensure!(talk.ask("hello")? == "hello", "no echo");
    }
    let spec = "{action: DENY, rules: [{from: [{source: {serviceAccounts: [mallory]}}]}]}";
    with_policy(bed, "not-mallory", spec, |bed| {
        wait::until("mallory's connection to be closed", mesh::SETTLING, || {
            let answer = mallory.ask("still there?")?;
            ensure!(answer.starts_with("broken"), "it answers");
            Ok::<(), anyhow::Error>(())
        })?;
        ensure!(alice.ask("still there?")? == "still there?", "alice's connection was closed too");
        let _ = bed;
        Ok(())
    })
}

fn by_address(bed: &mut Bed) -> Result<()> {
    let outsider = bed.pod("plain/outsider")?.v4;
    let spec = format!("{{action: DENY, rules: [{{from: [{{source: {{ipBlocks: [{outsider}/32]}}}}]}}]}}");
    with_policy(bed, "not-that-address", &spec, |bed| {
        refused(bed, "plain/outsider", 9000, "demo/not-that-address")?;
        served(bed, "demo/alice", 9000)
    })
}

/// With a PeerAuthentication in force for the length of `check`.
fn with_authentication(
    bed: &mut Bed,
    spec: &str,
    policies: usize,
    check: impl FnOnce(&Bed) -> Result<()>,
) -> Result<()> {
    bed.world.apply(&format!(
        "{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{namespace: demo, name: mode}}, spec: {spec}}}"
    ))?;
    let attached = |bed: &Bed, want: bool| {
        let node = bed.world.node("n2")?;
        bed.mesh.until_dump(node, "the authentication of demo/server", |dump| {
            let server = mesh::entries(dump, "workloads").find(|workload| workload["name"] == "server");
            let count = server.and_then(|server| server["authorizationPolicies"].as_array()).map_or(0, Vec::len);
            ensure!(count == if want { policies } else { 0 }, "{count} policies on demo/server");
            Ok(())
        })
    };
    attached(bed, true)?;
    let checked = check(bed);
    bed.world.objects.remove("PeerAuthentication", "demo", "mode")?;
    attached(bed, false)?;
    checked
}

fn strict(bed: &mut Bed) -> Result<()> {
    served(bed, "plain/outsider", 9000)?;
    with_authentication(bed, "{mtls: {mode: STRICT}}", 1, |bed| {
        refused(bed, "plain/outsider", 9000, "strict")?;
        for address in bed.pod("demo/server")?.addresses() {
            bed.who("demo/alice", address, 9000)?.good()?;
        }
        Ok(())
    })?;
    served(bed, "plain/outsider", 9000)
}

fn strict_but_one(bed: &mut Bed) -> Result<()> {
    let spec =
        "{selector: {matchLabels: {app: server}}, mtls: {mode: STRICT}, portLevelMtls: {'9001': {mode: PERMISSIVE}}}";
    with_authentication(bed, spec, 1, |bed| {
        refused(bed, "plain/outsider", 9000, "mode")?;
        served(bed, "plain/outsider", 9001)?;
        served(bed, "demo/alice", 9000)
    })
}

fn stranger(bed: &mut Bed) -> Result<()> {
    for address in bed.pod("demo/server")?.addresses() {
        let tunnel = std::net::SocketAddr::new(address, 15008).to_string();
        let said = bed
            .pod("plain/outsider")?
            .run(&["peer", "stranger", &tunnel, "spiffe://cluster.local/ns/demo/sa/alice"])?
            .good()?;
        ensure!(said.starts_with("refused"), "{said}");
    }
    Ok(())
}

/// For a moment the control plane may believe that an address belongs to the pod that had it before. The proxy of the client must notice that the server
/// cannot prove to be that pod, and must not fall back to plaintext.
fn wrong_identity(bed: &mut Bed) -> Result<()> {
    let (server, other) = (bed.pod("demo/server")?, bed.pod("demo/other")?);
    let (of_server, of_other) = ((server.v4, server.v6), (other.v4, other.v6));
    let report = |first, second| -> Result<()> {
        bed.world.report_addresses("demo/server", first)?;
        bed.world.report_addresses("demo/other", second)?;
        bed.mesh.until_dump(bed.world.node("n1")?, "the addresses of demo/server and demo/other", |dump| {
            for (name, (v4, _)) in [("server", first), ("other", second)] {
                let found = mesh::entries(dump, "workloads").find(|workload| workload["name"] == name);
                let seen = found.map(|workload| workload["workloadIps"].to_string()).unwrap_or_default();
                ensure!(seen.contains(&format!("\"{v4}\"")), "{name} at {seen}");
            }
            Ok(())
        })
    };
    served(bed, "demo/alice", 9000)?;
    report(of_other, of_server)?;
    let (mark, capture) = (bed.mesh.mark("n1")?, bed.world.listen()?);
    let said = ask(bed, "demo/alice", 9000)?;
    let caught = capture.stop()?;
    let reason = bed.reason("n1", mark, bed.pod("demo/alice")?);
    report(of_server, of_other)?;
    ensure!(!said.is_good(), "served by a pod with another identity: {}", said.story());
    ensure!(caught.bytes_on(9000) == 0, "something went beside the tunnel: {}", caught.summary());
    let reason = reason?;
    ensure!(reason.contains("sa/server") || reason.contains("sa/other"), "the log gives as its reason {reason:?}");
    served(bed, "demo/alice", 9000)
}
