// SPDX-License-Identifier: Apache-2.0
//! Where a connection that arrives in a pod is delivered: is it for this pod at all, at which port is the application,
//! and what does it want before the bytes. Whether it may get there is `authz`' business, afterwards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use mesh_proto::spiffe::Identity;
use thiserror::Error;

use super::route::{Lookup, is_own_port};
use super::traffic::{Baggage, Described, Party, Security, ServiceRef, Traffic};
use super::waypoint::{self, Pointed};
use crate::mesh::{PodName, Service, ServiceKey, Snapshot, TunnelProtocol, Workload, canonical};

/// A CONNECT request that arrived on port 15008.
#[derive(Debug, Clone, Copy)]
pub struct InboundRequest<'a> {
    /// The pod it arrived in.
    pub pod: &'a PodName,
    /// The other end of the TCP connection.
    pub source: SocketAddr,
    /// This end of the TCP connection: the pod's address and 15008.
    pub local: SocketAddr,
    /// What is asked for.
    pub requested: Requested<'a>,
    /// Who is at the other end.
    pub identity: &'a Identity,
    /// `host=` of the `forwarded` header: the service the client asked for.
    pub forwarded_host: Option<&'a str>,
    /// The `x-forwarded-network` header: the network of the client.
    pub forwarded_network: Option<&'a str>,
    /// What the other proxy tells about the client.
    pub baggage: Option<Baggage<'a>>,
    /// Whether an application that takes the PROXY protocol is reached through the pod's loopback
    /// (`LOCALHOST_APP_TUNNEL`).
    pub loopback_app_tunnel: bool,
}

/// The authority of a CONNECT request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requested<'a> {
    /// An address and port.
    Address(SocketAddr),
    /// A host name and port.
    Name {
        /// The host name.
        host: &'a str,
        /// The port.
        port: u16,
    },
}

/// Where an arriving connection is delivered.
#[derive(Debug, Clone, PartialEq)]
pub enum Inbound {
    /// To an application, if `authz` agrees.
    Deliver(Delivery),
    /// Nowhere.
    Reject {
        /// Why.
        error: InboundError,
        /// For the account: as much as was found out.
        traffic: Traffic,
    },
    /// It cannot be told yet: ask again when a newer snapshot has it.
    Need(Lookup),
}

/// How a connection is delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// The pod's record.
    pub workload: Arc<Workload>,
    /// The application, as `authz` judges it: the pod's address and the port after all translation.
    pub app: SocketAddr,
    /// Where to dial.
    pub dial: SocketAddr,
    /// From where to dial.
    pub from: DialFrom,
    /// What the application gets before the bytes.
    pub header: Option<ProxyHeader>,
    /// For the account.
    pub traffic: Traffic,
}

/// The source address of the connection to the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialFrom {
    /// The client's: the application sees who calls.
    Client(IpAddr),
    /// Whatever the kernel takes: the client is the pod itself, or its address cannot be used here.
    Own,
    /// The loopback address.
    Loopback(IpAddr),
}

/// A PROXY protocol header, version 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client.
    pub source: SocketAddr,
    /// What the client asked for.
    pub destination: SocketAddr,
    /// Who the client is.
    pub identity: Identity,
}

/// Why an arriving connection is delivered nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InboundError {
    /// It is for somebody else.
    #[error("ip mismatch: {connection} != {requested}: the pod is neither the destination nor a waypoint for it")]
    Mismatch {
        /// The address it arrived at.
        connection: IpAddr,
        /// The address it asks for.
        requested: IpAddr,
    },
    /// Nothing has that name.
    #[error("no service or workload for hostname {0}")]
    UnknownHostname(String),
    /// The service has that name, but not that port.
    #[error("service {service} has no port {port} on this workload")]
    UnknownPort {
        /// The service.
        service: ServiceKey,
        /// The port.
        port: u16,
    },
    /// The PROXY protocol must tell an address, and the service has none.
    #[error("service {0} has no address to put into a PROXY protocol header")]
    NoAddress(ServiceKey),
    /// A loop.
    #[error("attempted recursive call to ourselves")]
    SelfCall,
}

impl InboundError {
    /// The HTTP status that answers the request.
    pub fn status(&self) -> u16 {
        match self {
            Self::Mismatch { .. } => 400,
            Self::UnknownHostname(_) | Self::UnknownPort { .. } | Self::NoAddress(_) | Self::SelfCall => 503,
        }
    }
}

