// SPDX-License-Identifier: Apache-2.0
//! YAML a person would write against the resources node proxies get, as text. A case is `golden/<name>.yaml` beside `golden/<name>.txt`; the whole way
//! is taken, from bytes of a file to bytes of messages and back. A test that fails leaves what it got and says how to accept it.
#![allow(clippy::unwrap_used)]

use std::{fmt::Write, fs, net::IpAddr, path::PathBuf};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_proto::{
    discovery::unpack,
    security::{self, Authorization, Match, StringMatch, string_match::MatchType},
    workload::{Address, GatewayAddress, Port, Service, Workload, address, gateway_address::Destination},
};
use waypoint_config::{
    ambient::Type,
    api::Key,
    line::Line,
    source::{Ledger, Reading, Role},
    view::{
        Mesh, Snapshot,
        status::{Condition, Status},
        waypoint::Subject,
    },
};

#[test]
fn pods() {
    check("pods");
}

#[test]
fn services() {
    check("services");
}

#[test]
fn slices() {
    check("slices");
}

#[test]
fn authorization() {
    check("authorization");
}

#[test]
fn peers() {
    check("peers");
}

#[test]
fn waypoints() {
    check("waypoints");
}

#[test]
fn entries() {
    check("entries");
}

fn check(name: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let reading = Reading::of(&fs::read(folder.join(name).with_extension("yaml")).unwrap(), Role::Objects);
    let mut ledger = Ledger::default();
    let changes = ledger.update([(name.into(), Role::Objects, Some(reading))]);
    let faults: Vec<_> = ledger.faults().iter().map(ToString::to_string).collect();
    assert_eq!(faults, [""; 0]);
    let mut line = Line::new(Mesh::default());
    line.apply(changes);
    let found = text(&line);
    let golden = folder.join(name).with_extension("txt");
    let draft = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name).with_extension("txt");
    // One that outlives its run would be accepted by mistake.
    let _ = fs::remove_file(&draft);
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    if found != expected {
        fs::write(&draft, &found).unwrap();
        let differs = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
        panic!(
            "{name} differs from line {} on; look at it and accept it with\n  cp {} {}",
            differs.map_or_else(|| found.lines().count().min(expected.lines().count()) + 1, |line| line + 1),
            draft.display(),
            golden.display()
        );
    }
}

fn text(line: &Line) -> String {
    let mut out = String::new();
    let resources = line.resources();
    for resource in resources.all(Type::Address) {
        match unpack::<Address>(&resource.body).unwrap().r#type.unwrap() {
            address::Type::Workload(workload) => {
                assert_eq!(workload.uid, *resource.name);
                show_workload(&mut out, workload);
            }
            address::Type::Service(service) => show_service(&mut out, &resource.name, service),
        }
        let aliases: Vec<_> = resource.aliases.iter().map(|alias| &**alias).collect();
        writeln!(out, "  aliases: {}", aliases.join(" ")).unwrap();
    }
    for resource in resources.all(Type::Authorization) {
        show_policy(&mut out, &resource.name, unpack(&resource.body).unwrap());
    }
    for (policy, notice) in resources.notices() {
        writeln!(out, "notice {policy}: {notice}").unwrap();
    }
    show_access(&mut out, line.snapshot());
    for object in line.store().objects() {
        show_status(&mut out, &object.key(), &line.status(&object.key()));
    }
    out.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn show_workload(out: &mut String, workload: Workload) {
    writeln!(out, "workload {}", workload.uid).unwrap();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            writeln!(out, "  {name}: {value}").unwrap();
        }
    };
    line("addresses", workload.addresses.iter().map(|bytes| ip(bytes).to_string()).collect::<Vec<_>>().join(" "));
    line("network", workload.network.clone());
    let native = if workload.native_tunnel { " (native)" } else { "" };
    line("tunnel", format!("{:?}{native}", workload.tunnel_protocol()));
    line("status", format!("{:?}", workload.status()));
    line("network mode", format!("{:?}", workload.network_mode()));
    line("account", format!("{} {}/{}", workload.trust_domain, workload.namespace, workload.service_account));
    line("node", workload.node.clone());
    line(
        "locality",
        workload.locality.as_ref().map(|at| format!("{}/{}/{}", at.region, at.zone, at.subzone)).unwrap_or_default(),
    );
    line("names", format!("{} {:?} {}", workload.name, workload.workload_type(), workload.workload_name));
    line("canonical", format!("{} {}", workload.canonical_name, workload.canonical_revision));
    for (service, list) in &workload.services {
        line(&format!("service {service}"), ports(&list.ports));
    }
    line("policies", workload.authorization_policies.join(" "));
    line("host", workload.hostname.clone());
    line("waypoint", workload.waypoint.as_ref().map(show_gateway).unwrap_or_default());
    let tunnel = workload.application_tunnel.as_ref();
    line("application tunnel", tunnel.map(|one| format!("{:?} {}", one.protocol(), one.port)).unwrap_or_default());
    line("weight", workload.capacity.map(|weight| weight.to_string()).unwrap_or_default());
}

fn show_gateway(gateway: &GatewayAddress) -> String {
    let port = gateway.hbone_mtls_port;
    match gateway.destination.as_ref().unwrap() {
        Destination::Hostname(name) => format!("{}/{}:{port}", name.namespace, name.hostname),
        Destination::Address(at) => format!("{}/{}:{port}", at.network, ip(&at.address)),
    }
}

