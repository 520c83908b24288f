// SPDX-License-Identifier: Apache-2.0
//! The one place that changes what the node knows of the mesh: takes changes, keeps the indices in step, publishes the
//! next snapshot. Called by the control side only; readers hold snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::address::ServiceKey;
use super::change::{Change, Kind};
use super::endpoints::{self, Endpoint};
use super::index::{with, without};
use super::policy::Policy;
use super::refused::{PolicyEntry, Reach, RefusedAddress, RefusedPolicy};
use super::service::Service;
use super::snapshot::{Network, Snapshot};
use super::text::{Shared, Text};
use super::workload::{NetworkMode, Workload};

/// Holds the current snapshot and makes the next.
#[derive(Debug)]
pub struct Store {
    node: Text,
    current: Arc<Snapshot>,
    shared: Shared,
}

/// What came of some changes.
#[derive(Debug)]
pub struct Applied {
    /// The snapshot after all of them.
    pub snapshot: Arc<Snapshot>,
    /// What was not understood, to be told to the sender.
    pub rejected: Vec<Rejected>,
    /// Names that were to be removed but were not there.
    pub not_there: Vec<Text>,
    /// What is different now.
    pub changed: Changed,
}

/// A resource that was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its discovery name.
    pub name: Text,
    /// What was not understood.
    pub reason: Text,
}

/// What is different after some changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// Some workload.
    pub workloads: bool,
    /// Some workload of this node: certificates may be needed, open connections must be judged again.
    pub local: bool,
    /// Some service or its endpoints.
    pub services: bool,
    /// Some policy: open connections must be judged again.
    pub policies: bool,
    /// A kind of resource is complete for the first time.
    pub received: bool,
}

impl Changed {
    /// Whether anything is.
    pub fn anything(&self) -> bool {
        *self != Self::default()
    }

    /// Whether open inbound connections must be judged again.
    pub fn must_judge_again(&self) -> bool {
        self.policies || self.local || self.received
    }
}

impl Store {
    /// A store that knows nothing yet. Without a node's name the workloads of all nodes count as local.
    pub fn new(node: &str) -> Self {
        Self { node: node.into(), current: Arc::default(), shared: Shared::default() }
    }

    /// The current snapshot.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.current
    }

    /// Applies changes in their order. What was refused is applied too: see `refused`.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Applied {
        let mut next = Next {
            node: &self.node,
            shared: &mut self.shared,
            snapshot: Snapshot::clone(&self.current),
            endpoints: BTreeMap::new(),
            rejected: Vec::new(),
            not_there: Vec::new(),
            changed: Changed::default(),
        };
        for change in changes {
            next.apply(change);
        }
        next.settle_endpoints();
        let Next { mut snapshot, rejected, not_there, changed, .. } = next;
        if changed.anything() {
            snapshot.generation += 1;
            self.current = Arc::new(snapshot);
        }
        Applied { snapshot: Arc::clone(&self.current), rejected, not_there, changed }
    }
}

/// A snapshot in the making.
struct Next<'a> {
    node: &'a Text,
    shared: &'a mut Shared,
    snapshot: Snapshot,
    /// Endpoints that came or went, by service and uid: each list is rebuilt once per batch, however many changed.
    endpoints: BTreeMap<ServiceKey, BTreeMap<Text, Option<Endpoint>>>,
    rejected: Vec<Rejected>,
    not_there: Vec<Text>,
    changed: Changed,
}

