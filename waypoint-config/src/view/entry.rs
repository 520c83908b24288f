// SPDX-License-Identifier: Apache-2.0
//! ServiceEntries as services (one for every host) and as workloads, WorkloadEntries as workloads (control-plane.md §1.3, §1.5). Called by `build`.
//!
//! Of several ServiceEntries of a namespace with the same host the oldest has it; a Kubernetes service of that name has it before all of them. Who does
//! not have a host has no endpoints there either.
//!
//! istiod lets every policy with a selector hold for the endpoints of a ServiceEntry without labels; here such a one is picked by no selector.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    model::{AppProtocol, Families, Locality, Name, PortMapping, Service, ServicePort, Tunnel, Workload, WorkloadId},
    owner, pod, policy,
    scene::Scene,
    service,
    waypoint::{Asker, Binding},
};
use crate::api::{EntryPort, Labels, Resolution, ServiceEntry, WorkloadEntry, WorkloadEntrySpec, parse_range};

/// The service of a host, by its key, if a ServiceEntry has it.
pub(super) fn resolve(scene: &Scene<'_>, key: &Name) -> Option<Service> {
    let entry = owner_of(scene, key)?;
    let host = scene.mesh.hostname(key);
    let spec = &entry.spec;
    let name = policy::name(&entry.metadata);
    let binding = binding(scene, entry);
    let ranges: Vec<_> = spec.addresses.iter().filter_map(|text| parse_range(text)).collect();
    let (single, ranges): (Vec<_>, Vec<_>) =
        ranges.into_iter().partition(|range| range.prefix_len() == range.max_prefix_len());
    let mut addresses: Vec<IpAddr> = single.into_iter().map(|range| range.addr()).collect();
    if spec.addresses.is_empty() {
        let allotted = entry.status.addresses.iter().filter(|one| one.host.is_empty() || one.host == host);
        addresses.extend(allotted.filter_map(|one| one.value.parse::<IpAddr>().ok()));
    }
    let everywhere = scene
        .store
        .entries_of_host(&host)
        .min_by(|a, b| policy::seniority(&a.metadata).cmp(&policy::seniority(&b.metadata)));
    let canonical = everywhere.is_some_and(|first| first.metadata.namespace == entry.metadata.namespace)
        && !is_kubernetes(scene, &host);
    Some(Service {
        hostname: host.into(),
        addresses,
        ranges,
        network: Arc::clone(scene.network),
        ports: spec.ports.iter().filter_map(port).collect(),
        families: Families::Automatic,
        preference: service::preference(scene.store, &name.namespace, &entry.metadata, None),
        publish_not_ready: spec.resolution == Resolution::None,
        resolution: Some(spec.resolution),
        subject_alt_names: spec.subject_alt_names.iter().map(|name| name.as_str().into()).collect(),
        canonical,
        waypoint: binding.waypoint().cloned(),
        ingress_use_waypoint: matches!(binding, Binding::Bound { ingress: true, .. }),
        name: name.name,
        namespace: name.namespace,
    })
}

/// Through which waypoint it goes.
pub(super) fn binding(scene: &Scene<'_>, entry: &ServiceEntry) -> Binding {
    let none = Labels::new();
    let labels = entry.metadata.labels.as_ref().unwrap_or(&none);
    scene.bind(Asker::Service, entry.metadata.namespace.as_deref().unwrap_or_default(), labels)
}

/// The keys of the hosts that a ServiceEntry has.
pub(super) fn own_hosts<'a>(scene: &'a Scene<'_>, entry: &'a ServiceEntry) -> impl Iterator<Item = Name> + 'a {
    let namespace = entry.metadata.namespace.as_deref().unwrap_or_default();
    let keys = entry.spec.hosts.iter().map(move |host| scene.mesh.service_key(namespace, host));
    keys.filter(move |key| owner_of(scene, key).is_some_and(|owner| owner.metadata.name == entry.metadata.name))
}

