// SPDX-License-Identifier: Apache-2.0
//! A workload as `istio.workload.Address` (control-plane.md §1.0-1.3). Called by `render`.

use std::sync::Arc;

use mesh_proto::workload::{
    Address, Locality, NetworkMode, Port, PortList, TunnelProtocol, Workload, WorkloadStatus, WorkloadType, address,
};

use super::{
    encode,
    resources::{Resource, Type},
};
use crate::view::{self, Mesh, Tunnel, WorkloadId};

/// The name of its resource, the same for its whole life.
pub(super) fn uid(mesh: &Mesh, id: &WorkloadId) -> String {
    let cluster = &mesh.cluster_id;
    match id {
        WorkloadId::Pod(pod) => format!("{cluster}//Pod/{pod}"),
        WorkloadId::Endpoint { slice, address } => {
            format!("{cluster}/discovery.k8s.io/EndpointSlice/{slice}/{address}")
        }
    }
}

pub(super) fn resource(mesh: &Mesh, workload: &view::Workload) -> Resource {
    let uid = uid(mesh, &workload.id);
    let message = Address { r#type: Some(address::Type::Workload(message(mesh, workload, uid.clone()))) };
    Resource {
        aliases: workload.addresses.iter().map(|address| encode::alias(&workload.network, *address)).collect(),
        node: (!workload.node.is_empty()).then(|| Arc::clone(&workload.node)),
        services: workload.services.keys().cloned().collect(),
        ..encode::resource(Type::Address, uid, &message)
    }
}

fn message(mesh: &Mesh, workload: &view::Workload, uid: String) -> Workload {
    let (tunnel_protocol, native_tunnel) = match workload.tunnel {
        Tunnel::Plain => (TunnelProtocol::None, false),
        Tunnel::Hbone => (TunnelProtocol::Hbone, false),
        Tunnel::NativeHbone => (TunnelProtocol::Hbone, true),
    };
    let workload_type = match workload.id {
        // Whatever made it: istiod says so for every pod.
        WorkloadId::Pod(_) => WorkloadType::Pod,
        WorkloadId::Endpoint { .. } => WorkloadType::Deployment,
    };
    let network_mode = if workload.on_host_network { NetworkMode::HostNetwork } else { NetworkMode::Standard };
    let status = if workload.ready { WorkloadStatus::Healthy } else { WorkloadStatus::Unhealthy };
    Workload {
        uid,
        name: workload.name.to_string(),
        namespace: workload.namespace.to_string(),
        addresses: workload.addresses.iter().map(|address| encode::octets(*address)).collect(),
        network: workload.network.to_string(),
        tunnel_protocol: tunnel_protocol.into(),
        native_tunnel,
        trust_domain: encode::trust_domain(&mesh.trust_domain),
        service_account: workload.service_account.to_string(),
        node: workload.node.to_string(),
        canonical_name: workload.canonical_name.to_string(),
        canonical_revision: workload.canonical_revision.to_string(),
        workload_type: workload_type.into(),
        workload_name: workload.workload_name.to_string(),
        services: workload.services.iter().map(|(service, ports)| (service.to_string(), port_list(ports))).collect(),
        authorization_policies: workload.policies.iter().map(ToString::to_string).collect(),
        status: status.into(),
        cluster_id: mesh.cluster_id.clone(),
        locality: locality(&workload.locality),
        network_mode: network_mode.into(),
        ..Workload::default()
    }
}

fn port_list(ports: &[view::PortMapping]) -> PortList {
    let port = |port: &view::PortMapping| Port {
        service_port: port.service_port.into(),
        target_port: port.target_port.into(),
        ..Port::default()
    };
    PortList { ports: ports.iter().map(port).collect() }
}

fn locality(locality: &view::Locality) -> Option<Locality> {
    (*locality != view::Locality::default()).then(|| Locality {
        region: locality.region.clone(),
        zone: locality.zone.clone(),
        subzone: locality.subzone.clone(),
    })
}
