// SPDX-License-Identifier: Apache-2.0
//! What the node knows of the mesh: workloads, services, policies, and the store that publishes snapshots of them.
//!
//! Discovery (`xds`) turns resources into [`Change`]s, gives them to the one [`Store`], and publishes the [`Snapshot`]
//! that comes back. Everything is pure: no I/O, no clock, no lock. What is refused, and what follows, is told in
//! `refused`; [`StaticConfig`] is the file that may stand in for discovery; [`Dump`] is what `config_dump` shows.

mod address;
mod change;
mod dump;
mod endpoints;
mod index;
mod memberships;
mod policy;
mod ports;
mod refused;
#[cfg(test)]
pub(crate) mod sample;
mod service;
mod snapshot;
mod static_config;
mod store;
#[cfg(test)]
mod tests;
mod text;
mod unknown;
mod workload;

pub use address::{
    AddressError, Destination, GatewayAddress, HBONE_PORT, NetworkAddress, NetworkCidr, ServiceKey, canonical,
};
pub use change::{Change, Kind};
pub use dump::Dump;
pub use endpoints::{Endpoint, Endpoints};
pub use memberships::Memberships;
pub use policy::{Action, Clause, Match, Policy, PolicyError, Rule, Scope as PolicyScope, ServiceAccount, StringMatch};
pub use ports::PortMap;
pub use refused::{Effect, PolicyEntry, Reach, RefusedAddress, RefusedPolicy};
pub use service::{
    HealthPolicy, IpFamilies, LoadBalancer, Mode, Scope, Service, ServiceError, StaticEndpoint, Visibility,
    WeightedWaypoint,
};
pub use snapshot::Snapshot;
pub use static_config::{StaticConfig, StaticError};
pub use store::{Applied, Changed, Rejected, Store};
pub use text::Text;
pub use workload::{
    ApplicationTunnel, Health, Locality, NetworkMode, PodName, Protocol, TunnelProtocol, Workload, WorkloadError,
    WorkloadType,
};
