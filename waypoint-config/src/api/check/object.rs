// SPDX-License-Identifier: Apache-2.0
//! Which check is for which kind, and what holds for all of them. Called by the `object` of the room above.

use serde_json::Value;

use super::{
    entry, gateway, kube, route, security,
    value::{is_dns_label, is_dns_subdomain, refuse},
};
use crate::api::object::{Kind, Object, ObjectError};

/// Everything this file knows about one object.
pub(in crate::api) fn object(object: &Object) -> Result<(), ObjectError> {
    names(object)?;
    match object {
        Object::Pod(pod) => kube::pod(pod),
        Object::Service(service) => kube::service(service),
        Object::EndpointSlice(slice) => kube::slice(slice),
        Object::Gateway(gateway) => gateway::gateway(&gateway.spec),
        Object::GatewayClass(class) => gateway::class(&class.spec),
        Object::ReferenceGrant(grant) => gateway::grant(&grant.spec),
        Object::ServiceEntry(entry) => entry::service(entry),
        Object::WorkloadEntry(entry) => entry::workload("spec", &entry.spec),
        Object::AuthorizationPolicy(policy) => security::authorization(&policy.spec),
        Object::PeerAuthentication(policy) => security::peer(&policy.spec),
        Object::RequestAuthentication(policy) => security::request(&policy.spec),
        Object::HttpRoute(_) | Object::GrpcRoute(_) | Object::TcpRoute(_) | Object::TlsRoute(_) => Ok(()),
        Object::Namespace(_) | Object::Node(_) | Object::ServiceAccount(_) => Ok(()),
    }
}

/// What is easier said of plain values: the same filters have a type of their own at every place a route can have them.
pub(in crate::api) fn value(kind: Kind, value: &Value) -> Result<(), ObjectError> {
    match kind {
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute | Kind::TlsRoute => route::route(kind, value),
        _ => Ok(()),
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
