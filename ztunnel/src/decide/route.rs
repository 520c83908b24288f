// SPDX-License-Identifier: Apache-2.0
//! Where an outbound connection goes. *Why was this sent there?* is answered here.
//!
//! In order: a call to the proxy itself is rejected; a service is looked up, then a workload; what has a waypoint goes
//! through it; an HBONE workload is reached by HBONE; only what is known not to be in the mesh gets plaintext. Where
//! the mesh wants more than this program can do (another network, a workload without an address) the answer is a
//! rejection, never plaintext.
//!
//! All addresses are looked up in the network of the client's own record.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_proto::contract::port;
use mesh_proto::spiffe::Identity;
use rand::Rng;
use thiserror::Error;

use super::balance::{self, Chosen, Purpose, Wanted};
use super::expected::Expected;
use super::traffic::{Party, Security, ServiceRef, Traffic};
use super::waypoint;
use crate::mesh::{
    GatewayAddress, HBONE_PORT, Kind, Mode, PodName, Protocol, Service, ServiceKey, Snapshot, Text, Workload, canonical,
};

/// An outbound connection to be routed.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The pod it comes from.
    pub pod: &'a PodName,
    /// What the application asked for.
    pub target: SocketAddr,
}

/// Where an outbound connection goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Route {
    /// In plaintext to what the application asked for, which is not in the mesh.
    Passthrough {
        /// Where to dial.
        hop: SocketAddr,
        /// For the account.
        traffic: Traffic,
    },
    /// In plaintext to a workload that discovery knows and that is not in the mesh.
    Direct {
        /// Where to dial.
        hop: SocketAddr,
        /// For the account.
        traffic: Traffic,
    },
    /// Over HBONE.
    Hbone(Hbone),
    /// Nowhere.
    Reject {
        /// Why.
        error: RouteError,
        /// For the account: as much as was found out.
        traffic: Traffic,
    },
    /// It cannot be told yet: ask again when a newer snapshot has it.
    Need(Lookup),
}

/// A hop over HBONE.
#[derive(Debug, Clone, PartialEq)]
pub struct Hbone {
    /// As whom to connect.
    pub identity: Identity,
    /// Where to dial.
    pub hop: SocketAddr,
    /// What to ask the peer for.
    pub authority: SocketAddr,
    /// Who may answer.
    pub expected: Expected,
    /// Why there.
    pub via: Via,
    /// The client's record, for baggage.
    pub source: Arc<Workload>,
    /// For the account.
    pub traffic: Traffic,
}

/// Whose HBONE port a hop is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// The workload's own.
    Workload,
    /// That of a waypoint: of the service that was asked for, or of the workload.
    Waypoint,
}

/// A fact that a decision lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The record of the pod itself. It comes by discovery; 5 s are long enough to wait.
    OwnWorkload(PodName),
    /// Discovery has not yet sent everything there is of that kind.
    Everything(Kind),
}

/// Why an outbound connection goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RouteError {
    /// A loop.
    #[error("attempted recursive call to ourselves")]
    SelfCall,
    /// The pod's record makes no SPIFFE id.
    #[error("workload {0} has no usable identity; check its namespace, service account and trust domain")]
    NoIdentity(Text),
    /// The service does not have that port.
    #[error("service {service} has no port {port}; check the ports of the Service")]
    NoSuchPort {
        /// The service.
        service: ServiceKey,
        /// The port asked for.
        port: u16,
    },
    /// No endpoint can take the connection.
    #[error("no healthy upstream: {service} port {port} ({endpoints} endpoints, {usable} of them healthy)")]
    NoHealthyUpstream {
        /// The service.
        service: ServiceKey,
        /// The port asked for.
        port: u16,
        /// How many endpoints it has.
        endpoints: usize,
        /// How many of them may get traffic, but do not serve the port or a fitting address.
        usable: usize,
    },
    /// The workload cannot be dialled.
    #[error("no valid routing destination: workload {0} has no address that fits")]
    NoAddress(Text),
    /// Only a name tells where it is.
    #[error("workload {workload} is known by the host name {hostname} only; resolving names is not supported yet")]
    HostNameOnly {
        /// The workload.
        workload: Text,
        /// Its host name.
        hostname: Text,
    },
    /// A gateway would be needed.
    #[error("workload {workload} is on network {network:?}; connections to other networks are not supported yet")]
    OtherNetwork {
        /// The workload.
        workload: Text,
        /// Its network.
        network: Text,
    },
    /// The waypoint is not known.
    #[error("unknown waypoint {0}; check that its Gateway exists and has an address")]
    UnknownWaypoint(Text),
    /// The waypoint is known but cannot be reached.
    #[error("waypoint {waypoint} cannot be used: {error}")]
    Waypoint {
        /// The waypoint.
        waypoint: Text,
        /// Why not.
        #[source]
        error: Box<Self>,
    },
    /// The address belongs to something that may be in the mesh.
    #[error("{target} belongs to {name}, which discovery sent but we could not understand ({reason})")]
    NotUnderstood {
        /// The address.
        target: SocketAddr,
        /// The resource.
        name: Text,
        /// What was not understood.
        reason: Text,
    },
}

