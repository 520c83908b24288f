// SPDX-License-Identifier: Apache-2.0
//! Waypoints, and who goes through which (Istio's rules: the label of the object, else of its namespace). One pure function per question, with a reason
//! for every answer; `build` asks them, `status` tells the authors of the objects, `ambient` and `envoy` act on the outcome.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use mesh_proto::{contract::label, spiffe::Identity};

use super::model::Name;
use crate::api::{AuthorizationPolicy, Labels, RequestAuthentication, selects};

/// A Gateway through which traffic of the mesh may go: of whatever class, as long as it has an address.
#[derive(Clone, Debug, PartialEq)]
pub struct Waypoint {
    /// Its Gateway.
    pub name: Name,
    /// The class of the Gateway.
    pub class: Arc<str>,
    /// Whether its class is that of waypoints this control plane configures; others are only led to.
    pub is_ours: bool,
    /// Which traffic it takes (`istio.io/waypoint-for` of the Gateway, else of its class).
    pub traffic: TrafficType,
    /// The name by which it is reached; preferred to the addresses.
    pub hostname: Option<Arc<str>>,
    /// The addresses at which it is reached.
    pub addresses: Vec<IpAddr>,
    /// The network they are valid in.
    pub network: Arc<str>,
    /// Whose objects may use it.
    pub admits: Admits,
    /// As whom its pods run.
    pub identities: BTreeSet<Identity>,
    /// How its pods want their connections, if not as HBONE.
    pub inbound: Option<ApplicationTunnel>,
}

impl Waypoint {
    /// Whether objects of a namespace may use it.
    pub fn admits(&self, namespace: &str, labels: &Labels) -> bool {
        match &self.admits {
            Admits::Same => *self.name.namespace == *namespace,
            Admits::All => true,
            Admits::Selected(selector) => selects(selector, labels),
        }
    }
}

/// How a gateway's pods want their connections (`ambient.istio.io/waypoint-inbound-binding`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplicationTunnel {
    /// Whether connections begin with a PROXY protocol header.
    pub proxy: bool,
    /// The port they go to; 0: the one that was asked for.
    pub port: u16,
}

/// Which traffic a waypoint takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficType {
    /// To services.
    #[default]
    Service,
    /// To the addresses of workloads.
    Workload,
    /// Both.
    All,
    /// None.
    None,
}

impl TrafficType {
    /// From a label's value; anything unknown is no word on the matter.
    pub fn of(text: &str) -> Option<Self> {
        match text {
            "service" => Some(Self::Service),
            "workload" => Some(Self::Workload),
            "all" => Some(Self::All),
            "none" => Some(Self::None),
            _ => None,
        }
    }

    /// Whether traffic to what asks is taken.
    pub fn fits(self, asker: Asker) -> bool {
        match asker {
            Asker::Service => matches!(self, Self::Service | Self::All),
            Asker::Workload => matches!(self, Self::Workload | Self::All),
        }
    }
}

/// The namespaces whose objects may use a waypoint (`allowedRoutes` of its HBONE listener).
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Admits {
    /// Its own.
    #[default]
    Same,
    /// All.
    All,
    /// Those with labels that match.
    Selected(LabelSelector),
}

/// The kind of object that asks for a waypoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A Service or ServiceEntry.
    Service,
    /// A Pod or WorkloadEntry.
    Workload,
}

/// Through which waypoint an object's traffic goes, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Through this one.
    Bound {
        /// The Gateway.
        waypoint: Name,
        /// Whether gateways at the edge of the mesh send through it, too.
        ingress: bool,
    },
    /// Through none.
    Unbound(Unbound),
}

impl Binding {
    /// The waypoint, if there is one.
    pub fn waypoint(&self) -> Option<&Name> {
        match self {
            Self::Bound { waypoint, .. } => Some(waypoint),
            Self::Unbound(_) => None,
        }
    }
}

