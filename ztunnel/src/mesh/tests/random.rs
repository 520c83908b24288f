// SPDX-License-Identifier: Apache-2.0
//! However the store got there, it is where a store would be that was told the outcome at once.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::mesh::sample::changes;
use crate::mesh::*;

/// Everything a reader can see, in a form that can be compared.
fn view(snapshot: &Snapshot) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for workload in snapshot.workloads() {
        seen.insert(format!("workload {} {:?}", workload.uid, workload));
        let own = snapshot.own(&workload.pod_name()).map(|own| own.uid.clone());
        seen.insert(format!("own {} {own:?}", workload.uid));
    }
    for service in snapshot.services() {
        seen.insert(format!("service {service:?}"));
        let named = snapshot.service_named(&service.hostname, Some("c")).map(|service| service.key().clone());
        seen.insert(format!("named {} {named:?}", service.hostname));
    }
    for key in SERVICES {
        let endpoints = snapshot.endpoints(&key.parse().unwrap());
        let endpoints: Vec<_> = endpoints.iter().map(|one| (&one.workload, &one.ports)).collect();
        seen.insert(format!("endpoints {key} {endpoints:?}"));
    }
    for last in 0..8u8 {
        let address = [10, 0, 0, last].into();
        for network in ["", "n"] {
            let workload = snapshot.workload_at(network, address).map(|workload| &workload.uid);
            let services: Vec<_> = [None, Some("a"), Some("b"), Some("c")]
                .map(|client| snapshot.service_at(network, address, client).map(|service| service.key()))
                .into();
            let refused = snapshot.refused_at(network, address).is_some();
            seen.insert(format!("at {network}/{address} {workload:?} {services:?} {refused}"));
        }
    }
    for namespace in ["a", "b"] {
        let policies: Vec<_> = snapshot.policies_without_listing(namespace).map(PolicyEntry::name).collect();
        seen.insert(format!("policies {namespace} {policies:?}"));
    }
    for (name, entry) in snapshot.policies() {
        seen.insert(format!("policy {name} {entry:?}"));
    }
    seen.insert(format!("staged {:?}", snapshot.staged().map(|(key, _)| key).collect::<BTreeSet<_>>()));
    seen
}

const SERVICES: [&str; 4] = ["a/x", "b/x", "a/y", "b/y"];

fn workload() -> impl Strategy<Value = String> {
    let services = proptest::sample::subsequence(SERVICES.to_vec(), 0..=3);
    (0..5u8, 0..8u8, any::<[bool; 4]>(), services, 1..3u16).prop_map(|(uid, last, flags, services, port)| {
        let [hbone, host, other_network, healthy] = flags;
        let uid = if uid % 2 == 0 { format!("c//Pod/a/{uid}") } else { format!("w{uid}") };
        let services: Vec<_> = services.iter().map(|key| format!("{key}: {{80: {port}}}")).collect();
        format!(
            "workloads: [{{uid: {uid}, name: p, namespace: a, workloadIps: [10.0.0.{last}], protocol: {}, \
             networkMode: {}, network: '{}', status: {}, services: {{{}}}}}]",
            if hbone { "HBONE" } else { "TCP" },
            if host { "HostNetwork" } else { "Standard" },
            if other_network { "n" } else { "" },
            if healthy { "Healthy" } else { "Unhealthy" },
            services.join(", ")
        )
    })
}

fn service() -> impl Strategy<Value = String> {
    let ranges = proptest::sample::subsequence(vec![24u8, 29, 30, 31, 32], 0..=2);
    (0..4usize, proptest::collection::btree_set(0..8u8, 0..3), ranges, any::<[bool; 3]>()).prop_map(
        |(which, vips, ranges, [canonical, hidden, other_network])| {
            let (namespace, hostname) = SERVICES[which].split_once('/').unwrap();
            let network = if other_network { "n" } else { "" };
            let vips: Vec<_> = vips.iter().map(|last| format!("{network}/10.0.0.{last}")).collect();
            let ranges: Vec<_> =
                ranges.iter().map(|length| format!("{{network: '{network}', cidr: 10.0.0.0/{length}}}")).collect();
            format!(
                "services: [{{name: s, namespace: {namespace}, hostname: {hostname}, vips: [{}], cidrVips: [{}], \
                 ports: {{80: 80}}, canonical: {canonical}, visibility: {}}}]",
                vips.join(", "),
                ranges.join(", "),
                if hidden { "Namespace" } else { "Public" }
            )
        },
    )
}