/// Decides where an outbound connection goes.
pub fn route(snapshot: &Snapshot, query: Query<'_>, rng: &mut impl Rng) -> Route {
    let target = canonical(query.target);
    if is_own_port(target.port()) && target.ip().is_loopback() {
        return Route::Reject { error: RouteError::SelfCall, traffic: Traffic::unknown() };
    }
    let Some(own) = snapshot.own(query.pod) else { return Route::Need(Lookup::OwnWorkload(query.pod.clone())) };
    Router { snapshot, own, target }.route(rng)
}

/// Whether this is a port on which the proxy listens in every pod, so that to connect there would be a loop.
pub(super) fn is_own_port(number: u16) -> bool {
    [port::OUTBOUND, port::INBOUND_PLAINTEXT, port::INBOUND_HBONE].contains(&number)
}

/// One leg over HBONE.
struct Leg {
    hop: SocketAddr,
    authority: SocketAddr,
    via: Via,
}

/// One connection being routed.
struct Router<'a> {
    snapshot: &'a Snapshot,
    own: &'a Arc<Workload>,
    target: SocketAddr,
}

impl Router<'_> {
    fn route(&self, rng: &mut impl Rng) -> Route {
        let service = self.snapshot.service_at(&self.own.network, self.target.ip(), Some(&self.own.namespace));
        match service {
            Some(service) => self.to_service(service, rng),
            None => self.to_address(None, rng),
        }
    }

    fn to_service(&self, service: &Arc<Service>, rng: &mut impl Rng) -> Route {
        let is_its_waypoint =
            waypoint::of_service(service).any(|gateway| waypoint::is_one_of(self.snapshot, gateway, self.own));
        if !is_its_waypoint && let Some(gateway) = waypoint::pick(service, rng) {
            return self.through(gateway, Some(service), rng);
        }
        if service.mode() == Mode::Passthrough {
            return self.to_address(Some(service), rng);
        }
        let wanted = Wanted {
            service,
            source: self.own,
            port: self.target.port(),
            near: self.target.ip(),
            purpose: Purpose::Service,
        };
        match balance::choose(self.snapshot.endpoints(service.key()), &wanted, rng) {
            Ok(Chosen { endpoint, hop }) => self.to_workload(&endpoint.workload, hop, Some(service)),
            Err(error) => self.reject(error, None, Some(service)),
        }
    }

    /// To the very address that was asked for, which may stand behind a service without endpoints.
    fn to_address(&self, service: Option<&Arc<Service>>, rng: &mut impl Rng) -> Route {
        let Some(workload) = self.snapshot.workload_at(&self.own.network, self.target.ip()) else {
            return self.outside(service);
        };
        if service.is_none()
            && let Some(gateway) = &workload.waypoint
            && !waypoint::is_one_of(self.snapshot, gateway, self.own)
        {
            return self.through(gateway, None, rng);
        }
        self.to_workload(workload, self.target, service)
    }

    /// To an address at which discovery knows no workload.
    fn outside(&self, service: Option<&Arc<Service>>) -> Route {
        if let Some(error) = self.plaintext_forbidden(self.target) {
            return self.reject(error, None, service);
        }
        if !self.snapshot.has_received(Kind::Addresses) {
            return Route::Need(Lookup::Everything(Kind::Addresses));
        }
        Route::Passthrough { hop: self.target, traffic: self.traffic(None, service, Security::Unknown) }
    }

    fn to_workload(&self, workload: &Arc<Workload>, app: SocketAddr, service: Option<&Arc<Service>>) -> Route {
        let workload = self.speaker(workload, app);
        match workload.protocol {
            Protocol::Hbone => {
                let hop = SocketAddr::new(app.ip(), HBONE_PORT);
                self.over_hbone(workload, Leg { hop, authority: app, via: Via::Workload }, service, service)
            }
            Protocol::Tcp => match self.plaintext_forbidden(app) {
                Some(error) => self.reject(error, Some(workload), service),
                None => Route::Direct { hop: app, traffic: self.traffic(Some(workload), service, Security::Unknown) },
            },
        }
    }

    /// The record that speaks for an address: a plain one (an entry somebody wrote) may name the address of a pod that
    /// is in the mesh, and does not take it out of it.
    fn speaker<'b>(&'b self, workload: &'b Arc<Workload>, app: SocketAddr) -> &'b Arc<Workload> {
        let found = self.snapshot.workload_at(&self.own.network, app.ip());
        found
            .filter(|found| found.protocol == Protocol::Hbone && workload.protocol == Protocol::Tcp)
            .unwrap_or(workload)
    }

    fn through(&self, gateway: &GatewayAddress, service: Option<&Arc<Service>>, rng: &mut impl Rng) -> Route {
        match waypoint::resolve(self.snapshot, gateway, self.own, self.target.ip(), rng) {
            Ok(found) => {
                let leg = Leg { hop: found.hop, authority: self.target, via: Via::Waypoint };
                self.over_hbone(found.workload, leg, found.service, service)
            }
            Err(error) => self.reject(error, None, service),
        }
    }

    fn over_hbone(
        &self,
        workload: &Arc<Workload>,
        leg: Leg,
        expected_of: Option<&Arc<Service>>,
        service: Option<&Arc<Service>>,
    ) -> Route {
        let no_identity = |of: &Workload| RouteError::NoIdentity(of.uid.clone());
        let Some(identity) = self.own.identity.clone() else {
            return self.reject(no_identity(self.own), Some(workload), service);
        };
        let Some(peer) = workload.identity.clone() else {
            return self.reject(no_identity(workload), Some(workload), service);
        };
        Route::Hbone(Hbone {
            identity,
            hop: leg.hop,
            authority: leg.authority,
            expected: Expected::new(peer, expected_of),
            via: leg.via,
            source: Arc::clone(self.own),
            traffic: self.traffic(Some(workload), service, Security::MutualTls),
        })
    }

    fn reject(&self, error: RouteError, workload: Option<&Arc<Workload>>, service: Option<&Arc<Service>>) -> Route {
        Route::Reject { error, traffic: self.traffic(workload, service, Security::Unknown) }
    }

    /// An address that something claims which was not understood may be in the mesh by now.
    fn plaintext_forbidden(&self, hop: SocketAddr) -> Option<RouteError> {
        let mut refused = [hop, self.target].into_iter().filter_map(|address| {
            self.snapshot.refused_at(&self.own.network, address.ip()).map(|refused| (address, refused))
        });
        refused.next().map(|(target, refused)| RouteError::NotUnderstood {
            target,
            name: refused.name.clone(),
            reason: refused.reason.clone(),
        })
    }

    fn traffic(&self, workload: Option<&Arc<Workload>>, service: Option<&Arc<Service>>, security: Security) -> Traffic {
        Traffic {
            source: Party::Workload(Arc::clone(self.own)),
            source_identity: if security == Security::MutualTls { self.own.identity.clone() } else { None },
            destination: Party::from(workload),
            destination_identity: workload.and_then(|workload| workload.identity.clone()),
            service: service.map(|service| ServiceRef(Arc::clone(service))),
            security,
        }
    }
}
