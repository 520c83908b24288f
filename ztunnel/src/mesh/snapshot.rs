// SPDX-License-Identifier: Apache-2.0
//! What the node knows of the mesh at one moment. Never changes; decisions read it, `store` makes the next one.
//!
//! All tables are persistent: the next snapshot shares everything with this one but the path to what changed.
//!
//! Endpoints have a table of their own, by the key of the service. A workload puts itself there for each service it
//! lists, whether or not the service is known; so endpoints that come before their service wait in the same place in
//! which they are used, and no index holds a copy that could go stale.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rpds::HashTrieMapSync;

use super::address::ServiceKey;
use super::change::Kind;
use super::endpoints::{EndpointList, Endpoints};
use super::index::{Index, Several};
use super::refused::{PolicyEntry, RefusedAddress};
use super::service::Service;
use super::text::Text;
use super::workload::{PodName, Workload};

/// What the node knows of the mesh at one moment. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub(super) generation: u64,
    pub(super) received: Received,
    pub(super) workloads: HashTrieMapSync<Text, Arc<Workload>>,
    pub(super) local: Index<PodName, Workload>,
    pub(super) services: HashTrieMapSync<ServiceKey, Arc<Service>>,
    pub(super) endpoints: HashTrieMapSync<ServiceKey, EndpointList>,
    pub(super) networks: HashTrieMapSync<Text, Network>,
    pub(super) services_by_hostname: Index<Text, Service>,
    pub(super) workloads_by_hostname: Index<ServiceKey, Workload>,
    pub(super) refused_addresses: HashTrieMapSync<Text, Arc<RefusedAddress>>,
    pub(super) policies: Policies,
}

/// The addresses of one network.
#[derive(Debug, Clone, Default)]
pub(super) struct Network {
    pub(super) workloads: Index<IpAddr, Workload>,
    pub(super) vips: Index<IpAddr, Service>,
    pub(super) ranges: Index<IpNet, Service>,
    /// The prefix lengths of the ranges, longest first.
    pub(super) lengths: Arc<[u8]>,
}

/// The policies by name, and those that apply without being listed.
#[derive(Debug, Clone, Default)]
pub(super) struct Policies {
    pub(super) by_name: HashTrieMapSync<Text, Arc<PolicyEntry>>,
    pub(super) global: Several<PolicyEntry>,
    pub(super) by_namespace: Index<Text, PolicyEntry>,
}

/// Which kinds of resource have been sent completely at least once.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Received {
    pub(super) addresses: bool,
    pub(super) policies: bool,
}

impl Snapshot {
    /// Grows with every change.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether everything of that kind has been sent at least once.
    pub fn has_received(&self, kind: Kind) -> bool {
        match kind {
            Kind::Addresses => self.received.addresses,
            Kind::Policies => self.received.policies,
        }
    }

    /// A workload by its uid.
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The workload that owns an address. Of several: pods before others, HBONE before TCP.
    pub fn workload_at(&self, network: &str, address: IpAddr) -> Option<&Arc<Workload>> {
        self.networks.get(network)?.workloads.at(&address).first()
    }

    /// The record of a pod on this node.
    pub fn own(&self, pod: &PodName) -> Option<&Arc<Workload>> {
        self.local.at(pod).first()
    }

    /// The workload with that `namespace/hostname`.
    pub fn workload_named(&self, key: &str) -> Option<&Arc<Workload>> {
        self.workloads_by_hostname.at(key).first()
    }

    /// A service by its `namespace/hostname`.
    pub fn service(&self, key: &str) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// The service behind a virtual address, as a client of that namespace sees it.
    ///
    /// An exact address comes before ranges. Of several services with the same address one of the client's namespace
    /// is taken, then the canonical one. Of ranges one of the client's namespace comes before a narrower one of
    /// another, then the narrowest.
    pub fn service_at(&self, network: &str, address: IpAddr, client: Option<&str>) -> Option<&Arc<Service>> {
        let network = self.networks.get(network)?;
        best(network.vips.at(&address), client).or_else(|| network.in_range(address, client))
    }

    /// The service of that host name, as a client of that namespace sees it.
    pub fn service_named(&self, hostname: &str, client: Option<&str>) -> Option<&Arc<Service>> {
        best(self.services_by_hostname.at(hostname), client)
    }

