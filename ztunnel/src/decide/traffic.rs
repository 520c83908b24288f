// SPDX-License-Identifier: Apache-2.0
//! Who talks to whom, for metrics and the access log. Every decision hands this out whole, so that nothing is looked up
//! a second time when the connection is accounted for.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use mesh_proto::spiffe::Identity;

use crate::mesh::{Service, Text, Workload};

/// Who talks to whom. Equal values have the same metric labels, so it can be the key of a label set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Traffic {
    /// The client.
    pub source: Party,
    /// The client's identity; only if mutual TLS proves it.
    pub source_identity: Option<Identity>,
    /// The server, or the waypoint the connection is sent to.
    pub destination: Party,
    /// The server's identity, as discovery has it.
    pub destination_identity: Option<Identity>,
    /// The service the client asked for, as far as that is known.
    pub service: Option<ServiceRef>,
    /// How the hop between the proxies is secured.
    pub security: Security,
}

/// One end of a connection. Equal when all labels are.
#[derive(Debug, Clone)]
pub enum Party {
    /// Nothing is known.
    Unknown,
    /// Discovery knows it.
    Workload(Arc<Workload>),
    /// It has told about itself in baggage.
    Described(Arc<Described>),
}

/// What baggage tells about a party.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Described {
    /// Cluster.
    pub cluster: Text,
    /// Namespace.
    pub namespace: Text,
    /// Name of the controller.
    pub workload_name: Text,
    /// Canonical name.
    pub canonical_name: Text,
    /// Canonical revision.
    pub canonical_revision: Text,
    /// Region.
    pub region: Text,
    /// Zone.
    pub zone: Text,
}

/// Baggage as it stands in a request; empty texts where it says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Baggage<'a> {
    /// `k8s.cluster.name`.
    pub cluster: &'a str,
    /// `k8s.namespace.name`.
    pub namespace: &'a str,
    /// `k8s.<kind>.name`.
    pub workload_name: &'a str,
    /// `service.name`.
    pub canonical_name: &'a str,
    /// `service.version`.
    pub canonical_revision: &'a str,
    /// `cloud.region`.
    pub region: &'a str,
    /// `cloud.availability_zone`.
    pub zone: &'a str,
}

/// A service as labels name it: equal when its names are.
#[derive(Debug, Clone)]
pub struct ServiceRef(pub Arc<Service>);

/// How a hop is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// Mutual TLS.
    MutualTls,
    /// Not by us.
    Unknown,
}

impl Traffic {
    /// Traffic of which nothing is known.
    pub fn unknown() -> Self {
        Self {
            source: Party::Unknown,
            source_identity: None,
            destination: Party::Unknown,
            destination_identity: None,
            service: None,
            security: Security::Unknown,
        }
    }
}

impl Party {
    /// Name of the controller: label `*_workload`.
    pub fn workload_name(&self) -> &str {
        self.text(|workload| &workload.workload_name, |described| &described.workload_name)
    }

    /// Label `*_canonical_service`.
    pub fn canonical_name(&self) -> &str {
        self.text(|workload| &workload.canonical_name, |described| &described.canonical_name)
    }

    /// Labels `*_canonical_revision` and `*_version`.
    pub fn canonical_revision(&self) -> &str {
        self.text(|workload| &workload.canonical_revision, |described| &described.canonical_revision)
    }

    /// Label `*_app`: the canonical name, but the controller's name where only baggage is known.
    pub fn app(&self) -> &str {
        self.text(|workload| &workload.canonical_name, |described| &described.workload_name)
    }

    /// Label `*_workload_namespace`.
    pub fn namespace(&self) -> &str {
        self.text(|workload| &workload.namespace, |described| &described.namespace)
    }

    /// Label `*_cluster`.
    pub fn cluster(&self) -> &str {
        self.text(|workload| &workload.cluster_id, |described| &described.cluster)
    }

    /// Label `*_region`.
    pub fn region(&self) -> &str {
        self.text(|workload| &workload.locality.region, |described| &described.region)
    }

    /// Label `*_zone`.
    pub fn zone(&self) -> &str {
        self.text(|workload| &workload.locality.zone, |described| &described.zone)
    }

    /// For the access log: the name of the pod, else the canonical name.
    pub fn log_name(&self) -> &str {
        match self {
            Self::Workload(workload) if !workload.name.is_empty() => &workload.name,
            Self::Workload(_) | Self::Described(_) | Self::Unknown => self.canonical_name(),
        }
    }

    /// Whether anything is known.
    pub fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown)
    }

    /// The record in discovery.
    pub fn workload(&self) -> Option<&Arc<Workload>> {
        match self {
            Self::Workload(workload) => Some(workload),
            Self::Described(_) | Self::Unknown => None,
        }
    }

    fn text<'a>(
        &'a self,
        of_workload: impl Fn(&'a Workload) -> &'a Text,
        of_described: impl Fn(&'a Described) -> &'a Text,
    ) -> &'a str {
        match self {
            Self::Unknown => "",
            Self::Workload(workload) => of_workload(workload),
            Self::Described(described) => of_described(described),
        }
    }

    fn labels(&self) -> [&str; 8] {
        [
            self.workload_name(),
            self.canonical_name(),
            self.canonical_revision(),
            self.app(),
            self.namespace(),
            self.cluster(),
            self.region(),
            self.zone(),
        ]
    }
}

impl PartialEq for Party {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Workload(one), Self::Workload(other)) if Arc::ptr_eq(one, other) => true,
            _ => self.is_known() == other.is_known() && self.labels() == other.labels(),
        }
    }
}

impl Eq for Party {}

impl Hash for Party {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.labels().hash(state);
    }
}

impl From<Option<&Arc<Workload>>> for Party {
    fn from(workload: Option<&Arc<Workload>>) -> Self {
        workload.map_or(Self::Unknown, |workload| Self::Workload(Arc::clone(workload)))
    }
}

impl From<Baggage<'_>> for Described {
    fn from(baggage: Baggage<'_>) -> Self {
        Self {
            cluster: cut(baggage.cluster).into(),
            namespace: cut(baggage.namespace).into(),
            workload_name: cut(baggage.workload_name).into(),
            canonical_name: cut(baggage.canonical_name).into(),
            canonical_revision: cut(baggage.canonical_revision).into(),
            region: cut(baggage.region).into(),
            zone: cut(baggage.zone).into(),
        }
    }
}

impl std::ops::Deref for ServiceRef {
    type Target = Arc<Service>;
    fn deref(&self) -> &Arc<Service> {
        &self.0
    }
}

impl PartialEq for ServiceRef {
    fn eq(&self, other: &Self) -> bool {
        (self.key(), &self.name) == (other.key(), &other.name)
    }
}

impl Eq for ServiceRef {}

impl Hash for ServiceRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.key(), &self.name).hash(state);
    }
}

/// Peers write baggage as they like, and it becomes labels that are kept: no name in Kubernetes is longer.
fn cut(text: &str) -> &str {
    match text.char_indices().nth(LONGEST_NAME) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

const LONGEST_NAME: usize = 253;
