// SPDX-License-Identifier: Apache-2.0
//! A service as `istio.workload.Address` (control-plane.md §1.4). Called by `render`.

use std::net::IpAddr;

use mesh_proto::workload::{
    Address, AppProtocol, IpFamilies, LoadBalancing, NetworkAddress, Port, Service, address,
    load_balancing::{HealthPolicy, Mode, Scope},
};

use super::{
    encode,
    resources::{Resource, Type},
    waypoint,
};
use crate::{
    api::Resolution,
    view::{self, Families, Preference, Snapshot},
};

pub(super) fn resource(snapshot: &Snapshot, service: &view::Service) -> Resource {
    let message = Address { r#type: Some(address::Type::Service(message(snapshot, service))) };
    let single = service.addresses.iter().map(|address| encode::alias(&service.network, *address));
    let ranges = service.ranges.iter().map(|range| format!("{}/{range}", service.network).into());
    Resource { aliases: single.chain(ranges).collect(), ..encode::resource(Type::Address, service.id(), &message) }
}

fn message(snapshot: &Snapshot, service: &view::Service) -> Service {
    let address = |address: IpAddr, length: Option<u32>| NetworkAddress {
        network: service.network.to_string(),
        address: encode::octets(address),
        length,
    };
    let single = service.addresses.iter().map(|one| address(*one, None));
    let ranges = service.ranges.iter().map(|range| address(range.addr(), Some(range.prefix_len().into())));
    Service {
        name: service.name.to_string(),
        namespace: service.namespace.to_string(),
        hostname: service.hostname.to_string(),
        addresses: single.chain(ranges).collect(),
        ports: service.ports.iter().map(port).collect(),
        load_balancing: load_balancing(service),
        ip_families: families(service.families).into(),
        subject_alt_names: service.subject_alt_names.iter().map(ToString::to_string).collect(),
        waypoint: waypoint::address(snapshot, service.waypoint.as_ref()),
        canonical: service.canonical,
        ingress_use_waypoint: service.ingress_use_waypoint,
        ..Service::default()
    }
}

fn port(port: &view::ServicePort) -> Port {
    let protocol = match port.protocol {
        view::AppProtocol::Unknown => AppProtocol::Unknown,
        view::AppProtocol::Http11 => AppProtocol::Http11,
        view::AppProtocol::Http2 => AppProtocol::Http2,
        view::AppProtocol::Grpc => AppProtocol::Grpc,
        view::AppProtocol::Tcp => AppProtocol::Tcp,
        view::AppProtocol::Tls => AppProtocol::Tls,
    };
    Port {
        service_port: port.port.into(),
        // 0: the endpoint's own list knows.
        target_port: port.target.map_or(0, u32::from),
        app_protocol: protocol.into(),
    }
}

fn families(families: Families) -> IpFamilies {
    match families {
        Families::Automatic => IpFamilies::Automatic,
        Families::Ipv4 => IpFamilies::Ipv4Only,
        Families::Ipv6 => IpFamilies::Ipv6Only,
        Families::Dual => IpFamilies::Dual,
    }
}

fn load_balancing(service: &view::Service) -> Option<LoadBalancing> {
    let (mode, preference): (Mode, &[Scope]) = match service.preference {
        Preference::Any => (Mode::UnspecifiedMode, &[]),
        Preference::OnlySameNode => (Mode::Strict, &[Scope::Node]),
        Preference::SameZone => (Mode::Failover, &[Scope::Network, Scope::Region, Scope::Zone]),
        Preference::SameNode => {
            (Mode::Failover, &[Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node])
        }
    };
    // Whoever connects to it knows where to.
    let mode = if service.resolution == Some(Resolution::None) { Mode::Passthrough } else { mode };
    let health = if service.publish_not_ready { HealthPolicy::AllowAll } else { HealthPolicy::OnlyHealthy };
    (service.preference != Preference::Any || service.publish_not_ready).then(|| LoadBalancing {
        routing_preference: preference.iter().map(|scope| (*scope).into()).collect(),
        mode: mode.into(),
        health_policy: health.into(),
    })
}
