// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::{
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
    for round in 0..=HISTORY {
        world.write("x", &pod("a", &format!("10.0.{}.{}", round / 256, round % 256), ""));
    }
    let now = world.line.resources().generation();
    assert_eq!(now, HISTORY as u64 + 1);
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
