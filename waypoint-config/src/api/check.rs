// SPDX-License-Identifier: Apache-2.0
//! What an API server and its webhooks would refuse. Types alone let it through; a directory has nobody else to ask.
//! Called by `object` on every object read. Every refusal names the field.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::{
    api::{
        core::v1::{Pod, Service, ServicePort},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    object::{Object, ObjectError},
    policy::{Action, AuthorizationPolicySpec, Condition, Operation, PeerAuthenticationSpec, Source},
};

/// Whether it can name a namespace or a service (RFC 1123 label).
pub fn is_dns_label(name: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|byte| inside(byte) || byte == b'-')
        && name.bytes().next().is_some_and(inside)
        && name.bytes().last().is_some_and(inside)
}

/// Whether it can name most other objects (RFC 1123 subdomain).
pub fn is_dns_subdomain(name: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|part| {
            !part.is_empty()
                && part.bytes().all(|byte| inside(byte) || byte == b'-')
                && part.bytes().next().is_some_and(inside)
                && part.bytes().last().is_some_and(inside)
        })
}

/// An address, or a range in CIDR notation; the host part is cleared.
pub fn parse_range(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => text.parse::<IpNet>().ok().map(|range| range.trunc()),
    }
}

/// Everything this file knows about one object.
pub(super) fn object(object: &Object) -> Result<(), ObjectError> {
    names(object)?;
    match object {
        Object::Pod(pod) => addresses(pod),
        Object::Service(service) => virtual_addresses(service),
        Object::EndpointSlice(slice) => endpoints(slice),
        Object::AuthorizationPolicy(policy) => authorization(&policy.spec),
        Object::PeerAuthentication(policy) => peer(&policy.spec),
        Object::Namespace(_) | Object::Node(_) | Object::ServiceAccount(_) => Ok(()),
    }
}

fn names(object: &Object) -> Result<(), ObjectError> {
    let (kind, metadata) = (object.kind(), object.metadata());
    let name = metadata.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return refuse("metadata.name", "is missing");
    }
    let fits = match object {
        Object::Namespace(_) | Object::Service(_) => is_dns_label(name),
        _ => is_dns_subdomain(name),
    };
    if !fits {
        return refuse("metadata.name", format!("{name:?} is not a DNS name: small letters, digits and `-`"));
    }
    match metadata.namespace.as_deref() {
        Some(namespace) if !kind.is_namespaced() => {
            refuse("metadata.namespace", format!("a {} lives in no namespace, but {namespace:?} is given", kind.name()))
        }
        Some(namespace) if !is_dns_label(namespace) => {
            refuse("metadata.namespace", format!("{namespace:?} is not a DNS label: small letters, digits and `-`"))
        }
        None if kind.is_namespaced() => refuse("metadata.namespace", "is missing"),
        _ => Ok(()),
    }
}

fn addresses(pod: &Pod) -> Result<(), ObjectError> {
    let Some(status) = &pod.status else { return Ok(()) };
    if let Some(address) = status.pod_ip.as_deref() {
        ip("status.podIP", address)?;
    }
    for (i, address) in status.pod_ips.iter().flatten().enumerate() {
        ip(&format!("status.podIPs[{i}].ip"), &address.ip)?;
    }
    Ok(())
}

fn virtual_addresses(service: &Service) -> Result<(), ObjectError> {
    let Some(spec) = &service.spec else { return refuse("spec", "is missing") };
    for (i, address) in spec.cluster_ips.iter().flatten().enumerate() {
        if address != "None" {
            ip(&format!("spec.clusterIPs[{i}]"), address)?;
        }
    }
    match spec.cluster_ip.as_deref() {
        None | Some("" | "None") => {}
        Some(address) => ip("spec.clusterIP", address)?,
    }
    for (i, family) in spec.ip_families.iter().flatten().enumerate() {
        if family != "IPv4" && family != "IPv6" {
            return refuse(format!("spec.ipFamilies[{i}]"), format!("{family:?} is neither IPv4 nor IPv6"));
        }
    }
    spec.ports.iter().flatten().enumerate().try_for_each(|(i, port)| service_port(i, port))
}

fn service_port(i: usize, port: &ServicePort) -> Result<(), ObjectError> {
    number(&format!("spec.ports[{i}].port"), port.port)?;
    if let Some(IntOrString::Int(target)) = port.target_port {
        number(&format!("spec.ports[{i}].targetPort"), target)?;
    }
    match port.protocol.as_deref() {
        None | Some("TCP" | "UDP" | "SCTP") => Ok(()),
        Some(other) => refuse(format!("spec.ports[{i}].protocol"), format!("{other:?} is none of TCP, UDP, SCTP")),
    }
}

fn endpoints(slice: &EndpointSlice) -> Result<(), ObjectError> {
    let family: fn(IpAddr) -> bool = match slice.address_type.as_str() {
        "IPv4" => |address| address.is_ipv4(),
        "IPv6" => |address| address.is_ipv6(),
        "FQDN" => return Ok(()),
        other => return refuse("addressType", format!("{other:?} is none of IPv4, IPv6, FQDN")),
    };
    for (i, endpoint) in slice.endpoints.iter().flatten().enumerate() {
        for (j, address) in endpoint.addresses.iter().enumerate() {
            let path = format!("endpoints[{i}].addresses[{j}]");
            ip(&path, address)?;
            if !address.parse().is_ok_and(family) {
                return refuse(path, format!("{address} is not of addressType {}", slice.address_type));
            }
        }
    }
    for (i, port) in slice.ports.iter().flatten().enumerate() {
        if let Some(port) = port.port {
            number(&format!("ports[{i}].port"), port)?;
        }
    }
    Ok(())
}

