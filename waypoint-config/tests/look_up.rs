// SPDX-License-Identifier: Apache-2.0
//! What a subscriber finds by name, and what it is told about changes.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use waypoint_config::{
    ambient::{Changes, Type},
    line::Line,
    source::{Ledger, Reading, Role},
    view::Mesh,
};

/// A mesh out of files; each write is a generation.
struct World {
    ledger: Ledger,
    line: Line,
}

impl World {
    fn new() -> Self {
        Self { ledger: Ledger::default(), line: Line::new(Mesh::default()) }
    }

    fn write(&mut self, file: &str, yaml: &str) {
        let reading = Reading::of(yaml.as_bytes(), Role::Objects);
        let changes = self.ledger.update([(file.into(), Role::Objects, Some(reading))]);
        assert_eq!(self.ledger.faults(), []);
        self.line.apply(changes);
    }

    fn look_up(&self, name: &str) -> Vec<String> {
        self.line.resources().look_up(name).iter().map(|one| one.name.to_string()).collect()
    }

    fn changed(&self, kind: Type, generation: u64) -> Vec<String> {
        match self.line.resources().changed_since(kind, generation) {
            Changes::Names(names) => names.iter().map(ToString::to_string).collect(),
            Changes::Everything => vec!["everything".into()],
        }
    }
}

fn pod(name: &str, address: &str, extra: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{namespace: d, name: {name}, labels: {{app: x}}}}, spec: {{nodeName: n, containers: []}}, \
         status: {{podIP: {address}{extra}}}}}\n---\n"
    )
}

const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {namespace: d, name: s}, spec: {clusterIP: 10.96.0.1, selector: {app: x}, ports: [{port: 80}]}}\n---\n";
const A: &str = "Kubernetes//Pod/d/a";
const B: &str = "Kubernetes//Pod/d/b";
const S: &str = "d/s.d.svc.cluster.local";

#[test]
fn names_mean_what_an_on_demand_proxy_means_by_them() {
    let mut world = World::new();
    world.write("x", &(pod("a", "10.0.0.1", "") + &pod("b", "10.0.0.2", "") + SERVICE));
    assert_eq!(world.look_up(A), [A]);
    assert_eq!(world.look_up("/10.0.0.2"), [B]);
    assert_eq!(world.look_up(S), [S, A, B], "a service comes with its workloads");
    assert_eq!(world.look_up("/10.96.0.1"), [S, A, B]);
    assert_eq!(world.look_up("/10.9.9.9"), [""; 0]);
    assert_eq!(world.look_up("nowhere/10.0.0.1"), [""; 0]);
    world.write("x", &(pod("a", "10.96.0.1", "") + SERVICE));
    assert_eq!(world.look_up("/10.96.0.1"), [A], "a workload wins over a service");
    assert_eq!(world.look_up("/10.0.0.2"), [""; 0]);
    assert_eq!(world.line.resources().endpoints_of(S).map(|name| &**name).collect::<Vec<_>>(), [A]);
    assert_eq!(world.line.resources().on_node("n").map(|name| &**name).collect::<Vec<_>>(), [A]);
}

#[test]
fn two_pods_with_one_address_are_both_found() {
    let mut world = World::new();
    world.write("x", &(pod("a", "10.0.0.1", "") + &pod("b", "10.0.0.1", "")));
    assert_eq!(world.look_up("/10.0.0.1"), [A, B]);
}

#[test]
fn a_slice_makes_pods_endpoints_for_as_long_as_it_names_them() {
    let mut world = World::new();
    world.write(
        "x",
        &(pod("a", "10.0.0.1", "") + &pod("b", "10.0.0.2", "") + &SERVICE.replace("selector: {app: x}, ", "")),
    );
    let slice = |pod: &str| {
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{namespace: d, name: e, labels: {{kubernetes.io/service-name: s}}}}, \
             addressType: IPv4, endpoints: [{{addresses: [10.0.0.1], targetRef: {{kind: Pod, name: {pod}}}}}], ports: [{{port: 8080}}]}}"
        )
    };
    let endpoints = |world: &World| world.look_up(S).split_off(1);
    world.write("y", &slice("a"));
    assert_eq!(endpoints(&world), [A]);
    world.write("y", &slice("b"));
    assert_eq!(endpoints(&world), [B]);
    world.write("y", &slice("b").replace("name: s}", "name: other}"));
    assert_eq!(endpoints(&world), [""; 0]);
    world.write("y", &slice("a"));
    world.write("y", "");
    assert_eq!(endpoints(&world), [""; 0]);
}

#[test]
fn a_subscriber_is_told_what_changed_since_it_last_heard() {
    let mut world = World::new();
    world.write("x", &pod("a", "10.0.0.1", ""));
    let first = world.line.resources().generation();
    assert_eq!(world.changed(Type::Address, first), [""; 0]);
    world.write("y", &pod("b", "10.0.0.2", ""));
    world.write("z", SERVICE);
    assert_eq!(world.changed(Type::Address, first), [A, B, S], "the pods list the service now");
    assert_eq!(world.changed(Type::Authorization, first), [""; 0]);
    world.write("y", "");
    assert_eq!(world.changed(Type::Address, first + 2), [B]);
    assert!(world.line.resources().named(Type::Address, B).is_none());
}

