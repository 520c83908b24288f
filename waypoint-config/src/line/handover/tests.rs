// SPDX-License-Identifier: Apache-2.0
//! The whole line in virtual time: what node proxies and waypoints are sent while a service changes its waypoint.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::{
    ambient,
    api::{Key, Kind, Object},
    envoy::{Profile, Type},
    fleet,
    line::Line,
    store::Change,
    view::Mesh,
};

fn put(object: Value) -> Change {
    let text = |field: &str| object[field].as_str().unwrap().to_owned();
    let kind = Kind::of(&text("apiVersion"), &text("kind")).unwrap();
    Change::Put(Object::read(kind, object).unwrap())
}

fn gateway(name: &str, class: &str, address: &str) -> Change {
    put(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"namespace": "shop", "name": name},
        "spec": {"gatewayClassName": class, "addresses": [{"value": address}],
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
    }))
}

fn web(waypoint: &str) -> Change {
    put(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": "web", "labels": {"istio.io/use-waypoint": waypoint}},
        "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]},
    }))
}

fn of(waypoint: &str) -> Name {
    Name::new("shop", waypoint)
}

/// A mesh with a service that goes through no waypoint, and with two that Envoys ask for.
struct World {
    line: Line,
    now: Instant,
    heard: Heard,
}

impl World {
    fn new(waypoint: &str) -> Self {
        let mut line = Line::new(Mesh::default());
        let ours = "istio-waypoint";
        line.apply([
            gateway("a", ours, "10.95.0.1"),
            gateway("b", ours, "10.95.0.2"),
            gateway("else", "x", "10.95.0.3"),
        ]);
        line.apply([web(waypoint)]);
        let key = |name| fleet::Key { waypoint: of(name), profile: Profile::default() };
        line.want(BTreeSet::from([key("a"), key("b")]));
        let mut heard = Heard { node_proxies: Some(0), ..Heard::default() };
        heard.waypoints = [(of("a"), 0), (of("b"), 0)].into();
        Self { line, now: Instant::now(), heard }
    }

    fn change(&mut self, change: Change) -> u64 {
        self.line.apply_at([change], self.now);
        self.line.number()
    }

    fn proxies_have(&mut self, publication: u64) {
        self.heard.node_proxies = Some(publication);
        self.line.handle_progress(&self.heard, self.now);
    }

    fn waypoint_has(&mut self, waypoint: &str, publication: u64) {
        self.heard.waypoints.insert(of(waypoint), publication);
        self.line.handle_progress(&self.heard, self.now);
    }

    /// Nothing is heard, and time goes by.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.line.handle_progress(&self.heard, self.now);
    }

    /// The address of the waypoint that node proxies know.
    fn told(&self) -> Option<String> {
        use mesh_proto::workload::{Address, address, gateway_address::Destination};
        let resource = self.line.resources().named(ambient::Type::Address, "shop/web.shop.svc.cluster.local")?;
        let address: Address = mesh_proto::discovery::unpack(&resource.body).unwrap();
        let Some(address::Type::Service(service)) = address.r#type else { panic!("no service") };
        match service.waypoint?.destination? {
            Destination::Address(address) => Some(format!("a waypoint at {:?}", address.address)),
            Destination::Hostname(name) => Some(name.hostname),
        }
    }

    /// Whether a waypoint has a chain for the service, and whether it has a cluster.
    fn serves(&self, waypoint: &str) -> (bool, bool) {
        let key = fleet::Key { waypoint: of(waypoint), profile: Profile::default() };
        let Some(rendered) = self.line.fleet().waypoints().get(&key) else { return (false, false) };
        let name = "inbound-vip|80|http|web.shop.svc.cluster.local";
        let chains = rendered.resources.all(Type::Listener).flat_map(|listener| &listener.routes);
        let has_chain = chains.into_iter().any(|chain| &**chain == name);
        (has_chain, rendered.resources.named(Type::Cluster, name).is_some())
    }
}

const A: &str = "a waypoint at [10, 95, 0, 1]";
const B: &str = "a waypoint at [10, 95, 0, 2]";
const SERVES: (bool, bool) = (true, true);

