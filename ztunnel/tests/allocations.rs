// SPDX-License-Identifier: Apache-2.0
//! What a decision may cost: on the paths that carry traffic, no allocation at all.
#![allow(unsafe_code, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use rand::SeedableRng;
use rand::rngs::StdRng;
use ztunnel::decide::{self, Inbound, InboundRequest, Inquiry, Query, Requested, Route};
use ztunnel::mesh::{Change, Kind, PodName, Snapshot, StaticConfig, Store};

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it is; counting touches a plain cell of the thread and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = COUNT.with(Cell::get);
    let result = work();
    (result, COUNT.with(Cell::get) - before)
}

const MESH: &str = "
workloads:
- {uid: c, name: client, namespace: d, serviceAccount: client, workloadIps: [10.0.0.1], protocol: HBONE}
- {uid: s, name: server, namespace: d, serviceAccount: server, workloadIps: [10.0.0.2], protocol: HBONE, services: {d/s: {80: 8080}}, authorizationPolicies: [d/strict]}
- {uid: t, name: t, namespace: d, workloadIps: [10.0.0.3], protocol: HBONE, services: {d/s: {80: 8080}}}
- {uid: w, name: w, namespace: d, workloadIps: [10.0.0.9], services: {d/w: {15008: 15008}}}
services:
- {name: s, namespace: d, hostname: s, vips: [/10.9.0.1], ports: {80: 8080}, loadBalancer: {mode: Failover, routingPreferences: [Region, Zone]}}
- {name: g, namespace: d, hostname: g, vips: [/10.9.0.2], ports: {80: 8080}, waypoint: {destination: d/w}}
- {name: r, namespace: d, hostname: r, vips: [], cidrVips: [{network: '', cidr: 10.8.0.0/16}], ports: {80: 8080}}
- {name: w, namespace: d, hostname: w, vips: [/10.9.0.9], ports: {15008: 15008}}
policies:
- {name: strict, namespace: d, scope: WorkloadSelector, action: Deny, rules: [[[{notPrincipals: [{Presence: []}]}]]]}
- {name: allow, namespace: d, scope: Namespace, action: Allow, rules: [[[{principals: [{Exact: cluster.local/ns/d/sa/client}]}], [{sourceIps: [10.0.0.0/8]}, {destinationPorts: [80]}]]]}
- {name: deny, namespace: root, scope: Global, action: Deny, rules: [[[{namespaces: [{Prefix: x}]}]]]}
";

fn mesh() -> Snapshot {
    let config: StaticConfig = serde_saphyr::from_str(MESH).unwrap();
    let mut changes = config.into_changes().unwrap();
    changes.extend([Change::Received(Kind::Addresses), Change::Received(Kind::Policies)]);
    Snapshot::clone(&Store::new("").apply(changes).snapshot)
}

fn pod(name: &str) -> PodName {
    PodName { name: name.into(), namespace: "d".into(), service_account: name.into() }
}

#[test]
fn a_route_costs_no_allocation() {
    let (snapshot, pod) = (mesh(), pod("client"));
    let mut rng = StdRng::seed_from_u64(1);
    for target in ["10.0.0.2:80", "10.9.0.1:80", "10.9.0.2:80", "1.2.3.4:80"] {
        let query = Query { pod: &pod, target: target.parse().unwrap() };
        let (route, count) = allocations(|| decide::route(&snapshot, query, &mut rng));
        assert!(matches!(route, Route::Hbone(_) | Route::Passthrough { .. }), "{target}: {route:?}");
        assert_eq!(count, 0, "{target}");
    }
}

#[test]
fn a_delivery_and_its_verdict_cost_no_allocation() {
    let (snapshot, pod) = (mesh(), pod("server"));
    let identity = "spiffe://cluster.local/ns/d/sa/client".parse().unwrap();
    let request = InboundRequest {
        pod: &pod,
        source: "10.0.0.1:1000".parse().unwrap(),
        local: "10.0.0.2:15008".parse().unwrap(),
        requested: Requested::Address("10.0.0.2:8080".parse().unwrap()),
        identity: &identity,
        forwarded_host: Some("s"),
        forwarded_network: None,
        baggage: None,
        loopback_app_tunnel: true,
    };
    let (inbound, count) = allocations(|| decide::inbound(&snapshot, &request));
    let Inbound::Deliver(delivery) = inbound else { panic!("{inbound:?}") };
    assert_eq!(count, 0);
    let inquiry = Inquiry { pod: &pod, source: request.source, destination: delivery.app, identity: Some(&identity) };
    let (verdict, count) = allocations(|| decide::authz(&snapshot, &inquiry));
    assert_eq!(verdict.unwrap().by().unwrap(), "d/allow");
    assert_eq!(count, 0);
}
