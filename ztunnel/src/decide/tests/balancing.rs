// SPDX-License-Identifier: Apache-2.0
//! Which endpoint takes a connection.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::super::{Query, Route, route};
use super::rejected;
use crate::mesh::Snapshot;
use crate::mesh::sample::{mesh, pod};

/// A client in region r, zone z, subzone s on node n, and endpoints named after what they share with it.
fn spread(load_balancer: &str, endpoints: &[(&str, &str)]) -> Snapshot {
    let place = |same: &str| {
        let level =
            |letter: char, here: &str| if same.contains(letter) { here.to_owned() } else { format!("other-{here}") };
        format!(
            "locality: {{region: {}, zone: {}, subzone: {}}}, node: {}, clusterId: {}",
            level('r', "R"),
            level('z', "Z"),
            level('s', "S"),
            level('n', "N"),
            level('c', "C")
        )
    };
    let lines: Vec<_> = endpoints
        .iter()
        .enumerate()
        .map(|(at, (same, rest))| {
            format!("- {{uid: e{at}, name: '{same}{at}', namespace: d, workloadIps: [10.0.0.{at}], services: {{d/s: {{80: 80}}}}, {}{rest}}}", place(same))
        })
        .collect();
    mesh(&format!(
        "workloads:\n- {{uid: client, name: client, namespace: d, workloadIps: [], {}}}\n{}\nservices: [{{name: s, namespace: d, hostname: s, vips: [/10.9.0.1], ports: {{80: 80}}, loadBalancer: {load_balancer}}}]",
        place("rzsnc"),
        lines.join("\n")
    ))
}

/// How often each endpoint is picked in 4000 connections.
fn picks(snapshot: &Snapshot) -> BTreeMap<String, usize> {
    let mut rng = StdRng::seed_from_u64(3);
    let query = Query { pod: &pod(snapshot, "client"), target: "10.9.0.1:80".parse().unwrap() };
    let mut picks = BTreeMap::new();
    for _ in 0..4000 {
        let Route::Direct { traffic, .. } = route(snapshot, query, &mut rng) else { panic!() };
        *picks.entry(traffic.destination.log_name().to_owned()).or_default() += 1;
    }
    picks
}

fn picked(load_balancer: &str, endpoints: &[(&str, &str)]) -> Vec<String> {
    picks(&spread(load_balancer, endpoints)).into_keys().collect()
}

#[test]
fn without_preference_all_endpoints_are_alike() {
    let picks = picks(&spread("{}", &[("rz", ""), ("", ""), ("rzsnc", ""), ("r", "")]));
    assert_eq!(picks.len(), 4);
    assert!(picks.values().all(|&count| (850..1150).contains(&count)), "{picks:?}");
}

#[test]
fn preferences_without_a_mode_mean_nothing() {
    assert_eq!(picked("{routingPreferences: [Region]}", &[("r", ""), ("", "")]).len(), 2);
}

#[test]
fn capacity_is_the_share() {
    let picks = picks(&spread("{}", &[("r", ", capacity: 3"), ("z", ", capacity: 1"), ("s", ", capacity: 0")]));
    assert!((2850..3150).contains(&picks["r0"]), "{picks:?}");
    assert!(!picks.contains_key("s2"));
    let none = spread("{}", &[("r", ", capacity: 0")]);
    assert!(rejected(&none, "client", "10.9.0.1:80").to_string().contains("no healthy upstream"));
}

#[test]
fn the_shares_are_the_same_when_most_endpoints_cannot_be_used() {
    let endpoints = [
        ("r", ", capacity: 50, status: Unhealthy"),
        ("z", ", capacity: 3"),
        ("s", ", capacity: 1"),
        ("n", ", capacity: 40, status: Unhealthy"),
    ];
    let picks = picks(&spread("{}", &endpoints));
    assert_eq!(picks.len(), 2);
    assert!((2850..3150).contains(&picks["z1"]), "{picks:?}");
}

