// SPDX-License-Identifier: Apache-2.0
//! A pod as an endpoint of the mesh and as a resident of its node (control-plane.md §1.2). Called by `build`.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{self, PodSpec},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use mesh_proto::{
    contract::{annotation, default, label},
    spiffe::Identity,
};

use super::{
    entry,
    model::{Locality, Mesh, Name, PortMapping, Resident, Tunnel, Workload, WorkloadId},
    owner, policy,
    scene::Scene,
    service,
    waypoint::{Asker, Binding, Unbound},
};
use crate::{
    api::Labels,
    store::{Store, selector, service_of},
};

/// The workload of a pod that has an address and has not ended.
pub(super) fn resolve(scene: &Scene<'_>, pod: &v1::Pod) -> Option<Workload> {
    let name: Arc<str> = pod.metadata.name.as_deref()?.into();
    let namespace: Arc<str> = pod.metadata.namespace.as_deref()?.into();
    let addresses = addresses(pod);
    if has_ended(pod) || addresses.is_empty() {
        return None;
    }
    let none = Labels::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    let spec = pod.spec.as_ref();
    let node = spec.and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    let names = owner::names(pod);
    let gateway = scene.instance_of(&namespace, labels);
    Some(Workload {
        id: WorkloadId::Pod(Name::new(Arc::clone(&namespace), Arc::clone(&name))),
        addresses,
        hostname: "".into(),
        network: Arc::clone(scene.network),
        tunnel: tunnel(pod, labels),
        service_account: service_account(pod).into(),
        locality: locality(scene.store, node),
        node: node.into(),
        canonical_name: names.canonical,
        canonical_revision: names.revision,
        workload_name: names.workload,
        on_host_network: spec.and_then(|spec| spec.host_network) == Some(true),
        ready: is_ready(pod),
        services: services(scene, pod, labels),
        policies: policy::attached(scene.mesh, scene.store, &namespace, labels),
        waypoint: binding(scene, pod).waypoint().cloned(),
        application_tunnel: gateway.and_then(|gateway| gateway.inbound),
        weight: None,
        name,
        namespace,
    })
}

/// Through which waypoint traffic to its addresses goes. An instance of a waypoint goes through none.
pub(super) fn binding(scene: &Scene<'_>, pod: &v1::Pod) -> Binding {
    let none = Labels::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    match scene.instance_of(namespace, labels) {
        Some(_) => Binding::Unbound(Unbound::IsWaypoint),
        None => scene.bind(Asker::Workload, namespace, labels),
    }
}

/// Who runs where, address or not, until it ends.
pub(super) fn resident(mesh: &Mesh, pod: &v1::Pod) -> Option<Resident> {
    if has_ended(pod) {
        return None;
    }
    let namespace = pod.metadata.namespace.as_deref()?;
    Some(Resident {
        uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default().into(),
        identity: Identity::new(&mesh.trust_domain, namespace, service_account(pod)).ok()?,
    })
}

/// What its node's labels say about the place.
pub(super) fn locality(store: &Store, node: &str) -> Locality {
    let labels = store.node(node).and_then(|node| node.metadata.labels.as_ref());
    let value = |key: &str| labels.and_then(|labels| labels.get(key)).cloned().unwrap_or_default();
    Locality {
        region: value("topology.kubernetes.io/region"),
        zone: value("topology.kubernetes.io/zone"),
        subzone: value(label::SUBZONE),
    }
}

