// SPDX-License-Identifier: Apache-2.0
//! Services: virtual addresses of both families, numeric and named target ports, several pods behind one, headless ones, none behind one.

use std::{collections::BTreeSet, net::IpAddr, process::ExitCode};

use anyhow::{Result, ensure};
use harness::{Bed, Suite, mesh};

const OBJECTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: demo, labels: {istio.io/dataplane-mode: ambient}}}
---
apiVersion: v1
kind: Service
metadata: {namespace: demo, name: numeric}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, 'fd00:10:96::10']
  ipFamilies: [IPv4, IPv6]
  selector: {app: server}
  ports: [{name: tcp, port: 80, targetPort: 9000}]
---
apiVersion: v1
kind: Service
metadata: {namespace: demo, name: named}
spec:
  clusterIP: 10.96.0.11
  clusterIPs: [10.96.0.11, 'fd00:10:96::11']
  ipFamilies: [IPv4, IPv6]
  selector: {app: server}
  ports: [{name: tcp, port: 80, targetPort: talk}]
---
apiVersion: v1
kind: Service
metadata: {namespace: demo, name: headless}
spec:
  clusterIP: None
  selector: {app: server}
  ports: [{name: tcp, port: 9000}]
---
apiVersion: v1
kind: Service
metadata: {namespace: demo, name: empty}
spec:
  clusterIP: 10.96.0.12
  selector: {app: nobody}
  ports: [{name: tcp, port: 80, targetPort: 9000}]
---
# Its endpoints are written by hand, see `by_hand`: a pod by reference, and a bare address outside the mesh.
apiVersion: v1
kind: Service
metadata: {namespace: demo, name: by-hand}
spec:
  clusterIP: 10.96.0.13
  ports: [{name: tcp, port: 80, targetPort: 9000}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: client}
spec: {nodeName: n1, serviceAccountName: client}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: near, labels: {app: server}}
spec:
  nodeName: n1
  serviceAccountName: server
  containers: [{name: peer, command: [peer, serve, '9000', near], ports: [{name: talk, containerPort: 9000}]}]
---
# The same name stands for another number in this pod.
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: far, labels: {app: server}}
spec:
  nodeName: n2
  serviceAccountName: server
  containers:
  - {name: one, command: [peer, serve, '9000', far], ports: [{containerPort: 9000}]}
  - {name: two, command: [peer, serve, '9100', far-by-name], ports: [{name: talk, containerPort: 9100}]}
";

fn main() -> ExitCode {
    Suite::new("services", |world| Bed::start(world, OBJECTS))
        .test("a_numeric_target_port_is_reached_on_every_pod_in_ipv4", |bed| {
            reaches(bed, "10.96.0.10", &["near", "far"])
        })
        .test("a_numeric_target_port_is_reached_on_every_pod_in_ipv6", |bed| {
            reaches(bed, "fd00:10:96::10", &["near", "far"])
        })
        .test("a_named_target_port_is_the_one_each_pod_gives_that_name_in_ipv4", |bed| {
            reaches(bed, "10.96.0.11", &["near", "far-by-name"])
        })
        .test("a_named_target_port_is_the_one_each_pod_gives_that_name_in_ipv6", |bed| {
            reaches(bed, "fd00:10:96::11", &["near", "far-by-name"])
        })
        .test("a_service_connection_is_logged_with_its_service_and_carried_to_a_pod", logged)
        .test("pods_of_a_headless_service_are_reached_by_their_own_addresses", headless)
        .test("a_service_without_a_selector_goes_where_its_endpoint_slice_says", by_hand)
        .test("a_service_without_pods_ends_the_connection_and_says_so", empty)
        .test("a_pod_that_is_deleted_gets_no_more_connections", deleted)
        .main()
}

/// Asks for the name of the server often enough that every pod must have been hit (a fair coin misses one with probability 2^-39).
fn reaches(bed: &mut Bed, address: &str, names: &[&str]) -> Result<()> {
    let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut met = BTreeSet::new();
    for _ in 0..40 {
        met.insert(name(bed, address.parse()?, 80)?);
        if met == wanted {
            return Ok(());
        }
    }
    ensure!(met == wanted, "met {met:?} instead of {wanted:?}");
    Ok(())
}

