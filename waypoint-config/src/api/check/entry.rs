// SPDX-License-Identifier: Apache-2.0
//! ServiceEntries and WorkloadEntries: what Istio's webhook demands. Called by `object`.
//!
//! One rule is ours: the host of a ServiceEntry has a dot in it. A name without one could be that of a Kubernetes service beside it.

use std::{collections::BTreeSet, net::IpAddr};

use super::value::{at_most, hostname, length, parse_range, refuse, shown};
use crate::api::{
    entry::{Resolution, ServiceEntry, ServiceEntrySpec, WorkloadEntrySpec},
    object::ObjectError,
};

pub(super) fn service(entry: &ServiceEntry) -> Result<(), ObjectError> {
    let spec = &entry.spec;
    hosts(spec)?;
    addresses(spec)?;
    ports(spec)?;
    endpoints(spec)?;
    for (i, allotted) in entry.status.addresses.iter().enumerate() {
        if allotted.value.parse::<IpAddr>().is_err() {
            return refuse(
                format!("status.addresses[{i}].value"),
                format!("{} is not an IP address", shown(&allotted.value)),
            );
        }
    }
    Ok(())
}

fn hosts(spec: &ServiceEntrySpec) -> Result<(), ObjectError> {
    if spec.hosts.is_empty() {
        return refuse("spec.hosts", "is empty");
    }
    at_most("spec.hosts", spec.hosts.len(), 256)?;
    for (i, host) in spec.hosts.iter().enumerate() {
        let path = format!("spec.hosts[{i}]");
        hostname(&path, host, true)?;
        if !host.contains('.') {
            return refuse(path, format!("{host:?} has no dot; give the full name"));
        }
        let is_wildcard = host.starts_with("*.");
        match spec.resolution {
            Resolution::DynamicDns if !is_wildcard => {
                return refuse(path, "resolution DYNAMIC_DNS is for hosts that begin with `*.`");
            }
            Resolution::Dns | Resolution::DnsRoundRobin if is_wildcard && spec.endpoints.is_empty() => {
                return refuse(path, "a wildcard cannot be looked up; give endpoints, or resolution DYNAMIC_DNS");
            }
            _ => {}
        }
    }
    Ok(())
}

fn addresses(spec: &ServiceEntrySpec) -> Result<(), ObjectError> {
    at_most("spec.addresses", spec.addresses.len(), 256)?;
    for (i, text) in spec.addresses.iter().enumerate() {
        let path = format!("spec.addresses[{i}]");
        let Some(range) = parse_range(text) else {
            return refuse(path, format!("{} is neither an address nor a range like 10.0.0.0/8", shown(text)));
        };
        let is_range = range.prefix_len() < range.max_prefix_len();
        if is_range && !matches!(spec.resolution, Resolution::None | Resolution::Static) {
            return refuse(path, "a range goes with resolution NONE or STATIC only");
        }
        if spec.resolution == Resolution::DynamicDns {
            return refuse(path, "resolution DYNAMIC_DNS has no addresses");
        }
    }
    Ok(())
}

fn ports(spec: &ServiceEntrySpec) -> Result<(), ObjectError> {
    at_most("spec.ports", spec.ports.len(), 256)?;
    let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (i, port) in spec.ports.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        number(&format!("{path}.number"), port.number)?;
        if port.target_port != 0 {
            number(&format!("{path}.targetPort"), port.target_port)?;
        }
        length(&format!("{path}.name"), &port.name, 1, 256)?;
        if !numbers.insert(port.number) {
            return refuse(format!("{path}.number"), format!("{} is there already", port.number));
        }
        if !names.insert(&port.name) {
            return refuse(format!("{path}.name"), format!("{} is there already", shown(&port.name)));
        }
        if !PROTOCOLS.contains(&port.protocol.to_ascii_uppercase().as_str()) {
            return refuse(
                format!("{path}.protocol"),
                format!("{} is none of {}", shown(&port.protocol), PROTOCOLS[1..].join(", ")),
            );
        }
    }
    Ok(())
}

fn endpoints(spec: &ServiceEntrySpec) -> Result<(), ObjectError> {
    if spec.endpoints.is_empty() {
        return Ok(());
    }
    at_most("spec.endpoints", spec.endpoints.len(), 4096)?;
    if spec.workload_selector.is_some() {
        return refuse("spec.workloadSelector", "goes not together with endpoints; use one of the two");
    }
    if matches!(spec.resolution, Resolution::None | Resolution::DynamicDns) {
        return refuse("spec.endpoints", "goes with resolution STATIC, DNS or DNS_ROUND_ROBIN only");
    }
    if spec.resolution == Resolution::DnsRoundRobin && spec.endpoints.len() > 1 {
        return refuse("spec.endpoints", "resolution DNS_ROUND_ROBIN has one endpoint at most");
    }
    let declared: BTreeSet<&str> = spec.ports.iter().map(|port| port.name.as_str()).collect();
    let mut seen = BTreeSet::new();
    for (i, endpoint) in spec.endpoints.iter().enumerate() {
        let path = format!("spec.endpoints[{i}]");
        workload(&path, endpoint)?;
        if spec.resolution == Resolution::Static && endpoint.address.parse::<IpAddr>().is_err() {
            return refuse(
                format!("{path}.address"),
                format!("{} is not an IP address, which resolution STATIC needs", shown(&endpoint.address)),
            );
        }
        if !seen.insert(&endpoint.address) {
            return refuse(format!("{path}.address"), format!("{} is there already", shown(&endpoint.address)));
        }
        if let Some(port) = endpoint.ports.keys().find(|port| !declared.contains(port.as_str())) {
            return refuse(format!("{path}.ports"), format!("{} is no port of this ServiceEntry", shown(port)));
        }
    }
    Ok(())
}

pub(super) fn workload(path: &str, spec: &WorkloadEntrySpec) -> Result<(), ObjectError> {
    let address = format!("{path}.address");
    if spec.address.is_empty() {
        return refuse(address, "is missing");
    }
    if spec.address.starts_with("unix:") {
        return refuse(address, "a Unix socket cannot be reached through the mesh");
    }
    if spec.address.parse::<IpAddr>().is_err() {
        hostname(&address, &spec.address, false)?;
    }
    if spec.weight > 1_000_000 {
        return refuse(format!("{path}.weight"), format!("{} is more than 1000000", spec.weight));
    }
    spec.ports.iter().try_for_each(|(name, port)| number(&format!("{path}.ports.{name}"), *port))
}

fn number(path: &str, port: u32) -> Result<(), ObjectError> {
    match port {
        1..=65535 => Ok(()),
        _ => refuse(path, format!("{port} is not a port number from 1 to 65535")),
    }
}

/// Empty is TCP.
const PROTOCOLS: [&str; 11] =
    ["", "HTTP", "HTTP2", "HTTPS", "GRPC", "GRPC-WEB", "TCP", "TLS", "MONGO", "MYSQL", "REDIS"];
