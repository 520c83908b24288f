// SPDX-License-Identifier: Apache-2.0
//! Waypoints: a pod with the launcher and a real Envoy, and whatever goes through it.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use harness::{Bed, Suite, mesh, tools, wait};

const OBJECTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: demo, labels: {istio.io/dataplane-mode: ambient}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {namespace: demo, name: waypoint}
spec:
  gatewayClassName: istio-waypoint
  addresses: [{type: Hostname, value: waypoint.demo.svc.cluster.local}]
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata: {namespace: demo, name: waypoint}
spec:
  clusterIP: 10.96.0.9
  selector: {gateway.networking.k8s.io/gateway-name: waypoint}
  ports: [{name: mesh, port: 15008, appProtocol: hbone}]
---
apiVersion: v1
kind: Service
metadata: {namespace: demo, name: web, labels: {istio.io/use-waypoint: waypoint}}
spec:
  clusterIP: 10.96.0.10
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: client}
spec: {nodeName: n1, serviceAccountName: client}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: web, labels: {app: web}}
spec:
  nodeName: n2
  serviceAccountName: web
  containers: [{name: web, command: [python3, -m, http.server, '8080'], ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Pod
metadata:
  namespace: demo
  name: waypoint-0
  labels:
    gateway.networking.k8s.io/gateway-name: waypoint
    gateway.istio.io/managed: istio.io-mesh-controller
    istio.io/dataplane-mode: none
spec: {nodeName: n2, serviceAccountName: waypoint}
";

fn main() -> ExitCode {
    Suite::new("waypoints", |world| {
        let mut bed = Bed::start(world, OBJECTS)?;
        bed.mesh.start_waypoint(&bed.world, "demo/waypoint-0", "waypoint")?;
        Ok(bed)
    })
    .with_programs(&["lateen-waypoint"])
    .with_wheels(&[&tools::ENVOY])
    .test("a_request_goes_from_the_clients_node_through_the_waypoint_to_the_servers_node", through)
    .main()
}

/// The waypoint's own identity is what the server's proxy sees.
fn through(bed: &mut Bed) -> Result<()> {
    bed.mesh.waypoint_is_ready(&bed.world, "demo/waypoint-0")?;
    for node in bed.world.nodes() {
        bed.mesh.until_dump(node, "demo/web behind its waypoint", |dump| {
            let behind = mesh::entries(dump, "services")
                .any(|service| service["name"] == "web" && !service["waypoint"].is_null());
            ensure!(behind, "no service web with a waypoint");
            Ok(())
        })?;
    }
    let (client, server) = ("n1", "n2");
    let marks = (bed.mesh.mark(client)?, bed.mesh.mark(server)?);
    wait::until("a page through the waypoint", wait::PATIENCE, || {
        bed.curl("demo/client", "http://10.96.0.10/")?.good().map(drop)
    })?;
    let outbound = bed.mesh.connection(client, marks.0, |line| {
        line.is_outbound() && line.field("error").is_empty() && line.field("dst.workload") == "waypoint-0"
    })?;
    let inbound = bed.mesh.connection(server, marks.1, |line| {
        !line.is_outbound() && line.field("error").is_empty() && line.field("dst.workload") == "web"
    })?;
    let (source, _) = outbound.identities();
    ensure!(source == bed.identity("demo/client")?, "the client is {source} in {outbound}");
    let (source, target) = inbound.identities();
    ensure!(source == bed.identity("demo/waypoint-0")?, "the server's proxy sees {source} in {inbound}");
    ensure!(target == bed.identity("demo/web")?, "the server is {target} in {inbound}");
    Ok(())
}
