// SPDX-License-Identifier: Apache-2.0
//! Addresses of an EndpointSlice behind which there is no pod: the API server, a database outside (control-plane.md §1.3). Called by `build`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::{
    model::{Locality, Name, Tunnel, Workload, WorkloadId},
    pod,
    scene::Scene,
    service,
};
use crate::store::service_of;

/// One workload for every such address. Nothing is known of them but address and ports: no identity, no policies.
pub(super) fn resolve(scene: &Scene<'_>, slice: &EndpointSlice) -> Vec<Workload> {
    let name: Arc<str> = slice.metadata.name.as_deref().unwrap_or_default().into();
    let namespace: Arc<str> = slice.metadata.namespace.as_deref().unwrap_or_default().into();
    let Some(of) = service_of(slice) else { return Vec::new() };
    let Some(spec) = scene.store.service(&namespace, of).and_then(|object| service::spec(object)) else {
        return Vec::new();
    };
    if slice.address_type == "FQDN" {
        return Vec::new();
    }
    let ports: Vec<_> = spec.ports.iter().flatten().filter_map(|port| pod::by_slice(port, slice)).collect();
    let id = scene.mesh.service_id(&Name::new(Arc::clone(&namespace), of));
    let empty: Arc<str> = "".into();
    let workload = |(address, ready): (IpAddr, bool)| Workload {
        id: WorkloadId::Endpoint { slice: Name::new(Arc::clone(&namespace), Arc::clone(&name)), address },
        name: Arc::clone(&name),
        namespace: Arc::clone(&namespace),
        addresses: vec![address],
        hostname: Arc::clone(&empty),
        network: Arc::clone(scene.network),
        tunnel: Tunnel::Plain,
        service_account: Arc::clone(&empty),
        node: Arc::clone(&empty),
        locality: Locality::default(),
        canonical_name: Arc::clone(&empty),
        canonical_revision: Arc::clone(&empty),
        workload_name: Arc::clone(&empty),
        on_host_network: true,
        ready,
        services: BTreeMap::from([(Arc::clone(&id), ports.clone())]),
        policies: BTreeSet::new(),
        waypoint: None,
        application_tunnel: None,
        weight: None,
    };
    addresses(slice).into_iter().map(workload).collect()
}

/// Each address once; the first mention counts.
fn addresses(slice: &EndpointSlice) -> BTreeMap<IpAddr, bool> {
    let mut found = BTreeMap::new();
    for endpoint in slice.endpoints.iter().flatten().filter(|endpoint| !is_pod(endpoint)) {
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
        for address in endpoint.addresses.iter().filter_map(|text| text.parse().ok()) {
            found.entry(address).or_insert(ready);
        }
    }
    found
}

/// A pod is a workload of its own.
fn is_pod(endpoint: &Endpoint) -> bool {
    endpoint.target_ref.as_ref().and_then(|target| target.kind.as_deref()) == Some("Pod")
}
