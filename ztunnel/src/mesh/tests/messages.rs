// SPDX-License-Identifier: Apache-2.0
//! Messages of real control planes, and what is made of odd ones.

use mesh_proto::{security, workload as proto};
use prost::Message;

use crate::mesh::sample::{address_of, address_of_service, changes_of, recorded};
use crate::mesh::*;

const ISTIOD: &str = include_str!("../../../tests/wire/istiod-responses.jsonl");

#[test]
fn everything_that_istiod_sends_is_understood() {
    let mut store = Store::new("n2");
    for response in recorded(ISTIOD) {
        let applied = store.apply(changes_of(&response));
        assert_eq!(applied.rejected, []);
    }
    let snapshot = store.snapshot();
    assert!(snapshot.services().count() > 5 && snapshot.policies().count() == 3);

    let server = snapshot.workload_at("", "10.244.2.5".parse().unwrap()).unwrap();
    assert_eq!(server.protocol, Protocol::Hbone);
    assert_eq!(server.identity.as_ref().unwrap().as_uri(), "spiffe://cluster.local/ns/demo/sa/server");
    assert_eq!(server.workload_type, WorkloadType::Pod);
    assert_eq!(snapshot.own(&server.pod_name()).unwrap().uid, server.uid);
    let client = snapshot.workload_at("", "10.244.1.5".parse().unwrap()).unwrap();
    assert!(snapshot.own(&client.pod_name()).is_none(), "the client is on another node");

    let service = snapshot.service("demo/server.demo.svc.cluster.local").unwrap();
    let endpoints = snapshot.endpoints(service.key());
    assert_eq!(endpoints[0].workload.uid, server.uid);
    assert_eq!(endpoints[0].ports.target(80), Some(3000));
    let headless = snapshot.service("demo/headless.demo.svc.cluster.local").unwrap();
    assert!(headless.vips.is_empty());
    assert_eq!(snapshot.endpoints(headless.key())[0].ports.target(80), Some(8080));
}

#[test]
fn what_the_message_leaves_out_has_its_default() {
    let message = proto::Workload { uid: "u".into(), namespace: "ns".into(), ..Default::default() };
    let workload = Workload::try_from(message).unwrap();
    assert_eq!(workload.trust_domain, "cluster.local");
    assert_eq!(workload.service_account, "default");
    assert_eq!(workload.cluster_id, "Kubernetes");
    assert_eq!((workload.capacity, workload.protocol, workload.status), (1, Protocol::Tcp, Health::Healthy));
}

#[test]
fn a_workload_with_an_unknown_meaning_is_refused() {
    let good = proto::Workload { uid: "u".into(), namespace: "ns".into(), ..Default::default() };
    let refuse = |message: proto::Workload| Workload::try_from(message).unwrap_err().to_string();
    assert!(refuse(proto::Workload { uid: String::new(), ..good.clone() }).contains("no uid"));
    assert!(refuse(proto::Workload { tunnel_protocol: 2, ..good.clone() }).contains("tunnel_protocol"));
    assert!(refuse(proto::Workload { tunnel_protocol: 99, ..good.clone() }).contains("99"));
    assert!(refuse(proto::Workload { network_mode: 7, ..good.clone() }).contains("network_mode"));
    assert!(refuse(proto::Workload { status: 7, ..good.clone() }).contains("status"));
    let tunnel = proto::ApplicationTunnel { protocol: 9, port: 0 };
    assert!(
        refuse(proto::Workload { application_tunnel: Some(tunnel), ..good.clone() }).contains("application_tunnel")
    );
    let three_bytes = proto::Workload { addresses: vec![vec![1, 2, 3]], ..good.clone() };
    assert!(refuse(three_bytes).contains("3 bytes"));
    let no_slash =
        proto::Workload { services: [("web".to_owned(), proto::PortList::default())].into(), ..good.clone() };
    assert!(refuse(no_slash).contains("services"));
    let nowhere = proto::Workload { waypoint: Some(proto::GatewayAddress::default()), ..good.clone() };
    assert!(refuse(nowhere).contains("neither host name nor address"));
    let nobody = proto::Workload { tunnel_protocol: 1, namespace: String::new(), ..good.clone() };
    assert!(refuse(nobody).contains("identity"));
    assert!(Workload::try_from(proto::Workload { workload_type: 99, ..good }).is_ok(), "telemetry only");
}

#[test]
fn addresses_of_four_and_sixteen_bytes_are_read() {
    let message = proto::Workload {
        uid: "u".into(),
        namespace: "ns".into(),
        addresses: vec![vec![10, 0, 0, 1], vec![0; 16]],
        ..Default::default()
    };
    let workload = Workload::try_from(message).unwrap();
    assert_eq!(workload.addresses, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap(), "::".parse().unwrap()]);
}

