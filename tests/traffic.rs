// SPDX-License-Identifier: Apache-2.0
//! TCP between enrolled pods, and between them and pods outside the mesh: across nodes and on one, IPv4 and IPv6.

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use harness::{Bed, Pod, Suite, mesh, wait};

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
metadata: {namespace: demo, name: near}
spec:
  nodeName: n1
  serviceAccountName: near
  containers: [{name: peer, command: [peer, serve, '9000', near], ports: [{containerPort: 9000}]}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: far}
spec:
  nodeName: n2
  serviceAccountName: far
  containers: [{name: peer, command: [peer, serve, '9000', far], ports: [{containerPort: 9000}]}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: plain, name: outsider}
spec:
  nodeName: n1
  containers: [{name: peer, command: [peer, serve, '9000', outsider], ports: [{containerPort: 9000}]}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: plain, name: stranger}
spec:
  nodeName: n2
  containers: [{name: peer, command: [peer, serve, '9000', stranger], ports: [{containerPort: 9000}]}]
";

fn main() -> ExitCode {
    Suite::new("traffic", |world| Bed::start(world, OBJECTS))
        .test("pods_on_two_nodes_talk_over_hbone_with_both_identities_in_ipv4", |bed| carried(bed, "demo/far", 0))
        .test("pods_on_two_nodes_talk_over_hbone_with_both_identities_in_ipv6", |bed| carried(bed, "demo/far", 1))
        .test("pods_on_one_node_talk_over_hbone_with_both_identities_in_ipv4", |bed| carried(bed, "demo/near", 0))
        .test("pods_on_one_node_talk_over_hbone_with_both_identities_in_ipv6", |bed| carried(bed, "demo/near", 1))
        .test("nothing_of_it_is_readable_between_the_nodes", unreadable)
        .test("a_pod_of_the_mesh_reaches_pods_outside_it_in_the_clear", to_outside)
        .test("a_pod_outside_the_mesh_reaches_pods_in_it", from_outside)
        .test("a_client_outside_the_mesh_may_use_a_port_that_a_proxy_uses_in_its_name", same_port)
        .test("a_pod_reaches_itself_by_loopback_and_by_its_own_address", itself)
        .test("a_port_nobody_listens_on_ends_the_connection", nobody_listens)
        .test("a_pod_reaches_the_network_of_its_node", to_the_node)
        .test("the_proxies_count_the_connections_they_carried", metrics)
        .main()
}

/// The server must see the address of the client, not that of a proxy.
fn carried(bed: &mut Bed, to: &str, family: usize) -> Result<()> {
    let address = bed.pod(to)?.addresses()[family];
    let own = bed.pod("demo/client")?.addresses()[family];
    let seen = bed.carried("demo/client", to, |bed| {
        let said = bed.who("demo/client", address, 9000)?.good()?;
        ensure!(said.trim() == own.to_string(), "the server saw {} instead of {own}", said.trim());
        Ok(())
    })?;
    let through = seen.outbound.field("dst.addr");
    ensure!(through.ends_with(":15008"), "went to {through}: {}", seen.outbound);
    let target = seen.outbound.field("dst.hbone_addr");
    ensure!(
        target.contains(&address.to_string()) && target.ends_with(":9000"),
        "authority {target}: {}",
        seen.outbound
    );
    Ok(())
}

fn unreadable(bed: &mut Bed) -> Result<()> {
    for address in bed.pod("demo/far")?.addresses() {
        let capture = bed.world.listen()?;
        let mut talk = bed.pod("demo/client")?.talk(&["peer", "talk", &SocketAddr::new(address, 9000).to_string()])?;
        talk.hear()?;
        let said = talk.ask("nobody else may read this")?;
        ensure!(said == "nobody else may read this", "{said}");
        let caught = capture.stop()?;
        ensure!(caught.bytes_on(15008) > 0, "no tunnel on the wire: {}", caught.summary());
        ensure!(!caught.contains(b"nobody else may read this"), "readable: {}", caught.summary());
        ensure!(caught.bytes_on(9000) == 0, "traffic beside the tunnel: {}", caught.summary());
    }
    Ok(())
}