impl Next<'_> {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Workload(workload) => self.put_workload(*workload),
            Change::Service(service) => self.put_service(*service),
            Change::Policy { name, policy } => self.put_policy(PolicyEntry::Known { name, policy: *policy }),
            Change::RefusedAddress(refused) => self.refuse_address(refused),
            Change::RefusedPolicy(refused) => self.refuse_policy(refused),
            Change::RemoveAddress(name) => self.remove_address(name),
            Change::RemovePolicy(name) => self.remove_policy(name),
            Change::Received(kind) => self.receive(kind),
        }
    }

    fn put_workload(&mut self, mut workload: Workload) {
        self.forget_refused(&workload.uid);
        if self.snapshot.workload(&workload.uid).is_some_and(|old| **old == workload) {
            return;
        }
        self.take_workload(&workload.uid.clone());
        workload.share(self.shared);
        let workload = Arc::new(workload);
        self.note_workload(&workload);
        if self.is_local(&workload) {
            self.snapshot.local.add(workload.pod_name(), &workload);
        }
        if workload.network_mode == NetworkMode::Standard {
            for &address in &workload.addresses {
                self.network(&workload.network).workloads.add(address, &workload);
            }
        }
        if let Some(key) = hostname_key(&workload) {
            self.snapshot.workloads_by_hostname.add(key, &workload);
        }
        for (service, ports) in workload.services.iter() {
            let endpoint = Endpoint { workload: Arc::clone(&workload), ports: ports.clone() };
            self.endpoints.entry(service.clone()).or_default().insert(workload.uid.clone(), Some(endpoint));
        }
        self.snapshot.workloads.insert_mut(workload.uid.clone(), workload);
    }

    /// Takes a workload out of all tables.
    fn take_workload(&mut self, uid: &Text) -> Option<Arc<Workload>> {
        let old = Arc::clone(self.snapshot.workload(uid)?);
        self.note_workload(&old);
        self.snapshot.workloads.remove_mut(uid);
        self.snapshot.local.remove(&old.pod_name(), &old);
        if old.network_mode == NetworkMode::Standard {
            let network = self.network(&old.network);
            for address in &old.addresses {
                network.workloads.remove(address, &old);
            }
            self.drop_if_empty(&old.network);
        }
        if let Some(key) = hostname_key(&old) {
            self.snapshot.workloads_by_hostname.remove(&key, &old);
        }
        for (service, _) in old.services.iter() {
            self.endpoints.entry(service.clone()).or_default().insert(uid.clone(), None);
        }
        Some(old)
    }

    fn put_service(&mut self, service: Service) {
        self.forget_refused(service.key().as_str());
        if self.snapshot.service(service.key().as_str()).is_some_and(|old| **old == service) {
            return;
        }
        self.take_service(&service.key().clone());
        self.changed.services = true;
        let service = Arc::new(service);
        for vip in &service.vips {
            self.network(&vip.network).vips.add(vip.address, &service);
        }
        for range in &service.cidr_vips {
            self.network(&range.network).add_range(range.cidr.trunc(), &service);
        }
        self.snapshot.services_by_hostname.add(service.hostname.clone(), &service);
        self.snapshot.services.insert_mut(service.key().clone(), service);
    }

    /// Takes a service out of all tables. Its endpoints stay and wait.
    fn take_service(&mut self, key: &ServiceKey) -> Option<Arc<Service>> {
        let old = Arc::clone(self.snapshot.service(key.as_str())?);
        self.changed.services = true;
        self.snapshot.services.remove_mut(key);
        self.snapshot.services_by_hostname.remove(&old.hostname, &old);
        for vip in &old.vips {
            self.network(&vip.network).vips.remove(&vip.address, &old);
            self.drop_if_empty(&vip.network);
        }
        for range in &old.cidr_vips {
            self.network(&range.network).remove_range(range.cidr.trunc(), &old);
            self.drop_if_empty(&range.network);
        }
        Some(old)
    }

    /// A refused record takes the place of the one before it, and at least its addresses.
    fn refuse_address(&mut self, mut refused: RefusedAddress) {
        self.rejected.push(Rejected { name: refused.name.clone(), reason: refused.reason.clone() });
        if let Some(old) = self.take_workload(&refused.name.clone())
            && old.network_mode == NetworkMode::Standard
        {
            refused.addresses.extend(old.addresses.iter().map(|&address| (old.network.clone(), address.into())));
        }
        if let Some(old) = refused.service_key().and_then(|key| self.take_service(&key)) {
            refused.addresses.extend(old.vips.iter().map(|vip| (vip.network.clone(), vip.address.into())));
            refused.addresses.extend(old.cidr_vips.iter().map(|range| (range.network.clone(), range.cidr)));
        }
        if let Some(before) = self.snapshot.refused_addresses.get(&refused.name)
            && refused.addresses.is_empty()
        {
            refused.addresses.clone_from(&before.addresses);
        }
        self.changed.workloads = true;
        self.changed.services = true;
        self.snapshot.refused_addresses.insert_mut(refused.name.clone(), Arc::new(refused));
    }

    fn forget_refused(&mut self, name: &str) {
        if self.snapshot.refused_addresses.remove_mut(name) {
            self.changed.workloads = true;
            self.changed.services = true;
        }
    }

    fn remove_address(&mut self, name: Text) {
        let was_refused = self.snapshot.refused_addresses.contains_key(&name);
        self.forget_refused(&name);
        let there =
            self.take_workload(&name).is_some() || name.parse().ok().and_then(|key| self.take_service(&key)).is_some();
        if !there && !was_refused {
            self.not_there.push(name);
        }
    }

    fn put_policy(&mut self, entry: PolicyEntry) {
        if self.snapshot.policy(entry.name()) == Some(&entry) {
            return;
        }
        self.take_policy(&entry.name().clone());
        self.changed.policies = true;
        let entry = Arc::new(entry);
        let policies = &mut self.snapshot.policies;
        match entry.reach() {
            Reach::Everybody => policies.global = with(&policies.global, &entry),
            Reach::Namespace(namespace) => policies.by_namespace.add(namespace, &entry),
            Reach::Listed => {}
        }
        policies.by_name.insert_mut(entry.name().clone(), entry);
    }

    fn refuse_policy(&mut self, refused: RefusedPolicy) {
        self.rejected.push(Rejected { name: refused.name.clone(), reason: refused.reason.clone() });
        self.put_policy(PolicyEntry::Refused(refused));
    }

    fn remove_policy(&mut self, name: Text) {
        if !self.take_policy(&name) {
            self.not_there.push(name);
        }
    }

    fn take_policy(&mut self, name: &Text) -> bool {
        let policies = &mut self.snapshot.policies;
        let Some(old) = policies.by_name.get(name).cloned() else { return false };
        self.changed.policies = true;
        policies.by_name.remove_mut(name);
        match old.reach() {
            Reach::Everybody => policies.global = without(&policies.global, &old),
            Reach::Namespace(namespace) => policies.by_namespace.remove(&namespace, &old),
            Reach::Listed => {}
        }
        true
    }

    fn receive(&mut self, kind: Kind) {
        let received = match kind {
            Kind::Addresses => &mut self.snapshot.received.addresses,
            Kind::Policies => &mut self.snapshot.received.policies,
        };
        self.changed.received |= !std::mem::replace(received, true);
    }

    /// Brings the lists of endpoints up to date, each once.
    fn settle_endpoints(&mut self) {
        for (service, changes) in std::mem::take(&mut self.endpoints) {
            self.changed.services = true;
            match endpoints::settle(self.snapshot.endpoints(&service), changes) {
                Some(endpoints) => self.snapshot.endpoints.insert_mut(service, endpoints),
                None => _ = self.snapshot.endpoints.remove_mut(&service),
            }
        }
    }

    fn note_workload(&mut self, workload: &Workload) {
        self.changed.workloads = true;
        self.changed.local |= self.is_local(workload);
    }

    fn is_local(&self, workload: &Workload) -> bool {
        self.node.is_empty() || workload.node == *self.node
    }

    fn network(&mut self, name: &Text) -> &mut Network {
        if !self.snapshot.networks.contains_key(name) {
            self.snapshot.networks.insert_mut(name.clone(), Network::default());
        }
        #[expect(clippy::expect_used, reason = "it was put there just now")]
        self.snapshot.networks.get_mut(name).expect("the network is in the table")
    }

    fn drop_if_empty(&mut self, name: &Text) {
        if self.snapshot.networks.get(name).is_some_and(Network::is_empty) {
            self.snapshot.networks.remove_mut(name);
        }
    }
}

fn hostname_key(workload: &Workload) -> Option<ServiceKey> {
    if workload.hostname.is_empty() {
        return None;
    }
    ServiceKey::new(&workload.namespace, &workload.hostname).ok()
}

impl From<Policy> for PolicyEntry {
    fn from(policy: Policy) -> Self {
        Self::Known { name: policy.key(), policy }
    }
}
