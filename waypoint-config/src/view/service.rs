// SPDX-License-Identifier: Apache-2.0
//! A Kubernetes service as the mesh sees it (control-plane.md §1.4). Called by `build`.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::core::v1::{self, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use mesh_proto::contract::{annotation, label};

use super::{
    model::{AppProtocol, Families, Name, Preference, Service, ServicePort},
    scene::Scene,
    waypoint::{Asker, Binding, Unbound},
};
use crate::{
    api::Labels,
    store::{Store, selector},
};

/// The spec, unless the service is only an alias of a name outside.
pub(super) fn spec(service: &v1::Service) -> Option<&ServiceSpec> {
    service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName"))
}

pub(super) fn resolve(scene: &Scene<'_>, object: &v1::Service) -> Option<Service> {
    let spec = spec(object)?;
    let name = object.metadata.name.as_deref()?;
    let namespace = object.metadata.namespace.as_deref()?;
    let binding = binding(scene, object);
    Some(Service {
        name: name.into(),
        namespace: namespace.into(),
        hostname: scene.mesh.hostname(&Name::new(namespace, name)).into(),
        addresses: addresses(spec),
        ranges: Vec::new(),
        network: Arc::clone(scene.network),
        ports: ports(spec),
        families: families(spec),
        preference: preference(scene.store, namespace, &object.metadata, Some(spec)),
        publish_not_ready: spec.publish_not_ready_addresses == Some(true),
        resolution: None,
        subject_alt_names: Vec::new(),
        // A Kubernetes service is what its host name means first, whatever a ServiceEntry says.
        canonical: true,
        waypoint: binding.waypoint().cloned(),
        ingress_use_waypoint: matches!(binding, Binding::Bound { ingress: true, .. }),
    })
}

/// Through which waypoint it goes. The service in front of a gateway's own pods goes through none, least of all through itself: it is known by the label
/// of who deployed it, or by its selector.
pub(super) fn binding(scene: &Scene<'_>, object: &v1::Service) -> Binding {
    let none = Labels::new();
    let labels = object.metadata.labels.as_ref().unwrap_or(&none);
    let managed = labels.get(label::MANAGED).is_some_and(|by| MANAGED_WAYPOINTS.contains(&by.as_str()));
    if managed || selector(object).is_some_and(|selector| selector.contains_key(label::GATEWAY_NAME)) {
        return Binding::Unbound(Unbound::IsWaypoint);
    }
    scene.bind(Asker::Service, object.metadata.namespace.as_deref().unwrap_or_default(), labels)
}

fn addresses(spec: &ServiceSpec) -> Vec<IpAddr> {
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    let texts = if listed.is_empty() { spec.cluster_ip.as_slice() } else { listed };
    // "None" of a headless service is no address either.
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn ports(spec: &ServiceSpec) -> Vec<ServicePort> {
    let ports = spec.ports.iter().flatten();
    ports
        .filter_map(|port| {
            let number = u16::try_from(port.port).ok()?;
            let target = match &port.target_port {
                None => Some(number),
                // 0 is what the API server's clients leave unsaid.
                Some(IntOrString::Int(0)) => Some(number),
                Some(IntOrString::Int(target)) => Some(u16::try_from(*target).ok()?),
                Some(IntOrString::String(_)) => None,
            };
            Some(ServicePort { port: number, target, protocol: protocol(port) })
        })
        .collect()
}

/// From transport, `appProtocol`, and the part of the port's name before the first `-`.
fn protocol(port: &v1::ServicePort) -> AppProtocol {
    if port.protocol.as_deref() == Some("UDP") {
        return AppProtocol::Unknown;
    }
    match port.app_protocol.as_deref() {
        Some("kubernetes.io/h2c") => return AppProtocol::Http2,
        Some("kubernetes.io/ws") => return AppProtocol::Http11,
        Some("kubernetes.io/wss") => return AppProtocol::Tls,
        _ => {}
    }
    let name = port.app_protocol.as_deref().or(port.name.as_deref()).unwrap_or_default().to_ascii_lowercase();
    if name.starts_with("grpc-web") {
        return AppProtocol::Unknown;
    }
    match name.split('-').next().unwrap_or_default() {
        "http" => AppProtocol::Http11,
        "http2" => AppProtocol::Http2,
        "grpc" => AppProtocol::Grpc,
        "tcp" => AppProtocol::Tcp,
        "tls" | "https" => AppProtocol::Tls,
        // Names istiod knows, but node proxies need not.
        "udp" | "mongo" | "redis" | "mysql" | "hbone" | "doublehbone" | "http_proxy" => AppProtocol::Unknown,
        _ if WELL_KNOWN_TCP.contains(&port.port) => AppProtocol::Tcp,
        _ => AppProtocol::Unknown,
    }
}

fn families(spec: &ServiceSpec) -> Families {
    let listed = spec.ip_families.as_deref().unwrap_or_default();
    let has = |family: &str| listed.iter().any(|one| one == family);
    match (has("IPv4"), has("IPv6")) {
        (true, true) => Families::Dual,
        (true, false) => Families::Ipv4,
        (false, true) => Families::Ipv6,
        (false, false) => Families::Automatic,
    }
}

/// From the spec, which only a Kubernetes service has, the object's annotation, the namespace's.
pub(super) fn preference(
    store: &Store,
    namespace: &str,
    metadata: &ObjectMeta,
    spec: Option<&ServiceSpec>,
) -> Preference {
    if spec.and_then(|spec| spec.internal_traffic_policy.as_deref()) == Some("Local") {
        return Preference::OnlySameNode;
    }
    match spec.and_then(|spec| spec.traffic_distribution.as_deref()) {
        Some("PreferClose" | "PreferSameZone") => return Preference::SameZone,
        Some("PreferSameNode") => return Preference::SameNode,
        // What Kubernetes added since is for the annotations to decide, as in istiod.
        _ => {}
    }
    let of_namespace =
        store.namespace(namespace).and_then(|namespace| annotated(namespace.metadata.annotations.as_ref()));
    match annotated(metadata.annotations.as_ref()).or(of_namespace).map(str::to_ascii_lowercase).as_deref() {
        Some("preferclose" | "prefersamezone") => Preference::SameZone,
        Some("prefersamenode") => Preference::SameNode,
        _ => Preference::Any,
    }
}

fn annotated(annotations: Option<&Labels>) -> Option<&str> {
    annotations?.get(annotation::TRAFFIC_DISTRIBUTION).map(String::as_str).filter(|value| !value.is_empty())
}

/// SMTP, DNS, MySQL, MongoDB: servers that speak first or are known to be TCP.
const WELL_KNOWN_TCP: [i32; 4] = [25, 53, 3306, 27017];

/// `gateway.istio.io/managed` of the services of waypoints and of gateways between networks (control-plane.md §1.6).
const MANAGED_WAYPOINTS: [&str; 2] = ["istio.io-mesh-controller", "istio.io-eastwest-controller"];
