// SPDX-License-Identifier: Apache-2.0
//! Which policies hold for whom, and what PeerAuthentication means for each workload (control-plane.md §1.8, §1.9). Called by `pod` and `build`.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use mesh_proto::contract::{annotation, policy};

use super::model::{Mesh, Name, Policy, PortLevel, Scope};
use crate::{
    api::{Action, AuthorizationPolicy, Labels, Mode, PeerAuthentication},
    store::Store,
};

/// The policies a workload lists: those whose selector picks it, and what strict mutual TLS adds.
pub(super) fn attached(mesh: &Mesh, store: &Store, namespace: &str, labels: &Labels) -> BTreeSet<Name> {
    let mut names = BTreeSet::new();
    for place in places(mesh, namespace) {
        for object in store.authorization_policies(Some(place)).filter(|object| is_for_node_proxies(object)) {
            if object.spec.narrowing_selector().is_some_and(|selector| selector.selects(labels)) {
                names.insert(name(&object.metadata));
            }
        }
    }
    names.extend(peer(mesh, store, namespace, labels));
    names
}

/// What is sent for an AuthorizationPolicy.
pub(super) fn authorization(mesh: &Mesh, object: &Arc<AuthorizationPolicy>) -> Policy {
    let in_root = object.metadata.namespace.as_deref() == Some(mesh.root_namespace.as_str());
    let scope = match (object.spec.narrowing_selector(), in_root) {
        (Some(_), _) => Scope::Selected,
        (None, true) => Scope::Global,
        (None, false) => Scope::Namespace,
    };
    Policy::Authorization { scope, object: Arc::clone(object) }
}

/// Whether node proxies enforce such a policy at all. The rest is not listed on workloads: a proxy would look for it in vain.
pub fn is_for_node_proxies(object: &AuthorizationPolicy) -> bool {
    !object.spec.is_for_gateways() && matches!(object.spec.action, Action::Allow | Action::Deny) && !is_dry_run(object)
}

/// Whether it is only to be watched.
pub fn is_dry_run(object: &AuthorizationPolicy) -> bool {
    object
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(annotation::DRY_RUN))
        .is_some_and(|value| value == "true")
}

/// The name of the policy that says "nobody without an identity".
pub(super) fn static_strict(mesh: &Mesh) -> Name {
    Name::new(mesh.root_namespace.as_str(), policy::STATIC_STRICT)
}

/// The name of what a PeerAuthentication with ports becomes. `_` is in no Kubernetes name, so nobody can have written it.
pub(super) fn port_level_name(object: &Name) -> Name {
    Name::new(Arc::clone(&object.namespace), format!("{}{}", policy::PEER_AUTHENTICATION_PREFIX, object.name))
}

/// What a PeerAuthentication says about single ports, as far as it differs from the rest of the workload.
pub(super) fn port_level(mesh: &Mesh, store: &Store, object: &PeerAuthentication) -> Option<PortLevel> {
    let namespace = object.metadata.namespace.as_deref()?;
    if namespace == mesh.root_namespace || object.spec.narrowing_selector().is_none() {
        return None;
    }
    let strict = is_strict(object.spec.mode(), namespace_is_strict(mesh, store, namespace));
    let differing = object.spec.port_level_mtls.iter().filter(|(_, mtls)| is_strict(mtls.mode, strict) != strict);
    let ports: BTreeSet<u16> = differing.map(|(port, _)| *port).collect();
    match (ports.is_empty(), strict) {
        (true, _) => None,
        (false, true) => Some(PortLevel::StrictExcept(ports)),
        (false, false) => Some(PortLevel::StrictOn(ports)),
    }
}

/// The policy by which strict mutual TLS reaches a workload: none, the static one, or one with ports in its place.
fn peer(mesh: &Mesh, store: &Store, namespace: &str, labels: &Labels) -> Option<Name> {
    let selecting = store.peer_authentications(Some(namespace)).filter(|object| {
        namespace != mesh.root_namespace
            && object.spec.narrowing_selector().is_some_and(|selector| selector.selects(labels))
    });
    let parent = namespace_is_strict(mesh, store, namespace);
    match oldest(selecting) {
        Some(own) if port_level(mesh, store, own).is_some() => Some(port_level_name(&name(&own.metadata))),
        Some(own) => is_strict(own.spec.mode(), parent).then(|| static_strict(mesh)),
        None => parent.then(|| static_strict(mesh)),
    }
}

/// What holds in a namespace for workloads no selector picks: its own word, or the mesh's.
fn namespace_is_strict(mesh: &Mesh, store: &Store, namespace: &str) -> bool {
    let wide = |namespace: &str| {
        let all = store.peer_authentications(Some(namespace));
        oldest(all.filter(|object| object.spec.narrowing_selector().is_none()))
            .map_or(Mode::Unset, |object| object.spec.mode())
    };
    let of_mesh = is_strict(wide(&mesh.root_namespace), false);
    match namespace == mesh.root_namespace {
        true => of_mesh,
        false => is_strict(wide(namespace), of_mesh),
    }
}

fn is_strict(mode: Mode, parent: bool) -> bool {
    match mode {
        Mode::Unset => parent,
        Mode::Strict => true,
        Mode::Permissive | Mode::Disable => false,
    }
}

/// Of several for the same workloads the oldest counts; by name where ages are equal or unknown.
fn oldest<'a>(all: impl Iterator<Item = &'a Arc<PeerAuthentication>>) -> Option<&'a Arc<PeerAuthentication>> {
    all.min_by(|a, b| seniority(&a.metadata).cmp(&seniority(&b.metadata)))
}

/// Sorts objects: oldest first, then by namespace and name.
pub(super) fn seniority(metadata: &ObjectMeta) -> impl Ord + '_ {
    (metadata.creation_timestamp.as_ref().map(|Time(time)| *time), &metadata.namespace, &metadata.name)
}

fn places<'a>(mesh: &'a Mesh, namespace: &'a str) -> impl Iterator<Item = &'a str> {
    let root = mesh.root_namespace.as_str();
    [Some(namespace), (root != namespace).then_some(root)].into_iter().flatten()
}

pub(super) fn name(metadata: &ObjectMeta) -> Name {
    Name::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}
