// SPDX-License-Identifier: Apache-2.0
//! Keeps the snapshot in step with the store. A touched object makes *candidates*: everything it may have a say in, generously; each is resolved
//! anew and only what came out different is reported. So a rule forgotten here cannot make a wrong value, only a stale one, and the property
//! "step by step equals all at once" in the tests finds that. Called by `line` with every batch.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use mesh_proto::contract::label;
use rpds::RedBlackTreeMapSync;

use super::{
    endpoint,
    model::{Mesh, Name, Policy, Resident, Snapshot, WorkloadId},
    pod, policy, service,
};
use crate::{
    api::{Key, Kind, Labels, Object, WorkloadSelector},
    store::{Dirty, Store, selector, service_of},
};

/// The snapshot and the way to the next one.
#[derive(Clone, Debug)]
pub struct View {
    snapshot: Snapshot,
    network: Arc<str>,
}

/// What differs from the snapshot before; a name that is no longer there was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Endpoints.
    pub workloads: BTreeSet<WorkloadId>,
    /// Services.
    pub services: BTreeSet<Name>,
    /// Policies.
    pub policies: BTreeSet<Name>,
    /// AuthorizationPolicies that were written, changed or deleted, sent to node proxies or not.
    pub objects: BTreeSet<Name>,
}

impl View {
    /// An empty mesh.
    pub fn new(mesh: Mesh) -> Self {
        Self { snapshot: Snapshot { mesh: Arc::new(mesh), ..Snapshot::default() }, network: "".into() }
    }

    /// The mesh as it is.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Resolves again what the dirty objects may have a say in.
    pub fn refresh(&mut self, store: &Store, dirty: &Dirty) -> Touched {
        let mesh = Arc::clone(&self.snapshot.mesh);
        let mut candidates = Candidates::default();
        let network = network(store, &mesh);
        if network != self.network {
            self.network = network;
            candidates.all_addresses(store);
        }
        for (key, old) in dirty {
            candidates.of_key(key);
            for object in old.iter().chain(store.object(key)) {
                candidates.of_object(&mesh, store, object);
            }
        }
        self.resolve(store, candidates)
    }

    fn resolve(&mut self, store: &Store, candidates: Candidates) -> Touched {
        let mesh = Arc::clone(&self.snapshot.mesh);
        let mut touched = Touched { objects: candidates.authorizations.clone(), ..Touched::default() };
        for name in candidates.services {
            let object = store.service(&name.namespace, &name.name);
            let service = object.and_then(|object| service::resolve(&mesh, store, &self.network, object));
            if set(&mut self.snapshot.services, &name, service) {
                touched.services.insert(name);
            }
        }
        for name in candidates.pods {
            let object = store.pod(&name.namespace, &name.name);
            self.lodge(&name, object.and_then(|object| pod::resident(&mesh, object)));
            let id = WorkloadId::Pod(name);
            let workload = object.and_then(|object| pod::resolve(&mesh, store, &self.network, object));
            if set(&mut self.snapshot.workloads, &id, workload) {
                touched.workloads.insert(id);
            }
        }
        for name in candidates.slices {
            self.endpoints(&mesh, store, name, &mut touched);
        }
        for name in candidates.authorizations {
            let object = Key {
                kind: Kind::AuthorizationPolicy,
                namespace: Arc::clone(&name.namespace),
                name: Arc::clone(&name.name),
            };
            let policy = match store.object(&object) {
                Some(Object::AuthorizationPolicy(object)) if policy::is_for_node_proxies(object) => {
                    Some(policy::authorization(&mesh, object))
                }
                _ => None,
            };
            if set(&mut self.snapshot.policies, &name, policy) {
                touched.policies.insert(name);
            }
        }
        for object in candidates.peers {
            let key = Key {
                kind: Kind::PeerAuthentication,
                namespace: Arc::clone(&object.namespace),
                name: Arc::clone(&object.name),
            };
            let level = match store.object(&key) {
                Some(Object::PeerAuthentication(object)) => policy::port_level(&mesh, store, object),
                _ => None,
            };
            let name = policy::port_level_name(&object);
            if set(&mut self.snapshot.policies, &name, level.map(Policy::PortLevel)) {
                touched.policies.insert(name);
            }
            let any = store.peer_authentications(None).next().is_some();
            let name = policy::static_strict(&mesh);
            if set(&mut self.snapshot.policies, &name, any.then_some(Policy::StaticStrict)) {
                touched.policies.insert(name);
            }
        }
        touched
    }

