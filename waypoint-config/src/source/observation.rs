// SPDX-License-Identifier: Apache-2.0
//! What programs saw of an object, laid over what people wrote. In a cluster the API server keeps both in one object; in a directory that belongs to a
//! person nobody may write into that person's files, so the kubelet's part (uid, node, addresses, conditions), the node agent's part (the redirection
//! annotation) and the addresses of a Gateway are small files of their own below `status/`, one folder per writer. Pure. Called by `document` and `ledger`.
//!
//! An observation is a partial object with only the fields of [`ALLOWED`]. Annotations are merged one by one, every other field
//! replaces. `metadata.uid` ties it to one life of the object: an observation of another life is passed over, so a pod made again under its old
//! name does not inherit the old one's redirection. Without an object it does nothing: a status makes no pod.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{Pod, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Value, json};

use crate::api::{Gateway, Kind, Object, ObjectError, ServiceEntry};

/// Reads an observation strictly.
pub(super) fn read(kind: Kind, mut value: Value) -> Result<Object, ObjectError> {
    let Some((_, allowed)) = ALLOWED.iter().find(|(one, _)| *one == kind) else {
        return Err(ObjectError::new("kind", format!("nothing is observed of a {}", kind.name())));
    };
    if let Some(path) = first_other(&value, allowed) {
        return Err(ObjectError::new(path, "is not for observations; it belongs into the object itself"));
    }
    if let Some(value) = value.as_object_mut() {
        // Required in the object, nothing to say about here.
        value.entry("spec").or_insert_with(|| required(kind));
    }
    Object::read(kind, value)
}

/// The least a spec may hold.
fn required(kind: Kind) -> Value {
    match kind {
        Kind::Gateway => {
            json!({"gatewayClassName": "any", "listeners": [{"name": "any", "port": 15008, "protocol": "HBONE"}]})
        }
        Kind::ServiceEntry => json!({"hosts": ["any.invalid"]}),
        _ => json!({}),
    }
}

/// The object with the observation laid over it, or `None` if the observation is of another life.
pub(super) fn lay(object: &Object, observation: &Object) -> Option<Object> {
    match (object, observation) {
        (Object::Pod(object), Object::Pod(observation)) => {
            let mut pod = Pod::clone(object);
            lay_metadata(&mut pod.metadata, &observation.metadata)?;
            if let Some(node) = observation.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
                pod.spec.get_or_insert_default().node_name = Some(node);
            }
            replace(&mut pod.status, &observation.status);
            Some(Object::Pod(Arc::new(pod)))
        }
        (Object::Service(object), Object::Service(observation)) => {
            let mut service = Service::clone(object);
            lay_metadata(&mut service.metadata, &observation.metadata)?;
            if let (Some(spec), Some(seen)) = (&mut service.spec, &observation.spec) {
                replace(&mut spec.cluster_ip, &seen.cluster_ip);
                replace(&mut spec.cluster_ips, &seen.cluster_ips);
                replace(&mut spec.ip_families, &seen.ip_families);
                replace(&mut spec.ip_family_policy, &seen.ip_family_policy);
            }
            replace(&mut service.status, &observation.status);
            Some(Object::Service(Arc::new(service)))
        }
        (Object::Gateway(object), Object::Gateway(observation)) => {
            let mut gateway = Gateway::clone(object);
            lay_metadata(&mut gateway.metadata, &observation.metadata)?;
            replace(&mut gateway.status, &observation.status);
            Some(Object::Gateway(Arc::new(gateway)))
        }
        (Object::ServiceEntry(object), Object::ServiceEntry(observation)) => {
            let mut entry = ServiceEntry::clone(object);
            lay_metadata(&mut entry.metadata, &observation.metadata)?;
            if !observation.status.addresses.is_empty() {
                entry.status.clone_from(&observation.status);
            }
            Some(Object::ServiceEntry(Arc::new(entry)))
        }
        _ => None,
    }
}

fn lay_metadata(metadata: &mut ObjectMeta, seen: &ObjectMeta) -> Option<()> {
    if let (Some(own), Some(other)) = (&metadata.uid, &seen.uid)
        && own != other
    {
        return None;
    }
    replace(&mut metadata.uid, &seen.uid);
    replace(&mut metadata.creation_timestamp, &seen.creation_timestamp);
    replace(&mut metadata.deletion_timestamp, &seen.deletion_timestamp);
    if let Some(annotations) = &seen.annotations {
        metadata.annotations.get_or_insert_default().extend(annotations.clone());
    }
    Some(())
}

fn replace<T: Clone>(field: &mut Option<T>, seen: &Option<T>) {
    if seen.is_some() {
        field.clone_from(seen);
    }
}

/// The path of the first field that is not allowed.
fn first_other(value: &Value, allowed: &[&str]) -> Option<String> {
    let fields =
        |value: &Value| value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let is_allowed = |path: &str| ALWAYS.contains(&path) || allowed.contains(&path);
    for top in fields(value) {
        if is_allowed(&top) {
            continue;
        }
        let inside = fields(&value[&top]).into_iter().map(|field| format!("{top}.{field}"));
        let is_parent = ALWAYS.iter().chain(allowed).any(|path| path.starts_with(&format!("{top}.")));
        match is_parent {
            false => return Some(top),
            true => {
                if let Some(path) = inside.into_iter().find(|path| !is_allowed(path)) {
                    return Some(path);
                }
            }
        }
    }
    None
}

const ALWAYS: [&str; 4] = ["apiVersion", "kind", "metadata.name", "metadata.namespace"];

/// What may be observed of what: in Kubernetes these fields are written by machinery.
const ALLOWED: [(Kind, &[&str]); 4] = [
    // Where whoever runs the waypoint has it.
    (Kind::Gateway, &["metadata.uid", "metadata.creationTimestamp", "metadata.annotations", "status"]),
    // The addresses that were allotted.
    (Kind::ServiceEntry, &["metadata.uid", "metadata.creationTimestamp", "metadata.annotations", "status"]),
    (
        Kind::Pod,
        &[
            "metadata.uid",
            "metadata.creationTimestamp",
            "metadata.deletionTimestamp",
            "metadata.annotations",
            "spec.nodeName",
            "status",
        ],
    ),
    (
        Kind::Service,
        &[
            "metadata.uid",
            "metadata.creationTimestamp",
            "metadata.annotations",
            "spec.clusterIP",
            "spec.clusterIPs",
            "spec.ipFamilies",
            "spec.ipFamilyPolicy",
            "status",
        ],
    ),
];
