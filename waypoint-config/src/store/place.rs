// SPDX-License-Identifier: Apache-2.0
//! Under which questions an object is found. Called by `store`, which keeps the index.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use mesh_proto::contract::label;

use crate::api::{Gateway, Key, Kind, Labels, Object, ServiceEntry, TargetReference};

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    PodOnNode(Arc<str>),
    /// Namespace, label, value: each pair there is.
    PodByLabel(Arc<str>, Arc<str>, Arc<str>),
    /// Namespace, label, value: the first pair of the selector. Whoever matches the selector has this pair.
    ServiceByLabel(Arc<str>, Arc<str>, Arc<str>),
    SliceOfService(Arc<str>, Arc<str>),
    SliceWithPod(Arc<str>, Arc<str>),
    /// As `ServiceByLabel`.
    EntryByLabel(Arc<str>, Arc<str>, Arc<str>),
    /// Host name.
    EntryOfHost(Arc<str>),
    /// Class.
    GatewayOfClass(Arc<str>),
    /// Namespace and name of the Gateway.
    PodOfGateway(Arc<str>, Arc<str>),
    /// Namespace and name of the waypoint a label asks for.
    AskingFor(Arc<str>, Arc<str>),
    /// Kind, namespace and name of a parent.
    RouteOf(Kind, Arc<str>, Arc<str>),
    /// Kind, namespace and name of a backend, also of copies; a host name is a ServiceEntry of no namespace.
    RouteTo(Kind, Arc<str>, Arc<str>),
    /// Kind, namespace (empty for a class) and name of a target.
    PolicyFor(Kind, Arc<str>, Arc<str>),
}

/// Every question to which an object is an answer.
pub(super) fn places(object: &Object) -> Vec<Place> {
    let metadata = object.metadata();
    let namespace: Arc<str> = metadata.namespace.as_deref().unwrap_or_default().into();
    let none = Labels::new();
    let labels = metadata.labels.as_ref().unwrap_or(&none);
    let mut places: Vec<Place> = match object {
        Object::Pod(pod) => {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            let gateway = labels
                .get(label::GATEWAY_NAME)
                .map(|gateway| Place::PodOfGateway(Arc::clone(&namespace), gateway.as_str().into()));
            let by_label = labels
                .iter()
                .map(|(k, v)| Place::PodByLabel(Arc::clone(&namespace), k.as_str().into(), v.as_str().into()));
            node.map(|node| Place::PodOnNode(node.into())).into_iter().chain(gateway).chain(by_label).collect()
        }
        Object::Service(service) => {
            let first = selector(service).and_then(|selector| selector.first_key_value());
            let place =
                first.map(|(k, v)| Place::ServiceByLabel(Arc::clone(&namespace), k.as_str().into(), v.as_str().into()));
            place.into_iter().collect()
        }
        Object::EndpointSlice(slice) => {
            let service =
                service_of(slice).map(|service| Place::SliceOfService(Arc::clone(&namespace), service.into()));
            let pods = slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint.target_ref.as_ref());
            let pods =
                pods.filter(|target| target.kind.as_deref() == Some("Pod")).filter_map(|target| target.name.as_deref());
            let pods = pods.map(|pod| Place::SliceWithPod(Arc::clone(&namespace), pod.into()));
            service.into_iter().chain(pods).collect()
        }
        Object::ServiceEntry(entry) => {
            let first = entry_selector(entry).and_then(|selector| selector.first_key_value());
            let place =
                first.map(|(k, v)| Place::EntryByLabel(Arc::clone(&namespace), k.as_str().into(), v.as_str().into()));
            let hosts = entry.spec.hosts.iter().map(|host| Place::EntryOfHost(host.as_str().into()));
            place.into_iter().chain(hosts).collect()
        }
        Object::Gateway(gateway) => vec![Place::GatewayOfClass(class_of(gateway).into())],
        Object::AuthorizationPolicy(policy) => targeted(policy.spec.targets(), &namespace),
        Object::RequestAuthentication(policy) => targeted(policy.spec.targets(), &namespace),
        _ => routed(object, &namespace),
    };
    if is_asker(object) {
        // A namespace's own name is the namespace its waypoint is looked for in.
        let own = if namespace.is_empty() { metadata.name.as_deref().unwrap_or_default() } else { &namespace };
        places.extend(asked_for(labels, own).map(|(namespace, name)| Place::AskingFor(namespace, name)));
        if let Object::ServiceEntry(entry) = object {
            let endpoints = entry.spec.endpoints.iter().filter_map(|endpoint| asked_for(&endpoint.labels, own));
            places.extend(endpoints.map(|(namespace, name)| Place::AskingFor(namespace, name)));
        }
    }
    places
}

/// The waypoint that labels ask for: namespace and name. `none` asks for none.
fn asked_for(labels: &Labels, own: &str) -> Option<(Arc<str>, Arc<str>)> {
    let name = labels.get(label::USE_WAYPOINT)?;
    let namespace = labels.get(label::USE_WAYPOINT_NAMESPACE).map_or(own, String::as_str);
    Some((namespace.into(), name.as_str().into()))
}

