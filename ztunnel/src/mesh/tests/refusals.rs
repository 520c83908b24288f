// SPDX-License-Identifier: Apache-2.0
//! What follows from a resource that could not be understood.

use std::net::IpAddr;

use mesh_proto::{security, workload as proto};
use prost::Message;

use crate::mesh::sample::{address_of, address_of_service, changes};
use crate::mesh::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn legacy(uid: &str, address: [u8; 4]) -> Vec<u8> {
    address_of(proto::Workload {
        uid: uid.into(),
        namespace: "d".into(),
        addresses: vec![address.to_vec()],
        tunnel_protocol: proto::TunnelProtocol::LegacyIstioMtls.into(),
        ..Default::default()
    })
}

#[test]
fn a_refused_workload_takes_the_place_of_its_record_and_holds_both_addresses() {
    let mut store = Store::new("");
    store.apply(changes("workloads: [{uid: a, namespace: d, workloadIps: [10.0.0.1], services: {d/s: {80: 80}}}]"));
    let applied = store.apply([Change::address("a", &legacy("a", [10, 0, 0, 2]))]);
    assert!(applied.rejected[0].reason.contains("tunnel_protocol"));
    let snapshot = applied.snapshot;
    assert!(snapshot.workload("a").is_none() && snapshot.endpoints(&"d/s".parse().unwrap()).is_empty());
    for address in ["10.0.0.1", "10.0.0.2"] {
        assert_eq!(snapshot.refused_at("", ip(address)).unwrap().name, "a");
    }
    assert!(snapshot.refused_at("other", ip("10.0.0.1")).is_none());
}

#[test]
fn a_workload_understood_again_or_removed_is_not_refused_any_more() {
    let mut store = Store::new("");
    store.apply([Change::address("a", &legacy("a", [10, 0, 0, 2]))]);
    let applied = store.apply(changes("workloads: [{uid: a, namespace: d, workloadIps: [10.0.0.2]}]"));
    assert!(applied.snapshot.refused_at("", ip("10.0.0.2")).is_none());
    store.apply([Change::address("a", &legacy("a", [10, 0, 0, 2]))]);
    let applied = store.apply([Change::RemoveAddress("a".into())]);
    assert!(applied.snapshot.refused_at("", ip("10.0.0.2")).is_none());
    assert_eq!(applied.not_there, [""; 0]);
    assert!(applied.changed.anything());
}

#[test]
fn of_bytes_that_are_no_message_the_record_before_tells_the_addresses() {
    let mut store = Store::new("");
    store.apply(changes("services: [{name: s, namespace: d, hostname: s, vips: [/10.9.0.1], cidrVips: [{network: '', cidr: 10.8.0.0/16}], ports: {80: 80}}]"));
    for _ in 0..2 {
        let snapshot = store.apply([Change::address("d/s", &[0xff])]).snapshot;
        assert!(snapshot.service("d/s").is_none());
        assert_eq!(snapshot.refused_at("", ip("10.9.0.1")).unwrap().name, "d/s");
        assert_eq!(snapshot.refused_at("", ip("10.8.1.1")).unwrap().name, "d/s");
    }
}

#[test]
fn a_refused_service_holds_its_addresses_and_ranges() {
    let at = |bytes: [u8; 4], length| proto::NetworkAddress { network: String::new(), address: bytes.to_vec(), length };
    let bytes = address_of_service(proto::Service {
        namespace: "d".into(),
        hostname: "s".into(),
        addresses: vec![at([10, 9, 0, 1], None), at([10, 8, 0, 0], Some(16))],
        ip_families: 9,
        ..Default::default()
    });
    let snapshot = Store::new("").apply([Change::address("d/s", &bytes)]).snapshot;
    assert!(snapshot.refused_at("", ip("10.9.0.1")).is_some() && snapshot.refused_at("", ip("10.8.7.7")).is_some());
    assert!(snapshot.refused_at("", ip("10.9.0.2")).is_none());
}

