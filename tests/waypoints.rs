// SPDX-License-Identifier: Apache-2.0
//! Waypoints: a pod with the launcher and a real Envoy, and whatever goes through it.

#[path = "waypoints/bytes.rs"]
mod bytes;
#[path = "waypoints/changes.rs"]
mod changes;
#[path = "waypoints/policies.rs"]
mod policies;
#[path = "waypoints/routes.rs"]
mod routes;
#[path = "waypoints/security.rs"]
mod security;
#[path = "waypoints/telemetry.rs"]
mod telemetry;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use harness::{Bed, Suite, mesh, objects, tools, wait};

/// The service with a waypoint.
const WEB: &str = "http://10.96.0.10/";

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
kind: Service
metadata: {namespace: demo, name: two}
spec:
  clusterIP: 10.96.0.11
  selector: {app: two}
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]
---
# One port says what is spoken there, one does not, and none of them speaks HTTP.
apiVersion: v1
kind: Service
metadata: {namespace: demo, name: talk, labels: {istio.io/use-waypoint: waypoint}}
spec:
  clusterIP: 10.96.0.12
  selector: {app: web}
  ports:
  - {name: tcp-greet, port: 25, targetPort: 8081}
  - {name: greet, port: 26, targetPort: 8081}
  - {name: tcp-peer, port: 9000}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: client}
spec: {nodeName: n1, serviceAccountName: client}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: stranger}
spec: {nodeName: n1, serviceAccountName: stranger}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: web, labels: {app: web}}
spec:
  nodeName: n2
  serviceAccountName: web
  containers:
  - {name: web, command: [python3, -c, SERVER, one], ports: [{containerPort: 8080}, {containerPort: 8081}]}
  - {name: peer, command: [peer, serve, '9000', one], ports: [{containerPort: 9000}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: two, labels: {app: two}}
spec:
  nodeName: n2
  serviceAccountName: web
  containers: [{name: web, command: [python3, -c, SERVER, two], ports: [{containerPort: 8080}]}]
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
    Suite::new("waypoints", start)
        .with_programs(&["lateen-waypoint"])
        .with_wheels(&[&tools::ENVOY])
        .test("a_request_goes_from_the_clients_node_through_the_waypoint_to_the_servers_node", through)
        .test("a_request_with_a_header_goes_to_another_service_while_a_route_says_so", routes::by_header)
        .test("a_tenth_of_a_thousand_requests_goes_where_a_route_sends_a_tenth", routes::by_weight)
        .test("a_deny_policy_refuses_a_method_on_a_path_and_no_other_request", policies::deny)
        .test("an_allow_policy_goes_by_the_clients_own_identity", policies::allow)
        .test("tokens_of_several_issuers_are_judged_and_their_claims_go_on_as_headers", security::tokens::judged)
        .test(
            "without_the_keys_of_an_issuer_its_tokens_are_refused_and_the_reason_is_told",
            security::tokens::without_keys,
        )
        .test("an_authorizer_of_the_mesh_configuration_is_asked_over_http_and_grpc", security::authorizers::asked)
        .test("an_authorizer_that_does_not_answer_refuses_or_lets_pass_as_configured", security::authorizers::silent)
        .test("every_attribute_of_a_policy_refuses_what_it_matches_and_nothing_else", security::attributes::each)
        .test("policies_are_judged_in_order_and_those_on_trial_only_tell", security::order::order)
        .test("the_access_log_tells_who_asked_whom_by_which_route_as_json_and_as_text", telemetry::log)
        .test("requests_are_counted_under_istios_names_and_labels", telemetry::metrics)
        .test("spans_go_to_the_collector_when_asked_for_and_trace_context_goes_on", telemetry::spans)
        .test("a_large_answer_with_the_close_right_behind_it_arrives_whole", bytes::large)
        .test("bytes_without_http_with_the_close_right_behind_them_arrive_whole", bytes::large_without_http)
        .test("a_server_that_speaks_first_is_heard_on_a_declared_and_an_undeclared_port", bytes::server_first)
        .test("a_label_goes_on_and_off_without_one_failed_request", changes::label_on_and_off)
        .test("a_canary_route_comes_and_goes_without_one_failed_request", changes::canary)
        .test("a_gateway_goes_and_comes_without_one_failed_request", changes::gateway)
        .main()
}

fn start(world: harness::World) -> Result<Bed> {
    let server = serde_json::to_string(include_str!("waypoints/server.py"))?;
    let mut bed = Bed::start(world, &OBJECTS.replace("SERVER", &server))?;
    bed.mesh.start_waypoint(&bed.world, "demo/waypoint-0", "waypoint")?;
    bed.mesh.waypoint_is_ready(&bed.world, "demo/waypoint-0")?;
    for node in bed.world.nodes() {
        bed.mesh.until_dump(node, "demo/web and demo/talk behind their waypoint", |dump| {
            let behind = mesh::entries(dump, "services").filter(|service| !service["waypoint"].is_null()).count();
            ensure!(behind == 2, "{behind} services with a waypoint");
            Ok(())
        })?;
    }
    eventually("a page through the waypoint", || curl(&bed, "demo/client", &[WEB]).map(drop))?;
    Ok(bed)
}

/// Waits until something holds.
fn eventually(what: &str, look: impl FnMut() -> Result<()>) -> Result<()> {
    wait::until(what, wait::PATIENCE, look)
}

/// What a request brings, with its status behind the body.
fn curl(bed: &Bed, from: &str, arguments: &[&str]) -> Result<String> {
    let line = [&["curl", "-sS", "--max-time", "20", "-w", "%{http_code}\n"], arguments].concat();
    bed.pod(from)?.run(&line)?.good()
}

/// With an object in force for the length of `check`, which waits for it.
fn with_object(bed: &mut Bed, yaml: &str, check: impl FnOnce(&Bed) -> Result<()>) -> Result<()> {
    let object = objects::parse(yaml)?.into_iter().next().unwrap_or_default();
    let (kind, namespace, name) = objects::key(&object)?;
    bed.world.put(object)?;
    let checked = check(bed);
    bed.world.objects.remove(&kind, &namespace, &name)?;
    checked
}

/// The waypoint's own identity is what the server's proxy sees.
fn through(bed: &mut Bed) -> Result<()> {
    let (client, server) = ("n1", "n2");
    let marks = (bed.mesh.mark(client)?, bed.mesh.mark(server)?);
    // The answer to this one ends the connection, and both proxies tell of it.
    curl(bed, "demo/client", &["-o", "/dev/null", "http://10.96.0.10/large"])?;
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
