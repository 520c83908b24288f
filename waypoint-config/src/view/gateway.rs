// SPDX-License-Identifier: Apache-2.0
//! A Gateway as a waypoint (control-plane.md §1.6). Called by `build`, and by `status` for whose Gateway it is.
//!
//! A Gateway is usable once it has an address: `status.addresses`, which in Kubernetes whoever deployed it writes and in a directory an observation
//! below `status/`; without those, `spec.addresses`, by which a person says where a waypoint that nobody deployed is found.

use std::{net::IpAddr, sync::Arc};

use gateway_api::experimental::gateways::{
    GatewayListeners, GatewayListenersAllowedRoutesNamespaces, GatewayListenersAllowedRoutesNamespacesFrom as From,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use mesh_proto::contract::{annotation, label, port};

use super::{
    model::Name,
    pod,
    scene::Scene,
    waypoint::{Admits, ApplicationTunnel, TrafficType, Waypoint},
};
use crate::{
    api::{Gateway, Labels},
    store::Store,
};

/// The waypoint, if the Gateway has an address.
pub(super) fn resolve(scene: &Scene<'_>, gateway: &Gateway) -> Option<Waypoint> {
    let namespace = gateway.metadata.namespace.as_deref()?;
    let name = gateway.metadata.name.as_deref()?;
    let (hostname, addresses) = addresses(gateway);
    if hostname.is_none() && addresses.is_empty() {
        return None;
    }
    let inbound = annotated(scene.store, gateway, annotation::WAYPOINT_INBOUND_BINDING).and_then(binding);
    let pods = scene.store.pods_of_gateway(namespace, name);
    Some(Waypoint {
        name: Name::new(namespace, name),
        class: gateway.spec.gateway_class_name.as_str().into(),
        is_ours: is_ours(scene.store, &gateway.spec.gateway_class_name),
        traffic: traffic(scene.store, gateway),
        hostname,
        addresses,
        network: Arc::clone(scene.network),
        admits: listener(gateway, inbound).map_or_else(Admits::default, admits),
        identities: pods.filter_map(|pod| pod::resident(scene.mesh, pod)).map(|resident| resident.identity).collect(),
        inbound,
    })
}

/// Who looks after a Gateway: the controller its class names. Istio's own classes are known without an object.
pub(super) fn controller<'a>(store: &'a Store, class: &str) -> Option<&'a str> {
    let named = store.gateway_class(class).map(|class| class.spec.controller_name.as_str());
    named.or_else(|| BUILT_IN.iter().find(|(name, _)| *name == class).map(|(_, controller)| *controller))
}

/// Whether a class is that of waypoints.
pub(super) fn is_ours(store: &Store, class: &str) -> bool {
    controller(store, class) == Some(WAYPOINT_CONTROLLER)
}

fn addresses(gateway: &Gateway) -> (Option<Arc<str>>, Vec<IpAddr>) {
    let seen = gateway.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let mut all: Vec<_> = seen.map(|one| (one.r#type.as_deref(), one.value.as_str())).collect();
    if all.is_empty() {
        let wanted = gateway.spec.addresses.iter().flatten();
        all.extend(wanted.filter_map(|one| Some((one.r#type.as_deref(), one.value.as_deref()?))));
    }
    let hostname = all.iter().find(|(kind, name)| *kind == Some("Hostname") && !name.is_empty());
    let addresses = all.iter().filter(|(kind, _)| kind.is_none_or(|kind| kind == "IPAddress"));
    (hostname.map(|(_, name)| (*name).into()), addresses.filter_map(|(_, text)| text.parse().ok()).collect())
}

fn traffic(store: &Store, gateway: &Gateway) -> TrafficType {
    let of = |labels: Option<&Labels>| labels?.get(label::WAYPOINT_FOR).and_then(|text| TrafficType::of(text));
    let class = store.gateway_class(&gateway.spec.gateway_class_name);
    let of_class = || of(class?.metadata.labels.as_ref());
    of(gateway.metadata.labels.as_ref()).or_else(of_class).unwrap_or_default()
}

/// An annotation of the Gateway, else of its class.
fn annotated<'a>(store: &'a Store, gateway: &'a Gateway, key: &str) -> Option<&'a str> {
    let own = gateway.metadata.annotations.as_ref().and_then(|all| all.get(key));
    let of_class = || store.gateway_class(&gateway.spec.gateway_class_name)?.metadata.annotations.as_ref()?.get(key);
    own.or_else(of_class).map(String::as_str)
}

/// `PROXY`, `NONE`, each with a port behind a slash if need be. Anything else is left out.
fn binding(text: &str) -> Option<ApplicationTunnel> {
    let (protocol, port) = text.split_once('/').unwrap_or((text, "0"));
    let proxy = match protocol {
        "PROXY" => true,
        "NONE" => false,
        _ => return None,
    };
    Some(ApplicationTunnel { proxy, port: port.parse().ok()? })
}

/// The listener that says who may use it: that of the inbound binding, else the one for HBONE.
fn listener(gateway: &Gateway, inbound: Option<ApplicationTunnel>) -> Option<&GatewayListeners> {
    let listeners = &gateway.spec.listeners;
    let bound = inbound.filter(|tunnel| tunnel.port != 0).map(|tunnel| i32::from(tunnel.port));
    let of_binding = bound.and_then(|port| listeners.iter().find(|one| one.port == port));
    of_binding.or_else(|| listeners.iter().find(|one| is_hbone(one)))
}

/// Whether it is the one listener a waypoint has.
pub(super) fn is_hbone(listener: &GatewayListeners) -> bool {
    listener.protocol == "HBONE" && listener.port == i32::from(port::INBOUND_HBONE)
}

fn admits(listener: &GatewayListeners) -> Admits {
    let namespaces = listener.allowed_routes.as_ref().and_then(|routes| routes.namespaces.as_ref());
    let Some(GatewayListenersAllowedRoutesNamespaces { from, selector }) = namespaces else { return Admits::Same };
    match (from, selector) {
        (None | Some(From::Same), _) => Admits::Same,
        (Some(From::All), _) => Admits::All,
        // Without a selector it was refused when it was read.
        (Some(From::Selector), None) => Admits::Same,
        (Some(From::Selector), Some(selector)) => {
            let requirements = selector.match_expressions.iter().flatten().map(|one| LabelSelectorRequirement {
                key: one.key.clone(),
                operator: one.operator.clone(),
                values: one.values.clone(),
            });
            Admits::Selected(LabelSelector {
                match_labels: selector.match_labels.clone(),
                match_expressions: Some(requirements.collect()),
            })
        }
    }
}

/// The controller of waypoints.
const WAYPOINT_CONTROLLER: &str = "istio.io/mesh-controller";

/// Istio's classes and their controllers (control-plane.md §4.1).
const BUILT_IN: [(&str, &str); 4] = [
    ("istio-waypoint", WAYPOINT_CONTROLLER),
    ("istio", "istio.io/gateway-controller"),
    ("istio-remote", "istio.io/unmanaged-gateway"),
    ("istio-east-west", "istio.io/eastwest-controller"),
];
