// SPDX-License-Identifier: Apache-2.0
//! Whatever the mesh looks like: nothing that is in it is ever sent plaintext, and no waypoint is gone round.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::super::{Hbone, Query, Route, Via, route};
use crate::mesh::sample::{address_of, changes};
use crate::mesh::{Change, Kind, Mode, NetworkMode, Protocol, Snapshot, Store};

/// One workload: which address, HBONE or not, on the host's network or not, healthy or not, of which services, behind
/// which waypoint.
fn workload() -> impl Strategy<Value = String> {
    let services = proptest::sample::subsequence(vec!["d/a", "d/b", "d/wp"], 0..=3);
    (0..6u8, any::<[bool; 4]>(), services, waypoint()).prop_map(
        |(last, [hbone, host, sick, remote], services, waypoint)| {
            let services: Vec<_> = services.iter().map(|key| format!("{key}: {{80: 8080, 15008: 15008}}")).collect();
            format!(
                "namespace: d, serviceAccount: sa{last}, workloadIps: [10.0.0.{last}], protocol: {}, networkMode: {}, \
             status: {}, network: '{}', services: {{{}}}{waypoint}",
                if hbone { "HBONE" } else { "TCP" },
                if host { "HostNetwork" } else { "Standard" },
                if sick { "Unhealthy" } else { "Healthy" },
                if remote { "n2" } else { "" },
                services.join(", ")
            )
        },
    )
}

fn waypoint() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        3 => Just(""),
        1 => Just(", waypoint: {destination: d/wp}"),
        1 => Just(", waypoint: {destination: /10.0.0.3}"),
        1 => Just(", waypoint: {destination: d/nowhere}"),
    ]
}

fn service(name: &'static str) -> impl Strategy<Value = String> {
    let vips = proptest::sample::subsequence(vec!["/10.9.0.1", "/10.9.0.2", "/10.0.0.1", "/10.0.0.2"], 0..=3);
    (vips, waypoint(), 0..4usize, any::<bool>()).prop_map(move |(vips, waypoint, mode, range)| {
        let mode = ["Standard", "Strict", "Failover", "Passthrough"][mode];
        let range = if range { ", cidrVips: [{network: '', cidr: 10.9.0.0/24}]" } else { "" };
        format!(
            "- {{name: {name}, namespace: d, hostname: {name}, vips: [{}], ports: {{80: 8080, 15008: 15008}}, \
             loadBalancer: {{mode: {mode}, routingPreferences: [Node]}}{range}{waypoint}}}",
            vips.join(", ")
        )
    })
}

fn mesh() -> impl Strategy<Value = Snapshot> {
    let refused = proptest::option::weighted(0.3, 0..6u8);
    (proptest::collection::vec(workload(), 0..8), service("a"), service("b"), service("wp"), refused).prop_map(
        |(workloads, a, b, wp, refused)| {
            let lines: Vec<_> = workloads
                .iter()
                .enumerate()
                .map(|(at, line)| format!("- {{uid: w{at}, name: w{at}, {line}}}"))
                .collect();
            let client = "- {uid: client, name: client, namespace: d, workloadIps: [10.0.9.9], protocol: HBONE}";
            let yaml = format!("workloads:\n{client}\n{}\nservices:\n{a}\n{b}\n{wp}\n", lines.join("\n"));
            let mut store = Store::new("");
            store.apply(changes(&yaml));
            let odd = refused.map(|last| {
                let message = mesh_proto::workload::Workload {
                    uid: "odd".into(),
                    namespace: "d".into(),
                    addresses: vec![vec![10, 0, 0, last]],
                    tunnel_protocol: 2,
                    ..Default::default()
                };
                Change::address("odd", &address_of(message))
            });
            Snapshot::clone(&store.apply(odd.into_iter().chain([Change::Received(Kind::Addresses)])).snapshot)
        },
    )
}

/// The addresses at which something of the mesh answers on the client's network.
fn secured(snapshot: &Snapshot) -> BTreeSet<std::net::IpAddr> {
    let pods = snapshot.workloads().filter(|workload| {
        workload.protocol == Protocol::Hbone
            && workload.network_mode == NetworkMode::Standard
            && workload.network.is_empty()
    });
    pods.flat_map(|workload| workload.addresses.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_of_the_mesh_is_sent_plaintext(snapshot in mesh(), last in 0..6u8, virtual_address: bool, seed: u64) {
        let ip = if virtual_address { [10, 9, 0, last % 4] } else { [10, 0, 0, last] };
        let target = SocketAddr::from((ip, 80));
        let client = snapshot.workload("client").unwrap().pod_name();
        let found = route(&snapshot, Query { pod: &client, target }, &mut StdRng::seed_from_u64(seed));
        let service = snapshot.service_at("", target.ip(), Some("d"));
        match &found {
            Route::Passthrough { hop, .. } | Route::Direct { hop, .. } => {
                prop_assert!(!secured(&snapshot).contains(&hop.ip()), "{found:?}");
                prop_assert!(snapshot.refused_at("", hop.ip()).is_none(), "{found:?}");
                let guarded = service.is_some_and(|service| service.waypoint.is_some());
                prop_assert!(!guarded, "round the waypoint: {found:?}");
                if let (Route::Passthrough { .. }, Some(service)) = (&found, service) {
                    prop_assert_eq!(service.mode(), Mode::Passthrough, "a service is not passed through");
                }
            }
            Route::Hbone(Hbone { hop, authority, expected, via, traffic, .. }) => {
                let workload = traffic.destination.workload().unwrap();
                prop_assert!(workload.addresses.contains(&hop.ip()) && workload.network.is_empty());
                prop_assert_eq!(expected.iter().next(), workload.identity.as_ref());
                prop_assert_eq!(hop.port(), 15008);
                let guarded = match service {
                    Some(service) => service.waypoint.is_some(),
                    None => snapshot.workload_at("", target.ip()).unwrap().waypoint.is_some(),
                };
                prop_assert_eq!(via == &Via::Waypoint, guarded);
                if guarded {
                    prop_assert_eq!(*authority, target);
                }
            }
            Route::Reject { .. } => {}
            Route::Need(lookup) => prop_assert!(false, "nothing is missing: {:?}", lookup),
        }
    }
}
