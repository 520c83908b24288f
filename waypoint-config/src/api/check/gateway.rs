// SPDX-License-Identifier: Apache-2.0
//! Gateways, their classes, and grants: what their definitions in Kubernetes demand. Called by `object`.

use std::{collections::BTreeSet, net::IpAddr};

use gateway_api::experimental::{
    gatewayclasses::GatewayClassSpec,
    gateways::{GatewayListeners, GatewayListenersAllowedRoutesNamespacesFrom as From, GatewaySpec},
    referencegrants::ReferenceGrantSpec,
};

use super::value::{at_most, hostname, is_dns_label, is_dns_subdomain, number, refuse, shown};
use crate::api::object::ObjectError;

pub(super) fn gateway(spec: &GatewaySpec) -> Result<(), ObjectError> {
    if !is_dns_subdomain(&spec.gateway_class_name) {
        return refuse("spec.gatewayClassName", format!("{} is not a name", shown(&spec.gateway_class_name)));
    }
    if spec.listeners.is_empty() {
        return refuse("spec.listeners", "is empty; a waypoint has one, on port 15008 with protocol HBONE");
    }
    at_most("spec.listeners", spec.listeners.len(), 64)?;
    let mut names = BTreeSet::new();
    for (i, one) in spec.listeners.iter().enumerate() {
        listener(&format!("spec.listeners[{i}]"), one)?;
        if !names.insert(&one.name) {
            return refuse(format!("spec.listeners[{i}].name"), format!("{} is there already", shown(&one.name)));
        }
    }
    let addresses = spec.addresses.as_deref().unwrap_or_default();
    at_most("spec.addresses", addresses.len(), 16)?;
    for (i, address) in addresses.iter().enumerate() {
        let path = format!("spec.addresses[{i}].value");
        match (address.r#type.as_deref(), address.value.as_deref()) {
            (None | Some("IPAddress"), Some(text)) if text.parse::<IpAddr>().is_err() => {
                return refuse(path, format!("{} is not an IP address", shown(text)));
            }
            (Some("Hostname"), Some(text)) => hostname(&path, text, false)?,
            _ => {}
        }
    }
    Ok(())
}

fn listener(path: &str, listener: &GatewayListeners) -> Result<(), ObjectError> {
    if !is_dns_subdomain(&listener.name) {
        return refuse(format!("{path}.name"), format!("{} is not a DNS name", shown(&listener.name)));
    }
    number(&format!("{path}.port"), listener.port)?;
    if listener.protocol.is_empty() || listener.protocol.len() > 255 {
        return refuse(format!("{path}.protocol"), "is empty or too long");
    }
    if let Some(host) = &listener.hostname {
        hostname(&format!("{path}.hostname"), host, true)?;
    }
    let Some(routes) = &listener.allowed_routes else { return Ok(()) };
    at_most(&format!("{path}.allowedRoutes.kinds"), routes.kinds.as_ref().map_or(0, Vec::len), 8)?;
    let Some(namespaces) = &routes.namespaces else { return Ok(()) };
    let path = format!("{path}.allowedRoutes.namespaces.selector");
    match (&namespaces.from, &namespaces.selector) {
        (Some(From::Selector), None) => refuse(path, "is missing, though `from` is Selector"),
        (_, Some(selector)) => {
            let expressions = selector.match_expressions.iter().flatten().enumerate();
            expressions.into_iter().try_for_each(|(i, one)| {
                let path = format!("{path}.matchExpressions[{i}]");
                let values = one.values.as_ref().map_or(0, Vec::len);
                match (one.operator.as_str(), values) {
                    ("In" | "NotIn", 0) => refuse(format!("{path}.values"), "is empty"),
                    ("In" | "NotIn", _) | ("Exists" | "DoesNotExist", 0) => Ok(()),
                    ("Exists" | "DoesNotExist", _) => refuse(format!("{path}.values"), "must be left out"),
                    (other, _) => refuse(
                        format!("{path}.operator"),
                        format!("{} is none of In, NotIn, Exists, DoesNotExist", shown(other)),
                    ),
                }
            })
        }
        _ => Ok(()),
    }
}

pub(super) fn class(spec: &GatewayClassSpec) -> Result<(), ObjectError> {
    let name = &spec.controller_name;
    let fits = name.split_once('/').is_some_and(|(domain, path)| is_dns_subdomain(domain) && !path.is_empty());
    match fits && name.len() <= 253 {
        true => Ok(()),
        false => refuse("spec.controllerName", format!("{} is not like example.com/name", shown(name))),
    }
}

pub(super) fn grant(spec: &ReferenceGrantSpec) -> Result<(), ObjectError> {
    for (path, count) in [("spec.from", spec.from.len()), ("spec.to", spec.to.len())] {
        at_most(path, count, 16)?;
        if count == 0 {
            return refuse(path, "is empty");
        }
    }
    spec.from.iter().enumerate().try_for_each(|(i, from)| match is_dns_label(&from.namespace) {
        true => Ok(()),
        false => refuse(format!("spec.from[{i}].namespace"), format!("{} is no namespace", shown(&from.namespace))),
    })
}
