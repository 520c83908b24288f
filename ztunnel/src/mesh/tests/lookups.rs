// SPDX-License-Identifier: Apache-2.0
//! Which record speaks for an address, name or pod.

use std::net::IpAddr;

use crate::mesh::sample::{changes, mesh};
use crate::mesh::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service<'a>(snapshot: &'a Snapshot, network: &str, address: &str, client: Option<&str>) -> Option<&'a str> {
    snapshot.service_at(network, ip(address), client).map(|service| service.key().as_str())
}

#[test]
fn of_workloads_with_one_address_the_hbone_pod_speaks_for_it() {
    let lines = |order: [usize; 4]| {
        let lines = [
            "- {uid: entry-tcp, namespace: d, workloadIps: [10.0.0.1]}",
            "- {uid: entry-hbone, namespace: d, workloadIps: [10.0.0.1], protocol: HBONE}",
            "- {uid: c//Pod/d/tcp, namespace: d, workloadIps: [10.0.0.1]}",
            "- {uid: c//Pod/d/hbone, namespace: d, workloadIps: [10.0.0.1], protocol: HBONE}",
        ];
        format!("workloads:\n{}", order.map(|at| lines[at]).join("\n"))
    };
    let mut store = Store::new("");
    store.apply(changes(&lines([2, 0, 3, 1])));
    for uid in ["c//Pod/d/hbone", "c//Pod/d/tcp", "entry-hbone", "entry-tcp"] {
        assert_eq!(store.snapshot().workload_at("", ip("10.0.0.1")).unwrap().uid, uid);
        store.apply([Change::RemoveAddress(uid.into())]);
    }
    assert!(store.snapshot().workload_at("", ip("10.0.0.1")).is_none());
}

#[test]
fn an_address_belongs_to_its_network_alone() {
    let snapshot = mesh("workloads: [{uid: a, namespace: d, network: n1, workloadIps: [10.0.0.1]}]");
    assert!(snapshot.workload_at("n1", ip("10.0.0.1")).is_some());
    assert!(snapshot.workload_at("", ip("10.0.0.1")).is_none());
}

#[test]
fn a_workload_on_the_hosts_network_is_not_found_by_address() {
    let yaml = "workloads: [{uid: a, namespace: d, networkMode: HostNetwork, workloadIps: [10.0.0.1]}]";
    assert!(mesh(yaml).workload_at("", ip("10.0.0.1")).is_none());
}

#[test]
fn a_pod_finds_its_own_record_by_name_namespace_and_account_on_its_node() {
    let yaml = "
workloads:
- {uid: here, name: a, namespace: d, serviceAccount: sa, node: n1, workloadIps: []}
- {uid: there, name: b, namespace: d, serviceAccount: sa, node: n2, workloadIps: []}
";
    let mut store = Store::new("n1");
    let applied = store.apply(changes(yaml));
    assert!(applied.changed.local);
    let name = |name: &str, account: &str| PodName {
        name: name.into(),
        namespace: "d".into(),
        service_account: account.into(),
    };
    assert_eq!(applied.snapshot.own(&name("a", "sa")).unwrap().uid, "here");
    assert!(applied.snapshot.own(&name("a", "other")).is_none());
    assert!(applied.snapshot.own(&name("b", "sa")).is_none());
    assert_eq!(applied.snapshot.local_workloads().count(), 1);
    let gone = store.apply([Change::RemoveAddress("there".into())]);
    assert!(gone.changed.workloads && !gone.changed.local);
}

#[test]
fn services_may_share_an_address_and_each_namespace_sees_its_own() {
    let snapshot = mesh(
        "
services:
- {name: s, namespace: a, hostname: one.example, vips: [/240.0.0.1], ports: {80: 80}}
- {name: s, namespace: b, hostname: one.example, vips: [/240.0.0.1], ports: {80: 80}, canonical: true}
- {name: s, namespace: c, hostname: one.example, vips: [/240.0.0.1], ports: {80: 80}}
",
    );
    let at = |client| service(&snapshot, "", "240.0.0.1", client);
    assert_eq!(at(Some("a")), Some("a/one.example"));
    assert_eq!(at(Some("c")), Some("c/one.example"));
    assert_eq!(at(Some("elsewhere")), Some("b/one.example"), "the canonical one");
    assert_eq!(at(None), Some("b/one.example"));
    let named = |client| snapshot.service_named("one.example", client).unwrap().key().as_str();
    assert_eq!(named(Some("c")), "c/one.example");
    assert_eq!(named(Some("elsewhere")), "b/one.example");
}

