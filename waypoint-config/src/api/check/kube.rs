// SPDX-License-Identifier: Apache-2.0
//! Pods, services, slices. Called by `object`.

use std::net::IpAddr;

use k8s_openapi::{
    api::{
        core::v1::{Pod, Service, ServicePort},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::value::{ip, number, refuse};
use crate::api::object::ObjectError;

pub(super) fn pod(pod: &Pod) -> Result<(), ObjectError> {
    let Some(status) = &pod.status else { return Ok(()) };
    if let Some(address) = status.pod_ip.as_deref() {
        ip("status.podIP", address)?;
    }
    for (i, address) in status.pod_ips.iter().flatten().enumerate() {
        ip(&format!("status.podIPs[{i}].ip"), &address.ip)?;
    }
    Ok(())
}

pub(super) fn service(service: &Service) -> Result<(), ObjectError> {
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

pub(super) fn slice(slice: &EndpointSlice) -> Result<(), ObjectError> {
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
