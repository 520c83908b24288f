// SPDX-License-Identifier: Apache-2.0
//! What is to hold for whatever a control plane sends: resources of discovery become changes, changes a snapshot, and a
//! snapshot decides. `cargo test -p ztunnel --test fuzz` runs the bodies as bounded properties, `cargo fuzz run <name>`
//! (in `tests/fuzz`) without bound. Plain functions: they panic where something does not hold.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_proto::spiffe::Identity;
use mesh_proto::{security, workload as proto};
use prost::Message;
use rand::SeedableRng;
use rand::rngs::StdRng;
use ztunnel::decide::{Hbone, Inbound, InboundRequest, Inquiry, Query, Requested, Route, Via, authz, inbound, route};
use ztunnel::mesh::{
    Action, Change, Destination, GatewayAddress, Kind, NetworkMode, PodName, Policy, PolicyEntry, PolicyScope,
    Protocol, Service, Snapshot, Store, Workload, canonical,
};

/// What a control plane does.
pub enum Record {
    /// Sends an `istio.workload.Address`.
    Address(Vec<u8>),
    /// Sends an `istio.security.Authorization`.
    Authorization(Vec<u8>),
    /// Takes a workload or service back.
    RemoveAddress(String),
    /// Takes a policy back.
    RemovePolicy(String),
    /// Has sent everything.
    Complete,
    /// Ends a response.
    Apply,
}

/// Resources as they stand in a response, each with its kind and length before it.
pub fn resources(input: &[u8]) {
    let mut records = Vec::new();
    let mut rest = input;
    while let [kind, low, high, after @ ..] = rest {
        let (bytes, later) = after.split_at(after.len().min(usize::from(u16::from_le_bytes([*low, *high]))));
        rest = later;
        let text = || String::from_utf8_lossy(bytes).into_owned();
        records.push(match kind % 6 {
            0 => Record::Address(bytes.to_vec()),
            1 => Record::Authorization(bytes.to_vec()),
            2 => Record::RemoveAddress(text()),
            3 => Record::RemovePolicy(text()),
            4 => Record::Complete,
            _ => Record::Apply,
        });
    }
    play(&records);
}

/// What the node knows and decides after all this.
pub fn play(records: &[Record]) {
    let mut store = Store::new("");
    let mut told = Vec::new();
    let mut responses = 0;
    for record in records {
        match record {
            Record::Apply if responses < MOST_RESPONSES => {
                responses += 1;
                examine(store.snapshot());
            }
            Record::Apply => {}
            Record::Complete => {
                let all = [Change::Received(Kind::Addresses), Change::Received(Kind::Policies)];
                told.extend(all.clone().map(|change| (change, None)));
                store.apply(all);
            }
            Record::RemoveAddress(name) => {
                let change = Change::RemoveAddress(name.as_str().into());
                told.push((change.clone(), None));
                store.apply([change]);
            }
            Record::RemovePolicy(name) => {
                let change = Change::RemovePolicy(name.as_str().into());
                told.push((change.clone(), None));
                store.apply([change]);
            }
            Record::Address(bytes) => {
                let change = address(bytes);
                told.push((change.clone(), None));
                let rejected = store.apply([change.clone()]).rejected.len();
                assert_eq!(rejected, usize::from(matches!(change, Change::RefusedAddress(_))));
            }
            Record::Authorization(bytes) => {
                let change = authorization(bytes);
                told.push((change.clone(), Some(&bytes[..])));
                let rejected = store.apply([change.clone()]).rejected.len();
                assert_eq!(rejected, usize::from(matches!(change, Change::RefusedPolicy(_))));
            }
        }
    }
    examine(store.snapshot());
    check_refusals(store.snapshot(), &told);
    check_nothing_is_left(store);
}

/// Under the name a control plane would give it. What is understood is understood the same when it is written anew.
fn address(bytes: &[u8]) -> Change {
    use proto::address::Type;
    let Ok(message) = proto::Address::decode(bytes) else { return Change::address("d/undecodable", bytes) };
    let name = match &message.r#type {
        Some(Type::Workload(workload)) => workload.uid.clone(),
        Some(Type::Service(service)) => format!("{}/{}", service.namespace, service.hostname),
        None => "d/nothing".to_owned(),
    };
    let change = Change::address(&name, bytes);
    assert_eq!(change, Change::address(&name, &message.encode_to_vec()));
    change
}