#[test]
fn a_service_for_its_namespace_is_hidden_from_others() {
    let snapshot = mesh("
services:
- {name: s, namespace: a, hostname: h.example, vips: [/240.0.0.1], ports: {}, visibility: Namespace}
- {name: r, namespace: a, hostname: r.example, vips: [], cidrVips: [{network: '', cidr: 10.1.0.0/16}], ports: {}, visibility: Namespace}
- {name: w, namespace: b, hostname: w.example, vips: [], cidrVips: [{network: '', cidr: 0.0.0.0/0}], ports: {}}
");
    assert_eq!(service(&snapshot, "", "240.0.0.1", Some("a")), Some("a/h.example"));
    assert_eq!(service(&snapshot, "", "240.0.0.1", None), Some("a/h.example"), "on nobody's behalf");
    assert_eq!(service(&snapshot, "", "240.0.0.1", Some("c")), Some("b/w.example"), "falls through to a range");
    assert_eq!(service(&snapshot, "", "10.1.2.3", Some("a")), Some("a/r.example"));
    assert_eq!(service(&snapshot, "", "10.1.2.3", Some("c")), Some("b/w.example"), "falls through to a wider range");
    assert!(snapshot.service_named("h.example", Some("c")).is_none());
}

#[test]
fn of_ranges_the_narrowest_wins_and_the_clients_namespace_before_it() {
    let snapshot = mesh("
services:
- {name: a, namespace: a, hostname: wide, vips: [], cidrVips: [{network: '', cidr: 10.0.0.0/8}, {network: '', cidr: 'fd00::/8'}], ports: {}}
- {name: b, namespace: b, hostname: narrow, vips: [], cidrVips: [{network: '', cidr: 10.1.0.0/16}, {network: '', cidr: 'fd00:1::/32'}], ports: {}}
- {name: c, namespace: c, hostname: exact, vips: [/10.1.2.3], ports: {}}
- {name: d, namespace: d, hostname: other-net, vips: [], cidrVips: [{network: other, cidr: 10.1.2.0/24}], ports: {}}
");
    assert_eq!(service(&snapshot, "", "10.1.0.1", Some("x")), Some("b/narrow"));
    assert_eq!(service(&snapshot, "", "10.2.0.1", Some("x")), Some("a/wide"));
    assert_eq!(service(&snapshot, "", "10.1.0.1", Some("a")), Some("a/wide"), "namespace beats length");
    assert_eq!(service(&snapshot, "", "10.1.0.1", None), Some("b/narrow"));
    assert_eq!(service(&snapshot, "", "10.1.2.3", Some("a")), Some("c/exact"), "exact beats all");
    assert_eq!(service(&snapshot, "", "fd00:1::5", Some("x")), Some("b/narrow"));
    assert_eq!(service(&snapshot, "", "fd01::5", Some("x")), Some("a/wide"));
    assert_eq!(service(&snapshot, "other", "10.1.2.9", Some("x")), Some("d/other-net"));
    assert_eq!(service(&snapshot, "other", "10.2.0.1", Some("x")), None);
}

#[test]
fn a_range_is_forgotten_with_its_service_and_sees_new_endpoints() {
    let service_line = "services: [{name: s, namespace: d, hostname: s, vips: [], cidrVips: [{network: '', cidr: 10.1.0.0/16}], ports: {80: 80}}]";
    let mut store = Store::new("");
    store.apply(changes(service_line));
    for uid in ["a", "b"] {
        store.apply(changes(&format!(
            "workloads: [{{uid: {uid}, namespace: d, workloadIps: [], services: {{d/s: {{80: 80}}}}}}]"
        )));
    }
    let found = store.snapshot().service_at("", ip("10.1.9.9"), None).unwrap();
    assert_eq!(store.snapshot().endpoints(found.key()).len(), 2);
    store.apply([Change::RemoveAddress("d/s".into())]);
    assert!(store.snapshot().service_at("", ip("10.1.9.9"), None).is_none());
}

#[test]
fn endpoints_wait_for_their_service_and_outlive_it() {
    let mut store = Store::new("");
    store.apply(changes("workloads: [{uid: a, namespace: d, workloadIps: [], services: {d/s: {80: 8080}}}]"));
    assert_eq!(store.snapshot().staged().count(), 1);
    let line = "services: [{name: s, namespace: d, hostname: s, vips: [], ports: {80: 80}}]";
    store.apply(changes(line));
    let key: ServiceKey = "d/s".parse().unwrap();
    assert_eq!(store.snapshot().staged().count(), 0);
    assert_eq!(store.snapshot().endpoints(&key)[0].ports.target(80), Some(8080));
    store.apply([Change::RemoveAddress("d/s".into())]);
    store.apply(changes(line));
    assert_eq!(store.snapshot().endpoints(&key).len(), 1);
    store.apply([Change::RemoveAddress("a".into())]);
    assert_eq!(store.snapshot().endpoints(&key).len(), 0);
}

#[test]
fn an_endpoint_that_gets_well_is_back_whatever_the_policy_was() {
    let mut store = Store::new("");
    let workload = |status| {
        format!(
            "workloads: [{{uid: a, namespace: d, workloadIps: [], status: {status}, services: {{d/s: {{80: 80}}}}}}]"
        )
    };
    let key: ServiceKey = "d/s".parse().unwrap();
    store.apply(changes(&workload("Unhealthy")));
    assert_eq!(
        store.snapshot().endpoints(&key)[0].workload.status,
        Health::Unhealthy,
        "kept, and left out when choosing"
    );
    store.apply(changes(&workload("Healthy")));
    assert_eq!(store.snapshot().endpoints(&key)[0].workload.status, Health::Healthy);
}

#[test]
fn a_workload_that_leaves_a_service_is_no_endpoint_any_more() {
    let mut store = Store::new("");
    store.apply(changes(
        "workloads: [{uid: a, namespace: d, workloadIps: [], services: {d/s: {80: 80}, d/t: {80: 80}}}]",
    ));
    store.apply(changes("workloads: [{uid: a, namespace: d, workloadIps: [], services: {d/t: {81: 81}}}]"));
    assert!(store.snapshot().endpoints(&"d/s".parse().unwrap()).is_empty());
    assert_eq!(store.snapshot().endpoints(&"d/t".parse().unwrap())[0].ports.target(81), Some(81));
}

#[test]
fn removing_tries_the_uid_then_the_service_and_tells_what_was_not_there() {
    let mut store = Store::new("");
    store.apply(changes(
        "
workloads: [{uid: d/s, namespace: d, workloadIps: []}]
services: [{name: s, namespace: d, hostname: s, vips: [], ports: {}}]
",
    ));
    store.apply([Change::RemoveAddress("d/s".into())]);
    assert!(store.snapshot().workload("d/s").is_none() && store.snapshot().service("d/s").is_some());
    store.apply([Change::RemoveAddress("d/s".into())]);
    assert!(store.snapshot().service("d/s").is_none());
    let applied = store.apply([
        Change::RemoveAddress("d/s".into()),
        Change::RemovePolicy("d/p".into()),
        Change::RemoveAddress("a/b/c".into()),
    ]);
    assert_eq!(applied.not_there, ["d/s", "d/p", "a/b/c"]);
    assert!(!applied.changed.anything());
}

#[test]
fn what_changes_nothing_makes_no_new_snapshot() {
    let yaml = "workloads: [{uid: a, namespace: d, workloadIps: []}]\nservices: [{name: s, namespace: d, hostname: s, vips: [], ports: {}}]\npolicies: [{name: p, namespace: d, scope: Global, action: Deny}]";
    let mut store = Store::new("");
    let first = store.apply(changes(yaml)).snapshot;
    let second = store.apply(changes(yaml));
    assert_eq!(second.changed, Changed::default());
    assert!(std::sync::Arc::ptr_eq(&first, &second.snapshot));
    assert_eq!(first.generation(), 1);
}

#[test]
fn an_older_snapshot_stays_as_it_was() {
    let mut store = Store::new("");
    let old = store.apply(changes("workloads: [{uid: a, namespace: d, workloadIps: [10.0.0.1]}]")).snapshot;
    store.apply([Change::RemoveAddress("a".into())]);
    assert!(old.workload_at("", ip("10.0.0.1")).is_some());
    assert!(store.snapshot().workload_at("", ip("10.0.0.1")).is_none());
}

#[test]
fn a_policy_that_changes_its_scope_moves() {
    let mut store = Store::new("");
    let policy = |scope| format!("policies: [{{name: p, namespace: d, scope: {scope}, action: Deny}}]");
    let applies = |store: &Store, namespace: &str| store.snapshot().policies_without_listing(namespace).count();
    store.apply(changes(&policy("Global")));
    assert_eq!((applies(&store, "d"), applies(&store, "e")), (1, 1));
    store.apply(changes(&policy("Namespace")));
    assert_eq!((applies(&store, "d"), applies(&store, "e")), (1, 0));
    store.apply(changes(&policy("WorkloadSelector")));
    assert_eq!((applies(&store, "d"), applies(&store, "e")), (0, 0));
    assert!(store.snapshot().policy("d/p").is_some());
}