fn policy() -> impl Strategy<Value = String> {
    (0..3u8, 0..3usize, any::<bool>(), any::<bool>()).prop_map(|(name, scope, deny, namespace)| {
        let scope = ["Global", "Namespace", "WorkloadSelector"][scope];
        format!(
            "policies: [{{name: p{name}, namespace: {}, scope: {scope}, action: {}}}]",
            if namespace { "a" } else { "b" },
            if deny { "Deny" } else { "Allow" }
        )
    })
}

fn change() -> impl Strategy<Value = Change> {
    let name = prop_oneof![
        proptest::sample::select(SERVICES.to_vec()).prop_map(str::to_owned),
        (0..5u8).prop_map(|uid| if uid % 2 == 0 { format!("c//Pod/a/{uid}") } else { format!("w{uid}") }),
    ];
    let policy_name = (0..3u8, any::<bool>()).prop_map(|(name, a)| format!("{}/p{name}", if a { "a" } else { "b" }));
    prop_oneof![
        5 => workload().prop_map(|yaml| changes(&yaml).remove(0)),
        4 => service().prop_map(|yaml| changes(&yaml).remove(0)),
        2 => policy().prop_map(|yaml| changes(&yaml).remove(0)),
        2 => name.clone().prop_map(|name| Change::RemoveAddress(name.into())),
        1 => policy_name.clone().prop_map(|name| Change::RemovePolicy(name.into())),
        1 => policy_name.prop_map(|name| Change::authorization(&name, &[0xff])),
    ]
}

/// The outcome of all changes, told at once.
fn rebuilt(changes: &[Change]) -> Snapshot {
    let mut workloads = BTreeMap::new();
    let mut services = BTreeMap::new();
    let mut policies = BTreeMap::new();
    for change in changes {
        match change.clone() {
            Change::Workload(workload) => drop(workloads.insert(workload.uid.to_string(), change.clone())),
            Change::Service(service) => drop(services.insert(service.key().to_string(), change.clone())),
            Change::Policy { name, .. } => drop(policies.insert(name, change.clone())),
            Change::RefusedPolicy(refused) => drop(policies.insert(refused.name, change.clone())),
            Change::RemoveAddress(name) => {
                if workloads.remove(name.as_str()).is_none() {
                    services.remove(name.as_str());
                }
            }
            Change::RemovePolicy(name) => drop(policies.remove(&name)),
            Change::RefusedAddress(_) | Change::Received(_) => unreachable!("not made here"),
        }
    }
    let all = workloads.into_values().chain(services.into_values()).chain(policies.into_values());
    Snapshot::clone(&Store::new("").apply(all).snapshot)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_way_leads_to_the_same_tables(batches in proptest::collection::vec(proptest::collection::vec(change(), 1..5), 1..8)) {
        let mut store = Store::new("");
        let mut before: Vec<(Snapshot, BTreeSet<String>)> = Vec::new();
        for batch in &batches {
            let snapshot = store.apply(batch.clone()).snapshot;
            before.push((Snapshot::clone(&snapshot), view(&snapshot)));
        }
        let all: Vec<_> = batches.concat();
        prop_assert_eq!(view(store.snapshot()), view(&rebuilt(&all)));
        for (snapshot, seen) in &before {
            prop_assert_eq!(&view(snapshot), seen, "an older snapshot has changed");
        }
    }

    #[test]
    fn nothing_is_left_when_everything_is_removed(batch in proptest::collection::vec(change(), 1..20)) {
        let mut store = Store::new("");
        store.apply(batch);
        let snapshot = std::sync::Arc::clone(store.snapshot());
        let uids = snapshot.workloads().map(|workload| Change::RemoveAddress(workload.uid.clone()));
        let services = snapshot.services().map(|service| Change::RemoveAddress(service.key().to_string().into()));
        let policies = snapshot.policies().map(|(name, _)| Change::RemovePolicy(name.clone()));
        let applied = store.apply(uids.chain(services).chain(policies).collect::<Vec<_>>());
        prop_assert!(applied.not_there.is_empty());
        let empty = serde_json::to_value(Snapshot::default().dump()).unwrap();
        prop_assert_eq!(serde_json::to_value(applied.snapshot.dump()).unwrap(), empty);
        prop_assert!(applied.snapshot.has_no_tables());
    }

    #[test]
    fn no_bytes_make_a_change_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        Store::new("").apply([Change::address("a/b", &bytes), Change::authorization("a/b", &bytes)]);
    }
}