/// Decides where a CONNECT request is delivered.
pub fn inbound(snapshot: &Snapshot, request: &InboundRequest<'_>) -> Inbound {
    let Some(own) = snapshot.own(request.pod) else {
        return Inbound::Need(Lookup::OwnWorkload(request.pod.clone()));
    };
    let arrival = Arrival {
        snapshot,
        own,
        source: canonical(request.source),
        local: canonical(request.local).ip(),
        security: Security::MutualTls,
    };
    let party = arrival.source_of(request);
    let traffic = |service| arrival.traffic(party.clone(), Some(request.identity), service);
    match arrival.target(request) {
        Ok(target) => {
            let service =
                target.service.or_else(|| attributed(snapshot, own, request.forwarded_host, target.app.port()));
            arrival.deliver(request, &target, traffic(service))
        }
        Err(error) => Inbound::Reject { error, traffic: traffic(None) },
    }
}

/// Decides where a connection is delivered that arrived in plaintext on port 15006, asking for `destination`.
pub fn inbound_plaintext(snapshot: &Snapshot, pod: &PodName, source: SocketAddr, destination: SocketAddr) -> Inbound {
    let app = canonical(destination);
    let Some(own) = snapshot.own(pod) else { return Inbound::Need(Lookup::OwnWorkload(pod.clone())) };
    let arrival = Arrival { snapshot, own, source: canonical(source), local: app.ip(), security: Security::Unknown };
    let party = Party::from(snapshot.workload_at(&own.network, arrival.source.ip()));
    let service = attributed(snapshot, own, None, app.port());
    let traffic = arrival.traffic(party, None, service);
    if is_own_port(app.port()) {
        return Inbound::Reject { error: InboundError::SelfCall, traffic };
    }
    let from = arrival.spoofed(app.ip());
    Inbound::Deliver(Delivery { workload: Arc::clone(own), app, dial: app, from, header: None, traffic })
}

/// A connection that arrived in a pod.
struct Arrival<'a> {
    snapshot: &'a Snapshot,
    own: &'a Arc<Workload>,
    source: SocketAddr,
    local: IpAddr,
    security: Security,
}

/// What a request is for.
struct Target<'a> {
    /// The application, before an application tunnel moves the port.
    app: SocketAddr,
    /// What a PROXY header names.
    original: Original<'a>,
    /// The service, where the request names it.
    service: Option<&'a Arc<Service>>,
}

enum Original<'a> {
    Address(SocketAddr),
    Service(&'a Arc<Service>, u16),
}

impl<'a> Arrival<'a> {
    fn target(&self, request: &InboundRequest<'_>) -> Result<Target<'a>, InboundError> {
        match request.requested {
            Requested::Address(address) => {
                let address = canonical(address);
                if !self.is_for_us(address.ip()) {
                    return Err(InboundError::Mismatch { connection: self.local, requested: address.ip() });
                }
                let app = SocketAddr::new(self.local, address.port());
                Ok(Target { app, original: Original::Address(address), service: None })
            }
            Requested::Name { host, port } => self.named(host, port),
        }
    }

    fn named(&self, host: &str, port: u16) -> Result<Target<'a>, InboundError> {
        let namespace = self.own.namespace.as_str();
        if let Some(service) = self.snapshot.service_named(host, Some(namespace)) {
            let listed = self.own.services.get(service.key().as_str()).and_then(|ports| ports.target(port));
            let of_service = || service.ports.get(&port).copied().filter(|&target| target != 0);
            let target = listed
                .or_else(of_service)
                .ok_or_else(|| InboundError::UnknownPort { service: service.key().clone(), port })?;
            let app = SocketAddr::new(self.local, target);
            return Ok(Target { app, original: Original::Service(service, port), service: Some(service) });
        }
        let known = ServiceKey::new(namespace, host).ok().and_then(|key| self.snapshot.workload_named(key.as_str()));
        known.ok_or_else(|| InboundError::UnknownHostname(host.chars().take(LONGEST_NAME).collect()))?;
        let app = SocketAddr::new(self.local, port);
        Ok(Target { app, original: Original::Address(app), service: None })
    }

    /// The address asked for is the pod's, or the pod stands before it as its waypoint.
    fn is_for_us(&self, requested: IpAddr) -> bool {
        requested == self.local || self.own.application_tunnel.is_some() || self.is_waypoint_for(requested)
    }

