// SPDX-License-Identifier: Apache-2.0
//! Waypoints, and who goes through which (Istio's rules: the label of the object, else of its namespace). One pure function per question, with a reason
//! for every answer; `build` asks them, `status` tells the authors of the objects, `ambient` and `envoy` act on the outcome.

use std::{net::IpAddr, sync::Arc};

use super::model::Name;
use crate::api::{AuthorizationPolicy, Labels, RequestAuthentication};

/// A Gateway through which traffic of the mesh may go: of whatever class, as long as it has an address.
#[derive(Clone, Debug, PartialEq)]
pub struct Waypoint {
    /// Its Gateway.
    pub name: Name,
    /// The class of the Gateway.
    pub class: Arc<str>,
    /// Which traffic it takes (`istio.io/waypoint-for` of the Gateway, else of its class).
    pub traffic: TrafficType,
    /// The name by which it is reached; preferred to the addresses.
    pub hostname: Option<Arc<str>>,
    /// The addresses at which it is reached.
    pub addresses: Vec<IpAddr>,
    /// Whose objects may use it.
    pub admits: Admits,
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

/// The namespaces whose objects may use a waypoint (`allowedRoutes` of its HBONE listener).
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Admits {
    /// Its own.
    #[default]
    Same,
    /// All.
    All,
    /// Those with labels that match.
    Selected(k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector),
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