#[test]
fn an_ipv4_address_in_ipv6_notation_is_one_of_ipv4() {
    let mapped = |last: u8| [&[0; 10][..], &[0xff, 0xff, 10, 0, 0, last]].concat();
    let message = proto::Workload {
        uid: "u".into(),
        namespace: "ns".into(),
        addresses: vec![mapped(1), vec![10, 0, 0, 2]],
        ..Default::default()
    };
    let workload = Workload::try_from(message).unwrap();
    assert_eq!(workload.addresses, [[10, 0, 0, 1], [10, 0, 0, 2]].map(std::net::IpAddr::from));

    let at = |length| proto::NetworkAddress { network: "n".into(), address: mapped(1), length };
    let message = proto::Service {
        namespace: "ns".into(),
        hostname: "h".into(),
        addresses: vec![at(None), at(Some(128)), at(Some(120)), at(Some(32))],
        ..Default::default()
    };
    let service = Service::try_from(message.clone()).unwrap();
    assert_eq!(service.vips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["n/10.0.0.1", "n/10.0.0.1"]);
    let ranges = |service: &Service| service.cidr_vips.iter().map(|range| range.cidr.to_string()).collect::<Vec<_>>();
    assert_eq!(ranges(&service), ["10.0.0.0/24", "::/32"]);
    let wrong = proto::Service { addresses: vec![at(Some(129))], ..message };
    assert!(Service::try_from(wrong).is_err());
}

#[test]
fn a_deny_of_a_range_in_ipv6_notation_is_not_switched_off_by_it() {
    let range = security::Address { address: [&[0; 10][..], &[0xff, 0xff, 10, 0, 0, 0]].concat(), length: 104 };
    let rule = |range| security::Rule {
        clauses: vec![security::Clause {
            matches: vec![security::Match { source_ips: vec![range], ..Default::default() }],
        }],
    };
    let policy = |range| security::Authorization {
        name: "p".into(),
        namespace: "ns".into(),
        action: security::Action::Deny.into(),
        rules: vec![rule(range)],
        ..Default::default()
    };
    let plain = security::Address { address: vec![10, 0, 0, 0], length: 8 };
    let [mapped, plain] = [range, plain].map(|range| Policy::try_from(&policy(range)).unwrap());
    assert_eq!(mapped, plain);
}

#[test]
fn an_address_shorter_than_a_host_is_a_range_of_virtual_addresses() {
    let at = |bytes: &[u8], length| proto::NetworkAddress { network: "n".into(), address: bytes.to_vec(), length };
    let message = proto::Service {
        namespace: "ns".into(),
        hostname: "h".into(),
        addresses: vec![at(&[10, 1, 2, 3], Some(16)), at(&[10, 0, 0, 1], Some(32)), at(&[10, 0, 0, 2], None)],
        ..Default::default()
    };
    let service = Service::try_from(message).unwrap();
    assert_eq!(service.cidr_vips[0].cidr.to_string(), "10.1.0.0/16");
    assert_eq!(service.vips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["n/10.0.0.1", "n/10.0.0.2"]);
}

#[test]
fn a_service_with_an_unknown_meaning_is_refused() {
    let good = proto::Service { namespace: "ns".into(), hostname: "h".into(), ..Default::default() };
    let balanced = |routing_preference, mode, health_policy| proto::Service {
        load_balancing: Some(proto::LoadBalancing { routing_preference, mode, health_policy }),
        ..good.clone()
    };
    let refuse = |message: proto::Service| Service::try_from(message).unwrap_err().to_string();
    assert!(refuse(balanced(vec![0], 0, 0)).contains("routing_preference"));
    assert!(refuse(balanced(vec![9], 0, 0)).contains("routing_preference"));
    assert!(refuse(balanced(vec![], 9, 0)).contains("mode"));
    assert!(refuse(balanced(vec![], 0, 9)).contains("health_policy"));
    assert!(refuse(proto::Service { ip_families: 9, ..good.clone() }).contains("ip_families"));
    assert!(refuse(proto::Service { hostname: String::new(), ..good.clone() }).contains("hostname"));
    let port = proto::Port { service_port: 70000, ..Default::default() };
    assert!(refuse(proto::Service { ports: vec![port], ..good.clone() }).contains("70000"));
    let visible = Service::try_from(proto::Service { visibility: 9, ..good }).unwrap();
    assert_eq!(visible.visibility, Visibility::Public);
}

#[test]
fn an_address_that_holds_nothing_is_refused_under_its_name() {
    let applied = Store::new("").apply([Change::address("some/name", &[])]);
    assert_eq!(applied.rejected[0].name, "some/name");
    assert!(applied.rejected[0].reason.contains("neither"));
    let applied = Store::new("").apply([Change::address("x", &[0xff])]);
    assert!(applied.rejected[0].reason.contains("cannot be decoded"));
}