    fn endpoints(&mut self, mesh: &Mesh, store: &Store, slice: Name, touched: &mut Touched) {
        let object = store.slice(&slice.namespace, &slice.name);
        let first = WorkloadId::Endpoint { slice: slice.clone(), address: IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        let last = WorkloadId::Endpoint { slice, address: IpAddr::V6(Ipv6Addr::from(u128::MAX)) };
        let mut gone: BTreeSet<WorkloadId> =
            self.snapshot.workloads.range(first..=last).map(|(id, _)| id.clone()).collect();
        for workload in object.map(|object| endpoint::resolve(mesh, store, &self.network, object)).unwrap_or_default() {
            let id = workload.id.clone();
            gone.remove(&id);
            if set(&mut self.snapshot.workloads, &id, Some(workload)) {
                touched.workloads.insert(id);
            }
        }
        for id in gone {
            self.snapshot.workloads.remove_mut(&id);
            touched.workloads.insert(id);
        }
    }

    /// Keeps the list of pods and the count of who lodges where.
    fn lodge(&mut self, name: &Name, resident: Option<Resident>) {
        let place = |resident: &Resident| {
            let identity = &resident.identity;
            (Arc::clone(&resident.node), Name::new(identity.namespace(), identity.service_account()))
        };
        let old = self.snapshot.residents.get(name).map(|old| place(old));
        let new = resident.as_ref().map(place);
        if !set(&mut self.snapshot.residents, name, resident) || old == new {
            return;
        }
        let lodgings = &mut self.snapshot.lodgings;
        if let Some(old) = old {
            match lodgings.get(&old).copied().unwrap_or_default() {
                0 | 1 => _ = lodgings.remove_mut(&old),
                count => lodgings.insert_mut(old, count - 1),
            }
        }
        if let Some(new) = new {
            let count = lodgings.get(&new).copied().unwrap_or_default();
            lodgings.insert_mut(new, count + 1);
        }
    }
}

/// What may come out different.
#[derive(Default)]
struct Candidates {
    pods: BTreeSet<Name>,
    slices: BTreeSet<Name>,
    services: BTreeSet<Name>,
    authorizations: BTreeSet<Name>,
    peers: BTreeSet<Name>,
}

impl Candidates {
    /// The object itself, there or not.
    fn of_key(&mut self, key: &Key) {
        let name = Name::new(Arc::clone(&key.namespace), Arc::clone(&key.name));
        match key.kind {
            Kind::Pod => self.pods.insert(name),
            Kind::EndpointSlice => self.slices.insert(name),
            Kind::Service => self.services.insert(name),
            Kind::AuthorizationPolicy => self.authorizations.insert(name),
            Kind::PeerAuthentication => self.peers.insert(name),
            _ => false,
        };
    }

    /// What one version of an object, the old one or the new one, has a say in.
    fn of_object(&mut self, mesh: &Mesh, store: &Store, object: &Object) {
        let metadata = object.metadata();
        let name = metadata.name.as_deref().unwrap_or_default();
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        match object {
            // Its annotations speak for its services.
            Object::Namespace(_) => {
                self.services.extend(store.services(Some(name)).map(|service| policy::name(&service.metadata)));
            }
            Object::Node(_) => self.pods.extend(store.pods_on(name).map(|pod| policy::name(&pod.metadata))),
            Object::Service(service) => {
                if let Some(selector) = selector(service) {
                    self.pods_with(store, Some(namespace), selector);
                }
                for slice in store.slices_of(namespace, name) {
                    self.of_slice(slice);
                }
            }
            Object::EndpointSlice(slice) => self.of_slice(slice),
            Object::AuthorizationPolicy(policy) => {
                let wide = namespace == mesh.root_namespace;
                if let Some(selector) = policy.spec.narrowing_selector() {
                    self.pods_with(store, (!wide).then_some(namespace), &selector.match_labels);
                }
            }
            Object::PeerAuthentication(peer) => {
                let wide = namespace == mesh.root_namespace;
                let place = (!wide).then_some(namespace);
                let none = WorkloadSelector::default();
                let selector = peer.spec.narrowing_selector().unwrap_or(&none);
                self.pods_with(store, place, &selector.match_labels);
                self.peers.extend(store.peer_authentications(place).map(|peer| policy::name(&peer.metadata)));
            }
            _ => {}
        }
    }

    fn of_slice(&mut self, slice: &EndpointSlice) {
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        self.slices.insert(policy::name(&slice.metadata));
        if service_of(slice).is_some() {
            let targets = slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint.target_ref.as_ref());
            let pods = targets
                .filter(|target| target.kind.as_deref() == Some("Pod"))
                .filter_map(|target| target.name.as_deref());
            self.pods.extend(pods.map(|pod| Name::new(namespace, pod)));
        }
    }

    fn pods_with(&mut self, store: &Store, namespace: Option<&str>, labels: &Labels) {
        let none = Labels::new();
        let selected = store.pods(namespace).filter(|pod| {
            let own = pod.metadata.labels.as_ref().unwrap_or(&none);
            labels.iter().all(|(label, value)| own.get(label) == Some(value))
        });
        self.pods.extend(selected.map(|pod| policy::name(&pod.metadata)));
    }

    /// Everything that carries the network's name.
    fn all_addresses(&mut self, store: &Store) {
        self.pods.extend(store.pods(None).map(|pod| policy::name(&pod.metadata)));
        self.services.extend(store.services(None).map(|service| policy::name(&service.metadata)));
        self.slices.extend(store.slices(None).map(|slice| policy::name(&slice.metadata)));
    }
}

/// The cluster's network, as the label of the system namespace tells.
fn network(store: &Store, mesh: &Mesh) -> Arc<str> {
    let labels = store.namespace(&mesh.root_namespace).and_then(|namespace| namespace.metadata.labels.as_ref());
    labels.and_then(|labels| labels.get(label::NETWORK)).map_or("", String::as_str).into()
}

/// Puts or removes a value; tells whether that made a difference.
fn set<K: Ord + Clone, V: PartialEq>(map: &mut RedBlackTreeMapSync<K, Arc<V>>, key: &K, value: Option<V>) -> bool {
    match value {
        None => map.remove_mut(key),
        Some(value) => {
            let differs = map.get(key).is_none_or(|old| **old != value);
            if differs {
                map.insert_mut(key.clone(), Arc::new(value));
            }
            differs
        }
    }
}
