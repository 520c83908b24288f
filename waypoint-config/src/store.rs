// SPDX-License-Identifier: Apache-2.0
//! All objects by key, and the few indices the view asks. Pure: `apply` is the only way in, and it tells what was touched.
//! One writer (`line`) owns it; it does not judge what objects mean.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};

use crate::api::{
    AuthorizationPolicy, Gateway, GatewayClass, Key, Kind, Labels, Object, PeerAuthentication, ReferenceGrant,
    ServiceEntry, Stored, WorkloadEntry,
};

mod place;

use place::{Place, places};
pub use place::{entry_selector, parents, selector, service_of};

/// What a source says. Objects arrive whole; saying the same twice changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object is now this.
    Put(Object),
    /// The object is gone.
    Delete(Key),
}

/// The touched keys, each with the object as it was before the first touch.
pub type Dirty = BTreeMap<Key, Option<Object>>;

/// All objects.
#[derive(Clone, Debug, Default)]
pub struct Store {
    objects: BTreeMap<Key, Object>,
    index: BTreeMap<Place, BTreeSet<Key>>,
}

impl Store {
    /// Takes a change in and notes in `dirty` what it touched.
    pub fn apply(&mut self, change: Change, dirty: &mut Dirty) {
        let (key, new) = match change {
            Change::Put(object) => (object.key(), Some(object)),
            Change::Delete(key) => (key, None),
        };
        if self.objects.get(&key) == new.as_ref() {
            return;
        }
        let old = match &new {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(&key),
        };
        // In this order: both versions may be found in the same place.
        if let Some(old) = &old {
            self.leave(&key, old);
        }
        if let Some(new) = &new {
            self.enter(&key, new);
        }
        dirty.entry(key).or_insert(old);
    }