#[test]
fn a_policy_with_anything_not_understood_is_refused_whole() {
    let with = |one: security::Match| security::Authorization {
        name: "p".into(),
        namespace: "ns".into(),
        rules: vec![security::Rule { clauses: vec![security::Clause { matches: vec![one] }] }],
        ..Default::default()
    };
    let reason = |message: &security::Authorization| match Change::authorization("ns/p", &message.encode_to_vec()) {
        Change::RefusedPolicy(refused) => refused.reason.to_string(),
        other => panic!("understood: {other:?}"),
    };
    let plain = with(security::Match { destination_ports: vec![80], ..Default::default() });
    assert!(matches!(Change::authorization("ns/p", &plain.encode_to_vec()), Change::Policy { .. }));

    assert!(reason(&security::Authorization { scope: 3, ..plain.clone() }).contains("scope"));
    assert!(reason(&security::Authorization { action: 2, ..plain.clone() }).contains("action"));
    let nowhere = security::Authorization { scope: 1, namespace: String::new(), ..plain.clone() };
    assert!(reason(&nowhere).contains("no namespace"));
    let extension = proto::Extension { name: "acme".into(), config: None };
    let extended = security::Authorization { extensions: vec![extension.clone()], ..plain };
    assert!(reason(&extended).contains("acme"));

    let untyped = security::StringMatch { match_type: None };
    let address = |bytes: &[u8], length| security::Address { address: bytes.to_vec(), length };
    let account = |namespace: &str, name: &str| security::ServiceAccountMatch {
        namespace: namespace.into(),
        service_account: name.into(),
    };
    let m = security::Match::default();
    for (one, word) in [
        (security::Match { extensions: vec![extension], ..m.clone() }, "acme"),
        (security::Match { not_principals: vec![untyped.clone()], ..m.clone() }, "not_principals"),
        (security::Match { namespaces: vec![untyped], ..m.clone() }, "namespaces"),
        (security::Match { source_ips: vec![address(&[10, 0, 0], 8)], ..m.clone() }, "source_ips"),
        (security::Match { not_source_ips: vec![address(&[10, 0, 0, 0], 33)], ..m.clone() }, "not_source_ips"),
        (security::Match { destination_ips: vec![address(&[0; 16], 129)], ..m.clone() }, "destination_ips"),
        (security::Match { not_destination_ips: vec![address(&[], 0)], ..m.clone() }, "not_destination_ips"),
        (security::Match { destination_ports: vec![65536], ..m.clone() }, "65536"),
        (security::Match { not_destination_ports: vec![70000], ..m.clone() }, "70000"),
        (security::Match { service_accounts: vec![account("ns", "")], ..m.clone() }, "service_accounts"),
        (security::Match { not_service_accounts: vec![account("", "sa")], ..m }, "not_service_accounts"),
    ] {
        assert!(reason(&with(one)).contains(word), "{word}");
    }
}

#[test]
fn a_policy_with_a_field_of_a_newer_version_is_refused() {
    // (bytes behind a policy that allows port 80, in which message, which field)
    let within = |number: u8, inner: &[u8]| [&[number << 3 | 2, inner.len() as u8], inner].concat();
    let newer = [15 << 3, 1];
    let head = [&within(1, b"p")[..], &within(2, b"ns")].concat();
    let match_with = |rest: &[u8]| [&within(9, &[80])[..], rest].concat();
    let policy = |clause_rest: &[u8], match_rest: &[u8]| {
        let clause = [&within(2, &match_with(match_rest))[..], clause_rest].concat();
        [&head[..], &within(5, &within(1, &clause))].concat()
    };
    let reason = |bytes: &[u8]| match Change::authorization("ns/p", bytes) {
        Change::RefusedPolicy(refused) => refused.reason.to_string(),
        other => panic!("understood: {other:?}"),
    };
    assert!(matches!(Change::authorization("ns/p", &policy(&[], &[])), Change::Policy { .. }));
    assert!(reason(&[&policy(&[], &[])[..], &newer].concat()).contains("Authorization has the field number 15"));
    assert!(reason(&policy(&newer, &[])).contains("Clause has the field number 15"));
    assert!(reason(&policy(&[], &newer)).contains("Match has the field number 15"));
    let regex = within(3, &within(5, b".*"));
    assert!(reason(&policy(&[], &regex)).contains("StringMatch has the field number 5"));
    assert!(reason(&[0x0a, 0x7f]).contains("decoded"));
}

#[test]
fn recorded_policies_round_trip_through_the_strict_reader() {
    let responses = recorded(ISTIOD);
    let policies = responses.iter().find(|response| response.type_url.ends_with("Authorization")).unwrap();
    let names: Vec<_> = policies.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!(names, ["demo/only-client", "demo/ports", "istio-system/istio_converted_static_strict"]);
    for change in changes_of(policies) {
        let Change::Policy { name, policy } = change else { panic!("refused") };
        assert_eq!(name, policy.key());
    }
}

#[test]
fn a_resource_of_the_right_kind_is_taken_whatever_its_discovery_name() {
    let workload = proto::Workload { uid: "u".into(), namespace: "ns".into(), ..Default::default() };
    assert!(matches!(Change::address("other", &address_of(workload)), Change::Workload(_)));
    let service = proto::Service { namespace: "ns".into(), hostname: "h".into(), ..Default::default() };
    assert!(matches!(Change::address("other", &address_of_service(service)), Change::Service(_)));
}
