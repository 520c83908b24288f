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

use crate::api::{AuthorizationPolicy, Key, Kind, Labels, Object, PeerAuthentication};

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
        as_namespace(self.objects.get(&Key::new(Kind::Namespace, "", name))?)
    }

    /// A node.
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        as_node(self.objects.get(&Key::new(Kind::Node, "", name))?)
    }

    /// A pod.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        as_pod(self.objects.get(&Key::new(Kind::Pod, namespace, name))?)
    }

    /// A service.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        as_service(self.objects.get(&Key::new(Kind::Service, namespace, name))?)
    }

    /// A slice.
    pub fn slice(&self, namespace: &str, name: &str) -> Option<&Arc<EndpointSlice>> {
        as_slice(self.objects.get(&Key::new(Kind::EndpointSlice, namespace, name))?)
    }

    /// The pods of a namespace, or all.
    pub fn pods(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<Pod>> {
        self.of_kind(Kind::Pod, namespace).filter_map(as_pod)
    }

    /// The services of a namespace, or all.
    pub fn services(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<Service>> {
        self.of_kind(Kind::Service, namespace).filter_map(as_service)
    }

    /// The slices of a namespace, or all.
    pub fn slices(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.of_kind(Kind::EndpointSlice, namespace).filter_map(as_slice)
    }

    /// The authorization policies of a namespace, or all.
    pub fn authorization_policies(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
        self.of_kind(Kind::AuthorizationPolicy, namespace).filter_map(|object| match object {
            Object::AuthorizationPolicy(policy) => Some(policy),
            _ => None,
        })
    }

    /// The peer authentications of a namespace, or all.
    pub fn peer_authentications(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<PeerAuthentication>> {
        self.of_kind(Kind::PeerAuthentication, namespace).filter_map(|object| match object {
            Object::PeerAuthentication(policy) => Some(policy),
            _ => None,
        })
    }

    /// The pods given to a node.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.at(&Place::PodOnNode(node.into())).filter_map(as_pod)
    }

    /// The services of a namespace whose selector picks these labels. One without a selector picks nothing.
    pub fn services_selecting(&self, namespace: &str, labels: &Labels) -> impl Iterator<Item = &Arc<Service>> {
        let candidates = labels.iter().flat_map(move |(label, value)| {
            self.at(&Place::ServiceByLabel(namespace.into(), label.as_str().into(), value.as_str().into()))
        });
        candidates.filter_map(as_service).filter(move |service| {
            selector(service)
                .is_some_and(|selector| selector.iter().all(|(label, value)| labels.get(label) == Some(value)))
        })
    }

    /// The slices that say they belong to a service.
    pub fn slices_of(&self, namespace: &str, service: &str) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.at(&Place::SliceOfService(namespace.into(), service.into())).filter_map(as_slice)
    }

    /// The slices that name a pod.
    pub fn slices_with(&self, namespace: &str, pod: &str) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.at(&Place::SliceWithPod(namespace.into(), pod.into())).filter_map(as_slice)
    }

    fn of_kind(&self, kind: Kind, namespace: Option<&str>) -> impl Iterator<Item = &Object> {
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

/// Under which question an object is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    PodOnNode(Arc<str>),
    /// Namespace, label, value: the first pair of the selector. Whoever matches the selector has this pair.
    ServiceByLabel(Arc<str>, Arc<str>, Arc<str>),
    SliceOfService(Arc<str>, Arc<str>),
    SliceWithPod(Arc<str>, Arc<str>),
}

fn places(object: &Object) -> Vec<Place> {
    match object {
        Object::Pod(pod) => {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            node.map(|node| Place::PodOnNode(node.into())).into_iter().collect()
        }
        Object::Service(service) => {
            let namespace: Arc<str> = service.metadata.namespace.as_deref().unwrap_or_default().into();
            let first = selector(service).and_then(|selector| selector.first_key_value());
            first
                .map(|(k, v)| Place::ServiceByLabel(namespace, k.as_str().into(), v.as_str().into()))
                .into_iter()
                .collect()
        }
        Object::EndpointSlice(slice) => {
            let namespace: Arc<str> = slice.metadata.namespace.as_deref().unwrap_or_default().into();
            let service =
                service_of(slice).map(|service| Place::SliceOfService(Arc::clone(&namespace), service.into()));
            let pods = slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint.target_ref.as_ref());
            let pods =
                pods.filter(|target| target.kind.as_deref() == Some("Pod")).filter_map(|target| target.name.as_deref());
            let pods = pods.map(|pod| Place::SliceWithPod(Arc::clone(&namespace), pod.into()));
            service.into_iter().chain(pods).collect()
        }
        _ => Vec::new(),
    }
}

/// The selector of a service, if it has one that picks anything.
pub fn selector(service: &Service) -> Option<&Labels> {
    service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|selector| !selector.is_empty())
}

/// The service a slice says it belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)).map(String::as_str)
}

fn as_namespace(object: &Object) -> Option<&Arc<Namespace>> {
    match object {
        Object::Namespace(namespace) => Some(namespace),
        _ => None,
    }
}

fn as_node(object: &Object) -> Option<&Arc<Node>> {
    match object {
        Object::Node(node) => Some(node),
        _ => None,
    }
}

fn as_pod(object: &Object) -> Option<&Arc<Pod>> {
    match object {
        Object::Pod(pod) => Some(pod),
        _ => None,
    }
}

fn as_service(object: &Object) -> Option<&Arc<Service>> {
    match object {
        Object::Service(service) => Some(service),
        _ => None,
    }
}

fn as_slice(object: &Object) -> Option<&Arc<EndpointSlice>> {
    match object {
        Object::EndpointSlice(slice) => Some(slice),
        _ => None,
    }
}

/// On every slice Kubernetes makes for a service (`k8s.io/api/discovery/v1`).
const SERVICE_NAME: &str = "kubernetes.io/service-name";
