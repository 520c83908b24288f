// SPDX-License-Identifier: Apache-2.0
//! Where a waypoint is found, as node proxies are told (control-plane.md §1.6). Called by `service` and `workload`.

use mesh_proto::{
    contract::port,
    workload::{GatewayAddress, NamespacedHostname, NetworkAddress, gateway_address::Destination},
};

use super::encode;
use crate::view::{Name, Snapshot};

/// By its name, which outlives its addresses, else by the first of those.
pub(super) fn address(snapshot: &Snapshot, waypoint: Option<&Name>) -> Option<GatewayAddress> {
    let waypoint = snapshot.waypoints.get(waypoint?)?;
    let destination = match (&waypoint.hostname, waypoint.addresses.first()) {
        (Some(hostname), _) => Destination::Hostname(NamespacedHostname {
            namespace: waypoint.name.namespace.to_string(),
            hostname: hostname.to_string(),
        }),
        (None, Some(address)) => Destination::Address(NetworkAddress {
            network: waypoint.network.to_string(),
            address: encode::octets(*address),
            length: None,
        }),
        (None, None) => return None,
    };
    Some(GatewayAddress { destination: Some(destination), hbone_mtls_port: port::INBOUND_HBONE.into() })
}
