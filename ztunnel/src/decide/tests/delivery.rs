// SPDX-License-Identifier: Apache-2.0
//! Inbound deliveries.

use std::net::SocketAddr;

use mesh_proto::spiffe::Identity;

use super::super::{
    Baggage, Delivery, DialFrom, Inbound, InboundError, InboundRequest, Lookup, Requested, Security, inbound,
    inbound_plaintext,
};
use crate::mesh::sample::{mesh, pod};
use crate::mesh::{PodName, Snapshot};

const MESH: &str = "
workloads:
- {uid: c//Pod/d/client, name: client, namespace: d, serviceAccount: client, workloadName: client, workloadIps: [10.0.1.1], protocol: HBONE}
- {uid: c//Pod/d/server, name: server, namespace: d, serviceAccount: server, workloadIps: [10.0.2.2, 'fd00::2:2'], protocol: HBONE, services: {d/web.d: {80: 8080}, d/mapped.d: {80: 9090}}}
- {uid: c//Pod/d/guarded, name: guarded, namespace: d, workloadIps: [10.0.2.4], protocol: HBONE, waypoint: {destination: d/wp.d}}
- {uid: c//Pod/d/guarded-by-ip, name: guarded-by-ip, namespace: d, workloadIps: [10.0.2.5], protocol: HBONE, waypoint: {destination: /10.0.2.9}}
- {uid: c//Pod/d/wp, name: wp, namespace: d, serviceAccount: wp, workloadIps: [10.0.2.9], protocol: HBONE, services: {d/wp.d: {15008: 15008}}}
- {uid: c//Pod/d/tunnelled, name: tunnelled, namespace: d, workloadIps: [10.0.2.10, 'fd00::2:10'], protocol: HBONE, applicationTunnel: {protocol: PROXY, port: 15088}, services: {d/tunnelled.d: {80: 80}}}
- {uid: c//Pod/d/moved, name: moved, namespace: d, workloadIps: [10.0.2.11], protocol: HBONE, applicationTunnel: {protocol: NONE, port: 9999}}
- {uid: c//Pod/d/named, name: named, namespace: d, hostname: named.d, workloadIps: [10.0.2.12], protocol: HBONE}
services:
- {name: web, namespace: d, hostname: web.d, vips: [/10.9.0.1], ports: {80: 8080, 81: 8181, 82: 0}}
- {name: web, namespace: e, hostname: web.d, vips: [/10.9.0.8], ports: {80: 1111}, canonical: true}
- {name: mapped, namespace: d, hostname: mapped.d, vips: [/10.9.0.2], ports: {80: 8080}}
- {name: guarded, namespace: d, hostname: guarded.d, vips: [/10.9.0.5], ports: {80: 80}, waypoint: {destination: d/wp.d}}
- {name: by-vip, namespace: d, hostname: by-vip.d, vips: [/10.9.0.6], ports: {80: 80}, waypoint: {destination: /10.9.0.9}}
- {name: canary, namespace: d, hostname: canary.d, vips: [/10.9.0.7], ports: {80: 80}, weightedWaypoints: [{destination: {destination: d/wp.d}, weight: 1}]}
- {name: elsewhere, namespace: d, hostname: elsewhere.d, vips: [/10.9.0.11], ports: {80: 80}, waypoint: {destination: /10.0.2.2}}
- {name: wp, namespace: d, hostname: wp.d, vips: [/10.9.0.9], ports: {15008: 15008}}
- {name: tunnelled, namespace: d, hostname: tunnelled.d, vips: ['/fd00:9::1', other/10.9.0.13, /10.9.0.12], ports: {80: 80}}
- {name: headless, namespace: d, hostname: headless.d, vips: [], ports: {80: 80}}
";

fn identity() -> Identity {
    "spiffe://cluster.local/ns/d/sa/client".parse().unwrap()
}

/// What becomes of a request of the client that arrived at a pod's first address.
fn decide(
    snapshot: &Snapshot,
    at: &str,
    requested: Requested<'_>,
    change: impl FnOnce(&mut InboundRequest<'_>),
) -> Inbound {
    let pod = pod(snapshot, at);
    let local = snapshot.own(&pod).unwrap().addresses[0];
    let identity = identity();
    let mut request = InboundRequest {
        pod: &pod,
        source: "10.0.1.1:33333".parse().unwrap(),
        local: SocketAddr::new(local, 15008),
        requested,
        identity: &identity,
        forwarded_host: None,
        forwarded_network: None,
        baggage: None,
        loopback_app_tunnel: true,
    };
    change(&mut request);
    inbound(snapshot, &request)
}

fn address(text: &str) -> Requested<'static> {
    Requested::Address(text.parse().unwrap())
}

fn delivery(at: &str, requested: Requested<'_>) -> Delivery {
    match decide(&mesh(MESH), at, requested, |_| {}) {
        Inbound::Deliver(delivery) => delivery,
        other => panic!("{requested:?} at {at} is not delivered: {other:?}"),
    }
}

fn refusal(at: &str, requested: Requested<'_>) -> InboundError {
    match decide(&mesh(MESH), at, requested, |_| {}) {
        Inbound::Reject { error, .. } => error,
        other => panic!("{requested:?} at {at} is not rejected: {other:?}"),
    }
}

#[test]
fn a_request_for_the_pod_is_delivered_at_the_port_it_names_as_from_the_client() {
    let delivery = delivery("server", address("10.0.2.2:8080"));
    assert_eq!(delivery.app.to_string(), "10.0.2.2:8080");
    assert_eq!(delivery.dial, delivery.app);
    assert_eq!(delivery.from, DialFrom::Client("10.0.1.1".parse().unwrap()));
    assert_eq!(delivery.header, None);
    assert_eq!(delivery.workload.name, "server");
}

#[test]
fn a_request_for_another_address_is_a_mismatch() {
    for requested in ["10.0.1.1:80", "10.9.0.1:80", "1.2.3.4:80", "10.9.0.11:80"] {
        let error = refusal("wp", address(requested));
        assert!(matches!(error, InboundError::Mismatch { .. }), "{requested}: {error}");
        assert_eq!(error.status(), 400);
    }
    assert!(matches!(refusal("server", address("10.0.2.4:80")), InboundError::Mismatch { .. }), "not its waypoint");
    let text = refusal("server", address("10.0.2.9:80")).to_string();
    assert!(text.starts_with("ip mismatch: 10.0.2.2 != 10.0.2.9"), "{text}");
}

#[test]
fn a_waypoint_takes_requests_for_what_it_guards() {
    for requested in ["10.0.2.4:80", "10.0.2.5:80", "10.9.0.5:80", "10.9.0.6:80", "10.9.0.7:80"] {
        let delivery = delivery("wp", address(requested));
        assert_eq!(delivery.app.to_string(), "10.0.2.9:80", "{requested} is delivered at the waypoint's own address");
    }
}

#[test]
fn a_host_name_leads_to_the_service_of_the_own_namespace() {
    let named = |host, port| Requested::Name { host, port };
    assert_eq!(delivery("server", named("web.d", 80)).app.to_string(), "10.0.2.2:8080");
    assert_eq!(delivery("server", named("mapped.d", 80)).app.port(), 9090, "the pod's mapping comes first");
    assert_eq!(delivery("server", named("web.d", 81)).app.port(), 8181, "then the service's");
    assert_eq!(delivery("server", named("web.d", 80)).traffic.service.unwrap().namespace, "d");
    for (host, port) in [("web.d", 82), ("web.d", 99)] {
        let error = refusal("server", named(host, port));
        assert!(matches!(error, InboundError::UnknownPort { .. }), "{error}");
        assert_eq!(error.status(), 503);
    }
    let error = refusal("server", named("nobody.d", 80));
    assert_eq!((error.to_string().as_str(), error.status()), ("no service or workload for hostname nobody.d", 503));
}

#[test]
fn a_host_name_may_be_that_of_a_workload() {
    assert_eq!(delivery("named", Requested::Name { host: "named.d", port: 80 }).app.to_string(), "10.0.2.12:80");
}

#[test]
fn an_application_tunnel_moves_the_port_and_takes_any_address() {
    assert_eq!(delivery("moved", address("1.2.3.4:80")).app.to_string(), "10.0.2.11:9999");
    let delivery = delivery("moved", address("10.0.2.11:80"));
    assert_eq!((delivery.header, delivery.from), (None, DialFrom::Client("10.0.1.1".parse().unwrap())));
}

#[test]
fn an_application_that_takes_the_proxy_protocol_is_told_client_and_target() {
    let delivery = delivery("tunnelled", address("10.9.0.5:80"));
    let header = delivery.header.unwrap();
    assert_eq!(
        (header.source.to_string(), header.destination.to_string()),
        ("10.0.1.1:33333".into(), "10.9.0.5:80".into())
    );
    assert_eq!(header.identity, identity());
    assert_eq!(delivery.app.to_string(), "10.0.2.10:15088", "policies see the pod's address");
    assert_eq!(delivery.dial.to_string(), "127.0.0.1:15088");
    assert_eq!(delivery.from, DialFrom::Loopback("127.0.0.1".parse().unwrap()));
}

#[test]
fn the_loopback_is_that_of_the_pods_family_and_can_be_switched_off() {
    let snapshot = mesh(MESH);
    let target = address("10.9.0.5:80");
    let Inbound::Deliver(v6) = decide(&snapshot, "tunnelled", target, |request| {
        request.local = "[fd00::2:10]:15008".parse().unwrap();
    }) else {
        panic!()
    };
    assert_eq!(v6.dial.to_string(), "[::1]:15088");
    let Inbound::Deliver(off) = decide(&snapshot, "tunnelled", target, |request| request.loopback_app_tunnel = false)
    else {
        panic!()
    };
    assert_eq!((off.dial, off.from), (off.app, DialFrom::Client("10.0.1.1".parse().unwrap())));
}

#[test]
fn the_proxy_protocol_names_the_virtual_address_of_a_service_asked_for_by_name() {
    let delivery = delivery("tunnelled", Requested::Name { host: "tunnelled.d", port: 80 });
    assert_eq!(delivery.header.unwrap().destination.to_string(), "10.9.0.12:80", "own network first, then IPv4");
    let error = refusal("tunnelled", Requested::Name { host: "headless.d", port: 80 });
    assert!(matches!(error, InboundError::NoAddress(_)));
    assert_eq!(error.status(), 503);
}

#[test]
fn a_request_for_one_of_our_own_ports_is_a_loop() {
    for port in [15001, 15006, 15008] {
        assert_eq!(refusal("server", address(&format!("10.0.2.2:{port}"))), InboundError::SelfCall);
    }
    assert_eq!(InboundError::SelfCall.status(), 503);
}

#[test]
fn a_pod_that_calls_itself_is_not_imitated() {
    let snapshot = mesh(MESH);
    let Inbound::Deliver(delivery) = decide(&snapshot, "server", address("10.0.2.2:8080"), |request| {
        request.source = "10.0.2.2:4444".parse().unwrap();
    }) else {
        panic!()
    };
    assert_eq!(delivery.from, DialFrom::Own);
    let Inbound::Deliver(delivery) = decide(&snapshot, "server", address("10.0.2.2:8080"), |request| {
        request.source = "[fd00::1:1]:4444".parse().unwrap();
    }) else {
        panic!()
    };
    assert_eq!(delivery.from, DialFrom::Own, "nor a client of another family");
}

#[test]
fn the_addresses_of_a_dual_stack_socket_are_read_as_they_are_meant() {
    let snapshot = mesh(MESH);
    let Inbound::Deliver(delivery) = decide(&snapshot, "server", address("10.0.2.2:8080"), |request| {
        request.source = "[::ffff:10.0.1.1]:4444".parse().unwrap();
        request.local = "[::ffff:10.0.2.2]:15008".parse().unwrap();
    }) else {
        panic!()
    };
    assert_eq!(delivery.from, DialFrom::Client("10.0.1.1".parse().unwrap()));
    assert_eq!(delivery.traffic.source.log_name(), "client");
}

#[test]
fn a_pod_whose_record_is_not_there_waits_for_it() {
    let snapshot = mesh(MESH);
    let pod = PodName { name: "x".into(), namespace: "d".into(), service_account: "x".into() };
    let need = Inbound::Need(Lookup::OwnWorkload(pod.clone()));
    assert_eq!(decide_for(&snapshot, &pod), need);
    let plain = inbound_plaintext(&snapshot, &pod, "1.1.1.1:1".parse().unwrap(), "2.2.2.2:2".parse().unwrap());
    assert_eq!(plain, need);
}

fn decide_for(snapshot: &Snapshot, other: &PodName) -> Inbound {
    let identity = identity();
    inbound(
        snapshot,
        &InboundRequest {
            pod: other,
            source: "10.0.1.1:1".parse().unwrap(),
            local: "10.0.2.2:15008".parse().unwrap(),
            requested: address("10.0.2.2:80"),
            identity: &identity,
            forwarded_host: None,
            forwarded_network: None,
            baggage: None,
            loopback_app_tunnel: false,
        },
    )
}

#[test]
fn the_source_is_who_has_the_address_and_the_identity_who_proved_it() {
    let snapshot = mesh(MESH);
    let baggage = Baggage { workload_name: "told", namespace: "elsewhere", ..Baggage::default() };
    let source = |change: &dyn Fn(&mut InboundRequest<'_>)| {
        let Inbound::Deliver(delivery) =
            decide(&snapshot, "server", address("10.0.2.2:8080"), |request| change(request))
        else {
            panic!()
        };
        assert_eq!(delivery.traffic.source_identity, Some(identity()));
        assert_eq!(delivery.traffic.security, Security::MutualTls);
        delivery.traffic.source.workload_name().to_owned()
    };
    let baggage = || Some(baggage);
    assert_eq!(source(&|request| request.baggage = baggage()), "client", "discovery comes before baggage");
    assert_eq!(
        source(&|request| (request.baggage, request.source) = (baggage(), "9.9.9.9:1".parse().unwrap())),
        "told"
    );
    assert_eq!(source(&|request| request.source = "9.9.9.9:1".parse().unwrap()), "");
    let through_gateway = |network: &'static str| {
        source(&|request| (request.baggage, request.forwarded_network) = (baggage(), Some(network)))
    };
    assert_eq!(through_gateway("n2"), "told", "behind a gateway the address says nothing");
    assert_eq!(through_gateway(""), "client", "our own network is no gateway's");
}

#[test]
fn the_service_is_the_one_named_if_the_pod_serves_it_else_one_that_leads_to_the_port() {
    let snapshot = mesh(MESH);
    let service = |port: u16, host: Option<&'static str>| {
        let requested = Requested::Address(SocketAddr::new("10.0.2.2".parse().unwrap(), port));
        let Inbound::Deliver(delivery) =
            decide(&snapshot, "server", requested, |request| request.forwarded_host = host)
        else {
            panic!()
        };
        delivery.traffic.service.map(|service| service.name.to_string())
    };
    assert_eq!(service(8080, None).as_deref(), Some("web"));
    assert_eq!(service(9090, None).as_deref(), Some("mapped"));
    assert_eq!(service(7, None), None);
    assert_eq!(service(8080, Some("mapped.d")).as_deref(), Some("mapped"), "the client knows best");
    assert_eq!(
        service(8080, Some("guarded.d")).as_deref(),
        Some("web"),
        "but cannot claim what the pod does not serve"
    );
}

#[test]
fn plaintext_is_delivered_where_it_was_sent_without_an_identity() {
    let snapshot = mesh(MESH);
    let server = pod(&snapshot, "server");
    let arrive =
        |source: &str, to: &str| inbound_plaintext(&snapshot, &server, source.parse().unwrap(), to.parse().unwrap());
    let Inbound::Deliver(delivery) = arrive("10.0.1.1:5", "[::ffff:10.0.2.2]:8080") else { panic!() };
    assert_eq!((delivery.app.to_string(), delivery.dial), ("10.0.2.2:8080".into(), delivery.app));
    assert_eq!(delivery.from, DialFrom::Client("10.0.1.1".parse().unwrap()));
    assert_eq!((delivery.traffic.source_identity, delivery.traffic.security), (None, Security::Unknown));
    assert_eq!(delivery.traffic.source.workload_name(), "client");
    assert_eq!(delivery.traffic.service.unwrap().name, "web");
    let Inbound::Reject { error, .. } = arrive("10.0.1.1:5", "10.0.2.2:15008") else { panic!() };
    assert_eq!(error, InboundError::SelfCall);
}