    /// The object of that key.
    pub fn object(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key)
    }

    /// Everything.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    /// A namespace.
    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        self.one(Kind::Namespace, "", name)
    }

    /// The labels of a namespace; none if it is not known.
    pub fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.namespace(name)?.metadata.labels.as_ref()
    }

    /// A node.
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.one(Kind::Node, "", name)
    }

    /// A pod.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        self.one(Kind::Pod, namespace, name)
    }

    /// A service.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        self.one(Kind::Service, namespace, name)
    }

    /// A slice.
    pub fn slice(&self, namespace: &str, name: &str) -> Option<&Arc<EndpointSlice>> {
        self.one(Kind::EndpointSlice, namespace, name)
    }

    /// A class of gateways.
    pub fn gateway_class(&self, name: &str) -> Option<&Arc<GatewayClass>> {
        self.one(Kind::GatewayClass, "", name)
    }

    /// A gateway.
    pub fn gateway(&self, namespace: &str, name: &str) -> Option<&Arc<Gateway>> {
        self.one(Kind::Gateway, namespace, name)
    }

    /// A ServiceEntry.
    pub fn service_entry(&self, namespace: &str, name: &str) -> Option<&Arc<ServiceEntry>> {
        self.one(Kind::ServiceEntry, namespace, name)
    }

    /// A WorkloadEntry.
    pub fn workload_entry(&self, namespace: &str, name: &str) -> Option<&Arc<WorkloadEntry>> {
        self.one(Kind::WorkloadEntry, namespace, name)
    }

    /// The object of a type by its key's parts.
    pub fn one<T: Stored>(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Arc<T>> {
        T::of(self.objects.get(&Key::new(kind, namespace, name))?)
    }

    /// The pods of a namespace, or all, that may have these labels: all of those that do, and few others.
    pub fn pods_like(&self, namespace: Option<&str>, labels: &Labels) -> impl Iterator<Item = &Arc<Pod>> {
        let place = namespace.zip(labels.first_key_value()).map(|(namespace, (label, value))| {
            Place::PodByLabel(namespace.into(), label.as_str().into(), value.as_str().into())
        });
        let all = place.is_none().then(|| self.pods(namespace));
        let found = place.map(|place| self.at(&place).filter_map(Pod::of));
        all.into_iter().flatten().chain(found.into_iter().flatten())
    }

    /// The pods of a namespace, or all.
    pub fn pods(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<Pod>> {
        self.of_kind(Kind::Pod, namespace).filter_map(Pod::of)
    }

    /// The services of a namespace, or all.
    pub fn services(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<Service>> {
        self.of_kind(Kind::Service, namespace).filter_map(Service::of)
    }

    /// The slices of a namespace, or all.
    pub fn slices(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.of_kind(Kind::EndpointSlice, namespace).filter_map(EndpointSlice::of)
    }

    /// The authorization policies of a namespace, or all.
    pub fn authorization_policies(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
        self.of_kind(Kind::AuthorizationPolicy, namespace).filter_map(AuthorizationPolicy::of)
    }

    /// The peer authentications of a namespace, or all.
    pub fn peer_authentications(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<PeerAuthentication>> {
        self.of_kind(Kind::PeerAuthentication, namespace).filter_map(PeerAuthentication::of)
    }

    /// The gateways of a namespace, or all.
    pub fn gateways(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<Gateway>> {
        self.of_kind(Kind::Gateway, namespace).filter_map(Gateway::of)
    }

    /// The ServiceEntries of a namespace, or all.
    pub fn service_entries(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<ServiceEntry>> {
        self.of_kind(Kind::ServiceEntry, namespace).filter_map(ServiceEntry::of)
    }

    /// The WorkloadEntries of a namespace, or all.
    pub fn workload_entries(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<WorkloadEntry>> {
        self.of_kind(Kind::WorkloadEntry, namespace).filter_map(WorkloadEntry::of)
    }

    /// What others may refer to in a namespace, as it says itself.
    pub fn reference_grants(&self, namespace: &str) -> impl Iterator<Item = &Arc<ReferenceGrant>> {
        self.of_kind(Kind::ReferenceGrant, Some(namespace)).filter_map(ReferenceGrant::of)
    }

    /// The pods given to a node.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.at(&Place::PodOnNode(node.into())).filter_map(Pod::of)
    }

    /// The pods of a gateway.
    pub fn pods_of_gateway(&self, namespace: &str, gateway: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.at(&Place::PodOfGateway(namespace.into(), gateway.into())).filter_map(Pod::of)
    }

    /// The gateways of a class.
    pub fn gateways_of(&self, class: &str) -> impl Iterator<Item = &Arc<Gateway>> {
        self.at(&Place::GatewayOfClass(class.into())).filter_map(Gateway::of)
    }

    /// The namespaces, services, pods and entries whose own labels (or those of their endpoints) ask for a waypoint.
    pub fn asking_for(&self, namespace: &str, waypoint: &str) -> impl Iterator<Item = &Object> {
        self.at(&Place::AskingFor(namespace.into(), waypoint.into()))
    }

    /// The routes that name a parent: a Gateway, Service or ServiceEntry.
    pub fn routes_of(&self, parent: Kind, namespace: &str, name: &str) -> impl Iterator<Item = &Object> {
        self.at(&Place::RouteOf(parent, namespace.into(), name.into()))
    }

    /// The routes that name a backend: a Service, or (as [`Kind::ServiceEntry`] without a namespace) a host name.
    pub fn routes_to(&self, backend: Kind, namespace: &str, name: &str) -> impl Iterator<Item = &Object> {
        self.at(&Place::RouteTo(backend, namespace.into(), name.into()))
    }

    /// The routes that name a Service of a namespace as a backend.
    pub fn routes_into(&self, namespace: &str) -> impl Iterator<Item = &Object> {
        let namespace: Arc<str> = namespace.into();
        let first = Place::RouteTo(Kind::Service, Arc::clone(&namespace), "".into());
        let places = self.index.range(first..).take_while(
            move |(place, _)| matches!(place, Place::RouteTo(Kind::Service, into, _) if *into == namespace),
        );
        places.flat_map(|(_, keys)| keys).filter_map(|key| self.objects.get(key))
    }

    /// The policies attached to a Gateway, Service, ServiceEntry, or (without a namespace) a GatewayClass.
    pub fn policies_for(&self, target: Kind, namespace: &str, name: &str) -> impl Iterator<Item = &Object> {
        self.at(&Place::PolicyFor(target, namespace.into(), name.into()))
    }

    /// The ServiceEntries with a host, of whatever namespace.
    pub fn entries_of_host(&self, host: &str) -> impl Iterator<Item = &Arc<ServiceEntry>> {
        self.at(&Place::EntryOfHost(host.into())).filter_map(ServiceEntry::of)
    }

    /// The services of a namespace whose selector picks these labels. One without a selector picks nothing.
    pub fn services_selecting(&self, namespace: &str, labels: &Labels) -> impl Iterator<Item = &Arc<Service>> {
        let candidates = labels.iter().flat_map(move |(label, value)| {
            self.at(&Place::ServiceByLabel(namespace.into(), label.as_str().into(), value.as_str().into()))
        });
        candidates
            .filter_map(Service::of)
            .filter(move |service| selector(service).is_some_and(|selector| includes(labels, selector)))
    }

    /// The ServiceEntries of a namespace whose selector picks these labels.
    pub fn entries_selecting(&self, namespace: &str, labels: &Labels) -> impl Iterator<Item = &Arc<ServiceEntry>> {
        let candidates = labels.iter().flat_map(move |(label, value)| {
            self.at(&Place::EntryByLabel(namespace.into(), label.as_str().into(), value.as_str().into()))
        });
        candidates
            .filter_map(ServiceEntry::of)
            .filter(move |entry| entry_selector(entry).is_some_and(|selector| includes(labels, selector)))
    }

    /// The slices that say they belong to a service.
    pub fn slices_of(&self, namespace: &str, service: &str) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.at(&Place::SliceOfService(namespace.into(), service.into())).filter_map(EndpointSlice::of)
    }

    /// The slices that name a pod.
    pub fn slices_with(&self, namespace: &str, pod: &str) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.at(&Place::SliceWithPod(namespace.into(), pod.into())).filter_map(EndpointSlice::of)
    }

    /// The objects of a kind, of a namespace or all.
    pub fn of_kind(&self, kind: Kind, namespace: Option<&str>) -> impl Iterator<Item = &Object> {
        let start = Key::new(kind, namespace.unwrap_or_default(), "");
        let namespace: Option<Arc<str>> = namespace.map(Into::into);
        let all = self.objects.range((Bound::Included(start), Bound::Unbounded));
        all.take_while(move |(key, _)| {
            key.kind == kind && namespace.as_ref().is_none_or(|wanted| key.namespace == *wanted)
        })
        .map(|(_, object)| object)
    }

    fn at(&self, place: &Place) -> impl Iterator<Item = &Object> + use<'_> {
        self.index.get(place).into_iter().flatten().filter_map(|key| self.objects.get(key))
    }

    fn enter(&mut self, key: &Key, object: &Object) {
        for place in places(object) {
            self.index.entry(place).or_default().insert(key.clone());
        }
    }

    fn leave(&mut self, key: &Key, object: &Object) {
        for place in places(object) {
            if let Some(keys) = self.index.get_mut(&place) {
                keys.remove(key);
                if keys.is_empty() {
                    self.index.remove(&place);
                }
            }
        }
    }
}

/// Whether all of some labels are among others.
pub fn includes(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(label, value)| labels.get(label) == Some(value))
}