/// The same for a policy. Nothing of one that is understood is left out, and an IPv4 range means the same in either notation.
fn authorization(bytes: &[u8]) -> Change {
    let Ok(message) = security::Authorization::decode(bytes) else {
        let change = Change::authorization("d/undecodable", bytes);
        assert!(matches!(change, Change::RefusedPolicy(_)));
        return change;
    };
    let name = format!("{}/{}", message.namespace, message.name);
    let change = Change::authorization(&name, bytes);
    if let Change::Policy { .. } = &change {
        assert_eq!(change, Change::authorization(&name, &message.encode_to_vec()));
        assert_eq!(change, Change::authorization(&name, &in_ipv4(message).encode_to_vec()));
        assert!(matches!(spoiled(&name, bytes), Change::RefusedPolicy(_)));
    }
    change
}

/// A policy with something in it that nobody here knows.
fn spoiled(name: &str, bytes: &[u8]) -> Change {
    Change::authorization(name, &[bytes, &UNKNOWN_FIELD].concat())
}

/// Ranges of IPv4 addresses in IPv6 notation, as what they are.
fn in_ipv4(mut message: security::Authorization) -> security::Authorization {
    let clauses = message.rules.iter_mut().flat_map(|rule| &mut rule.clauses);
    for one in clauses.flat_map(|clause| &mut clause.matches) {
        let ranges =
            [&mut one.source_ips, &mut one.not_source_ips, &mut one.destination_ips, &mut one.not_destination_ips];
        for range in ranges.into_iter().flatten() {
            if range.address.len() == 16 && range.address.starts_with(&MAPPED) && range.length >= 96 {
                range.address.drain(..MAPPED.len());
                range.length -= 96;
            }
        }
    }
    message
}

/// What must hold of every snapshot.
fn examine(snapshot: &Snapshot) {
    let pods = pods(snapshot);
    let targets = targets(snapshot);
    for pod in &pods {
        for &target in &targets {
            check_route(snapshot, pod, target);
            for identity in identities().iter().flatten() {
                check_arrival(snapshot, pod, target, identity);
            }
        }
    }
    for inquiry in &inquiries(snapshot, &pods) {
        check_verdict(snapshot, inquiry);
    }
}

fn pods(snapshot: &Snapshot) -> Vec<PodName> {
    let names: BTreeSet<PodName> = snapshot.local_workloads().map(|workload| workload.pod_name()).collect();
    names.into_iter().take(MOST_PODS).collect()
}

/// Addresses that mean something here, and some that do not.
fn targets(snapshot: &Snapshot) -> BTreeSet<SocketAddr> {
    let mut addresses: BTreeSet<IpAddr> =
        snapshot.workloads().flat_map(|workload| workload.addresses.clone()).collect();
    for service in snapshot.services() {
        addresses.extend(service.vips.iter().map(|vip| vip.address));
        addresses.extend(service.cidr_vips.iter().flat_map(|range| [range.cidr.network(), range.cidr.broadcast()]));
    }
    let claimed = snapshot.refused_addresses().flat_map(|refused| &refused.addresses);
    addresses.extend(claimed.map(|(_, range)| range.addr()));
    let ports = snapshot.services().find_map(|service| service.ports.keys().next().copied()).unwrap_or(80);
    let mut targets: BTreeSet<SocketAddr> =
        addresses.into_iter().take(MOST_TARGETS).map(|ip| canonical(SocketAddr::new(ip, ports))).collect();
    targets.extend(["10.9.9.9:80", "10.0.0.1:15008"].map(|text| text.parse::<SocketAddr>().expect("an address")));
    targets
}

fn check_route(snapshot: &Snapshot, pod: &PodName, target: SocketAddr) {
    let ask = |target| route(snapshot, Query { pod, target }, &mut StdRng::seed_from_u64(7));
    let found = ask(target);
    let own = snapshot.own(pod).expect("the pod has a record");
    assert_eq!(ask(in_ipv6(target)), found, "an address means the same in either notation");
    match &found {
        Route::Passthrough { hop, .. } | Route::Direct { hop, .. } => {
            assert!(!is_secured(snapshot, &own.network, hop.ip()), "plaintext into the mesh: {found:?}");
            assert!(!is_refused(snapshot, &own.network, hop.ip()), "plaintext to what was not understood: {found:?}");
        }
        Route::Hbone(Hbone { hop, expected, traffic, .. }) => {
            let workload = traffic.destination.workload().expect("a workload answers");
            assert!(workload.addresses.contains(&hop.ip()) && workload.network == own.network, "{found:?}");
            assert_eq!(expected.iter().next(), workload.identity.as_ref());
        }
        Route::Reject { .. } | Route::Need(_) => return,
    }
    let through_waypoint = matches!(&found, Route::Hbone(Hbone { via: Via::Waypoint, .. }));
    let service = snapshot.service_at(&own.network, target.ip(), Some(&own.namespace));
    if let Some(service) = service {
        let mut gateways = waypoints(service);
        let has_waypoint = gateways.clone().next().is_some();
        let is_one = gateways.any(|gateway| is_behind(snapshot, gateway, own));
        assert!(through_waypoint || !has_waypoint || is_one, "round the waypoint of a service: {found:?}");
    } else if let Some(gateway) = snapshot.workload_at(&own.network, target.ip()).and_then(|at| at.waypoint.as_ref()) {
        let is_one = is_behind(snapshot, gateway, own);
        assert!(through_waypoint || is_one, "round the waypoint of a workload: {found:?}");
    }
}

