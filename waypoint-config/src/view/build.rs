// SPDX-License-Identifier: Apache-2.0
//! Keeps the snapshot in step with the store. A touched object makes *candidates*: everything it may have a say in, generously; each is resolved
//! anew and only what came out different is reported. So a rule forgotten here cannot make a wrong value, only a stale one, and the property
//! "step by step equals all at once" in the tests finds that. Called by `line` with every batch.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use rpds::RedBlackTreeMapSync;

use super::{
    access,
    candidates::Candidates,
    endpoint, entry, gateway,
    model::{Mesh, Name, Policy, Resident, Workload, WorkloadId},
    pod, policy,
    scene::{Scene, network},
    service,
    snapshot::Snapshot,
    waypoint::Subject,
};
use crate::{
    api::{Key, Kind, Object},
    store::{Dirty, Store},
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
    /// Services that got, lost or changed an endpoint; their keys, whether they are there or not.
    pub endpoints: BTreeSet<Name>,
    /// Policies.
    pub policies: BTreeSet<Name>,
    /// Waypoints.
    pub waypoints: BTreeSet<Name>,
    /// What policies are attached to.
    pub access: BTreeSet<Subject>,
    /// Services whose routes may direct their traffic otherwise, by their keys, there or not; generously.
    pub routed: BTreeSet<Name>,
    /// AuthorizationPolicies that were written, changed or deleted, sent to node proxies or not.
    pub objects: BTreeSet<Name>,
    /// Objects whose conditions may read differently; generously.
    pub judged: BTreeSet<Key>,
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
            candidates.all_addresses(&mesh, store);
        }
        for (key, old) in dirty {
            candidates.of_key(key);
            for object in old.iter().chain(store.object(key)) {
                candidates.of_object(&mesh, store, object);
            }
        }
        self.resolve(store, candidates)
    }

    fn resolve(&mut self, store: &Store, mut candidates: Candidates) -> Touched {
        let mesh = Arc::clone(&self.snapshot.mesh);
        let network = Arc::clone(&self.network);
        let mut touched = Touched::default();
        // Waypoints first: who goes through one depends on what it is.
        let before = self.snapshot.waypoints.clone();
        let scene = Scene { mesh: &mesh, store, waypoints: &before, network: &network };
        for name in std::mem::take(&mut candidates.gateways) {
            let object = store.gateway(&name.namespace, &name.name);
            if set(&mut self.snapshot.waypoints, &name, object.and_then(|object| gateway::resolve(&scene, object))) {
                candidates.askers_of(&mesh, store, &name);
                touched.waypoints.insert(name.clone());
            }
            candidates.judged.insert(Key::new(Kind::Gateway, &name.namespace, &name.name));
        }
        let waypoints = self.snapshot.waypoints.clone();
        let scene = Scene { waypoints: &waypoints, ..scene };
        for name in std::mem::take(&mut candidates.services) {
            self.resolve_service(&scene, name, &mut candidates, &mut touched);
        }
        self.resolve_workloads(&scene, &mut candidates, &mut touched);
        self.resolve_policies(&scene, &candidates, &mut touched);
        for subject in candidates.subjects {
            let found = access::resolve(&scene, &self.snapshot.services, &subject);
            if set(&mut self.snapshot.access, &subject, found) {
                touched.access.insert(subject);
            }
        }
        touched.objects = candidates.authorizations;
        touched.routed = candidates.routed;
        touched.judged = candidates.judged;
        touched
    }

    fn resolve_service(&mut self, scene: &Scene<'_>, key: Name, candidates: &mut Candidates, touched: &mut Touched) {
        let object = scene.store.service(&key.namespace, &key.name);
        let kubernetes = object.and_then(|object| service::resolve(scene, object));
        let new = kubernetes.or_else(|| entry::resolve(scene, &key));
        candidates.subjects.insert(Subject::Service(key.clone()));
        let old = self.snapshot.services.get(&key).cloned();
        for service in old.as_deref().into_iter().chain(&new) {
            let kind = access::kind_of(service);
            candidates.judged.insert(Key::new(kind, &service.namespace, &service.name));
            candidates.judge_policies(scene.store, kind, &service.namespace, &service.name);
            candidates.judge_routes(scene.store, kind, &service.namespace, &service.name);
        }
        let place = new.as_ref().map(|service| (Arc::clone(&service.hostname), service.waypoint.clone()));
        if set(&mut self.snapshot.services, &key, new) {
            let old_place = old.map(|service| (Arc::clone(&service.hostname), service.waypoint.clone()));
            let host = |place: &'_ Option<(Arc<str>, Option<Name>)>| place.as_ref().map(|(host, _)| Arc::clone(host));
            let through =
                |place: &'_ Option<(Arc<str>, Option<Name>)>| place.as_ref().and_then(|(_, name)| name.clone());
            self.snapshot.hosts.replace(&key, &host(&old_place), &host(&place));
            self.snapshot.services_through.replace(&key, &through(&old_place), &through(&place));
            let to_host = old_place
                .iter()
                .chain(&place)
                .flat_map(|(host, _)| scene.store.routes_to(Kind::ServiceEntry, "", host));
            let to_service = scene.store.routes_to(Kind::Service, &key.namespace, &key.name);
            for route in to_service.chain(to_host) {
                candidates.of_route(scene.mesh, scene.store, route);
            }
            candidates.routed.insert(key.clone());
            touched.services.insert(key);
        }
    }

    fn resolve_workloads(&mut self, scene: &Scene<'_>, candidates: &mut Candidates, touched: &mut Touched) {
        let store = scene.store;
        for name in std::mem::take(&mut candidates.pods) {
            let object = store.pod(&name.namespace, &name.name);
            self.lodge(&name, object.and_then(|object| pod::resident(scene.mesh, object)));
            let workload = object.and_then(|object| pod::resolve(scene, object));
            self.place(scene.mesh, &WorkloadId::Pod(name), workload, touched);
        }
        for name in std::mem::take(&mut candidates.lone) {
            let workload = store.workload_entry(&name.namespace, &name.name).map(|object| entry::lone(scene, object));
            self.place(scene.mesh, &WorkloadId::Entry(name), workload, touched);
        }
        for slice in std::mem::take(&mut candidates.slices) {
            let object = store.slice(&slice.namespace, &slice.name);
            let first = WorkloadId::Endpoint { slice: slice.clone(), address: IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
            let last = WorkloadId::Endpoint { slice, address: IpAddr::V6(Ipv6Addr::from(u128::MAX)) };
            let old = self.snapshot.workloads.range(first..=last).map(|(id, _)| id.clone()).collect();
            let new = object.map(|object| endpoint::resolve(scene, object)).unwrap_or_default();
            self.place_all(scene.mesh, old, new, touched);
        }
        for name in std::mem::take(&mut candidates.entries) {
            let object = store.service_entry(&name.namespace, &name.name);
            let first = WorkloadId::EntryEndpoint { entry: name.clone(), address: "".into() };
            let from = self.snapshot.workloads.range(first..).map(|(id, _)| id.clone());
            let old = from.take_while(|id| matches!(id, WorkloadId::EntryEndpoint { entry, .. } if *entry == name));
            let old = old.collect();
            let new = object.map(|object| entry::endpoints(scene, object)).unwrap_or_default();
            self.place_all(scene.mesh, old, new, touched);
        }
    }

    fn resolve_policies(&mut self, scene: &Scene<'_>, candidates: &Candidates, touched: &mut Touched) {
        let (mesh, store) = (scene.mesh, scene.store);
        for name in &candidates.authorizations {
            let object = store.one(Kind::AuthorizationPolicy, &name.namespace, &name.name);
            let sent = object.filter(|object| policy::is_for_node_proxies(object));
            if set(&mut self.snapshot.policies, name, sent.map(|object| policy::authorization(mesh, object))) {
                touched.policies.insert(name.clone());
            }
        }
        for object in &candidates.peers {
            let key = Key {
                kind: Kind::PeerAuthentication,
                namespace: Arc::clone(&object.namespace),
                name: Arc::clone(&object.name),
            };
            let level = match store.object(&key) {
                Some(Object::PeerAuthentication(object)) => policy::port_level(mesh, store, object),
                _ => None,
            };
            let name = policy::port_level_name(object);
            if set(&mut self.snapshot.policies, &name, level.map(Policy::PortLevel)) {
                touched.policies.insert(name);
            }
            let any = store.peer_authentications(None).next().is_some();
            let name = policy::static_strict(mesh);
            if set(&mut self.snapshot.policies, &name, any.then_some(Policy::StaticStrict)) {
                touched.policies.insert(name);
            }
        }
    }

    /// The workloads of one object: what is no longer among them is gone.
    fn place_all(&mut self, mesh: &Mesh, old: BTreeSet<WorkloadId>, new: Vec<Workload>, touched: &mut Touched) {
        let mut gone = old;
        for workload in new {
            let id = workload.id.clone();
            gone.remove(&id);
            self.place(mesh, &id, Some(workload), touched);
        }
        for id in gone {
            self.place(mesh, &id, None, touched);
        }
    }

    /// Puts or removes a workload, and keeps what is found by it.
    fn place(&mut self, mesh: &Mesh, id: &WorkloadId, new: Option<Workload>, touched: &mut Touched) {
        let services = |workload: &Workload| -> Vec<Name> {
            workload.services.keys().map(|service| mesh.service_of_id(service)).collect()
        };
        let old = self.snapshot.workloads.get(id).cloned();
        let through = new.as_ref().and_then(|workload| workload.waypoint.clone());
        let is_in = new.as_ref().map(services).unwrap_or_default();
        if set(&mut self.snapshot.workloads, id, new) {
            let was_in = old.as_deref().map(services).unwrap_or_default();
            self.snapshot.members.replace(id, &was_in, &is_in);
            let was_through = old.as_ref().and_then(|workload| workload.waypoint.as_ref());
            self.snapshot.workloads_through.replace(id, was_through, &through);
            touched.endpoints.extend(was_in.into_iter().chain(is_in));
            touched.workloads.insert(id.clone());
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