    fn is_waypoint_for(&self, requested: IpAddr) -> bool {
        let leads_here = |gateway| match waypoint::pointed(self.snapshot, gateway) {
            Some(Pointed::Service(service)) => {
                let mut endpoints = self.snapshot.endpoints(service.key()).iter();
                endpoints.any(|endpoint| endpoint.workload.uid == self.own.uid)
            }
            Some(Pointed::Workload(workload)) => workload.addresses.contains(&self.local),
            None => false,
        };
        let network = self.own.network.as_str();
        if let Some(workload) = self.snapshot.workload_at(network, requested) {
            return workload.waypoint.iter().any(leads_here);
        }
        let service = self.snapshot.service_at(network, requested, Some(&self.own.namespace));
        service.is_some_and(|service| waypoint::of_service(service).any(leads_here))
    }

    fn deliver(&self, request: &InboundRequest<'_>, target: &Target<'_>, traffic: Traffic) -> Inbound {
        let mut app = target.app;
        let tunnel = self.own.application_tunnel;
        if let Some(port) = tunnel.and_then(|tunnel| tunnel.port) {
            app.set_port(port);
        }
        if is_own_port(app.port()) {
            return Inbound::Reject { error: InboundError::SelfCall, traffic };
        }
        let wants_header = tunnel.is_some_and(|tunnel| tunnel.protocol == TunnelProtocol::Proxy);
        let (mut dial, mut from, mut header) = (app, self.spoofed(app.ip()), None);
        if wants_header {
            let destination = match self.original_address(&target.original) {
                Ok(destination) => destination,
                Err(error) => return Inbound::Reject { error, traffic },
            };
            header = Some(ProxyHeader { source: self.source, destination, identity: request.identity.clone() });
            if request.loopback_app_tunnel {
                let loopback: IpAddr =
                    if app.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
                dial.set_ip(loopback);
                from = DialFrom::Loopback(loopback);
            }
        }
        Inbound::Deliver(Delivery { workload: Arc::clone(self.own), app, dial, from, header, traffic })
    }

    fn original_address(&self, original: &Original<'_>) -> Result<SocketAddr, InboundError> {
        match original {
            Original::Address(address) => Ok(*address),
            Original::Service(service, port) => {
                let order = |network: &str, address: IpAddr| (network != self.own.network.as_str(), address.is_ipv6());
                let best = service.vips.iter().min_by_key(|vip| order(&vip.network, vip.address));
                let vip = best.ok_or_else(|| InboundError::NoAddress(service.key().clone()))?;
                Ok(SocketAddr::new(vip.address, *port))
            }
        }
    }

    /// The application sees the client's address, except where that would be the pod's own or of another family.
    fn spoofed(&self, app: IpAddr) -> DialFrom {
        let client = self.source.ip();
        if client == app || client.is_ipv4() != app.is_ipv4() { DialFrom::Own } else { DialFrom::Client(client) }
    }

    /// Whoever is behind the source address, unless the request came through a gateway; else what the baggage tells.
    fn source_of(&self, request: &InboundRequest<'_>) -> Party {
        let network = self.own.network.as_str();
        let through_gateway = request.forwarded_network.is_some_and(|from| !from.eq_ignore_ascii_case(network));
        let found = if through_gateway { None } else { self.snapshot.workload_at(network, self.source.ip()) };
        match (found, request.baggage) {
            (Some(workload), _) => Party::Workload(Arc::clone(workload)),
            (None, Some(baggage)) => Party::Described(Arc::new(Described::from(baggage))),
            (None, None) => Party::Unknown,
        }
    }

    fn traffic(&self, source: Party, identity: Option<&Identity>, service: Option<&Arc<Service>>) -> Traffic {
        Traffic {
            source,
            source_identity: identity.cloned(),
            destination: Party::Workload(Arc::clone(self.own)),
            destination_identity: self.own.identity.clone(),
            service: service.map(|service| ServiceRef(Arc::clone(service))),
            security: self.security,
        }
    }
}

/// The service a connection to a port of the workload was probably meant for: the one the client names, if the workload
/// serves it; else the first that leads to that port.
fn attributed<'a>(
    snapshot: &'a Snapshot,
    own: &Workload,
    forwarded_host: Option<&str>,
    app_port: u16,
) -> Option<&'a Arc<Service>> {
    let candidates = || own.services.iter().filter_map(|(key, ports)| Some((snapshot.service(key.as_str())?, ports)));
    let named = forwarded_host.and_then(|host| candidates().find(|(service, _)| service.hostname == *host));
    let leads_there = |service: &Service, ports: &crate::mesh::PortMap| {
        let mut of_service = service.ports.iter().map(|(&port, &target)| ports.target(port).unwrap_or(target));
        of_service.any(|target| target == app_port)
    };
    let found = named.or_else(|| candidates().find(|(service, ports)| leads_there(service, ports)));
    found.map(|(service, _)| service)
}

/// A host name in an error is cut to what DNS allows.
const LONGEST_NAME: usize = 253;
