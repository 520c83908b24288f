// SPDX-License-Identifier: Apache-2.0
//! What may come out different when an object is touched: everything it may have a say in, generously. Filled and emptied by `build`.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use mesh_proto::contract::label;

use super::{
    model::{Mesh, Name},
    policy,
    waypoint::Subject,
};
use crate::{
    api::{Key, Kind, Labels, Object, ServiceEntry, TargetReference, WorkloadSelector},
    store::{Store, entry_selector, includes, parents, selector, service_of},
};

/// Names of what is to be resolved anew.
#[derive(Default)]
pub(super) struct Candidates {
    pub(super) gateways: BTreeSet<Name>,
    /// By their keys in the snapshot.
    pub(super) services: BTreeSet<Name>,
    pub(super) pods: BTreeSet<Name>,
    pub(super) slices: BTreeSet<Name>,
    /// ServiceEntries, for their endpoints.
    pub(super) entries: BTreeSet<Name>,
    /// WorkloadEntries.
    pub(super) lone: BTreeSet<Name>,
    pub(super) authorizations: BTreeSet<Name>,
    pub(super) peers: BTreeSet<Name>,
    pub(super) subjects: BTreeSet<Subject>,
    /// Services, by their keys, whose routes may direct otherwise.
    pub(super) routed: BTreeSet<Name>,
    /// Objects whose conditions may differ.
    pub(super) judged: BTreeSet<Key>,
}

impl Candidates {
    /// The object itself, there or not.
    pub(super) fn of_key(&mut self, key: &Key) {
        let name = Name::new(Arc::clone(&key.namespace), Arc::clone(&key.name));
        match key.kind {
            Kind::Pod => self.pods.insert(name),
            Kind::EndpointSlice => self.slices.insert(name),
            Kind::Service => self.services.insert(name),
            Kind::ServiceEntry => self.entries.insert(name),
            Kind::WorkloadEntry => self.lone.insert(name),
            Kind::Gateway => self.gateways.insert(name),
            Kind::AuthorizationPolicy => self.authorizations.insert(name),
            Kind::PeerAuthentication => self.peers.insert(name),
            Kind::Namespace
            | Kind::Node
            | Kind::ServiceAccount
            | Kind::GatewayClass
            | Kind::HttpRoute
            | Kind::GrpcRoute
            | Kind::TcpRoute
            | Kind::TlsRoute
            | Kind::ReferenceGrant
            | Kind::RequestAuthentication => false,
        };
        self.judged.insert(key.clone());
    }

    /// What one version of an object, the old one or the new one, has a say in.
    pub(super) fn of_object(&mut self, mesh: &Mesh, store: &Store, object: &Object) {
        let metadata = object.metadata();
        let name = metadata.name.as_deref().unwrap_or_default();
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        match object {
            // Its labels and annotations speak for what is in it.
            Object::Namespace(_) => self.all_in(mesh, store, Some(name)),
            Object::Node(_) => self.pods.extend(store.pods_on(name).map(|pod| policy::name(&pod.metadata))),
            Object::Pod(pod) => {
                let gateway = pod.metadata.labels.as_ref().and_then(|labels| labels.get(label::GATEWAY_NAME));
                self.gateways.extend(gateway.map(|gateway| Name::new(namespace, gateway.as_str())));
            }
            Object::Service(service) => {
                if let Some(selector) = selector(service) {
                    self.workloads_with(store, Some(namespace), selector);
                }
                for slice in store.slices_of(namespace, name) {
                    self.of_slice(slice);
                }
                self.rivals(mesh, store, namespace, &mesh.hostname(&Name::new(namespace, name)));
            }
            Object::ServiceEntry(entry) => {
                self.of_entry(mesh, store, entry);
                for host in &entry.spec.hosts {
                    self.rivals(mesh, store, namespace, host);
                }
            }
            Object::WorkloadEntry(_) => {}
            Object::EndpointSlice(slice) => self.of_slice(slice),
            Object::GatewayClass(_) => {
                let gateways = store.gateways_of(name).map(|gateway| policy::name(&gateway.metadata));
                self.gateways.extend(gateways);
                self.judge_policies(store, Kind::GatewayClass, "", name);
            }
            Object::Gateway(_) => {
                self.subjects.insert(Subject::Waypoint(Name::new(namespace, name)));
                self.judge_policies(store, Kind::Gateway, namespace, name);
                self.judge_routes(store, Kind::Gateway, namespace, name);
            }
            Object::AuthorizationPolicy(policy) => {
                let wide = namespace == mesh.root_namespace;
                if let Some(selector) = policy.spec.narrowing_selector() {
                    self.workloads_with(store, (!wide).then_some(namespace), &selector.match_labels);
                }
                policy.spec.targets().for_each(|target| self.of_target(mesh, store, namespace, target));
            }
            Object::RequestAuthentication(policy) => {
                policy.spec.targets().for_each(|target| self.of_target(mesh, store, namespace, target));
            }
            Object::PeerAuthentication(peer) => {
                let wide = namespace == mesh.root_namespace;
                let place = (!wide).then_some(namespace);
                let none = WorkloadSelector::default();
                let selector = peer.spec.narrowing_selector().unwrap_or(&none);
                self.workloads_with(store, place, &selector.match_labels);
                self.peers.extend(store.peer_authentications(place).map(|peer| policy::name(&peer.metadata)));
            }
            Object::HttpRoute(_) | Object::GrpcRoute(_) | Object::TcpRoute(_) | Object::TlsRoute(_) => {
                self.of_route(mesh, store, object);
            }
            Object::ReferenceGrant(_) => {
                store.routes_into(namespace).for_each(|route| self.of_route(mesh, store, route));
            }
            Object::ServiceAccount(_) => {}
        }
    }

