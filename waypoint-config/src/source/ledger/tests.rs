// SPDX-License-Identifier: Apache-2.0
//! What stands when files come, go, clash and break.

use proptest::prelude::*;

use super::*;
use crate::api::Kind;

/// A directory in memory.
#[derive(Default)]
struct World {
    ledger: Ledger,
    log: Vec<String>,
}

impl World {
    fn write(&mut self, file: &str, text: &str) {
        let role = if file.starts_with("status/") { Role::Observations } else { Role::Objects };
        let changes = self.ledger.update([(file.into(), role, Some(Reading::of(text.as_bytes(), role)))]);
        self.note(changes);
    }

    fn delete(&mut self, file: &str) {
        let changes = self.ledger.update([(file.into(), Role::Objects, None)]);
        self.note(changes);
    }

    fn note(&mut self, changes: Vec<Change>) {
        self.log.extend(changes.iter().map(|change| match change {
            Change::Delete(key) => format!("- {key}"),
            Change::Put(object) => {
                let metadata = object.metadata();
                let labels = metadata.labels.iter().flatten().map(|(key, value)| format!(" {key}={value}"));
                let annotations = metadata.annotations.iter().flatten().map(|(key, value)| format!(" @{key}={value}"));
                let uid = metadata.uid.iter().map(|uid| format!(" uid={uid}"));
                let address = match object {
                    Object::Pod(pod) => pod.status.as_ref().and_then(|status| status.pod_ip.clone()),
                    Object::Service(service) => service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone()),
                    Object::Gateway(gateway) => gateway
                        .status
                        .as_ref()
                        .and_then(|status| Some(status.addresses.as_ref()?.first()?.value.clone())),
                    Object::ServiceEntry(entry) => entry.status.addresses.first().map(|one| one.value.clone()),
                    _ => None,
                };
                format!(
                    "+ {}{}",
                    object.key(),
                    labels
                        .chain(annotations)
                        .chain(uid)
                        .chain(address.map(|ip| format!(" ip={ip}")))
                        .collect::<String>()
                )
            }
        }));
    }

    fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    fn faults(&self) -> Vec<String> {
        self.ledger.faults().iter().map(ToString::to_string).collect()
    }
}

