// SPDX-License-Identifier: Apache-2.0
//! Decisions: where a connection goes, where it is delivered, whether it may be; in small meshes and in large ones.

use std::hint::black_box;
use std::net::SocketAddr;

use rand::SeedableRng;
use rand::rngs::StdRng;
use ztunnel::decide::{Inbound, InboundRequest, Inquiry, Query, Requested, Route, authz, inbound, route};

use crate::case::Case;
use crate::mesh::{GUARDED, WIDE, endpoint, mesh, pod, policies};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("route: a service, 4 services and 20 pods", 15_000, 64, || to_services(4)),
        Case::new("route: a service, 1,000 services and 5,000 pods", 16_000, 64, || to_services(1000)),
        Case::new("route: a pod, 20 pods", 13_500, 64, || to_pods(4)),
        Case::new("route: a pod, 5,000 pods", 14_500, 64, || to_pods(1000)),
        Case::new("route: a service behind a waypoint", 18_000, 64, || routed(mesh(4, 0), vec![GUARDED])),
        Case::new("route: a service with 1,000 endpoints and localities", 1_100_000, 64, || {
            routed(mesh(4, 1000), vec![WIDE])
        }),
        Case::new("route: out of the mesh, 5,000 pods", 11_500, 64, || {
            routed(mesh(1000, 0), (0..64).map(|low| [192, 0, 2, low]).collect())
        }),
        Case::new("inbound: a request for the pod's address", 8_850, 64, || delivered(None)),
        Case::new("inbound: a request for a service's name", 8_950, 64, || delivered(Some("s0"))),
        Case::new("authz: no policy", 4_900, 64, || judged(0)),
        Case::new("authz: 4 policies", 8_650, 64, || judged(4)),
        Case::new("authz: 200 policies", 135_000, 64, || judged(200)),
    ]
}

fn to_services(services: u32) -> Box<dyn FnMut()> {
    let of = |number: u32| {
        let [.., high, low] = (number * 31 % services).to_be_bytes();
        [10, 96, high, low]
    };
    routed(mesh(services, 0), (0..64).map(of).collect())
}

fn to_pods(services: u32) -> Box<dyn FnMut()> {
    routed(mesh(services, 0), (0..64).map(|number| endpoint(number * 157 % (services * 5))).collect())
}

/// 64 connections of the client, over these targets in turn.
fn routed(snapshot: ztunnel::mesh::Snapshot, targets: Vec<[u8; 4]>) -> Box<dyn FnMut()> {
    let client = pod("client");
    let mut rng = StdRng::seed_from_u64(1);
    let targets: Vec<SocketAddr> = targets.into_iter().map(|address| (address, 80).into()).collect();
    Box::new(move || {
        for &target in targets.iter().cycle().take(64) {
            let found = route(&snapshot, Query { pod: &client, target }, &mut rng);
            assert!(matches!(found, Route::Hbone(_) | Route::Passthrough { .. }), "{found:?}");
            drop(black_box(found));
        }
    })
}

fn delivered(host: Option<&'static str>) -> Box<dyn FnMut()> {
    let snapshot = mesh(4, 0);
    let server = pod("w0");
    let identity = "spiffe://cluster.local/ns/d/sa/client".parse().unwrap();
    Box::new(move || {
        for port in 1000..1064 {
            let local = SocketAddr::from((endpoint(0), 15008));
            let requested = match host {
                Some(host) => Requested::Name { host, port: 80 },
                None => Requested::Address((endpoint(0), 8080).into()),
            };
            let request = InboundRequest {
                pod: &server,
                source: ([10, 0, 0, 1], port).into(),
                local,
                requested,
                identity: &identity,
                forwarded_host: Some("s0"),
                forwarded_network: None,
                baggage: None,
                loopback_app_tunnel: true,
            };
            let found = inbound(&snapshot, &request);
            assert!(matches!(found, Inbound::Deliver(_)), "{found:?}");
            drop(black_box(found));
        }
    })
}

fn judged(count: u32) -> Box<dyn FnMut()> {
    let snapshot = policies(count);
    let server = pod("server");
    let identity = "spiffe://cluster.local/ns/d/sa/client".parse().unwrap();
    Box::new(move || {
        for port in 1000..1064 {
            let inquiry = Inquiry {
                pod: &server,
                source: ([10, 0, 0, 1], port).into(),
                destination: ([10, 0, 0, 2], 8080).into(),
                identity: Some(&identity),
            };
            let verdict = authz(&snapshot, &inquiry);
            assert!(verdict.is_ok(), "{verdict:?}");
            drop(black_box(verdict));
        }
    })
}
