// SPDX-License-Identifier: Apache-2.0
//! Who has left a waypoint and is still served by it, for those who have not heard yet. Decided by `line`, obeyed by `tended`.

use std::collections::BTreeMap;

use crate::view::{Name, WorkloadId};

/// How one that left its waypoint is still served there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// As if it were still bound.
    Whole,
    /// For connections that are open: new ones are led to it no longer.
    Open,
}

/// By waypoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    services: BTreeMap<Name, BTreeMap<Name, Keep>>,
    workloads: BTreeMap<Name, BTreeMap<WorkloadId, Keep>>,
}

impl Kept {
    /// One more service.
    pub fn keep_service(&mut self, waypoint: &Name, service: &Name, how: Keep) {
        self.services.entry(waypoint.clone()).or_default().insert(service.clone(), how);
    }

    /// One more workload.
    pub fn keep_workload(&mut self, waypoint: &Name, workload: &WorkloadId, how: Keep) {
        self.workloads.entry(waypoint.clone()).or_default().insert(workload.clone(), how);
    }

    /// The services that left this waypoint.
    pub fn services(&self, waypoint: &Name) -> impl Iterator<Item = &Name> {
        self.services.get(waypoint).into_iter().flat_map(BTreeMap::keys)
    }

    /// How a service that left this waypoint is served.
    pub fn service(&self, waypoint: &Name, service: &Name) -> Option<Keep> {
        self.services.get(waypoint)?.get(service).copied()
    }

    /// The workloads that left this waypoint. They are kept whole or not at all.
    pub fn workloads(&self, waypoint: &Name) -> impl Iterator<Item = &WorkloadId> {
        self.workloads.get(waypoint).into_iter().flat_map(BTreeMap::keys)
    }
}
