// SPDX-License-Identifier: Apache-2.0
//! Meshes for tests, written as a few lines of YAML in the form of the static file.

use mesh_proto::discovery::DeltaDiscoveryResponse;
use mesh_proto::workload as proto;
use prost::Message;

use super::{Change, Kind, PodName, Snapshot, StaticConfig, Store};

/// The mesh that these lines describe, complete, all nodes being ours.
pub(crate) fn mesh(yaml: &str) -> Snapshot {
    let mut store = Store::new("");
    store.apply(changes(yaml));
    Snapshot::clone(&store.apply([Change::Received(Kind::Addresses), Change::Received(Kind::Policies)]).snapshot)
}

/// What these lines change.
pub(crate) fn changes(yaml: &str) -> Vec<Change> {
    let config: StaticConfig = serde_saphyr::from_str(yaml).unwrap();
    config.into_changes().unwrap()
}

/// The pod of that name, which must be in the mesh.
pub(crate) fn pod(snapshot: &Snapshot, name: &str) -> PodName {
    snapshot.workloads().find(|workload| workload.name == name).unwrap().pod_name()
}

/// Recorded discovery responses.
pub(crate) fn recorded(lines: &str) -> Vec<DeltaDiscoveryResponse> {
    let response = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let hex = line["hex"].as_str().unwrap();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        DeltaDiscoveryResponse::decode(&*bytes).unwrap()
    };
    lines.lines().map(response).collect()
}

/// The changes a discovery response makes.
pub(crate) fn changes_of(response: &DeltaDiscoveryResponse) -> Vec<Change> {
    let is_policies = response.type_url.ends_with("Authorization");
    let update = |resource: &mesh_proto::discovery::Resource| {
        let bytes = &resource.resource.as_ref().unwrap().value;
        if is_policies { Change::authorization(&resource.name, bytes) } else { Change::address(&resource.name, bytes) }
    };
    let removal = |name: &String| {
        let name = name.as_str().into();
        if is_policies { Change::RemovePolicy(name) } else { Change::RemoveAddress(name) }
    };
    response.resources.iter().map(update).chain(response.removed_resources.iter().map(removal)).collect()
}

/// An address resource that holds this workload.
pub(crate) fn address_of(workload: proto::Workload) -> Vec<u8> {
    proto::Address { r#type: Some(proto::address::Type::Workload(workload)) }.encode_to_vec()
}

/// An address resource that holds this service.
pub(crate) fn address_of_service(service: proto::Service) -> Vec<u8> {
    proto::Address { r#type: Some(proto::address::Type::Service(service)) }.encode_to_vec()
}