/// Waypoints as whom they run, and the policies of each and of services.
fn show_access(out: &mut String, snapshot: &Snapshot) {
    for (name, waypoint) in &snapshot.waypoints {
        let identities: Vec<_> = waypoint.identities.iter().map(ToString::to_string).collect();
        writeln!(out, "waypoint {name}: {} {:?} {}", waypoint.class, waypoint.traffic, identities.join(" ")).unwrap();
        let services: Vec<_> = snapshot.services_through(name).map(ToString::to_string).collect();
        writeln!(out, "  services: {}", services.join(" ")).unwrap();
        let workloads: Vec<_> = snapshot.workloads_through(name).map(|id| format!("{id:?}")).collect();
        writeln!(out, "  workloads: {}", workloads.len()).unwrap();
    }
    for (subject, access) in &snapshot.access {
        let subject = match subject {
            Subject::Waypoint(name) => format!("waypoint {name}"),
            Subject::Service(name) => format!("service {name}"),
        };
        let name = |metadata: &ObjectMeta| metadata.name.clone().unwrap();
        let authorization = access.authorization.iter().map(|policy| name(&policy.metadata));
        let authentication = access.authentication.iter().map(|policy| name(&policy.metadata));
        let all: Vec<_> = authorization.chain(authentication).collect();
        writeln!(out, "access {subject}: {}", all.join(" ")).unwrap();
    }
}

/// What node proxies do of a policy stands in its notice already.
fn show_status(out: &mut String, key: &Key, status: &Status) {
    let show = |out: &mut String, of: &str, one: &Condition| {
        if one.kind != "ZtunnelAccepted" {
            writeln!(out, "status {key}{of}: {}={} {}: {}", one.kind, one.holds, one.reason, one.message).unwrap();
        }
    };
    status.conditions.iter().for_each(|one| show(out, "", one));
    for listener in &status.listeners {
        listener.conditions.iter().for_each(|one| show(out, &format!(" listener {}", listener.name), one));
    }
}

fn show_service(out: &mut String, name: &str, service: Service) {
    writeln!(out, "service {name}").unwrap();
    let length = |length: Option<u32>| length.map(|length| format!("/{length}")).unwrap_or_default();
    let addresses = service.addresses.iter();
    let addresses: Vec<_> =
        addresses.map(|at| format!("{}/{}{}", at.network, ip(&at.address), length(at.length))).collect();
    writeln!(out, "  addresses: {}", addresses.join(" ")).unwrap();
    writeln!(out, "  families: {:?}, canonical: {}", service.ip_families(), service.canonical).unwrap();
    for port in &service.ports {
        writeln!(out, "  port {} -> {} {:?}", port.service_port, port.target_port, port.app_protocol()).unwrap();
    }
    if !service.subject_alt_names.is_empty() {
        writeln!(out, "  names in certificates: {}", service.subject_alt_names.join(" ")).unwrap();
    }
    if let Some(waypoint) = &service.waypoint {
        let ingress = if service.ingress_use_waypoint { ", from ingress, too" } else { "" };
        writeln!(out, "  waypoint: {}{ingress}", show_gateway(waypoint)).unwrap();
    }
    if let Some(balancing) = &service.load_balancing {
        let preference: Vec<_> = balancing.routing_preference().collect();
        writeln!(out, "  load balancing: {:?} {preference:?} {:?}", balancing.mode(), balancing.health_policy())
            .unwrap();
    }
}

fn show_policy(out: &mut String, name: &str, policy: Authorization) {
    writeln!(out, "policy {name}: {:?} {:?}", policy.scope(), policy.action()).unwrap();
    for rule in &policy.rules {
        writeln!(out, "  rule").unwrap();
        for clause in &rule.clauses {
            let matches: Vec<_> = clause.matches.iter().map(show_match).collect();
            writeln!(out, "    {}", matches.join(" or ")).unwrap();
        }
    }
}

fn show_match(one: &Match) -> String {
    let strings = |all: &[StringMatch]| all.iter().map(show_string).collect::<Vec<_>>();
    let ranges = |all: &[security::Address]| {
        all.iter().map(|at| format!("{}/{}", ip(&at.address), at.length)).collect::<Vec<_>>()
    };
    let numbers = |all: &[u32]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let accounts = |all: &[security::ServiceAccountMatch]| {
        all.iter().map(|one| format!("{}/{}", one.namespace, one.service_account)).collect::<Vec<_>>()
    };
    let fields = [
        ("namespaces", strings(&one.namespaces)),
        ("not namespaces", strings(&one.not_namespaces)),
        ("principals", strings(&one.principals)),
        ("not principals", strings(&one.not_principals)),
        ("source ips", ranges(&one.source_ips)),
        ("not source ips", ranges(&one.not_source_ips)),
        ("destination ips", ranges(&one.destination_ips)),
        ("not destination ips", ranges(&one.not_destination_ips)),
        ("ports", numbers(&one.destination_ports)),
        ("not ports", numbers(&one.not_destination_ports)),
        ("accounts", accounts(&one.service_accounts)),
        ("not accounts", accounts(&one.not_service_accounts)),
    ];
    let set: Vec<_> = fields
        .iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(name, values)| format!("{name} [{}]", values.join(", ")))
        .collect();
    format!("({})", set.join(" and "))
}

fn show_string(one: &StringMatch) -> String {
    match one.match_type.as_ref().unwrap() {
        MatchType::Exact(text) => format!("={text}"),
        MatchType::Prefix(text) => format!("{text}.."),
        MatchType::Suffix(text) => format!("..{text}"),
        MatchType::Presence(()) => "any".to_owned(),
    }
}

fn ports(ports: &[Port]) -> String {
    ports.iter().map(|port| format!("{}->{}", port.service_port, port.target_port)).collect::<Vec<_>>().join(" ")
}

fn ip(bytes: &[u8]) -> IpAddr {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).unwrap().into(),
        _ => <[u8; 16]>::try_from(bytes).unwrap().into(),
    }
}
