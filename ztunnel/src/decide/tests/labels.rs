// SPDX-License-Identifier: Apache-2.0
//! What the account is told.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::{Described, Party, Route, Traffic};
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