fn to_outside(bed: &mut Bed) -> Result<()> {
    for server in ["plain/outsider", "plain/stranger"] {
        for (family, address) in bed.pod(server)?.addresses().into_iter().enumerate() {
            let own = bed.pod("demo/client")?.addresses()[family];
            let said = bed.who("demo/client", address, 9000)?.good()?;
            ensure!(said.trim() == own.to_string(), "{server} saw {} instead of {own}", said.trim());
        }
    }
    Ok(())
}

fn from_outside(bed: &mut Bed) -> Result<()> {
    for client in ["plain/outsider", "plain/stranger"] {
        for (family, address) in bed.pod("demo/far")?.addresses().into_iter().enumerate() {
            let own = bed.pod(client)?.addresses()[family];
            let said = bed.who(client, address, 9000)?.good()?;
            ensure!(said.trim() == own.to_string(), "the server saw {} instead of {own}", said.trim());
        }
    }
    Ok(())
}

/// The proxy brings a connection to the application under its client's address and a port that it chooses; the client chooses the same for the next one.
fn same_port(bed: &mut Bed) -> Result<()> {
    let client = bed.pod("plain/stranger")?;
    for address in bed.pod("demo/far")?.addresses() {
        let to = SocketAddr::new(address, 9000).to_string();
        let mut talk = client.talk(&["peer", "talk", &to])?;
        talk.hear()?;
        talk.ask("is this delivered?")?;
        // An earlier connection may still be closing.
        let far = bed.pod("demo/far")?;
        let port = wait::until("one connection to the application", wait::PATIENCE, || port_seen(far))?.to_string();
        let curl = ["curl", "-sS", "--max-time", "10", "--http0.9", "--local-port", &port, &format!("http://{to}/")];
        let said = client.run(&curl)?.good().with_context(|| format!("a connection from port {port}"))?;
        ensure!(said.contains("no such purpose"), "{said}");
        ensure!(talk.ask("still there?")? == "still there?", "the first connection");
    }
    Ok(())
}

/// The client's port of the one connection that is open to the application of a pod.
fn port_seen(pod: &Pod) -> Result<u16> {
    let table = pod.run(&["cat", "/proc/net/tcp6"])?.good()?;
    let mut open = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // 9000 and ESTABLISHED.
        (fields.get(1)?.ends_with(":2328") && *fields.get(3)? == "01").then(|| fields[2].rsplit(':').next())?
    });
    let port = open.next().context("no connection to the application")?;
    ensure!(open.next().is_none(), "more than one connection to the application:\n{table}");
    Ok(u16::from_str_radix(port, 16)?)
}

fn itself(bed: &mut Bed) -> Result<()> {
    let near = bed.pod("demo/near")?;
    let [v4, v6] = near.addresses();
    for address in [IpAddr::from([127, 0, 0, 1]), "::1".parse()?, v4, v6] {
        let said = bed.who("demo/near", address, 9000)?.good()?;
        ensure!(said.trim() == address.to_string(), "asked at {address}, seen as {}", said.trim());
    }
    Ok(())
}

fn nobody_listens(bed: &mut Bed) -> Result<()> {
    let far = bed.pod("demo/far")?;
    let client = bed.pod("demo/client")?;
    let mark = bed.mesh.mark("n2")?;
    let said = bed.who("demo/client", far.v4.into(), 9999)?;
    ensure!(!said.is_good(), "something answered on port 9999: {}", said.story());
    let reason = bed.reason("n2", mark, client)?;
    ensure!(reason.to_lowercase().contains("refused"), "the log gives as its reason: {reason}");
    Ok(())
}

fn to_the_node(bed: &mut Bed) -> Result<()> {
    // The proxy's own readiness port on the node: outside the mesh, so in the clear.
    let node = bed.world.node("n1")?.address();
    let said = bed.curl("demo/client", &format!("http://{node}:15021/healthz/ready"))?.good()?;
    ensure!(said.contains("ready"), "{said:?}");
    Ok(())
}

fn metrics(bed: &mut Bed) -> Result<()> {
    for node in bed.world.nodes() {
        let page = mesh::metrics(node)?;
        let opened = page.lines().filter(|line| line.starts_with("istio_tcp_connections_opened_total{"));
        let secured = opened.filter(|line| line.contains("connection_security_policy=\"mutual_tls\"")).count();
        ensure!(secured > 0, "no connection with mutual TLS on the metrics page of {}:\n{page}", node.name);
    }
    Ok(())
}
