// SPDX-License-Identifier: Apache-2.0
//! What the account is told.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::{Described, Party, Route, ServiceRef, Traffic};
use super::routed;
use crate::mesh::sample::mesh;

const MESH: &str = "
workloads:
- {uid: a, name: client-1, namespace: d, serviceAccount: sa, workloadName: client, canonicalName: cl, canonicalRevision: v1, clusterId: c1, locality: {region: r, zone: z}, workloadIps: [], protocol: HBONE}
- {uid: b, name: client-2, namespace: d, serviceAccount: sa, workloadName: client, canonicalName: cl, canonicalRevision: v1, clusterId: c1, locality: {region: r, zone: z, subzone: other}, workloadIps: [], protocol: HBONE}
- {uid: c, name: server-1, namespace: d, workloadName: server, workloadIps: [10.0.0.1], protocol: HBONE}
";

fn traffic(from: &str) -> Traffic {
    let Route::Hbone(hbone) = routed(&mesh(MESH), from, "10.0.0.1:80") else { panic!() };
    hbone.traffic
}

#[test]
fn pods_of_one_controller_share_their_labels() {
    let (one, other) = (traffic("client-1"), traffic("client-2"));
    assert_eq!(one, other);
    assert_eq!(HashSet::from([one.clone(), other.clone()]).len(), 1);
    assert_ne!(one.source.log_name(), other.source.log_name());
}

#[test]
fn labels_come_from_the_record() {
    let source = traffic("client-1").source;
    assert_eq!(
        [
            source.workload_name(),
            source.canonical_name(),
            source.app(),
            source.canonical_revision(),
            source.namespace()
        ],
        ["client", "cl", "cl", "v1", "d"]
    );
    assert_eq!([source.cluster(), source.region(), source.zone(), source.log_name()], ["c1", "r", "z", "client-1"]);
    assert_eq!(source.workload().unwrap().uid, "a");
}

#[test]
fn baggage_gives_the_controllers_name_as_app() {
    let party = Party::Described(Arc::new(Described {
        workload_name: "w".into(),
        canonical_name: "cn".into(),
        namespace: "ns".into(),
        ..Described::default()
    }));
    assert_eq!([party.app(), party.canonical_name(), party.namespace(), party.log_name()], ["w", "cn", "ns", "cn"]);
    assert!(party.workload().is_none() && party.is_known());
    assert_ne!(Party::Unknown, Party::Described(Arc::default()), "known to be nobody is not the same");
}

/// One workload after the other differs from the first in one label, which the last column names.
#[test]
fn parties_that_differ_in_one_label_are_told_apart() {
    let rest = "namespace: d, workloadName: w, canonicalName: c, canonicalRevision: v, clusterId: k, locality: {region: r, zone: z}";
    let lines = [
        ("name", rest.to_owned()),
        ("workload", rest.replace("workloadName: w", "workloadName: x")),
        ("canonical name", rest.replace("canonicalName: c", "canonicalName: x")),
        ("revision", rest.replace("canonicalRevision: v", "canonicalRevision: x")),
        ("namespace", rest.replace("namespace: d", "namespace: x")),
        ("cluster", rest.replace("clusterId: k", "clusterId: x")),
        ("region", rest.replace("region: r", "region: x")),
        ("zone", rest.replace("zone: z", "zone: x")),
    ];
    let yaml: Vec<_> = lines
        .iter()
        .enumerate()
        .map(|(at, (_, line))| format!("- {{uid: w{at}, name: w{at}, workloadIps: [], {line}}}"))
        .collect();
    let snapshot =
        mesh(&format!("workloads:\n- {{uid: first, name: first, workloadIps: [], {rest}}}\n{}", yaml.join("\n")));
    let party = |uid: &str| Party::from(snapshot.workload(uid));
    assert_eq!(party("first"), party("w0"), "the name of a pod is no label");
    for (at, (label, _)) in lines.iter().enumerate().skip(1) {
        assert_ne!(party("first"), party(&format!("w{at}")), "{label}");
    }
}

#[test]
fn services_of_one_name_are_one_label_and_others_are_not() {
    let line = |name: &str, hostname: &str| {
        format!("{{name: {name}, namespace: d, hostname: {hostname}, vips: [], ports: {{}}}}")
    };
    let of = |name: &str, hostname: &str| {
        let snapshot = mesh(&format!("services: [{}]", line(name, hostname)));
        ServiceRef(Arc::clone(snapshot.services().next().unwrap()))
    };
    assert_eq!(of("a", "a.d"), of("a", "a.d"), "a newer record of the same service");
    assert_ne!(of("a", "a.d"), of("a", "b.d"));
    assert_ne!(of("a", "a.d"), of("b", "a.d"));
}

#[test]
fn the_log_calls_a_workload_without_name_by_its_canonical_one() {
    let snapshot = mesh("workloads: [{uid: a, name: '', namespace: d, canonicalName: cl, workloadIps: []}]");
    assert_eq!(Party::from(snapshot.workload("a")).log_name(), "cl");
}
