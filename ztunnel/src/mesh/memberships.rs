// SPDX-License-Identifier: Apache-2.0
//! The services a workload is an endpoint of. Tens of thousands of workloads have one or two each, so they lie side by
//! side and take no more than they need.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use super::address::ServiceKey;
use super::ports::PortMap;

/// Services and the ports they are served on, in the order of their keys. Read from a map; shown as a list of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<ServiceKey, PortMap>")]
pub struct Memberships(Box<[(ServiceKey, PortMap)]>);

impl Memberships {
    /// The ports on which a service is served.
    pub fn get(&self, key: &str) -> Option<&PortMap> {
        self.iter().find(|(listed, _)| listed.as_str() == key).map(|(_, ports)| ports)
    }

    /// All services with their ports.
    pub fn iter(&self) -> impl Iterator<Item = (&ServiceKey, &PortMap)> {
        self.0.iter().map(|(key, ports)| (key, ports))
    }

    /// Adds a service, unless it is there already.
    pub(super) fn add(&mut self, key: ServiceKey, ports: PortMap) {
        let mut all: BTreeMap<_, _> = std::mem::take(&mut self.0).into_iter().collect();
        all.entry(key).or_insert(ports);
        *self = Self::from(all);
    }

    /// The keys, to be changed into equal ones.
    pub(super) fn keys_mut(&mut self) -> impl Iterator<Item = &mut ServiceKey> {
        self.0.iter_mut().map(|(key, _)| key)
    }
}

impl From<BTreeMap<ServiceKey, PortMap>> for Memberships {
    fn from(services: BTreeMap<ServiceKey, PortMap>) -> Self {
        Self(services.into_iter().collect())
    }
}

impl Serialize for Memberships {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(|(key, _)| key))
    }
}