fn waypoints(service: &Service) -> impl Iterator<Item = &GatewayAddress> + Clone {
    service.weighted_waypoints.iter().map(|one| &one.destination).chain(&service.waypoint)
}

/// Whether a workload is what a gateway address points to, by a reading of its own.
fn is_behind(snapshot: &Snapshot, gateway: &GatewayAddress, own: &Workload) -> bool {
    let (service, workload) = match &gateway.destination {
        Destination::Hostname(key) => (snapshot.service(key.as_str()), snapshot.workload_named(key.as_str())),
        Destination::Address(at) => {
            (snapshot.service_at(&at.network, at.address, None), snapshot.workload_at(&at.network, at.address))
        }
    };
    match service {
        Some(service) => snapshot.endpoints(service.key()).iter().any(|endpoint| endpoint.workload.uid == own.uid),
        None => workload.is_some_and(|workload| workload.uid == own.uid),
    }
}

/// Whether the workload that speaks for an address is in the mesh, found without any table: pods come before others.
fn is_secured(snapshot: &Snapshot, network: &str, ip: IpAddr) -> bool {
    let owners: Vec<&Arc<Workload>> = snapshot
        .workloads()
        .filter(|one| one.network_mode == NetworkMode::Standard && one.network.as_str() == network)
        .filter(|one| one.addresses.iter().any(|address| address.to_canonical() == ip.to_canonical()))
        .collect();
    let is_pod = |one: &&Arc<Workload>| one.uid.contains("//Pod/");
    let some_pod = owners.iter().any(is_pod);
    owners.iter().any(|one| one.protocol == Protocol::Hbone && (is_pod(one) || !some_pod))
}

/// Whether something that was not understood claims an address, in whatever notation.
fn is_refused(snapshot: &Snapshot, network: &str, ip: IpAddr) -> bool {
    let in_ipv6 = in_ipv6(SocketAddr::new(ip, 1)).ip();
    let claimed = snapshot.refused_addresses().flat_map(|refused| &refused.addresses);
    let mut here = claimed.filter(|(claimed, _)| claimed.as_str() == network);
    // A wider range is one of IPv6 and does not mean IPv4 at all.
    here.any(|(_, range)| range.contains(&ip) || (range.prefix_len() >= 96 && range.contains(&in_ipv6)))
}

fn check_arrival(snapshot: &Snapshot, pod: &PodName, target: SocketAddr, identity: &Identity) {
    let hostname = snapshot.services().next().map(|service| service.hostname.to_string()).unwrap_or_default();
    for requested in [Requested::Address(target), Requested::Name { host: &hostname, port: target.port() }] {
        let request = InboundRequest {
            pod,
            source: SocketAddr::new([10, 0, 0, 1].into(), 1234),
            local: SocketAddr::new(target.ip(), 15008),
            requested,
            identity,
            forwarded_host: Some(&hostname),
            forwarded_network: None,
            baggage: None,
            loopback_app_tunnel: false,
        };
        let found = inbound(snapshot, &request);
        let elsewhere = InboundRequest { local: in_ipv6(request.local), source: in_ipv6(request.source), ..request };
        assert_eq!(inbound(snapshot, &elsewhere), found, "an address means the same in either notation");
        if let Inbound::Deliver(delivery) = found {
            assert_eq!(delivery.app.ip(), target.ip(), "delivered in somebody else's pod");
            assert!(![15001, 15006, 15008].contains(&delivery.app.port()), "delivered to the proxy itself");
        }
    }
}

fn identities() -> [Option<Identity>; 4] {
    let of = |namespace, account| Identity::new("cluster.local", namespace, account).expect("a good name");
    [None, Some(of("d", "s0")), Some(of("d", "client")), Some(of("e", "s1"))]
}

/// Somebody wants to connect.
struct Attempt {
    pod: PodName,
    source: SocketAddr,
    destination: SocketAddr,
    identity: Option<Identity>,
}

impl Attempt {
    fn is_admitted(&self, snapshot: &Snapshot) -> bool {
        authz(snapshot, &self.inquiry()).is_ok()
    }

    fn inquiry(&self) -> Inquiry<'_> {
        Inquiry { pod: &self.pod, source: self.source, destination: self.destination, identity: self.identity.as_ref() }
    }
}

