// SPDX-License-Identifier: Apache-2.0
//! Which waypoint stands before a service or workload, and where it is.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rand::{Rng, RngExt};

use super::balance::{self, Purpose, Wanted};
use super::route::RouteError;
use crate::mesh::{Destination, GatewayAddress, Service, Snapshot, Text, Workload};

/// A waypoint that can be dialled.
pub(super) struct Found<'a> {
    pub(super) workload: &'a Arc<Workload>,
    pub(super) hop: SocketAddr,
    pub(super) service: Option<&'a Arc<Service>>,
}

/// What a gateway address points to.
pub(super) enum Pointed<'a> {
    Service(&'a Arc<Service>),
    Workload(&'a Arc<Workload>),
}

/// The waypoints a service may be reached through.
pub(super) fn of_service(service: &Service) -> impl Iterator<Item = &GatewayAddress> {
    service.weighted_waypoints.iter().map(|weighted| &weighted.destination).chain(&service.waypoint)
}

/// The waypoint for one connection to a service: by weight if there are weights, else the one there is.
pub(super) fn pick<'a>(service: &'a Service, rng: &mut impl Rng) -> Option<&'a GatewayAddress> {
    let weighted = &service.weighted_waypoints;
    let total: u64 = weighted.iter().map(|one| u64::from(one.weight)).sum();
    if total == 0 {
        // Weights say how the load is shared. None at all does not say that it may go round.
        return service.waypoint.as_ref().or_else(|| weighted.first().map(|one| &one.destination));
    }
    let mut at = rng.random_range(0..total);
    for one in weighted {
        let weight = u64::from(one.weight);
        if at < weight {
            return Some(&one.destination);
        }
        at -= weight;
    }
    None
}

/// What a gateway address points to: a service before a workload.
pub(super) fn pointed<'a>(snapshot: &'a Snapshot, gateway: &GatewayAddress) -> Option<Pointed<'a>> {
    match &gateway.destination {
        Destination::Hostname(key) => {
            let service = snapshot.service(key.as_str()).map(Pointed::Service);
            service.or_else(|| snapshot.workload_named(key.as_str()).map(Pointed::Workload))
        }
        Destination::Address(at) => {
            let service = snapshot.service_at(&at.network, at.address, None).map(Pointed::Service);
            service.or_else(|| snapshot.workload_at(&at.network, at.address).map(Pointed::Workload))
        }
    }
}

/// Whether a workload is behind that gateway address itself, and so must not be sent through it.
pub(super) fn is_one_of(snapshot: &Snapshot, gateway: &GatewayAddress, workload: &Workload) -> bool {
    match pointed(snapshot, gateway) {
        Some(Pointed::Service(service)) => {
            snapshot.endpoints(service.key()).iter().any(|endpoint| endpoint.workload.uid == workload.uid)
        }
        Some(Pointed::Workload(found)) => found.uid == workload.uid,
        None => false,
    }
}

/// Where to dial a waypoint for a client that wants to be near an address.
pub(super) fn resolve<'a>(
    snapshot: &'a Snapshot,
    gateway: &GatewayAddress,
    source: &Workload,
    near: IpAddr,
    rng: &mut impl Rng,
) -> Result<Found<'a>, RouteError> {
    let name = || Text::from(gateway.to_string());
    let unusable = |error| RouteError::Waypoint { waypoint: name(), error: Box::new(error) };
    let port = gateway.hbone_mtls_port;
    match pointed(snapshot, gateway).ok_or_else(|| RouteError::UnknownWaypoint(name()))? {
        Pointed::Service(service) => {
            let wanted = Wanted { service, source, port, near, purpose: Purpose::Waypoint };
            let chosen = balance::choose(snapshot.endpoints(service.key()), &wanted, rng).map_err(unusable)?;
            Ok(Found { workload: &chosen.endpoint.workload, hop: chosen.hop, service: Some(service) })
        }
        Pointed::Workload(workload) => {
            let near = match &gateway.destination {
                Destination::Address(at) => at.address,
                Destination::Hostname(_) => near,
            };
            let address = balance::address(workload, source, None, near).map_err(unusable)?;
            Ok(Found { workload, hop: SocketAddr::new(address, port), service: None })
        }
    }
}