#[test]
fn a_subscriber_that_heard_nothing_for_too_long_compares_everything() {
    let mut world = World::new();
    // One more than is remembered.
    for round in 0..=1024 {
        world.write("x", &pod("a", &format!("10.0.{}.{}", round / 256, round % 256), ""));
    }
    let now = world.line.resources().generation();
    assert_eq!(now, 1025);
    assert_eq!(world.changed(Type::Address, 0), ["everything"]);
    assert_eq!(world.changed(Type::Address, 1), [A]);
}

#[test]
fn what_makes_no_difference_to_a_proxy_makes_no_generation() {
    let mut world = World::new();
    world.write("x", &pod("a", "10.0.0.1", ""));
    let before = world.line.resources().clone();
    world.write("x", &pod("a", "10.0.0.1", ", startTime: \"2026-01-01T00:00:00Z\""));
    assert_eq!(world.line.resources().generation(), before.generation());
    world.write("x", &pod("a", "10.0.0.1", ", phase: Running, conditions: [{type: Ready, status: \"True\"}]"));
    assert_ne!(world.line.resources().generation(), before.generation());
    assert_ne!(
        world.line.resources().named(Type::Address, A).map(|one| &one.version),
        before.named(Type::Address, A).map(|one| &one.version)
    );
    assert_eq!(before.look_up(A).len(), 1, "who holds an older generation still reads it");
}

#[test]
fn only_on_demand_subscribers_see_aliases() {
    let mut world = World::new();
    world.write("x", &pod("a", "\"fd00::1\"", ""));
    let resource = world.line.resources().named(Type::Address, A).unwrap();
    assert_eq!(resource.to_wire(true).aliases, ["/fd00::1"]);
    assert_eq!(resource.to_wire(false).aliases, [""; 0]);
    assert_eq!(resource.to_wire(false).name, A);
}

/// A file that was cut, and spoilt somewhere else, may say anything; nothing of it may end the program.
const PEOPLE: &str = "\
{apiVersion: v1, kind: Pod, metadata: {namespace: d, name: p, uid: u, labels: {app: x}, generateName: p-, ownerReferences: [{apiVersion: v1, kind: Job, name: j-12345678, uid: o, controller: true}]}, spec: {nodeName: n, containers: [{name: c, ports: [{name: w, containerPort: 80}]}]}, status: {podIP: 10.0.0.1}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: d, name: s}, spec: {clusterIP: 10.96.0.1, selector: {app: x}, ports: [{port: 80, targetPort: w}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: d, name: e, labels: {kubernetes.io/service-name: s}}, addressType: IPv4, endpoints: [{addresses: [10.0.0.9]}], ports: [{port: 80}]}
---
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {namespace: d, name: a}, spec: {selector: {matchLabels: {app: x}}, rules: [{from: [{source: {ipBlocks: [10.0.0.0/8], trustDomains: [t]}}], when: [{key: destination.port, values: ['80']}]}]}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {namespace: d, name: a}, spec: {selector: {matchLabels: {app: x}}, portLevelMtls: {80: {mode: STRICT}}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {namespace: d, name: g, labels: {istio.io/waypoint-for: all}}, spec: {gatewayClassName: c, addresses: [{value: 10.0.0.7}], listeners: [{name: m, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {namespace: d, name: e, labels: {istio.io/use-waypoint: g}}, spec: {hosts: [a.b], addresses: [10.0.1.0/24], ports: [{number: 80, name: w, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 10.0.0.8, ports: {w: 8}}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {namespace: d, name: r}, spec: {parentRefs: [{kind: Service, group: '', name: s}], rules: [{matches: [{path: {type: RegularExpression, value: '/a(b|c)*'}}], filters: [{type: CORS, cors: {allowOrigins: ['https://x.y']}}], timeouts: {request: 1s}, backendRefs: [{name: s, port: 80}]}]}}
";

proptest! {
    #[test]
    fn nothing_people_write_ends_the_program(at in 0..PEOPLE.len(), skipped in 0..8usize, with in "[-a-z:{}\\[\\]*'\"\n 0-9]{0,5}") {
        let text = format!("{}{with}{}", &PEOPLE[..at], PEOPLE.get(at + skipped..).unwrap_or_default());
        let mut ledger = Ledger::default();
        let mut line = Line::new(Mesh::default());
        for text in [PEOPLE, &text, PEOPLE] {
            let reading = Reading::of(text.as_bytes(), Role::Objects);
            line.apply(ledger.update([("x".into(), Role::Objects, Some(reading))]));
        }
        prop_assert_eq!(ledger.faults(), vec![]);
        prop_assert_eq!(line.resources().all(Type::Address).count(), 5);
        prop_assert_eq!(line.resources().all(Type::Authorization).count(), 3);
    }
}
