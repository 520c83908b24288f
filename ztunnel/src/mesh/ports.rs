// SPDX-License-Identifier: Apache-2.0
//! The ports on which an endpoint serves a service.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Service port to target port, shared by the record of a workload and its place among the endpoints of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<u16, u16>", into = "BTreeMap<u16, u16>")]
pub struct PortMap(Arc<[(u16, u16)]>);

impl PortMap {
    /// The target port for a service port; none where discovery left it to the service.
    pub fn target(&self, service_port: u16) -> Option<u16> {
        self.iter().find(|&(service, target)| service == service_port && target != 0).map(|(_, target)| target)
    }

    /// All pairs of service and target port, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        self.0.iter().copied()
    }
}

impl Default for PortMap {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl From<BTreeMap<u16, u16>> for PortMap {
    fn from(ports: BTreeMap<u16, u16>) -> Self {
        Self(ports.into_iter().collect())
    }
}

impl From<PortMap> for BTreeMap<u16, u16> {
    fn from(ports: PortMap) -> Self {
        ports.iter().collect()
    }
}