fn inquiries(snapshot: &Snapshot, pods: &[PodName]) -> Vec<Attempt> {
    let sources = ["10.0.0.1:1000", "10.77.1.2:1000", "[fd00::1]:1000"].map(|text| text.parse().expect("an address"));
    let mut attempts = Vec::new();
    for pod in pods {
        let own = snapshot.own(pod).and_then(|own| own.addresses.first().copied());
        let address = own.unwrap_or_else(|| IpAddr::from([10, 0, 0, 2])).to_canonical();
        for source in sources {
            for port in [80, 8080] {
                for identity in identities() {
                    let destination = SocketAddr::new(address, port);
                    attempts.push(Attempt { pod: pod.clone(), source, destination, identity });
                }
            }
        }
    }
    attempts
}

fn check_verdict(snapshot: &Snapshot, attempt: &Attempt) {
    let verdict = authz(snapshot, &attempt.inquiry());
    let source = in_ipv6(attempt.source);
    let elsewhere = Inquiry { source, destination: in_ipv6(attempt.destination), ..attempt.inquiry() };
    assert_eq!(authz(snapshot, &elsewhere).is_ok(), verdict.is_ok(), "an address means the same in either notation");
    let Ok(admitted) = verdict else { return };
    assert!(snapshot.has_received(Kind::Policies));
    assert_eq!(admitted.destination(), attempt.destination);
    if let Some(name) = admitted.by() {
        let Some(PolicyEntry::Known { policy, .. }) = snapshot.policy(name) else { panic!("by nobody: {name}") };
        assert!(policy.action == Action::Allow && !policy.dry_run);
    }
}

/// What is told instead of a change, from that change and its bytes, if anything.
type Replace<'a> = dyn Fn(&Change, Option<&[u8]>) -> Option<Change> + 'a;

/// A policy that is not understood admits nobody whom its absence, or its being understood, would not.
fn check_refusals(snapshot: &Snapshot, told: &[(Change, Option<&[u8]>)]) {
    let attempts = inquiries(snapshot, &pods(snapshot));
    let rebuilt = |change: &Replace<'_>| {
        let mut store = Store::new("");
        let changes = told.iter().map(|(old, bytes)| change(old, *bytes).unwrap_or_else(|| old.clone()));
        store.apply(changes).snapshot
    };
    let without = rebuilt(&|change, _| match change {
        Change::RefusedPolicy(refused) => Some(harmless(&refused.name)),
        _ => None,
    });
    let worse = rebuilt(&|change, bytes| match (change, bytes) {
        (Change::Policy { name, .. }, Some(bytes)) => Some(spoiled(name, bytes)),
        _ => None,
    });
    for attempt in &attempts {
        let admitted = attempt.is_admitted(snapshot);
        assert!(!admitted || attempt.is_admitted(&without), "admitted by what was not understood");
        assert!(!attempt.is_admitted(&worse) || admitted, "admitted because a policy is not understood any more");
    }
}

/// A policy without effect.
fn harmless(name: &str) -> Change {
    let policy = Policy {
        name: "harmless".into(),
        namespace: "d".into(),
        scope: PolicyScope::WorkloadSelector,
        action: Action::Allow,
        rules: Vec::new(),
        dry_run: true,
    };
    Change::Policy { name: name.into(), policy: Box::new(policy) }
}

/// When everything is taken back, nothing stays in any table.
fn check_nothing_is_left(mut store: Store) {
    let snapshot = Arc::clone(store.snapshot());
    let workloads = snapshot.workloads().map(|workload| Change::RemoveAddress(workload.uid.clone()));
    let services = snapshot.services().map(|service| Change::RemoveAddress(service.key().to_string().into()));
    let refused = snapshot.refused_addresses().map(|refused| Change::RemoveAddress(refused.name.clone()));
    let policies = snapshot.policies().map(|(name, _)| Change::RemovePolicy(name.clone()));
    let removals: Vec<_> = workloads.chain(services).chain(policies).chain(refused).collect();
    let left = store.apply(removals).snapshot;
    assert_eq!(left.workloads().count() + left.services().count() + left.policies().count(), 0);
    assert_eq!(left.refused_addresses().count() + left.staged().count() + left.local_workloads().count(), 0);
    for target in targets(&snapshot) {
        for network in ["", "n2"] {
            assert!(
                left.workload_at(network, target.ip()).is_none()
                    && left.service_at(network, target.ip(), None).is_none()
            );
        }
    }
}

fn in_ipv6(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// How an IPv4 address begins in IPv6 notation.
pub const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
/// Field 1000, a number.
const UNKNOWN_FIELD: [u8; 3] = [0xc0, 0x3e, 1];
const MOST_RESPONSES: usize = 3;
const MOST_PODS: usize = 3;
const MOST_TARGETS: usize = 12;