#[test]
fn node_proxies_hear_of_a_waypoint_when_all_its_envoys_serve_and_leave_it_before_they_stop() {
    let mut world = World::new("none");
    let bound = world.change(web("a"));
    assert_eq!((world.told(), world.serves("a")), (None, SERVES));
    world.waypoint_has("b", bound);
    world.waypoint_has("a", bound - 1);
    assert_eq!(world.told(), None);
    world.waypoint_has("a", bound);
    assert_eq!(world.told().as_deref(), Some(A));
    assert_eq!(world.line.next_deadline(), None, "nothing is left to be done");

    let unbound = world.change(web("none"));
    assert_eq!((world.told(), world.serves("a")), (None, SERVES));
    world.proxies_have(unbound - 1);
    world.pass(PATIENCE - Duration::from_millis(1));
    world.proxies_have(unbound);
    world.pass(UNDER_WAY - Duration::from_millis(1));
    assert_eq!(world.serves("a"), SERVES, "connections may be under way");
    world.pass(Duration::from_millis(1));
    assert_eq!(world.serves("a"), (false, true), "connections may be open");
    world.pass(OPEN);
    assert_eq!(world.serves("a"), (false, false));
    assert_eq!(world.line.next_deadline(), None);
}

#[test]
fn nobody_is_waited_for_without_end() {
    let mut world = World::new("none");
    // No Envoy is there at all.
    world.heard.waypoints.clear();
    world.change(web("a"));
    world.pass(PATIENCE - Duration::from_millis(1));
    assert_eq!(world.told(), None);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.told().as_deref(), Some(A));
    // A node proxy that hears nothing.
    world.change(web("none"));
    assert_eq!(world.told(), None);
    for time in [PATIENCE, UNDER_WAY, OPEN] {
        assert!(world.serves("a").1);
        world.pass(time);
    }
    assert_eq!(world.serves("a"), (false, false));
}

#[test]
fn from_one_waypoint_to_another_both_serve_until_everybody_knows() {
    let mut world = World::new("a");
    let moved = world.change(web("b"));
    assert_eq!((world.told().as_deref(), world.serves("a"), world.serves("b")), (Some(A), SERVES, SERVES));
    // However long it takes: the first one is left only once the other has it, or nobody knows whether it ever will.
    world.waypoint_has("b", moved);
    assert_eq!((world.told().as_deref(), world.serves("a")), (Some(B), SERVES));
    let told = world.line.number();
    assert!(told > moved);
    world.proxies_have(moved);
    world.pass(UNDER_WAY);
    assert_eq!(world.serves("a"), SERVES, "they have the publication before");
    // Back again before the first one has been left.
    let back = world.change(web("a"));
    assert_eq!(world.told().as_deref(), Some(B));
    world.waypoint_has("a", back);
    assert_eq!((world.told().as_deref(), world.serves("a"), world.serves("b")), (Some(A), SERVES, SERVES));
    world.proxies_have(world.line.number());
    world.pass(UNDER_WAY);
    world.pass(OPEN);
    assert_eq!((world.serves("a"), world.serves("b")), (SERVES, (false, false)));
}

#[test]
fn a_binding_taken_back_before_node_proxies_heard_of_it_never_reaches_them() {
    let mut world = World::new("none");
    let bound = world.change(web("a"));
    world.change(web("none"));
    assert_eq!(world.line.next_deadline(), None);
    world.waypoint_has("a", bound);
    assert_eq!((world.told(), world.serves("a")), (None, (false, false)));
}

#[test]
fn nothing_is_kept_open_past_the_policies_of_a_waypoint() {
    // A service that is new has no connections to be kept.
    let mut world = World::new("none");
    world.change(Change::Delete(Key::new(Kind::Service, "shop", "web")));
    world.change(web("a"));
    assert_eq!(world.told().as_deref(), Some(A));
    // One whose old waypoint goes while the new one is not ready yet goes to the new one, not past it.
    world.change(web("b"));
    assert_eq!(world.told().as_deref(), Some(A));
    world.change(Change::Delete(Key::new(Kind::Gateway, "shop", "a")));
    assert_eq!(world.told().as_deref(), Some(B));
    // Somebody else's waypoint is told of nothing by us.
    world.change(web("else"));
    assert_eq!(world.told().as_deref(), Some("a waypoint at [10, 95, 0, 3]"));
}

#[test]
fn what_is_kept_follows_its_changes() {
    let mut world = World::new("a");
    world.change(web("none"));
    let endpoints = |world: &World| {
        let key = fleet::Key { waypoint: of("a"), profile: Profile::default() };
        let rendered = world.line.fleet().waypoints().get(&key).unwrap().resources.clone();
        rendered.named(Type::Endpoints, "80||web.shop.svc.cluster.local").unwrap().version.clone()
    };
    let before = endpoints(&world);
    world.change(put(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "web-0", "labels": {"app": "web"}},
        "spec": {"serviceAccountName": "web", "containers": []},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    })));
    assert_ne!(endpoints(&world), before);
    world.change(Change::Delete(Key::new(Kind::Service, "shop", "web")));
    assert_eq!((world.serves("a"), world.line.next_deadline()), ((false, false), None));
}