/// Where an endpoint serves a port: where it says itself, else where the ServiceEntry says, else on the same.
pub(super) fn mapping(port: &EntryPort, own: Option<u16>) -> Option<PortMapping> {
    let service_port = u16::try_from(port.number).ok()?;
    let target = if port.target_port == 0 { service_port } else { u16::try_from(port.target_port).ok()? };
    Some(PortMapping { service_port, target_port: own.unwrap_or(target) })
}

/// The endpoints of a ServiceEntry that are written in it, or that its hosts are by themselves.
pub(super) fn endpoints(scene: &Scene<'_>, entry: &ServiceEntry) -> Vec<Workload> {
    let spec = &entry.spec;
    let hosts: Vec<Name> = own_hosts(scene, entry).collect();
    if hosts.is_empty() {
        return Vec::new();
    }
    let none = Labels::new();
    let labels = entry.metadata.labels.as_ref().unwrap_or(&none);
    let name = policy::name(&entry.metadata);
    let id = |address: &str| WorkloadId::EntryEndpoint { entry: name.clone(), address: address.into() };
    if spec.endpoints.is_empty() && spec.workload_selector.is_none() && spec.resolution.is_dns() {
        let endpoint = |key: &Name| {
            let host = scene.mesh.hostname(key);
            let endpoint = WorkloadEntrySpec { address: host.clone(), ..WorkloadEntrySpec::default() };
            let services = by_entry(scene, entry, std::slice::from_ref(key), &endpoint);
            workload(scene, Outside { id: id(&host), object: &name, spec: &endpoint, labels, services })
        };
        return hosts.iter().map(endpoint).collect();
    }
    let endpoint = |endpoint: &WorkloadEntrySpec| {
        let services = by_entry(scene, entry, &hosts, endpoint);
        workload(scene, Outside { id: id(&endpoint.address), object: &name, spec: endpoint, labels, services })
    };
    spec.endpoints.iter().map(endpoint).collect()
}

/// The workload of a WorkloadEntry.
pub(super) fn lone(scene: &Scene<'_>, object: &WorkloadEntry) -> Workload {
    let name = policy::name(&object.metadata);
    let labels = labels(object);
    let mut services = BTreeMap::new();
    for object_of in scene.store.services_selecting(&name.namespace, &labels) {
        if let Some(spec) = service::spec(object_of) {
            let ports = spec.ports.iter().flatten();
            services.insert(
                scene.mesh.service_id(&policy::name(&object_of.metadata)),
                ports.filter_map(|port| pod::by_entry(port, &object.spec.ports)).collect(),
            );
        }
    }
    for entry in scene.store.entries_selecting(&name.namespace, &labels) {
        let hosts: Vec<Name> = own_hosts(scene, entry).collect();
        services.extend(by_entry(scene, entry, &hosts, &object.spec));
    }
    let spec = WorkloadEntrySpec { labels: labels.clone(), ..object.spec.clone() };
    let id = WorkloadId::Entry(name.clone());
    let found = workload(scene, Outside { id, object: &name, spec: &spec, labels: &labels, services });
    // istiod does not look at it.
    let unhealthy = object.status.conditions.iter().any(|one| one.r#type == "Healthy" && one.status == "False");
    Workload { ready: !unhealthy && object.metadata.deletion_timestamp.is_none(), ..found }
}

/// Through which waypoint traffic to the address of a WorkloadEntry goes.
pub(super) fn lone_binding(scene: &Scene<'_>, object: &WorkloadEntry) -> Binding {
    scene.bind(Asker::Workload, object.metadata.namespace.as_deref().unwrap_or_default(), &labels(object))
}

/// Those of the object, and those of the spec, which count more.
pub(super) fn labels(object: &WorkloadEntry) -> Labels {
    let mut labels = object.metadata.labels.clone().unwrap_or_default();
    labels.extend(object.spec.labels.clone());
    labels
}

/// One address outside Kubernetes: who wrote it down, and what it serves.
struct Outside<'a> {
    id: WorkloadId,
    object: &'a Name,
    spec: &'a WorkloadEntrySpec,
    /// What policies and people know it by.
    labels: &'a Labels,
    services: BTreeMap<Arc<str>, Vec<PortMapping>>,
}

