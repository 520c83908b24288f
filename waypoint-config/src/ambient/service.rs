// SPDX-License-Identifier: Apache-2.0
//! A service as `istio.workload.Address` (control-plane.md §1.4). Called by `render`.

use mesh_proto::workload::{
    Address, AppProtocol, IpFamilies, LoadBalancing, NetworkAddress, Port, Service, address,
    load_balancing::{HealthPolicy, Mode, Scope},
};

use super::{
    encode,
    resources::{Resource, Type},
};
use crate::view::{self, Families, Preference};

pub(super) fn resource(service: &view::Service) -> Resource {
    let message = Address { r#type: Some(address::Type::Service(message(service))) };
    Resource {
        aliases: service.addresses.iter().map(|address| encode::alias(&service.network, *address)).collect(),
        ..encode::resource(Type::Address, service.id(), &message)
    }
}

fn message(service: &view::Service) -> Service {
    let address = |address: &std::net::IpAddr| NetworkAddress {
        network: service.network.to_string(),
        address: encode::octets(*address),
        length: None,
    };
    Service {
        name: service.name.to_string(),
        namespace: service.namespace.to_string(),
        hostname: service.hostname.to_string(),
        addresses: service.addresses.iter().map(address).collect(),
        ports: service.ports.iter().map(port).collect(),
        load_balancing: load_balancing(service),
        ip_families: families(service.families).into(),
        // A Kubernetes service is what its host name means first, whatever a ServiceEntry says.
        canonical: true,
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
    let health = if service.publish_not_ready { HealthPolicy::AllowAll } else { HealthPolicy::OnlyHealthy };
    (service.preference != Preference::Any || service.publish_not_ready).then(|| LoadBalancing {
        routing_preference: preference.iter().map(|scope| (*scope).into()).collect(),
        mode: mode.into(),
        health_policy: health.into(),
    })
}