#[test]
fn failover_takes_the_nearest_there_is() {
    let zonal = "{mode: Failover, routingPreferences: [Region, Zone, Subzone]}";
    assert_eq!(picked(zonal, &[("rzs", ""), ("rz", ""), ("r", ""), ("", "")]), ["rzs0"]);
    assert_eq!(picked(zonal, &[("rz", ""), ("rz", ""), ("r", ""), ("", "")]), ["rz0", "rz1"]);
    assert_eq!(picked(zonal, &[("r", ""), ("", "")]), ["r0"]);
    assert_eq!(picked(zonal, &[("zs", ""), ("", "")]), ["1", "zs0"], "what does not share the region shares nothing");
    assert_eq!(picked(zonal, &[("rzs", ", status: Unhealthy"), ("r", "")]), ["r1"]);
    assert_eq!(picked(zonal, &[("rzs", ", capacity: 0"), ("r", "")]), ["r1"], "what takes nothing is not near");
}

#[test]
fn strict_takes_only_what_shares_everything() {
    let node = "{mode: Strict, routingPreferences: [Node]}";
    assert_eq!(picked(node, &[("n", ""), ("rzs", "")]), ["n0"]);
    let error = rejected(&spread(node, &[("rzs", "")]), "client", "10.9.0.1:80");
    assert!(error.to_string().contains("1 endpoints"), "{error}");
    assert_eq!(
        picked("{mode: Strict, routingPreferences: [Region, Cluster]}", &[("rc", ""), ("r", ""), ("c", "")]),
        ["rc0"]
    );
}

#[test]
fn when_the_network_comes_first_the_other_preferences_still_count() {
    // All endpoints that can be reached are on the own network, so what follows it decides.
    let network = "{mode: Failover, routingPreferences: [Network, Region, Zone]}";
    assert_eq!(picked(network, &[("rz", ""), ("r", ""), ("", "")]), ["rz0"]);
    assert_eq!(picked(network, &[("r", ""), ("", "")]), ["r0"]);
    assert_eq!(picked(network, &[("z", ""), ("", "")]), ["1", "z0"]);
}

#[test]
fn empty_places_are_equal() {
    let snapshot = mesh("
workloads:
- {uid: client, name: client, namespace: d, workloadIps: []}
- {uid: a, name: a, namespace: d, workloadIps: [10.0.0.1], services: {d/s: {80: 80}}}
services: [{name: s, namespace: d, hostname: s, vips: [/10.9.0.1], ports: {80: 80}, loadBalancer: {mode: Strict, routingPreferences: [Region, Zone, Node]}}]
");
    assert_eq!(picks(&snapshot).into_keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn unhealthy_endpoints_count_only_where_the_service_takes_them() {
    let sick = [("r", ", status: Unhealthy"), ("z", "")];
    assert_eq!(picked("{}", &sick), ["z1"]);
    assert_eq!(picked("{healthPolicy: AllowAll}", &sick), ["r0", "z1"]);
    let all_sick = spread("{}", &sick[..1]);
    let error = rejected(&all_sick, "client", "10.9.0.1:80").to_string();
    assert!(error.contains("(1 endpoints, 0 of them healthy)"), "{error}");
}

#[test]
fn an_endpoint_that_cannot_be_dialled_does_not_stand_in_the_way() {
    let snapshot = mesh(
        "
workloads:
- {uid: client, name: client, namespace: d, workloadIps: []}
- {uid: a, name: a, namespace: d, workloadIps: [], hostname: h.example, services: {d/s: {80: 80}}}
- {uid: b, name: b, namespace: d, workloadIps: [10.0.0.1], services: {d/s: {80: 80}}}
services: [{name: s, namespace: d, hostname: s, vips: [/10.9.0.1], ports: {80: 80}}]
",
    );
    assert_eq!(picks(&snapshot).into_keys().collect::<Vec<_>>(), ["b"]);
}