fn workload(scene: &Scene<'_>, outside: Outside<'_>) -> Workload {
    let Outside { id, object, spec, labels, services } = outside;
    let names = owner::labelled(labels, || object.name.to_string());
    let address = spec.address.parse::<IpAddr>().ok();
    let mut place = spec.locality.splitn(3, '/').map(str::to_owned);
    let mut next = || place.next().unwrap_or_default();
    Workload {
        id,
        name: Arc::clone(&object.name),
        namespace: Arc::clone(&object.namespace),
        addresses: address.into_iter().collect(),
        hostname: if address.is_some() { "".into() } else { spec.address.as_str().into() },
        network: if spec.network.is_empty() { Arc::clone(scene.network) } else { spec.network.as_str().into() },
        tunnel: if pod::speaks_hbone(labels) { Tunnel::NativeHbone } else { Tunnel::Plain },
        service_account: spec.service_account.as_str().into(),
        node: "".into(),
        locality: Locality { region: next(), zone: next(), subzone: next() },
        canonical_name: names.canonical,
        canonical_revision: names.revision,
        workload_name: names.workload,
        on_host_network: false,
        ready: true,
        services,
        policies: policy::attached(scene.mesh, scene.store, &object.namespace, labels),
        // The labels of an endpoint in a ServiceEntry speak of its waypoint and of nothing else.
        waypoint: scene.bind(Asker::Workload, &object.namespace, &spec.labels).waypoint().cloned(),
        application_tunnel: None,
        weight: (spec.weight > 0).then_some(spec.weight),
    }
}

/// The services of a workload by a ServiceEntry.
fn by_entry(
    scene: &Scene<'_>,
    entry: &ServiceEntry,
    hosts: &[Name],
    spec: &WorkloadEntrySpec,
) -> BTreeMap<Arc<str>, Vec<PortMapping>> {
    let own = |port: &EntryPort| spec.ports.get(&port.name).and_then(|port| u16::try_from(*port).ok());
    let ports: Vec<_> = entry.spec.ports.iter().filter_map(|port| mapping(port, own(port))).collect();
    hosts.iter().map(|host| (scene.mesh.service_id(host), ports.clone())).collect()
}

/// Who has a host in its namespace.
fn owner_of<'a>(scene: &Scene<'a>, key: &Name) -> Option<&'a Arc<ServiceEntry>> {
    if scene.store.service(&key.namespace, &key.name).is_some_and(|object| service::spec(object).is_some()) {
        return None;
    }
    let host = scene.mesh.hostname(key);
    let all = scene.store.entries_of_host(&host);
    all.filter(|entry| entry.metadata.namespace.as_deref() == Some(&*key.namespace))
        .min_by(|a, b| policy::seniority(&a.metadata).cmp(&policy::seniority(&b.metadata)))
}

/// Whether a Kubernetes service of any namespace has this host name.
fn is_kubernetes(scene: &Scene<'_>, host: &str) -> bool {
    let suffix = format!(".svc.{}", scene.mesh.cluster_domain);
    let object = host
        .strip_suffix(&suffix)
        .and_then(|short| short.split_once('.'))
        .and_then(|(name, namespace)| scene.store.service(namespace, name));
    object.is_some_and(|object| service::spec(object).is_some())
}

fn port(port: &EntryPort) -> Option<ServicePort> {
    let protocol = match port.protocol.to_ascii_uppercase().as_str() {
        "HTTP" => AppProtocol::Http11,
        "HTTP2" => AppProtocol::Http2,
        "GRPC" => AppProtocol::Grpc,
        "TCP" | "" => AppProtocol::Tcp,
        "TLS" | "HTTPS" => AppProtocol::Tls,
        _ => AppProtocol::Unknown,
    };
    let mapping = mapping(port, None)?;
    Some(ServicePort { port: mapping.service_port, target: Some(mapping.target_port), protocol })
}
