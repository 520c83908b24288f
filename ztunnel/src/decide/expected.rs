// SPDX-License-Identifier: Apache-2.0
//! Who may answer at the other end of an outbound connection.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use mesh_proto::spiffe::Identity;

use crate::mesh::Service;

/// The identities of which a peer must show one. Cheap to clone; equal when the identities are.
#[derive(Debug, Clone)]
pub struct Expected {
    workload: Identity,
    service: Option<Arc<Service>>,
}

impl Expected {
    /// The identity of a workload, and those a service names.
    pub(super) fn new(workload: Identity, service: Option<&Arc<Service>>) -> Self {
        Self { workload, service: service.filter(|service| !service.identities().is_empty()).cloned() }
    }

    /// Whether a peer with that identity is the right one.
    pub fn accepts(&self, identity: &Identity) -> bool {
        self.iter().any(|expected| expected == identity)
    }

    /// The identities, that of the workload first.
    pub fn iter(&self) -> impl Iterator<Item = &Identity> {
        std::iter::once(&self.workload).chain(self.of_service())
    }

    fn of_service(&self) -> &[Identity] {
        self.service.as_ref().map_or(&[], |service| service.identities())
    }
}

impl PartialEq for Expected {
    fn eq(&self, other: &Self) -> bool {
        self.workload == other.workload && self.of_service() == other.of_service()
    }
}

impl Eq for Expected {}

impl Hash for Expected {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.workload.hash(state);
        self.of_service().hash(state);
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, identity) in self.iter().enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            write!(f, "{separator}{identity}")?;
        }
        Ok(())
    }
}
