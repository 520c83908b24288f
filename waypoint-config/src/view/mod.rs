// SPDX-License-Identifier: Apache-2.0
//! What the objects mean together: services, workloads and policies resolved into one immutable snapshot, kept up to date change by change.
//! Pure. `line` drives it, `ambient` (and later `envoy`) translate it, the CA asks it who runs where.

mod access;
mod build;
mod candidates;
mod endpoint;
mod entry;
mod gateway;
mod index;
mod model;
mod owner;
mod pod;
mod policy;
pub mod routes;
pub mod rule;
mod scene;
mod service;
mod snapshot;
pub mod status;
pub mod waypoint;

pub use build::{Touched, View};
pub use index::Index;
pub use model::{
    AppProtocol, Families, Locality, Mesh, Name, Policy, PortLevel, PortMapping, Preference, Resident, Scope, Service,
    ServicePort, Tunnel, Workload, WorkloadId,
};
pub use policy::{is_dry_run, is_for_node_proxies};
pub use snapshot::Snapshot;
