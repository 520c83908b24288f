// SPDX-License-Identifier: Apache-2.0
//! What the objects mean together: services, workloads and policies resolved into one immutable snapshot, kept up to date change by change.
//! Pure. `line` drives it, `ambient` (and later `envoy`) translate it, the CA asks it who runs where.

mod build;
mod endpoint;
mod model;
mod owner;
mod pod;
mod policy;
pub mod routes;
pub mod rule;
mod service;
pub mod waypoint;

pub use build::{Touched, View};
pub use model::{
    AppProtocol, Families, Locality, Mesh, Name, Policy, PortLevel, PortMapping, Preference, Resident, Scope, Service,
    ServicePort, Snapshot, Tunnel, Workload, WorkloadId,
};
pub use policy::{is_dry_run, is_for_node_proxies};