fn is_asker(object: &Object) -> bool {
    matches!(
        object,
        Object::Namespace(_) | Object::Service(_) | Object::ServiceEntry(_) | Object::Pod(_) | Object::WorkloadEntry(_)
    )
}

fn targeted<'a>(targets: impl Iterator<Item = &'a TargetReference>, namespace: &Arc<str>) -> Vec<Place> {
    let place = |target: &TargetReference| {
        let kind = Kind::of_reference(&target.group, &target.kind)?;
        let namespace = if kind.is_namespaced() { Arc::clone(namespace) } else { "".into() };
        Some(Place::PolicyFor(kind, namespace, target.name.as_str().into()))
    };
    targets.filter_map(place).collect()
}

/// A reference as it stands in routes of every kind.
type Reference<'a> = (&'a Option<String>, &'a Option<String>, &'a Option<String>, &'a str);

fn routed(object: &Object, own: &Arc<str>) -> Vec<Place> {
    let mut places = BTreeSet::new();
    let mut parent = |(group, kind, namespace, name): Reference<'_>| {
        let group = group.as_deref().unwrap_or(GATEWAY_GROUP);
        if let Some(kind) = Kind::of_reference(group, kind.as_deref().unwrap_or("Gateway")) {
            let namespace = namespace.as_deref().map_or_else(|| Arc::clone(own), Arc::from);
            places.insert(Place::RouteOf(kind, namespace, name.into()));
        }
    };
    macro_rules! parents {
        ($route:expr) => {
            for one in $route.spec.parent_refs.iter().flatten() {
                parent((&one.group, &one.kind, &one.namespace, &one.name));
            }
        };
    }
    match object {
        Object::HttpRoute(route) => parents!(route),
        Object::GrpcRoute(route) => parents!(route),
        Object::TcpRoute(route) => parents!(route),
        Object::TlsRoute(route) => parents!(route),
        _ => return Vec::new(),
    }
    let mut backend = |(group, kind, namespace, name): Reference<'_>| {
        let (group, kind) = (group.as_deref().unwrap_or_default(), kind.as_deref().unwrap_or("Service"));
        let place = match Kind::of_reference(group, kind) {
            // A host name may be that of a Service or of a ServiceEntry of whatever namespace.
            None if (group, kind) == (HOSTNAME_GROUP, "Hostname") => (Kind::ServiceEntry, "".into()),
            None => return,
            Some(kind) => (kind, namespace.as_deref().map_or_else(|| Arc::clone(own), Arc::from)),
        };
        places.insert(Place::RouteTo(place.0, place.1, name.into()));
    };
    macro_rules! backends {
        ($list:expr) => {
            for one in $list {
                backend((&one.group, &one.kind, &one.namespace, &one.name));
            }
        };
    }
    match object {
        Object::HttpRoute(route) => {
            for rule in route.spec.rules.iter().flatten() {
                backends!(rule.backend_refs.iter().flatten());
                backends!(
                    rule.filters
                        .iter()
                        .flatten()
                        .filter_map(|one| one.request_mirror.as_ref())
                        .map(|one| &one.backend_ref)
                );
            }
        }
        Object::GrpcRoute(route) => {
            for rule in route.spec.rules.iter().flatten() {
                backends!(rule.backend_refs.iter().flatten());
                backends!(
                    rule.filters
                        .iter()
                        .flatten()
                        .filter_map(|one| one.request_mirror.as_ref())
                        .map(|one| &one.backend_ref)
                );
            }
        }
        Object::TcpRoute(route) => route.spec.rules.iter().for_each(|rule| backends!(&rule.backend_refs)),
        Object::TlsRoute(route) => route.spec.rules.iter().for_each(|rule| backends!(&rule.backend_refs)),
        _ => {}
    }
    places.into_iter().collect()
}

/// The parents a route names, as keys.
pub fn parents(route: &Object) -> impl Iterator<Item = Key> {
    places(route).into_iter().filter_map(|place| match place {
        Place::RouteOf(kind, namespace, name) => Some(Key { kind, namespace, name }),
        _ => None,
    })
}

fn class_of(gateway: &Gateway) -> &str {
    &gateway.spec.gateway_class_name
}

/// The selector of a service, if it has one that picks anything.
pub fn selector(service: &Service) -> Option<&Labels> {
    service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|selector| !selector.is_empty())
}

/// The service a slice says it belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)).map(String::as_str)
}

/// The selector of a ServiceEntry, if it has one that picks anything.
pub fn entry_selector(entry: &ServiceEntry) -> Option<&Labels> {
    entry.spec.workload_selector.as_ref().map(|selector| &selector.labels).filter(|labels| !labels.is_empty())
}

/// On every slice Kubernetes makes for a service (`k8s.io/api/discovery/v1`).
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The group of the Gateway API.
const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// The group of a backend that is any host name the mesh knows.
const HOSTNAME_GROUP: &str = "networking.istio.io";