fn object(name: &str, app: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{namespace: demo, name: {name}, labels: {{app: \"{app}\"}}}}\n---\n")
}

const WRONG: &str = "apiVersion: v1\nkind: Pod\nmetadata: {namespace: demo, name: a, label: {app: 2}}\n---\n";
const TORN: &str = "apiVersion: v1\nkind: Pod\nmetadata: {namespace: demo, na\n---\n";

#[test]
fn objects_come_change_and_go_with_their_files() {
    let mut world = World::default();
    world.write("x.yaml", &(object("a", "1") + &object("b", "1")));
    assert_eq!(world.said(), ["+ Pod demo/a app=1", "+ Pod demo/b app=1"]);
    world.write("x.yaml", &(object("a", "1") + &object("b", "2")));
    assert_eq!(world.said(), ["+ Pod demo/b app=2"]);
    world.write("x.yaml", &object("a", "1"));
    assert_eq!(world.said(), ["- Pod demo/b"]);
    world.delete("x.yaml");
    assert_eq!(world.said(), ["- Pod demo/a"]);
    assert_eq!(world.faults(), [""; 0]);
}

#[test]
fn an_object_that_cannot_be_read_stays_as_it_last_was() {
    let mut world = World::default();
    world.write("x.yaml", &(object("a", "1") + &object("b", "1")));
    world.said();
    world.write("x.yaml", &(WRONG.to_owned() + &object("b", "2")));
    assert_eq!(world.said(), ["+ Pod demo/b app=2"], "the other object of the file is taken in");
    assert_eq!(
        world.faults(),
        [
            "x.yaml:1: Pod demo/a: metadata.label: there is no such field; check its spelling and indentation (the last good state stands)"
        ]
    );
    world.write("x.yaml", &(object("a", "3") + &object("b", "2")));
    assert_eq!(world.said(), ["+ Pod demo/a app=3"]);
    assert_eq!(world.faults(), [""; 0]);
}

#[test]
fn an_object_that_was_never_good_is_not_there_and_the_fault_says_so() {
    let mut world = World::default();
    world.write("x.yaml", &(WRONG.to_owned() + &object("b", "1")));
    assert_eq!(world.said(), ["+ Pod demo/b app=1"]);
    assert!(world.faults()[0].ends_with("(not taken in)"), "{:?}", world.faults());
}

#[test]
fn a_torn_document_may_have_been_any_object_so_none_is_lost() {
    let mut world = World::default();
    world.write("x.yaml", &(object("a", "1") + &object("b", "1")));
    world.said();
    world.write("x.yaml", &(object("b", "2") + TORN));
    assert_eq!(world.said(), ["+ Pod demo/b app=2"], "a is not there, but may be the torn one");
    assert_eq!(world.faults().len(), 1);
    assert!(
        world.faults()[0].starts_with("x.yaml:7: ") && world.faults()[0].ends_with("(the last good state stands)"),
        "{:?}",
        world.faults()
    );
    world.write("x.yaml", &object("b", "2"));
    assert_eq!(world.said(), ["- Pod demo/a"], "now it is certain");
}

#[test]
fn the_addresses_of_gateways_and_service_entries_are_observed() {
    let mut world = World::default();
    world.write(
        "x.yaml",
        "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {namespace: d, name: g}, spec: {gatewayClassName: c, listeners: [{name: m, \
         port: 15008, protocol: HBONE}]}}\n---\n{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {namespace: d, name: e}, spec: {hosts: [a.b]}}",
    );
    assert_eq!(world.said(), ["+ Gateway d/g", "+ ServiceEntry d/e"]);
    world.write(
        "status/k/g.yaml",
        "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {namespace: d, name: g}, status: {addresses: [{value: 10.0.0.1}]}}",
    );
    world.write(
        "status/k/e.yaml",
        "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {namespace: d, name: e}, status: {addresses: [{value: 240.240.0.1, host: a.b}]}}",
    );
    assert_eq!(world.said(), ["+ Gateway d/g ip=10.0.0.1", "+ ServiceEntry d/e ip=240.240.0.1"]);
    assert_eq!(world.faults(), [""; 0]);
}

#[test]
fn of_two_files_with_the_same_object_the_first_keeps_it_until_it_lets_go() {
    let mut world = World::default();
    world.write("m.yaml", &object("a", "m"));
    world.said();
    world.write("a.yaml", &object("a", "a"));
    world.write("z.yaml", &object("a", "z"));
    assert_eq!(world.said(), [""; 0], "an earlier name in the alphabet is no better right");
    assert_eq!(
        world.faults(),
        [
            "a.yaml:1: Pod demo/a: is in m.yaml already; remove one of the two (the last good state stands)",
            "z.yaml:1: Pod demo/a: is in m.yaml already; remove one of the two (the last good state stands)"
        ]
    );
    world.delete("m.yaml");
    assert_eq!(world.said(), ["+ Pod demo/a app=a"]);
    world.delete("a.yaml");
    world.delete("z.yaml");
    assert_eq!(world.said(), ["+ Pod demo/a app=z", "- Pod demo/a"]);
    assert_eq!(world.faults(), [""; 0]);
}

#[test]
fn an_object_twice_in_one_file_is_the_first_one() {
    let mut world = World::default();
    world.write("x.yaml", &(object("a", "1") + &object("a", "2")));
    assert_eq!(world.said(), ["+ Pod demo/a app=1"]);
    assert_eq!(
        world.faults(),
        ["x.yaml:5: Pod demo/a: is in this file already; remove one of the two (the last good state stands)"]
    );
}

#[test]
fn losing_an_object_is_announced_and_a_torn_file_loses_nothing() {
    let mut world = World::default();
    world.write("x.yaml", &(object("a", "1") + &object("b", "1")));
    let loses = |text: &str| world.ledger.loses(Path::new("x.yaml"), &Reading::of(text.as_bytes(), Role::Objects));
    assert!(loses(""));
    assert!(loses(&object("a", "2")));
    assert!(!loses(&(object("a", "2") + &object("b", "2"))));
    assert!(!loses(&(object("a", "2") + TORN)));
}

#[test]
fn observations_are_laid_over_their_object_in_order() {
    let mut world = World::default();
    world.write("x.yaml", &object("a", "1"));
    world.write(
        "status/k/a.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {namespace: demo, name: a, uid: u1}, status: {podIP: 10.0.0.1}}",
    );
    world.write(
        "status/z/a.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {namespace: demo, name: a, uid: u1, annotations: {r: on}}}",
    );
    assert_eq!(
        world.said(),
        ["+ Pod demo/a app=1", "+ Pod demo/a app=1 uid=u1 ip=10.0.0.1", "+ Pod demo/a app=1 @r=on uid=u1 ip=10.0.0.1"]
    );
    world.write("x.yaml", &object("a", "2"));
    assert_eq!(world.said(), ["+ Pod demo/a app=2 @r=on uid=u1 ip=10.0.0.1"], "what was seen stays when people edit");
    world.delete("status/z/a.yaml");
    assert_eq!(world.said(), ["+ Pod demo/a app=2 uid=u1 ip=10.0.0.1"]);
}

#[test]
fn an_observation_of_an_earlier_life_is_passed_over() {
    let mut world = World::default();
    world.write(
        "status/k/a.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {namespace: demo, name: a, uid: u1}, status: {podIP: 10.0.0.1}}",
    );
    world.write(
        "status/z/a.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {namespace: demo, name: a, uid: u1, annotations: {r: on}}}",
    );
    assert_eq!(world.said(), [""; 0], "a status makes no pod");
    world.write("x.yaml", &object("a", "1"));
    assert_eq!(world.said(), ["+ Pod demo/a app=1 @r=on uid=u1 ip=10.0.0.1"]);
    world.write(
        "status/k/a.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {namespace: demo, name: a, uid: u2}, status: {podIP: 10.0.0.2}}",
    );
    assert_eq!(world.said(), ["+ Pod demo/a app=1 uid=u2 ip=10.0.0.2"], "the second life is not enrolled yet");
}

#[test]
fn an_observation_that_cannot_be_read_stays_as_it_last_was() {
    let mut world = World::default();
    world.write(
        "x.yaml",
        "{apiVersion: v1, kind: Service, metadata: {namespace: demo, name: s}, spec: {ports: [{port: 80}]}}",
    );
    world.write(
        "status/k/s.yaml",
        "{apiVersion: v1, kind: Service, metadata: {namespace: demo, name: s}, spec: {clusterIP: 10.96.0.1}}",
    );
    world.said();
    world.write(
        "status/k/s.yaml",
        "{apiVersion: v1, kind: Service, metadata: {namespace: demo, name: s}, spec: {clusterIP: nonsense}}",
    );
    assert_eq!(world.said(), [""; 0]);
    assert_eq!(
        world.faults(),
        [
            "status/k/s.yaml:1: Service demo/s: spec.clusterIP: \"nonsense\" is not an IP address (the last good state stands)"
        ]
    );
}

#[test]
fn an_object_moves_between_files_in_one_step_without_being_gone() {
    let mut world = World::default();
    world.write("x.yaml", &object("a", "1"));
    world.said();
    let reading = Reading::of(object("a", "1").as_bytes(), Role::Objects);
    let changes =
        world.ledger.update([("x.yaml".into(), Role::Objects, None), ("y.yaml".into(), Role::Objects, Some(reading))]);
    assert_eq!(changes, []);
    assert_eq!(
        world.ledger.live.get(&Key::new(Kind::Pod, "demo", "a")).map(|live| live.owner.as_path()),
        Some(Path::new("y.yaml"))
    );
}

proptest! {
    /// Three files, any edits, torn and wrong states in between: in the end, when every file is whole, what stands is what a fresh start would
    /// read; and in between nothing goes that no whole file let go.
    #[test]
    fn whatever_happened_in_between_the_end_is_what_the_files_say(edits in prop::collection::vec((0..3usize, prop::collection::btree_map(0..3usize, 0..2usize, 0..3), 0..4usize), 1..20)) {
        let mut world = World::default();
        let mut files: BTreeMap<usize, BTreeMap<usize, usize>> = BTreeMap::new();
        for (file, objects, mistake) in edits {
            let mut text: String = objects.iter().map(|(name, app)| object(&format!("o{name}"), &app.to_string())).collect();
            let before: BTreeSet<Key> = world.ledger.live.keys().cloned().collect();
            match mistake {
                1 => text += TORN,
                2 => text.push_str(&WRONG.replace("name: a", "name: o0")),
                _ => {}
            }
            world.write(&format!("f{file}"), &text);
            let after: BTreeSet<Key> = world.ledger.live.keys().cloned().collect();
            match mistake {
                0 | 3 => _ = files.insert(file, objects),
                1 => prop_assert!(after.is_superset(&before)),
                _ => {}
            }
        }
        // Every file whole, as it was last meant.
        let mut fresh = World::default();
        for file in 0..3 {
            let objects = files.remove(&file).unwrap_or_default();
            let text: String = objects.iter().map(|(name, app)| object(&format!("o{name}"), &app.to_string())).collect();
            world.write(&format!("f{file}"), &text);
            fresh.write(&format!("f{file}"), &text);
        }
        let keys = |world: &World| world.ledger.live.keys().cloned().collect::<Vec<_>>();
        prop_assert_eq!(keys(&world), keys(&fresh));
        prop_assert_eq!(world.faults().len(), fresh.faults().len());
        for (key, live) in &world.ledger.live {
            if world.ledger.sayings(key, Role::Objects).count() == 1 {
                prop_assert_eq!(&live.object, &fresh.ledger.live[key].object);
            }
        }
        for file in 0..3 {
            world.delete(&format!("f{file}"));
        }
        prop_assert_eq!(world.ledger.live.len() + world.ledger.mentions.len() + world.ledger.shared.len() + world.ledger.files.len(), 0);
    }
}