fn authorization(spec: &AuthorizationPolicySpec) -> Result<(), ObjectError> {
    if spec.narrowing_selector().is_some() && spec.is_for_gateways() {
        return refuse(
            "spec",
            "selector and targetRefs exclude each other: one is for node proxies, the other for waypoints",
        );
    }
    match (spec.action, &spec.provider) {
        (Action::Custom, None) => return refuse("spec.provider", "is missing: action CUSTOM needs one"),
        (Action::Custom, Some(_)) | (_, None) => {}
        (_, Some(_)) => return refuse("spec.provider", "only action CUSTOM has one"),
    }
    for (i, rule) in spec.rules.iter().enumerate() {
        for (j, from) in rule.from.iter().enumerate() {
            source(&format!("spec.rules[{i}].from[{j}].source"), &from.source)?;
        }
        for (j, to) in rule.to.iter().enumerate() {
            operation(&format!("spec.rules[{i}].to[{j}].operation"), &to.operation)?;
        }
        for (j, when) in rule.when.iter().enumerate() {
            condition(&format!("spec.rules[{i}].when[{j}]"), when)?;
        }
    }
    Ok(())
}

fn source(path: &str, source: &Source) -> Result<(), ObjectError> {
    if *source == Source::default() {
        return refuse(path, "is empty: leave `from` out to mean anybody");
    }
    ranges(&format!("{path}.ipBlocks"), &source.ip_blocks)?;
    ranges(&format!("{path}.notIpBlocks"), &source.not_ip_blocks)?;
    ranges(&format!("{path}.remoteIpBlocks"), &source.remote_ip_blocks)?;
    ranges(&format!("{path}.notRemoteIpBlocks"), &source.not_remote_ip_blocks)?;
    let texts = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ];
    texts.iter().try_for_each(|(field, values)| no_empty_value(&format!("{path}.{field}"), values))?;
    for (field, accounts) in
        [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)]
    {
        for (i, account) in accounts.iter().enumerate() {
            if account.matches('/').count() > 1
                || account.starts_with('/')
                || account.ends_with('/')
                || account.contains('*')
            {
                return refuse(
                    format!("{path}.{field}[{i}]"),
                    format!("{account:?} is neither `name` nor `namespace/name`"),
                );
            }
        }
    }
    Ok(())
}

fn operation(path: &str, operation: &Operation) -> Result<(), ObjectError> {
    if *operation == Operation::default() {
        return refuse(path, "is empty: leave `to` out to mean anything");
    }
    for (field, values) in [("ports", &operation.ports), ("notPorts", &operation.not_ports)] {
        ports(&format!("{path}.{field}"), values)?;
    }
    let texts = [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ];
    texts.iter().try_for_each(|(field, values)| no_empty_value(&format!("{path}.{field}"), values))
}

fn condition(path: &str, condition: &Condition) -> Result<(), ObjectError> {
    if condition.key.is_empty() {
        return refuse(format!("{path}.key"), "is missing");
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        return refuse(path, "needs values or notValues");
    }
    for (field, values) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        let path = format!("{path}.{field}");
        match condition.key.as_str() {
            "source.ip" | "remote.ip" | "destination.ip" => ranges(&path, values)?,
            "destination.port" => ports(&path, values)?,
            _ => {}
        }
    }
    Ok(())
}

fn peer(spec: &PeerAuthenticationSpec) -> Result<(), ObjectError> {
    if spec.port_level_mtls.is_empty() {
        return Ok(());
    }
    if spec.narrowing_selector().is_none() {
        return refuse("spec.portLevelMtls", "needs a selector: ports belong to workloads");
    }
    match spec.port_level_mtls.contains_key(&0) {
        true => refuse("spec.portLevelMtls", "0 is not a port"),
        false => Ok(()),
    }
}

fn ranges(path: &str, values: &[String]) -> Result<(), ObjectError> {
    values.iter().enumerate().try_for_each(|(i, value)| match parse_range(value) {
        Some(_) => Ok(()),
        None => refuse(format!("{path}[{i}]"), format!("{value:?} is neither an address nor a range like 10.0.0.0/8")),
    })
}

fn ports(path: &str, values: &[String]) -> Result<(), ObjectError> {
    values.iter().enumerate().try_for_each(|(i, value)| match value.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => refuse(format!("{path}[{i}]"), format!("{value:?} is not a port number from 1 to 65535")),
    })
}

fn no_empty_value(path: &str, values: &[String]) -> Result<(), ObjectError> {
    match values.iter().position(String::is_empty) {
        Some(i) => refuse(format!("{path}[{i}]"), "is empty"),
        None => Ok(()),
    }
}

fn ip(path: &str, text: &str) -> Result<(), ObjectError> {
    match text.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => refuse(path, format!("{text:?} is not an IP address")),
    }
}

fn number(path: &str, port: i32) -> Result<(), ObjectError> {
    match port {
        1..=65535 => Ok(()),
        _ => refuse(path, format!("{port} is not a port number from 1 to 65535")),
    }
}

fn refuse(path: impl Into<String>, reason: impl Into<String>) -> Result<(), ObjectError> {
    Err(ObjectError::new(path, reason))
}
