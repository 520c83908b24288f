// SPDX-License-Identifier: Apache-2.0
//! A workload as `istio.workload.Address` (control-plane.md §1.0-1.3). Called by `render`.

use std::sync::Arc;

use mesh_proto::workload::{
    Address, ApplicationTunnel, Locality, NetworkMode, Port, PortList, TunnelProtocol, Workload, WorkloadStatus,
    WorkloadType, address, application_tunnel::Protocol,
};

use super::{
    encode,
    resources::{Resource, Type},
    waypoint,
};
use crate::view::{self, Mesh, Snapshot, Tunnel, WorkloadId};

/// The name of its resource, the same for its whole life.
pub(super) fn uid(mesh: &Mesh, id: &WorkloadId) -> String {
    let cluster = &mesh.cluster_id;
    match id {
        WorkloadId::Pod(pod) => format!("{cluster}//Pod/{pod}"),
        WorkloadId::Endpoint { slice, address } => {
            format!("{cluster}/discovery.k8s.io/EndpointSlice/{slice}/{address}")
        }
        WorkloadId::Entry(entry) => format!("{cluster}/networking.istio.io/WorkloadEntry/{entry}"),
        WorkloadId::EntryEndpoint { entry, address } => {
            format!("{cluster}/networking.istio.io/ServiceEntry/{entry}/{address}")
        }
    }
}

pub(super) fn resource(snapshot: &Snapshot, workload: &view::Workload) -> Resource {
    let uid = uid(&snapshot.mesh, &workload.id);
    let message = Address { r#type: Some(address::Type::Workload(message(snapshot, workload, uid.clone()))) };
    Resource {
        aliases: workload.addresses.iter().map(|address| encode::alias(&workload.network, *address)).collect(),
        node: (!workload.node.is_empty()).then(|| Arc::clone(&workload.node)),
        services: workload.services.keys().cloned().collect(),
        ..encode::resource(Type::Address, uid, &message)
    }
}

fn message(snapshot: &Snapshot, workload: &view::Workload, uid: String) -> Workload {
    let mesh = &snapshot.mesh;
    let (tunnel_protocol, native_tunnel) = match workload.tunnel {
        Tunnel::Plain => (TunnelProtocol::None, false),
        Tunnel::Hbone => (TunnelProtocol::Hbone, false),
        Tunnel::NativeHbone => (TunnelProtocol::Hbone, true),
    };
    let workload_type = match workload.id {
        // Whatever made it: istiod says so for every pod and entry.
        WorkloadId::Pod(_) | WorkloadId::Entry(_) | WorkloadId::EntryEndpoint { .. } => WorkloadType::Pod,
        WorkloadId::Endpoint { .. } => WorkloadType::Deployment,
    };
    let network_mode = if workload.on_host_network { NetworkMode::HostNetwork } else { NetworkMode::Standard };
    let status = if workload.ready { WorkloadStatus::Healthy } else { WorkloadStatus::Unhealthy };
    Workload {
        uid,
        name: workload.name.to_string(),
        namespace: workload.namespace.to_string(),
        addresses: workload.addresses.iter().map(|address| encode::octets(*address)).collect(),
        hostname: workload.hostname.to_string(),
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
        waypoint: waypoint::address(snapshot, workload.waypoint.as_ref()),
        application_tunnel: workload.application_tunnel.map(application_tunnel),
        capacity: workload.weight,
        ..Workload::default()
    }
}

fn application_tunnel(tunnel: view::waypoint::ApplicationTunnel) -> ApplicationTunnel {
    let protocol = if tunnel.proxy { Protocol::Proxy } else { Protocol::None };
    ApplicationTunnel { protocol: protocol.into(), port: tunnel.port.into() }
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
