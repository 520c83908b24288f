// SPDX-License-Identifier: Apache-2.0
//! The resolved mesh as a whole: an immutable value with the questions it is asked. Built by `build`, read by everybody above.

use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use super::{
    index::Index,
    model::{Mesh, Name, Policy, Resident, Service, Workload, WorkloadId},
    waypoint::{Access, Subject, Waypoint},
};

/// The resolved mesh at one moment. A clone is cheap and never changes.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What is the same for the whole mesh.
    pub mesh: Arc<Mesh>,
    /// Endpoints.
    pub workloads: RedBlackTreeMapSync<WorkloadId, Arc<Workload>>,
    /// Services: those of Kubernetes by namespace and name, the hosts of ServiceEntries by namespace and host name (see [`Mesh::service_key`]).
    pub services: RedBlackTreeMapSync<Name, Arc<Service>>,
    /// Policies.
    pub policies: RedBlackTreeMapSync<Name, Arc<Policy>>,
    /// The Gateways traffic may go through.
    pub waypoints: RedBlackTreeMapSync<Name, Arc<Waypoint>>,
    /// The policies attached to waypoints and services; nothing where there are none.
    pub access: RedBlackTreeMapSync<Subject, Arc<Access>>,
    /// Pods that run or are about to.
    pub residents: RedBlackTreeMapSync<Name, Arc<Resident>>,
    pub(super) lodgings: RedBlackTreeMapSync<(Arc<str>, Name), u32>,
    pub(super) members: Index<Name, WorkloadId>,
    pub(super) hosts: Index<Arc<str>, Name>,
    pub(super) services_through: Index<Name, Name>,
    pub(super) workloads_through: Index<Name, WorkloadId>,
}

impl Snapshot {
    /// The pod of that name, unless it has ended.
    pub fn resident(&self, namespace: &str, pod: &str) -> Option<&Arc<Resident>> {
        self.residents.get(&Name::new(namespace, pod))
    }

    /// Whether a pod that has not ended runs on `node` as this service account.
    pub fn is_lodged(&self, node: &str, namespace: &str, service_account: &str) -> bool {
        !node.is_empty() && self.lodgings.contains_key(&(node.into(), Name::new(namespace, service_account)))
    }

    /// The endpoints of a service.
    pub fn endpoints(&self, service: &Name) -> impl Iterator<Item = &Arc<Workload>> {
        self.members.of(service).filter_map(|id| self.workloads.get(id))
    }

    /// The services that go through a waypoint, by their keys.
    pub fn services_through(&self, waypoint: &Name) -> impl Iterator<Item = &Name> {
        self.services_through.of(waypoint)
    }

    /// The workloads that go through a waypoint when they are addressed themselves.
    pub fn workloads_through(&self, waypoint: &Name) -> impl Iterator<Item = &WorkloadId> {
        self.workloads_through.of(waypoint)
    }

    /// The same mesh with other bindings to waypoints for these, as far as they are there.
    pub fn rebound<'a>(
        &self,
        services: impl Iterator<Item = (&'a Name, Option<&'a Name>)>,
        workloads: impl Iterator<Item = (&'a WorkloadId, Option<&'a Name>)>,
    ) -> Self {
        let mut other = self.clone();
        for (key, waypoint) in services {
            let Some(service) = self.services.get(key) else { continue };
            other.services_through.replace(key, &service.waypoint, waypoint);
            let service = Service { waypoint: waypoint.cloned(), ..(**service).clone() };
            other.services.insert_mut(key.clone(), Arc::new(service));
        }
        for (id, waypoint) in workloads {
            let Some(workload) = self.workloads.get(id) else { continue };
            other.workloads_through.replace(id, &workload.waypoint, waypoint);
            let workload = Workload { waypoint: waypoint.cloned(), ..(**workload).clone() };
            other.workloads.insert_mut(id.clone(), Arc::new(workload));
        }
        other
    }

    /// The service a host name means to a client: that of its own namespace, else the one that is meant everywhere.
    pub fn service_of_host(&self, namespace: &str, host: &str) -> Option<&Arc<Service>> {
        let own = self.services.get(&self.mesh.service_key(namespace, host));
        own.or_else(|| {
            let mut all = self.hosts.of(&host.into()).filter_map(|key| self.services.get(key));
            all.find(|service| service.canonical)
        })
    }
}
