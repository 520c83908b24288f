// SPDX-License-Identifier: Apache-2.0
//! A small mesh behind a waypoint, in a few calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use waypoint_config::{
    api::{AuthorizationPolicy, RequestAuthentication},
    envoy::{
        Profile, Renderer, Unit,
        input::{Destination, Endpoints, ServedService, Serving},
    },
    view::{
        AppProtocol, Families, Locality, Mesh, Name, PortMapping, Preference, Service, ServicePort, Tunnel, Workload,
        WorkloadId,
        waypoint::{Access, Admits, TrafficType, Waypoint},
    },
};

/// A waypoint that serves nothing.
pub(crate) fn empty() -> Serving {
    let waypoint = Waypoint {
        name: Name::new("shop", "waypoint"),
        class: "istio-waypoint".into(),
        traffic: TrafficType::All,
        hostname: None,
        addresses: vec!["10.96.0.2".parse().unwrap()],
        admits: Admits::Same,
        network: "".into(),
        identities: BTreeSet::new(),
        inbound: None,
        is_ours: true,
    };
    Serving {
        waypoint: Arc::new(waypoint),
        mesh: Arc::new(Mesh::default()),
        settings: Arc::default(),
        keys: Arc::default(),
        access: Access::default(),
        services: BTreeMap::new(),
        others: BTreeMap::new(),
        workloads: Vec::new(),
    }
}

/// A service of namespace `shop` with these ports.
pub(crate) fn service(name: &str, address: &str, ports: &[(u16, AppProtocol)]) -> Service {
    Service {
        name: name.into(),
        namespace: "shop".into(),
        hostname: format!("{name}.shop.svc.cluster.local").into(),
        addresses: vec![address.parse().unwrap()],
        network: "".into(),
        ports: ports
            .iter()
            .map(|(port, protocol)| ServicePort { port: *port, target: Some(*port), protocol: *protocol })
            .collect(),
        families: Families::Ipv4,
        preference: Preference::Any,
        publish_not_ready: false,
        ranges: Vec::new(),
        resolution: None,
        subject_alt_names: Vec::new(),
        canonical: true,
        waypoint: None,
        ingress_use_waypoint: false,
    }
}

/// A pod of that service, under the service account of the same name.
pub(crate) fn workload(of: &Service, pod: &str, address: &str) -> Workload {
    let mappings = of.ports.iter().map(|port| PortMapping { service_port: port.port, target_port: port.port + 8000 });
    Workload {
        id: WorkloadId::Pod(Name::new("shop", pod)),
        name: pod.into(),
        namespace: "shop".into(),
        addresses: vec![address.parse::<IpAddr>().unwrap()],
        network: "".into(),
        tunnel: Tunnel::Hbone,
        service_account: Arc::clone(&of.name),
        node: "node-1".into(),
        locality: Locality::default(),
        canonical_name: Arc::clone(&of.name),
        canonical_revision: "v1".into(),
        workload_name: Arc::clone(&of.name),
        on_host_network: false,
        ready: true,
        services: BTreeMap::from([(of.id(), mappings.collect())]),
        policies: BTreeSet::new(),
        hostname: "".into(),
        waypoint: None,
        application_tunnel: None,
        weight: None,
    }
}

/// With one pod.
pub(crate) fn served(service: Service, address: &str) -> ServedService {
    let pod = workload(&service, &format!("{}-1", service.name), address);
    ServedService {
        destination: Destination { service: Arc::new(service), endpoints: Endpoints::Workloads(vec![Arc::new(pod)]) },
        rules: BTreeMap::new(),
        access: Access::default(),
        is_leaving: false,
    }
}

/// Served by the waypoint.
pub(crate) fn add(serving: &mut Serving, service: Service, address: &str) -> Name {
    let name = Name::new("shop", Arc::clone(&service.name));
    serving.services.insert(name.clone(), served(service, address));
    name
}

/// The policies of a YAML text of several documents' `spec`s, by name.
pub(crate) fn authorization(name: &str, yaml: &str) -> Arc<AuthorizationPolicy> {
    let head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  namespace: shop\n  name: ";
    let annotations = if name.starts_with("dry-") { "\n  annotations: {istio.io/dry-run: \"true\"}" } else { "" };
    Arc::new(serde_saphyr::from_str(&format!("{head}{name}{annotations}\nspec: {yaml}\n")).unwrap())
}

/// The same for tokens.
pub(crate) fn authentication(name: &str, yaml: &str) -> Arc<RequestAuthentication> {
    let head = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata:\n  namespace: shop\n  name: ";
    Arc::new(serde_saphyr::from_str(&format!("{head}{name}\nspec: {yaml}\n")).unwrap())
}

/// All of it, made at once.
pub(crate) fn rendered(serving: &Serving, profile: Profile) -> Renderer {
    let mut renderer = Renderer::new(profile);
    assert!(renderer.refresh(serving, &BTreeSet::from([Unit::Waypoint, Unit::Workloads])));
    renderer
}