/// Why an object goes through no waypoint. [`Unbound::tells`] says which of these its author hears of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unbound {
    /// Nobody asked for one.
    NotAsked,
    /// It says `none`.
    OptedOut,
    /// It is a waypoint itself.
    IsWaypoint,
    /// There is no such Gateway, or it has no address yet.
    NotReady {
        /// The one asked for.
        waypoint: Name,
    },
    /// The Gateway does not admit the object's namespace.
    NotAdmitted {
        /// The one asked for.
        waypoint: Name,
    },
    /// The Gateway does not take traffic of this kind.
    WrongTraffic {
        /// The one asked for.
        waypoint: Name,
        /// Whether the object asked itself; what its namespace asks for is silently left out.
        own_label: bool,
    },
}

impl Unbound {
    /// Whether the author of the object is told: somebody asked, and does not get it.
    pub fn tells(&self) -> bool {
        match self {
            Self::NotAsked | Self::OptedOut | Self::IsWaypoint => false,
            Self::NotReady { .. } | Self::NotAdmitted { .. } => true,
            Self::WrongTraffic { own_label, .. } => *own_label,
        }
    }
}

/// What the policies attached to one waypoint, or to one service, say. Policies of a waypoint hold for everything that goes through it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// Oldest first, then by name.
    pub authorization: Vec<Arc<AuthorizationPolicy>>,
    /// Oldest first, then by name.
    pub authentication: Vec<Arc<RequestAuthentication>>,
}

/// To what policies are attached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A waypoint: by the name of its Gateway, or by its class from the root namespace.
    Waypoint(Name),
    /// A service, by its key in the snapshot.
    Service(Name),
}

/// The labels an asker and its namespace have.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// What it is.
    pub asker: Asker,
    /// The object's namespace.
    pub namespace: &'a str,
    /// The object's labels.
    pub own: &'a Labels,
    /// Its namespace's labels.
    pub of_namespace: &'a Labels,
}

impl Asking<'_> {
    /// Through which waypoint, and why. The object's own word counts, else its namespace's; who names a waypoint that is not there goes through none,
    /// not through the namespace's. `find` gives the waypoints there are.
    ///
    /// The labels and the annotation by which Istio shares traffic among two waypoints (`istio.io/use-waypoint-canary`) are not read.
    pub fn bind<'w>(&self, find: impl Fn(&Name) -> Option<&'w Waypoint>) -> Binding {
        let (wanted, own_label) = match (self.wanted(self.own), self.wanted(self.of_namespace)) {
            (Some(own), _) => (own, true),
            (None, Some(inherited)) => (inherited, false),
            (None, None) => return Binding::Unbound(Unbound::NotAsked),
        };
        let Some(wanted) = wanted else { return Binding::Unbound(Unbound::OptedOut) };
        let waypoint = wanted;
        match find(&waypoint) {
            None => Binding::Unbound(Unbound::NotReady { waypoint }),
            Some(found) if !found.admits(self.namespace, self.of_namespace) => {
                Binding::Unbound(Unbound::NotAdmitted { waypoint })
            }
            Some(found) if !found.traffic.fits(self.asker) => {
                Binding::Unbound(Unbound::WrongTraffic { waypoint, own_label })
            }
            Some(_) => Binding::Bound { waypoint, ingress: self.ingress() },
        }
    }

    /// `None`: nothing is said; `Some(None)`: none is wanted.
    fn wanted(&self, labels: &Labels) -> Option<Option<Name>> {
        let name = labels.get(label::USE_WAYPOINT).filter(|name| !name.is_empty())?;
        let namespace = labels.get(label::USE_WAYPOINT_NAMESPACE).filter(|name| !name.is_empty());
        let namespace = namespace.map_or(self.namespace, String::as_str);
        Some((name != NO_WAYPOINT).then(|| Name::new(namespace, name.as_str())))
    }

    fn ingress(&self) -> bool {
        let said =
            self.own.get(label::INGRESS_USE_WAYPOINT).or_else(|| self.of_namespace.get(label::INGRESS_USE_WAYPOINT));
        self.asker == Asker::Service && said.is_some_and(|value| value == "true")
    }
}

/// The value that asks for no waypoint.
const NO_WAYPOINT: &str = "none";

#[cfg(test)]
mod tests;
