// SPDX-License-Identifier: Apache-2.0
//! The meshes that decisions are asked about, as discovery sends them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use mesh_proto::{security, workload as proto};
use prost::Message;
use ztunnel::mesh::{Change, Kind, PodName, Snapshot, Store};

/// A client at 10.0.0.1 (pod `client`), so many services `s0`, `s1`, .. at 10.96.x.y, each with five endpoints from 10.1.0.0 on, all over HBONE; a waypoint
/// at 10.0.0.9 before the service `guarded` at 10.97.0.1; and the service `wide` at 10.97.0.2 with `endpoints` endpoints, of which the near are preferred.
///
/// Made once for each size: the large ones take seconds under callgrind.
pub(crate) fn mesh(services: u32, endpoints: u32) -> Snapshot {
    static MADE: Mutex<BTreeMap<(u32, u32), Snapshot>> = Mutex::new(BTreeMap::new());
    MADE.lock().unwrap().entry((services, endpoints)).or_insert_with(|| make(services, endpoints)).clone()
}

fn make(services: u32, endpoints: u32) -> Snapshot {
    let mut changes = vec![
        workload("client", CLIENT, &[]),
        workload("waypoint", WAYPOINT, &["d/waypoint"]),
        service("waypoint", [10, 97, 0, 9], 15008, |_| {}),
        service("guarded", GUARDED, 80, |service| {
            let destination = proto::NamespacedHostname { namespace: "d".into(), hostname: "waypoint".into() };
            service.waypoint = Some(proto::GatewayAddress {
                destination: Some(proto::gateway_address::Destination::Hostname(destination)),
                hbone_mtls_port: 15008,
            });
        }),
        service("wide", WIDE, 80, |service| {
            use proto::load_balancing::{Mode, Scope};
            service.load_balancing = Some(proto::LoadBalancing {
                routing_preference: vec![Scope::Region.into(), Scope::Zone.into()],
                mode: Mode::Failover.into(),
                ..Default::default()
            });
        }),
    ];
    for number in 0..services {
        let [.., high, low] = number.to_be_bytes();
        changes.push(service(&format!("s{number}"), [10, 96, high, low], 80, |_| {}));
        changes.extend((0..ENDPOINTS).map(|one| {
            let number = number * ENDPOINTS + one;
            workload(&format!("w{number}"), endpoint(number), &[&format!("d/s{}", number / ENDPOINTS)])
        }));
    }
    changes.extend((0..endpoints).map(|number| {
        let [_, _, high, low] = number.to_be_bytes();
        workload(&format!("e{number}"), [10, 2, high, low], &["d/wide"])
    }));
    complete(changes, Vec::new())
}

/// A server at 10.0.0.2 under so many policies of its namespace: every other one a DENY, and only the last ALLOW is for the client.
pub(crate) fn policies(count: u32) -> Snapshot {
    use security::{Action, Authorization, Clause, Match, Rule, Scope, StringMatch, string_match::MatchType};
    let policy = |number: u32| {
        let account = if number + 1 == count { "client".to_owned() } else { format!("other{number}") };
        let principal = StringMatch { match_type: Some(MatchType::Exact(format!("cluster.local/ns/d/sa/{account}"))) };
        let matched = Match { principals: vec![principal], destination_ports: vec![8080], ..Default::default() };
        let action = if number.is_multiple_of(2) { Action::Deny } else { Action::Allow };
        let message = Authorization {
            name: format!("p{number}"),
            namespace: "d".into(),
            scope: Scope::Namespace.into(),
            action: action.into(),
            rules: vec![Rule { clauses: vec![Clause { matches: vec![matched] }] }],
            ..Default::default()
        };
        Change::authorization(&format!("d/p{number}"), &message.encode_to_vec())
    };
    complete(vec![workload("server", SERVER, &[])], (0..count).map(policy).collect())
}

pub(crate) fn pod(name: &str) -> PodName {
    PodName { name: name.into(), namespace: "d".into(), service_account: name.into() }
}

/// The address of an endpoint of the numbered services.
pub(crate) fn endpoint(number: u32) -> [u8; 4] {
    let [_, middle, high, low] = number.to_be_bytes();
    [10, 1 + middle, high, low]
}

fn complete(addresses: Vec<Change>, policies: Vec<Change>) -> Snapshot {
    let mut store = Store::new("n1");
    let received = [Change::Received(Kind::Addresses), Change::Received(Kind::Policies)];
    let applied = store.apply(addresses.into_iter().chain(policies).chain(received));
    assert!(applied.rejected.is_empty(), "{:?}", applied.rejected);
    Snapshot::clone(&applied.snapshot)
}

fn workload(name: &str, address: [u8; 4], services: &[&str]) -> Change {
    let ports = proto::PortList {
        ports: vec![
            proto::Port { service_port: 80, target_port: 8080, ..Default::default() },
            proto::Port { service_port: 15008, target_port: 15008, ..Default::default() },
        ],
    };
    let uid = format!("Kubernetes//Pod/d/{name}");
    let workload = proto::Workload {
        uid: uid.clone(),
        name: name.into(),
        namespace: "d".into(),
        addresses: vec![address.to_vec()],
        tunnel_protocol: proto::TunnelProtocol::Hbone.into(),
        service_account: name.into(),
        node: "n1".into(),
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        workload_name: name.into(),
        cluster_id: "Kubernetes".into(),
        locality: Some(proto::Locality { region: "r".into(), zone: "z".into(), subzone: String::new() }),
        services: services.iter().map(|&service| (service.to_owned(), ports.clone())).collect(),
        ..Default::default()
    };
    let message = proto::Address { r#type: Some(proto::address::Type::Workload(workload)) };
    Change::address(&uid, &message.encode_to_vec())
}

fn service(name: &str, address: [u8; 4], port: u32, change: impl FnOnce(&mut proto::Service)) -> Change {
    let mut service = proto::Service {
        name: name.into(),
        namespace: "d".into(),
        hostname: name.into(),
        addresses: vec![proto::NetworkAddress { address: address.to_vec(), ..Default::default() }],
        ports: vec![proto::Port { service_port: port, target_port: port, ..Default::default() }],
        ..Default::default()
    };
    change(&mut service);
    let message = proto::Address { r#type: Some(proto::address::Type::Service(service)) };
    Change::address(&format!("d/{name}"), &message.encode_to_vec())
}

const ENDPOINTS: u32 = 5;
const CLIENT: [u8; 4] = [10, 0, 0, 1];
const SERVER: [u8; 4] = [10, 0, 0, 2];
const WAYPOINT: [u8; 4] = [10, 0, 0, 9];
pub(crate) const GUARDED: [u8; 4] = [10, 97, 0, 1];
pub(crate) const WIDE: [u8; 4] = [10, 97, 0, 2];