    /// The services whose traffic a route directs, and the other routes of these, which it may push aside.
    pub(super) fn of_route(&mut self, mesh: &Mesh, store: &Store, route: &Object) {
        for parent in parents(route) {
            match parent.kind {
                Kind::Service => _ = self.routed.insert(Name::new(&*parent.namespace, &*parent.name)),
                Kind::ServiceEntry => {
                    let entry = store.service_entry(&parent.namespace, &parent.name);
                    let hosts = entry.into_iter().flat_map(|entry| &entry.spec.hosts);
                    self.routed.extend(hosts.map(|host| mesh.service_key(&parent.namespace, host)));
                }
                _ => {}
            }
            self.judge_routes(store, parent.kind, &parent.namespace, &parent.name);
        }
    }

    /// Whoever asks for a waypoint, or is an instance of it.
    pub(super) fn askers_of(&mut self, mesh: &Mesh, store: &Store, waypoint: &Name) {
        for object in store.asking_for(&waypoint.namespace, &waypoint.name) {
            match object {
                Object::Namespace(namespace) => self.all_in(mesh, store, namespace.metadata.name.as_deref()),
                other => self.asker(mesh, store, other),
            }
        }
        let pods = store.pods_of_gateway(&waypoint.namespace, &waypoint.name);
        self.pods.extend(pods.map(|pod| policy::name(&pod.metadata)));
        self.subjects.insert(Subject::Waypoint(waypoint.clone()));
        self.judge_policies(store, Kind::Gateway, &waypoint.namespace, &waypoint.name);
    }

    /// Everything that carries the network's name.
    pub(super) fn all_addresses(&mut self, mesh: &Mesh, store: &Store) {
        self.all_in(mesh, store, None);
        self.slices.extend(store.slices(None).map(|slice| policy::name(&slice.metadata)));
        self.gateways.extend(store.gateways(None).map(|gateway| policy::name(&gateway.metadata)));
    }

    /// The policies attached to something, for their conditions.
    pub(super) fn judge_policies(&mut self, store: &Store, kind: Kind, namespace: &str, name: &str) {
        self.judged.extend(store.policies_for(kind, namespace, name).map(Object::key));
    }

    /// The routes of a parent, for their conditions.
    pub(super) fn judge_routes(&mut self, store: &Store, parent: Kind, namespace: &str, name: &str) {
        self.judged.extend(store.routes_of(parent, namespace, name).map(Object::key));
    }

    /// All services and workloads of a namespace, or of all.
    fn all_in(&mut self, mesh: &Mesh, store: &Store, namespace: Option<&str>) {
        for kind in [Kind::Service, Kind::Pod, Kind::ServiceEntry, Kind::WorkloadEntry] {
            store.of_kind(kind, namespace).for_each(|object| self.asker(mesh, store, object));
        }
    }

    fn asker(&mut self, mesh: &Mesh, store: &Store, object: &Object) {
        self.of_key(&object.key());
        if let Object::ServiceEntry(entry) = object {
            self.of_entry(mesh, store, entry);
        }
    }

    /// A ServiceEntry itself: its hosts and everything behind them.
    fn of_entry(&mut self, mesh: &Mesh, store: &Store, entry: &ServiceEntry) {
        let name = policy::name(&entry.metadata);
        self.services.extend(entry.spec.hosts.iter().map(|host| mesh.service_key(&name.namespace, host)));
        if let Some(selector) = entry_selector(entry) {
            self.workloads_with(store, Some(&name.namespace), selector);
        }
        self.entries.insert(name);
    }

    /// The ServiceEntries with the same host: those of the namespace may win or lose it, for the others it may come to mean something else.
    fn rivals(&mut self, mesh: &Mesh, store: &Store, namespace: &str, host: &str) {
        for rival in store.entries_of_host(host) {
            let place = rival.metadata.namespace.as_deref().unwrap_or_default();
            self.services.insert(mesh.service_key(place, host));
            if place == namespace {
                self.of_entry(mesh, store, rival);
            }
        }
    }

    fn of_target(&mut self, mesh: &Mesh, store: &Store, namespace: &str, target: &TargetReference) {
        let name = target.name.as_str();
        match Kind::of_reference(&target.group, &target.kind) {
            Some(Kind::Gateway) => _ = self.subjects.insert(Subject::Waypoint(Name::new(namespace, name))),
            Some(Kind::GatewayClass) => {
                let gateways = store.gateways_of(name).map(|gateway| policy::name(&gateway.metadata));
                self.subjects.extend(gateways.map(Subject::Waypoint));
            }
            Some(Kind::Service) => _ = self.subjects.insert(Subject::Service(Name::new(namespace, name))),
            Some(Kind::ServiceEntry) => {
                let hosts = store.service_entry(namespace, name).into_iter().flat_map(|entry| &entry.spec.hosts);
                self.subjects.extend(hosts.map(|host| Subject::Service(mesh.service_key(namespace, host))));
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

    /// The workloads that have all of these labels.
    fn workloads_with(&mut self, store: &Store, namespace: Option<&str>, wanted: &Labels) {
        let none = Labels::new();
        let has = |labels: Option<&Labels>| includes(labels.unwrap_or(&none), wanted);
        let pods = store.pods_like(namespace, wanted).filter(|pod| has(pod.metadata.labels.as_ref()));
        self.pods.extend(pods.map(|pod| policy::name(&pod.metadata)));
        let entries = store.service_entries(namespace).filter(|entry| has(entry.metadata.labels.as_ref()));
        self.entries.extend(entries.map(|entry| policy::name(&entry.metadata)));
        let lone = store.workload_entries(namespace).filter(|one| has(Some(&super::entry::labels(one))));
        self.lone.extend(lone.map(|one| policy::name(&one.metadata)));
    }
}