fn has_ended(pod: &v1::Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn service_account(pod: &v1::Pod) -> &str {
    let name = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    name.filter(|name| !name.is_empty()).unwrap_or(default::SERVICE_ACCOUNT)
}

fn addresses(pod: &v1::Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let listed: Vec<IpAddr> = status.pod_ips.iter().flatten().filter_map(|one| one.ip.parse().ok()).collect();
    match listed.is_empty() {
        true => status.pod_ip.iter().filter_map(|text| text.parse().ok()).collect(),
        false => listed,
    }
}

fn is_ready(pod: &v1::Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True")
}

/// The annotation tells what the node agent has seen working; the label, what the program in the pod does by itself.
fn tunnel(pod: &v1::Pod, labels: &Labels) -> Tunnel {
    let annotations = pod.metadata.annotations.as_ref();
    let redirected = annotations.and_then(|all| all.get(annotation::REDIRECTION)).map(String::as_str);
    match (speaks_hbone(labels), redirected) {
        (true, _) => Tunnel::NativeHbone,
        (false, Some(annotation::REDIRECTION_ENABLED)) => Tunnel::Hbone,
        (false, _) => Tunnel::Plain,
    }
}

/// Whether a label says that the program behind it ends HBONE by itself.
pub(super) fn speaks_hbone(labels: &Labels) -> bool {
    labels.get(label::TUNNEL).is_some_and(|list| list.split(',').any(|one| one == "http"))
}

fn services(scene: &Scene<'_>, pod: &v1::Pod, labels: &Labels) -> BTreeMap<Arc<str>, Vec<PortMapping>> {
    let (mesh, store) = (scene.mesh, scene.store);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let mut services = BTreeMap::new();
    for object in store.services_selecting(namespace, labels) {
        if let Some(spec) = service::spec(object) {
            let ports = spec.ports.iter().flatten();
            services.insert(
                mesh.service_id(&policy::name(&object.metadata)),
                ports.filter_map(|port| by_spec(port, pod.spec.as_ref())).collect(),
            );
        }
    }
    for slice in store.slices_with(namespace, name).filter(|slice| names_pod(slice, pod)) {
        let object = service_of(slice).and_then(|service| store.service(namespace, service));
        // A selector already told; slices of it only repeat that.
        let Some(object) = object.filter(|object| selector(object).is_none()) else { continue };
        if let Some(spec) = service::spec(object) {
            let ports = spec.ports.iter().flatten();
            let mapped: &mut Vec<PortMapping> =
                services.entry(mesh.service_id(&policy::name(&object.metadata))).or_default();
            // The slice's own port numbers, where istiod takes the target port of the service: kube-proxy goes by the slice.
            mapped.extend(ports.filter_map(|port| by_slice(port, slice)));
            mapped.dedup();
        }
    }
    for object in store.entries_selecting(namespace, labels) {
        let ports = object.spec.ports.iter().filter_map(|port| {
            let named = || container_port(pod.spec.as_ref()?, &port.name);
            entry::mapping(port, named())
        });
        let ports: Vec<_> = ports.collect();
        services.extend(entry::own_hosts(scene, object).map(|host| (mesh.service_id(&host), ports.clone())));
    }
    services
}

/// Whether the slice means this life of the pod, and not an earlier one of the same name.
fn names_pod(slice: &EndpointSlice, pod: &v1::Pod) -> bool {
    slice.address_type != "FQDN"
        && slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint.target_ref.as_ref()).any(|target| {
            target.kind.as_deref() == Some("Pod")
                && target.name == pod.metadata.name
                && target.namespace.as_ref().is_none_or(|namespace| Some(namespace) == pod.metadata.namespace.as_ref())
                && target.uid.as_ref().is_none_or(|uid| Some(uid) == pod.metadata.uid.as_ref())
        })
}

/// Where a pod serves a port of a service that selects it. A name the pod does not have leaves the port out for this pod.
fn by_spec(port: &v1::ServicePort, pod: Option<&PodSpec>) -> Option<PortMapping> {
    let service_port = u16::try_from(port.port).ok()?;
    let target_port = match &port.target_port {
        None | Some(IntOrString::Int(0)) => service_port,
        Some(IntOrString::Int(target)) => u16::try_from(*target).ok()?,
        Some(IntOrString::String(name)) => container_port(pod?, name)?,
    };
    Some(PortMapping { service_port, target_port })
}

fn container_port(pod: &PodSpec, name: &str) -> Option<u16> {
    let sidecars = pod.init_containers.iter().flatten().filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let ports = pod.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let mut named = ports
        .filter(|port| port.name.as_deref() == Some(name) && matches!(port.protocol.as_deref(), None | Some("TCP")));
    named.next().and_then(|port| u16::try_from(port.container_port).ok())
}

/// Where a WorkloadEntry serves a port of a service that selects it: by the name of the target port, or of the port. A name it does not have leaves the
/// port out.
pub(super) fn by_entry(port: &v1::ServicePort, own: &BTreeMap<String, u32>) -> Option<PortMapping> {
    let service_port = u16::try_from(port.port).ok()?;
    let named = |name: Option<&String>| own.get(name?).and_then(|port| u16::try_from(*port).ok());
    let target_port = match &port.target_port {
        Some(IntOrString::String(name)) => named(Some(name))?,
        None | Some(IntOrString::Int(0)) => named(port.name.as_ref()).unwrap_or(service_port),
        Some(IntOrString::Int(target)) => named(port.name.as_ref()).or_else(|| u16::try_from(*target).ok())?,
    };
    Some(PortMapping { service_port, target_port })
}

/// Where the endpoints of a slice serve a port of its service: ports are joined by name.
pub(super) fn by_slice(port: &v1::ServicePort, slice: &EndpointSlice) -> Option<PortMapping> {
    let service_port = u16::try_from(port.port).ok()?;
    let name = port.name.as_deref().unwrap_or_default();
    let mut ports = slice.ports.iter().flatten();
    let port = ports.find(|one| {
        one.name.as_deref().unwrap_or_default() == name && matches!(one.protocol.as_deref(), None | Some("TCP"))
    })?;
    let target_port = match port.port {
        None => service_port,
        Some(number) => u16::try_from(number).ok()?,
    };
    Some(PortMapping { service_port, target_port })
}
