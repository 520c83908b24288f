// SPDX-License-Identifier: Apache-2.0
//! From objects to what a waypoint's Envoys are sent: one change makes anew what it touches and nothing else.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};
use waypoint_config::{
    api::{Key, Kind, Object},
    envoy::{Profile, Type},
    fleet,
    line::{Line, Refusal},
    store::Change,
    view::{Mesh, Name},
};

fn put(object: Value) -> Change {
    let text = |field: &str| object[field].as_str().unwrap().to_owned();
    let kind = Kind::of(&text("apiVersion"), &text("kind")).unwrap();
    Change::Put(Object::read(kind, object).unwrap())
}

fn gateway() -> Change {
    put(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"namespace": "shop", "name": "waypoint"},
        "spec": {"gatewayClassName": "istio-waypoint", "addresses": [{"value": "10.95.0.1"}],
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
    }))
}

fn service(name: &str, host: u32) -> Change {
    let address = format!("10.96.{}.{}", host / 250, host % 250 + 1);
    put(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": name, "labels": {"istio.io/use-waypoint": "waypoint"}},
        "spec": {"clusterIP": address, "selector": {"app": name}, "ports": [{"name": "http", "port": 80}]},
    }))
}

fn pod(name: &str, app: &str, address: &str) -> Change {
    put(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": app},
            "annotations": {"ambient.istio.io/redirection": "enabled"}},
        "spec": {"serviceAccountName": app, "containers": []},
        "status": {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
    }))
}

fn route(name: &str, parent: &str, prefix: &str, backend: &str) -> Change {
    put(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"namespace": "shop", "name": name},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": parent}],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
                "backendRefs": [{"name": backend, "port": 80}]}],
        },
    }))
}

fn key() -> fleet::Key {
    fleet::Key { waypoint: Name::new("shop", "waypoint"), profile: Profile::default() }
}

/// So many services with two routes each, behind a waypoint somebody asks for.
fn mesh(count: u32) -> Line {
    let mut line = Line::new(Mesh::default());
    let mut changes = vec![gateway()];
    for number in 0..count {
        let name = format!("s{number}");
        changes.push(service(&name, number));
        changes.push(pod(&format!("{name}-0"), &name, &format!("10.0.{}.{}", number / 250, number % 250 + 1)));
        changes.push(route(&format!("{name}-a"), &name, "/a", &name));
        changes.push(route(&format!("{name}-b"), &name, "/b", &name));
    }
    line.apply(changes);
    assert!(line.want(BTreeSet::from([key()])));
    line
}

/// Types, names and versions of all that is sent.
fn sent(line: &Line) -> BTreeMap<(Type, Arc<str>), Arc<str>> {
    let Some(rendered) = line.fleet().waypoints().get(&key()) else { return BTreeMap::new() };
    let all = Type::ALL.into_iter().flat_map(|kind| rendered.resources.all(kind).map(move |one| (kind, one)));
    all.map(|(kind, one)| ((kind, Arc::clone(&one.name)), Arc::clone(&one.version))).collect()
}

/// What differs once these changes are in, and how many resources were made for it.
fn differing(line: &mut Line, changes: Vec<Change>) -> (Vec<(Type, String)>, usize) {
    let before = sent(line);
    line.apply(changes);
    let after = sent(line);
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let differs = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    (differs.map(|(kind, name)| (*kind, name.to_string())).collect(), line.fleet().made())
}

/// What is kept in step equals what is made at once.
fn equals_afresh(line: &mut Line) {
    let kept = sent(line);
    line.want(BTreeSet::new());
    assert_eq!(sent(line), BTreeMap::new());
    line.want(BTreeSet::from([key()]));
    assert_eq!(kept, sent(line));
}

#[test]
fn one_endpoint_or_one_route_among_a_thousand_services_is_one_resource() {
    let mut line = mesh(1000);
    let endpoint = differing(&mut line, vec![pod("s500-1", "s500", "10.1.0.1")]);
    assert_eq!(endpoint, (vec![(Type::Endpoints, "80||s500.shop.svc.cluster.local".to_owned())], 1));
    let changed = differing(&mut line, vec![route("s500-a", "s500", "/c", "s500")]);
    assert_eq!(changed, (vec![(Type::Routes, "inbound-vip|80|http|s500.shop.svc.cluster.local".to_owned())], 1));
    let unrelated = differing(&mut line, vec![pod("other-0", "other", "10.1.0.2")]);
    assert_eq!(unrelated, (Vec::new(), 0));
    equals_afresh(&mut line);
}

#[test]
fn a_service_that_only_a_route_speaks_of_comes_and_goes_with_the_route() {
    let mut line = mesh(2);
    line.apply([put(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "outside"},
        "spec": {"clusterIP": "10.97.0.1", "selector": {"app": "outside"}, "ports": [{"name": "http", "port": 80}]},
    }))]);
    let host = "outside.shop.svc.cluster.local";
    let (differs, _) = differing(&mut line, vec![route("s0-a", "s0", "/a", "outside")]);
    let wanted = [
        (Type::Cluster, format!("outbound|80||{host}")),
        (Type::Endpoints, format!("80||{host}")),
        (Type::Routes, "inbound-vip|80|http|s0.shop.svc.cluster.local".to_owned()),
    ];
    assert_eq!(differs, wanted);
    equals_afresh(&mut line);
    let (endpoints, made) = differing(&mut line, vec![pod("outside-0", "outside", "10.1.0.1")]);
    assert_eq!((endpoints, made), (vec![wanted[1].clone()], 1));
    // Bound to the waypoint it is one of its own, and the route leads to another cluster.
    let (differs, _) = differing(&mut line, vec![service("outside", 900)]);
    assert!(differs.contains(&wanted[0]) && differs.contains(&wanted[2]), "{differs:?}");
    equals_afresh(&mut line);
    line.apply([route("s0-a", "s0", "/a", "s0"), Change::Delete(Key::new(Kind::Service, "shop", "outside"))]);
    assert!(sent(&line).keys().all(|(_, name)| !name.contains("outside")));
    equals_afresh(&mut line);
}

#[test]
fn a_waypoint_that_goes_takes_its_resources_and_one_that_returns_lives_again() {
    let mut line = mesh(2);
    let life = line.fleet().waypoints().get(&key()).unwrap().life;
    let first = sent(&line);
    line.apply([Change::Delete(Key::new(Kind::Gateway, "shop", "waypoint"))]);
    assert_eq!(sent(&line), BTreeMap::new());
    line.apply([gateway()]);
    assert_eq!(sent(&line), first);
    assert_ne!(line.fleet().waypoints().get(&key()).unwrap().life, life);
}

#[test]
fn the_author_of_an_object_is_told_what_envoy_refuses() {
    let mut line = mesh(2);
    line.hear(vec![Refusal {
        client: "waypoint-1.shop".into(),
        waypoint: Some(Name::new("shop", "waypoint")),
        type_url: Type::Routes.url().to_owned(),
        resource: "inbound-vip|80|http|s1.shop.svc.cluster.local".into(),
        reason: "no".into(),
    }]);
    let told: Vec<String> = line.refused().keys().map(|key| format!("{} {}", key.kind.name(), key.name)).collect();
    assert_eq!(told, ["Service s1", "HTTPRoute s1-a", "HTTPRoute s1-b"]);
    let status = line.status(&Key::new(Kind::HttpRoute, "shop", "s1-a"));
    assert!(status.conditions.iter().any(|one| !one.holds && one.message.ends_with("s1.shop.svc.cluster.local: no")));
    line.hear(Vec::new());
    assert!(line.refused().is_empty());
}