#[test]
fn the_address_of_a_node_is_not_held_by_a_refused_workload_on_it() {
    let bytes = address_of(proto::Workload {
        uid: "a".into(),
        namespace: "d".into(),
        addresses: vec![vec![10, 0, 0, 9]],
        network_mode: proto::NetworkMode::HostNetwork.into(),
        status: 9,
        ..Default::default()
    });
    let applied = Store::new("").apply([Change::address("a", &bytes)]);
    assert_eq!(applied.rejected.len(), 1);
    assert!(applied.snapshot.refused_at("", ip("10.0.0.9")).is_none());
}

#[test]
fn what_is_not_known_of_a_refused_policy_is_taken_at_its_worst() {
    let refuse = |scope, action, dry_run| {
        let message = security::Authorization {
            name: "p".into(),
            namespace: "d".into(),
            scope,
            action,
            dry_run,
            rules: vec![security::Rule {
                clauses: vec![security::Clause {
                    matches: vec![security::Match { destination_ports: vec![99999], ..Default::default() }],
                }],
            }],
            ..Default::default()
        };
        match Change::authorization("d/p", &message.encode_to_vec()) {
            Change::RefusedPolicy(refused) => (refused.reach, refused.effect),
            other => panic!("understood: {other:?}"),
        }
    };
    assert_eq!(refuse(2, 0, false), (Reach::Listed, Effect::AdmitsNobody));
    assert_eq!(refuse(1, 1, false), (Reach::Namespace("d".into()), Effect::DeniesAll));
    assert_eq!(refuse(0, 0, false), (Reach::Everybody, Effect::AdmitsNobody));
    assert_eq!(refuse(7, 1, false), (Reach::Everybody, Effect::DeniesAll), "scope of a newer version");
    assert_eq!(refuse(1, 7, false), (Reach::Namespace("d".into()), Effect::DeniesAll), "action of a newer version");
    assert_eq!(refuse(0, 1, true), (Reach::Everybody, Effect::Nothing), "a dry run denies nobody either way");
    let Change::RefusedPolicy(refused) = Change::authorization("d/p", &[0xff]) else { panic!("understood") };
    assert_eq!((refused.reach, refused.effect), (Reach::Everybody, Effect::DeniesAll));
}

#[test]
fn a_refused_policy_takes_the_place_of_the_one_before_and_leaves_with_it() {
    let mut store = Store::new("");
    store.apply(changes("policies: [{name: p, namespace: d, scope: Namespace, action: Allow}]"));
    let applied = store.apply([Change::authorization("d/p", &[0xff])]);
    assert_eq!(applied.rejected[0].name, "d/p");
    assert!(matches!(applied.snapshot.policy("d/p"), Some(PolicyEntry::Refused(_))));
    assert_eq!(applied.snapshot.policies_without_listing("other").count(), 1);
    let again = store.apply([Change::authorization("d/p", &[0xff])]);
    assert_eq!((again.rejected.len(), again.changed.anything()), (1, false), "told again, changes nothing");
    let gone = store.apply([Change::RemovePolicy("d/p".into())]);
    assert_eq!(gone.snapshot.policies().count(), 0);
    assert_eq!(gone.snapshot.policies_without_listing("other").count(), 0);
}

#[test]
fn good_resources_and_removals_of_a_batch_count_beside_a_refused_one() {
    let mut store = Store::new("");
    store.apply(changes("workloads: [{uid: gone, namespace: d, workloadIps: []}]"));
    let mut batch = vec![Change::address("bad", &legacy("bad", [10, 0, 0, 2]))];
    batch.extend(changes("workloads: [{uid: good, namespace: d, workloadIps: []}]"));
    batch.push(Change::RemoveAddress("gone".into()));
    let applied = store.apply(batch);
    assert_eq!(applied.rejected.len(), 1);
    assert!(applied.snapshot.workload("good").is_some() && applied.snapshot.workload("gone").is_none());
}