    /// The endpoints of a service, healthy or not, whether or not the service itself is known.
    pub fn endpoints(&self, service: &ServiceKey) -> Endpoints<'_> {
        self.endpoints.get(service).map(EndpointList::read).unwrap_or_default()
    }

    /// What could not be understood and claims that address.
    pub fn refused_at(&self, network: &str, address: IpAddr) -> Option<&RefusedAddress> {
        // Normally empty, so a table by address would cost more than it saves.
        self.refused_addresses
            .values()
            .find(|refused| refused.addresses.iter().any(|(net, range)| *net == *network && range.contains(&address)))
            .map(|refused| &**refused)
    }

    /// A policy by its name.
    pub fn policy(&self, name: &str) -> Option<&PolicyEntry> {
        self.policies.by_name.get(name).map(|entry| &**entry)
    }

    /// The policies that apply to the workloads of a namespace without being listed.
    pub fn policies_without_listing<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a PolicyEntry> {
        let own = self.policies.by_namespace.at(namespace);
        self.policies.global.iter().chain(own).map(|entry| &**entry)
    }

    /// All workloads, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// The workloads of this node, in no order.
    pub fn local_workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.local.iter().flat_map(|(_, several)| several)
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// All policies with their names, in no order.
    pub fn policies(&self) -> impl Iterator<Item = (&Text, &PolicyEntry)> {
        self.policies.by_name.iter().map(|(name, entry)| (name, &**entry))
    }

    /// All workloads and services that could not be understood, in no order.
    pub fn refused_addresses(&self) -> impl Iterator<Item = &RefusedAddress> {
        self.refused_addresses.values().map(|refused| &**refused)
    }

    /// The services that have endpoints but are not known themselves, in no order.
    pub fn staged(&self) -> impl Iterator<Item = (&ServiceKey, Endpoints<'_>)> {
        let staged = self.endpoints.iter().filter(|(key, _)| !self.services.contains_key(key.as_str()));
        staged.map(|(key, endpoints)| (key, endpoints.read()))
    }
}

impl Network {
    pub(super) fn is_empty(&self) -> bool {
        self.workloads.is_empty() && self.vips.is_empty() && self.ranges.is_empty()
    }

    pub(super) fn add_range(&mut self, range: IpNet, service: &Arc<Service>) {
        self.ranges.add(range, service);
        self.count_lengths();
    }

    pub(super) fn remove_range(&mut self, range: IpNet, service: &Service) {
        self.ranges.remove(&range, service);
        self.count_lengths();
    }

    /// Ranges come and go rarely, and the few lengths in use are read with every look-up.
    fn count_lengths(&mut self) {
        let mut lengths: Vec<u8> = self.ranges.iter().map(|(range, _)| range.prefix_len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        self.lengths = lengths.into();
    }

    fn in_range(&self, address: IpAddr, client: Option<&str>) -> Option<&Arc<Service>> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let mut elsewhere = None;
        for &length in self.lengths.iter().filter(|&&length| length <= bits) {
            let Some(range) = IpNet::new(address, length).ok().map(|net| net.trunc()) else { continue };
            let Some(service) = best(self.ranges.at(&range), client) else { continue };
            if client.is_none_or(|client| service.namespace == client) {
                return Some(service);
            }
            elsewhere = elsewhere.or(Some(service));
        }
        elsewhere
    }
}

/// The best of the services a client may see: its own namespace's, else the canonical one, else the first.
fn best<'a>(services: &'a [Arc<Service>], client: Option<&str>) -> Option<&'a Arc<Service>> {
    let visible = services.iter().filter(|service| service.is_visible_to(client));
    // `max_by_key` takes the last of equals, so the order is turned round to keep the first.
    visible.rev().max_by_key(|service| (client.is_some_and(|client| service.namespace == client), service.canonical))
}

#[cfg(test)]
impl Snapshot {
    /// Whether every table is empty, the inner ones too.
    pub(super) fn has_no_tables(&self) -> bool {
        self.workloads.is_empty()
            && self.local.is_empty()
            && self.services.is_empty()
            && self.endpoints.is_empty()
            && self.networks.is_empty()
            && self.services_by_hostname.is_empty()
            && self.workloads_by_hostname.is_empty()
            && self.refused_addresses.is_empty()
            && self.policies.by_name.is_empty()
            && self.policies.global.is_empty()
            && self.policies.by_namespace.is_empty()
    }
}
