// SPDX-License-Identifier: Apache-2.0
//! One change, and what it touches: as little as possible, or a waypoint with a thousand services is rebuilt for one of them.
#![allow(clippy::unwrap_used)]

use waypoint_config::{
    line::Line,
    source::{Ledger, Reading, Role},
    view::{Mesh, Touched},
};

/// A mesh out of files; each write is one change.
struct World {
    ledger: Ledger,
    line: Line,
}

impl World {
    fn new() -> Self {
        let mut world = Self { ledger: Ledger::default(), line: Line::new(Mesh::default()) };
        world.write(
            "namespace",
            "{apiVersion: v1, kind: Namespace, metadata: {name: d, labels: {istio.io/use-waypoint: w}}}",
        );
        world.write("gateway", GATEWAY);
        for name in ["a", "b", "c"] {
            world.write(name, &service(name, 80));
            world.write(&format!("pod {name}"), &pod(name, "10.0.0.1"));
        }
        world
    }

    fn write(&mut self, file: &str, yaml: &str) -> Touched {
        let reading = Reading::of(yaml.as_bytes(), Role::Objects);
        let changes = self.ledger.update([(file.into(), Role::Objects, Some(reading))]);
        assert_eq!(self.ledger.faults(), []);
        self.line.apply(changes);
        self.line.touched().clone()
    }
}

fn service(name: &str, port: u16) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{namespace: d, name: {name}}}, spec: {{selector: {{app: {name}}}, ports: [{{port: {port}}}]}}}}"
    )
}

fn pod(name: &str, address: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{namespace: d, name: {name}, labels: {{app: {name}}}}}, spec: {{containers: []}}, status: {{podIP: {address}}}}}"
    )
}

fn route(backend: &str) -> String {
    format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{namespace: d, name: r}}, spec: {{parentRefs: [{{group: '', kind: \
         Service, name: a}}], rules: [{{backendRefs: [{backend}]}}]}}}}"
    )
}

fn names<'a, T: ToString + 'a>(all: impl IntoIterator<Item = &'a T>) -> Vec<String> {
    all.into_iter().map(ToString::to_string).collect()
}

const GATEWAY: &str = "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {namespace: d, name: w}, spec: {gatewayClassName: istio-waypoint, \
                       addresses: [{value: 10.96.0.1}], listeners: [{name: m, port: 15008, protocol: HBONE}]}}";

#[test]
fn an_endpoint_touches_the_endpoints_of_its_services_only() {
    let mut world = World::new();
    let touched = world.write("pod a", &pod("a", "10.0.0.9"));
    assert_eq!(names(&touched.endpoints), ["d/a"]);
    assert_eq!(touched.workloads.len(), 1);
    assert_eq!(
        (touched.services.len(), touched.waypoints.len(), touched.routed.len(), touched.access.len()),
        (0, 0, 0, 0)
    );
}

#[test]
fn a_route_touches_what_its_parents_serve_only() {
    let mut world = World::new();
    let touched = world.write("route", &route("{name: b, port: 80}"));
    assert_eq!(names(&touched.routed), ["d/a"]);
    assert_eq!((touched.services.len(), touched.endpoints.len(), touched.waypoints.len()), (0, 0, 0));
    assert_eq!(names(&touched.judged), ["HTTPRoute d/r"]);
    let touched = world.write("b", &service("b", 81));
    assert_eq!(names(&touched.routed), ["d/a", "d/b"], "a route of the one leads to the other");
    assert_eq!(names(&touched.services), ["d/b"]);
    assert_eq!(names(&world.write("c", &service("c", 81)).routed), ["d/c"]);
    assert_eq!(names(&world.write("route", "").routed), ["d/a"]);
    assert_eq!(names(&world.write("b", &service("b", 82)).routed), ["d/b"]);
}

#[test]
fn a_route_to_a_host_name_is_touched_by_whoever_has_the_name() {
    let mut world = World::new();
    world.write("route", &route("{group: networking.istio.io, kind: Hostname, name: x.example.com, port: 80}"));
    let entry = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {namespace: e, name: x}, spec: {hosts: [x.example.com], ports: [{number: 80, name: p}]}}";
    assert_eq!(names(&world.write("entry", entry).routed), ["d/a", "e/x.example.com"]);
    assert_eq!(names(&world.write("entry", "").routed), ["d/a", "e/x.example.com"]);
}

#[test]
fn a_grant_touches_the_routes_into_its_namespace() {
    let mut world = World::new();
    world.write("route", &route("{namespace: e, name: b, port: 80}"));
    let grant = |namespace: &str| {
        format!(
            "{{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {{namespace: {namespace}, name: g}}, spec: {{from: [{{group: \
             gateway.networking.k8s.io, kind: HTTPRoute, namespace: d}}], to: [{{group: '', kind: Service}}]}}}}"
        )
    };
    assert_eq!(names(&world.write("grant", &grant("e")).routed), ["d/a"]);
    assert_eq!(names(&world.write("grant", &grant("f")).routed), ["d/a"], "it was taken away");
    assert_eq!(names(&world.write("grant", &grant("g")).routed), [""; 0]);
}

#[test]
fn a_policy_touches_what_it_is_attached_to_only() {
    let mut world = World::new();
    let policy = |kind: &str, target: &str| {
        format!(
            "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{namespace: d, name: p}}, spec: {{targetRefs: [{{{kind}, name: {target}}}], rules: [{{}}]}}}}"
        )
    };
    let touched = world.write("policy", &policy("kind: Service", "a"));
    assert_eq!(format!("{:?}", touched.access), r#"{Service(Name { namespace: "d", name: "a" })}"#);
    assert_eq!(
        (touched.services.len(), touched.waypoints.len(), touched.policies.len(), touched.routed.len()),
        (0, 0, 0, 0)
    );
    let touched = world.write("policy", &policy("group: gateway.networking.k8s.io, kind: Gateway", "w"));
    assert_eq!(touched.access.len(), 2);
}

#[test]
fn a_gateway_touches_who_goes_through_it() {
    let mut world = World::new();
    let touched = world.write("gateway", &GATEWAY.replace("10.96.0.1", "10.96.0.2"));
    assert_eq!(names(&touched.waypoints), ["d/w"]);
    assert_eq!(touched.services.len(), 0, "they go through the same one; only where it is differs");
    let generation = world.line.resources().generation();
    let touched = world.write("gateway", "");
    assert_eq!(names(&touched.services), ["d/a", "d/b", "d/c"]);
    assert_eq!(world.line.resources().generation(), generation + 1);
}