fn name(bed: &Bed, address: IpAddr, port: u16) -> Result<String> {
    let address = std::net::SocketAddr::new(address, port).to_string();
    Ok(bed.pod("demo/client")?.run(&["peer", "name", &address])?.good()?.trim().to_owned())
}

fn logged(bed: &mut Bed) -> Result<()> {
    let mark = bed.mesh.mark("n1")?;
    name(bed, "10.96.0.10".parse()?, 80)?;
    let line = bed.mesh.connection("n1", mark, |line| line.field("dst.service") == "numeric.demo.svc.cluster.local")?;
    ensure!(line.field("src.workload") == "client" && line.is_outbound(), "{line}");
    ensure!(line.field("dst.identity") == "spiffe://cluster.local/ns/demo/sa/server", "{line}");
    ensure!(line.field("dst.hbone_addr").ends_with(":9000"), "{line}");
    Ok(())
}

fn headless(bed: &mut Bed) -> Result<()> {
    let names = std::fs::read_to_string("/etc/hosts")?;
    for pod in ["near", "far"] {
        let address = bed.pod(&format!("demo/{pod}"))?.v4;
        ensure!(names.contains(&format!("{address} headless.demo.svc.cluster.local")), "{names}");
        bed.carried("demo/client", &format!("demo/{pod}"), |bed| {
            let met = name(bed, address.into(), 9000)?;
            ensure!(met == pod, "met {met}");
            Ok(())
        })?;
    }
    Ok(())
}

fn by_hand(bed: &mut Bed) -> Result<()> {
    let outside = "
{apiVersion: v1, kind: Namespace, metadata: {name: plain}}
---
apiVersion: v1
kind: Pod
metadata: {namespace: plain, name: outside}
spec:
  nodeName: n2
  containers: [{name: peer, command: [peer, serve, '9000', outside], ports: [{containerPort: 9000}]}]
";
    bed.apply(outside)?;
    let far = bed.pod("demo/far")?;
    let (uid, pod) = (far.sandbox.uid.clone(), far.v4);
    let address = bed.pod("plain/outside")?.v4;
    bed.world.apply(&format!(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{namespace: demo, name: by-hand-1, labels: {{kubernetes.io/service-name: by-hand}}}}
addressType: IPv4
ports: [{{name: tcp, port: 9000, protocol: TCP}}]
endpoints:
- {{addresses: ['{pod}'], targetRef: {{kind: Pod, namespace: demo, name: far, uid: {uid}}}}}
- {{addresses: ['{address}']}}
"
    ))?;
    bed.mesh.until_dump(bed.world.node("n1")?, "both endpoints of demo/by-hand", |dump| {
        let found = mesh::entries(dump, "services").find(|service| service["name"] == "by-hand");
        let count = found.and_then(|service| service["endpoints"].as_object()).map_or(0, serde_json::Map::len);
        ensure!(count == 2, "{count} endpoints");
        Ok(())
    })?;
    reaches(bed, "10.96.0.13", &["far", "outside"])
}

fn empty(bed: &mut Bed) -> Result<()> {
    let mark = bed.mesh.mark("n1")?;
    let said = bed.who("demo/client", "10.96.0.12".parse()?, 80)?;
    ensure!(!said.is_good(), "something answered: {}", said.story());
    let reason = bed.reason("n1", mark, bed.pod("demo/client")?)?;
    ensure!(!reason.is_empty(), "no reason given");
    Ok(())
}

fn deleted(bed: &mut Bed) -> Result<()> {
    bed.world.delete_pod("demo/far")?;
    for node in bed.world.nodes() {
        bed.mesh.until_dump(node, "nothing of demo/far", |dump| {
            ensure!(!dump["workloads"].to_string().contains("/Pod/demo/far\""), "still there");
            Ok(())
        })?;
    }
    for _ in 0..20 {
        ensure!(name(bed, "10.96.0.10".parse()?, 80)? == "near", "met the deleted pod");
    }
    Ok(())
}
