// SPDX-License-Identifier: Apache-2.0
//! Everything a node proxy may be sent, by name, with versions, and what changed from one generation to the next.
//! Written by `render`, read by the discovery server. An immutable value: a clone is cheap and never changes under its reader.

use std::{collections::BTreeSet, sync::Arc};

use mesh_proto::{
    contract::type_url,
    discovery::{self, Any},
};
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::notice::Notice;

/// The two types a node proxy subscribes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Type {
    /// `istio.workload.Address`: workloads, named by uid, and services, named `namespace/hostname`.
    Address,
    /// `istio.security.Authorization`, named `namespace/name`.
    Authorization,
}

impl Type {
    /// Both, in the order they must be sent: a workload is known before the policies that speak of it.
    pub const ALL: [Self; 2] = [Self::Address, Self::Authorization];

    /// Its type URL.
    pub fn url(self) -> &'static str {
        match self {
            Self::Address => type_url::ADDRESS,
            Self::Authorization => type_url::AUTHORIZATION,
        }
    }

    /// The type with this URL.
    pub fn of(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }
}

/// Names of resources, sorted.
pub type Names = RedBlackTreeSetSync<Arc<str>>;

/// One resource, encoded once for all subscribers.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Its type.
    pub kind: Type,
    /// Its name.
    pub name: Arc<str>,
    /// Hash of its bytes, as istiod makes it: equal content has an equal version on every control plane and after every restart.
    pub version: Arc<str>,
    /// `network/address` for every address it stands for. Sent to on-demand subscribers only.
    pub aliases: Vec<Arc<str>>,
    /// The message.
    pub body: Any,
    /// The node a workload runs on.
    pub node: Option<Arc<str>>,
    /// The names of the services a workload belongs to.
    pub services: Vec<Arc<str>>,
}

impl Resource {
    /// As it travels; with aliases for an on-demand subscriber.
    pub fn to_wire(&self, on_demand: bool) -> discovery::Resource {
        discovery::Resource {
            name: self.name.to_string(),
            version: self.version.to_string(),
            aliases: if on_demand { self.aliases.iter().map(ToString::to_string).collect() } else { Vec::new() },
            resource: Some(self.body.clone()),
            ..Default::default()
        }
    }
}

/// What happened to the resources of one type since some generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// These were added, changed or removed; look each up to see which.
    Names(BTreeSet<Arc<str>>),
    /// Too long ago to tell: compare everything by version.
    Everything,
}

/// All resources of one generation.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    generation: u64,
    addresses: RedBlackTreeMapSync<Arc<str>, Arc<Resource>>,
    authorizations: RedBlackTreeMapSync<Arc<str>, Arc<Resource>>,
    by_alias: RedBlackTreeMapSync<Arc<str>, Names>,
    by_service: RedBlackTreeMapSync<Arc<str>, Names>,
    by_node: RedBlackTreeMapSync<Arc<str>, Names>,
    notices: RedBlackTreeMapSync<Arc<str>, Notice>,
    history: RedBlackTreeMapSync<u64, Step>,
}

impl Resources {
    /// Counts up by one with every set of changes.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// All resources of a type, by name.
    pub fn all(&self, kind: Type) -> impl Iterator<Item = &Arc<Resource>> {
        self.table(kind).values()
    }

    /// The resource of that name.
    pub fn named(&self, kind: Type, name: &str) -> Option<&Arc<Resource>> {
        self.table(kind).get(name)
    }

    /// What an on-demand subscriber means by a name, in istiod's order: a workload's uid, then the workloads at `network/address`, then the
    /// service `namespace/hostname`, then the service at `network/address`. A service comes with all its workloads. Empty: there is no such thing.
    pub fn look_up(&self, name: &str) -> Vec<Arc<Resource>> {
        if let Some(exact) = self.addresses.get(name) {
            return self.with_endpoints(exact);
        }
        let here: Vec<_> =
            self.by_alias.get(name).into_iter().flat_map(Names::iter).filter_map(|n| self.addresses.get(n)).collect();
        let workloads: Vec<_> = here.iter().filter(|one| !self.is_service(one)).map(|one| Arc::clone(one)).collect();
        match workloads.is_empty() {
            false => workloads,
            true => here.into_iter().flat_map(|service| self.with_endpoints(service)).collect(),
        }
    }

    /// The names of the workloads of a service.
    pub fn endpoints_of(&self, service: &str) -> impl Iterator<Item = &Arc<str>> {
        self.by_service.get(service).into_iter().flat_map(Names::iter)
    }

    /// The names of the workloads on a node.
    pub fn on_node(&self, node: &str) -> impl Iterator<Item = &Arc<str>> {
        self.by_node.get(node).into_iter().flat_map(Names::iter)
    }

    /// The names that changed after `generation`.
    pub fn changed_since(&self, kind: Type, generation: u64) -> Changes {
        if generation >= self.generation {
            return Changes::Names(BTreeSet::new());
        }
        if self.history.first().is_none_or(|(oldest, _)| *oldest > generation + 1) {
            return Changes::Everything;
        }
        let steps = self.history.range::<u64, _>(generation + 1..);
        Changes::Names(
            steps.flat_map(|(_, step)| step.iter()).filter(|(k, _)| *k == kind).map(|(_, n)| Arc::clone(n)).collect(),
        )
    }

    /// What the authors of policies should know: policy name to what a node proxy does not do of it.
    pub fn notices(&self) -> impl Iterator<Item = (&Arc<str>, &Notice)> {
        self.notices.iter()
    }

    /// What a node proxy does not do of that policy.
    pub fn notice(&self, policy: &str) -> Option<&Notice> {
        self.notices.get(policy)
    }

    /// The next generation, or `None` when nothing differs.
    pub(super) fn next(&self, updates: &[Update]) -> Option<Self> {
        let mut next = self.clone();
        let mut changed = BTreeSet::new();
        for update in updates {
            let differs = match update {
                Update::Put(resource) => next.put(resource),
                Update::Remove(kind, name) => next.take_out(*kind, name),
                Update::Notice(name, notice) => {
                    match notice {
                        Some(notice) => next.notices.insert_mut(Arc::clone(name), notice.clone()),
                        None => _ = next.notices.remove_mut(name),
                    }
                    continue;
                }
            };
            if differs {
                changed.insert(update.id());
            }
        }
        if changed.is_empty() && next.notices == self.notices {
            return None;
        }
        next.generation += 1;
        match changed.len() > LARGE_STEP {
            // Whoever missed it may as well compare.
            true => next.history = RedBlackTreeMapSync::default(),
            false => next.history.insert_mut(next.generation, changed.into_iter().flatten().collect()),
        }
        while next.history.size() > HISTORY {
            let oldest = next.history.first().map(|(generation, _)| *generation);
            oldest.map(|generation| next.history.remove_mut(&generation));
        }
        Some(next)
    }

    fn put(&mut self, resource: &Arc<Resource>) -> bool {
        let old = self.named(resource.kind, &resource.name).cloned();
        if old.as_deref() == Some(resource) {
            return false;
        }
        if let Some(old) = old {
            self.index(&old, Names::remove_mut);
        }
        self.index(resource, |names, name| {
            names.insert_mut(Arc::clone(name));
            true
        });
        self.table_mut(resource.kind).insert_mut(Arc::clone(&resource.name), Arc::clone(resource));
        true
    }

    fn take_out(&mut self, kind: Type, name: &Arc<str>) -> bool {
        let Some(old) = self.named(kind, name).cloned() else { return false };
        self.index(&old, Names::remove_mut);
        self.table_mut(kind).remove_mut(name)
    }

    fn index(&mut self, resource: &Resource, change: impl Fn(&mut Names, &Arc<str>) -> bool) {
        let places = [
            (&mut self.by_alias, resource.aliases.as_slice()),
            (&mut self.by_service, resource.services.as_slice()),
            (&mut self.by_node, resource.node.as_slice()),
        ];
        for (index, keys) in places {
            for key in keys {
                let mut names = index.get(key).cloned().unwrap_or_default();
                change(&mut names, &resource.name);
                match names.is_empty() {
                    true => _ = index.remove_mut(key),
                    false => index.insert_mut(Arc::clone(key), names),
                }
            }
        }
    }

    fn with_endpoints(&self, one: &Arc<Resource>) -> Vec<Arc<Resource>> {
        let endpoints = self.endpoints_of(&one.name).filter_map(|name| self.addresses.get(name));
        std::iter::once(one).chain(endpoints).cloned().collect()
    }

    /// A service belongs to no node and is named `namespace/hostname`: one slash, where every uid has at least two.
    fn is_service(&self, resource: &Resource) -> bool {
        resource.name.matches('/').count() == 1
    }

    fn table(&self, kind: Type) -> &RedBlackTreeMapSync<Arc<str>, Arc<Resource>> {
        match kind {
            Type::Address => &self.addresses,
            Type::Authorization => &self.authorizations,
        }
    }

    fn table_mut(&mut self, kind: Type) -> &mut RedBlackTreeMapSync<Arc<str>, Arc<Resource>> {
        match kind {
            Type::Address => &mut self.addresses,
            Type::Authorization => &mut self.authorizations,
        }
    }
}

/// One step from a generation to the next.
#[derive(Clone, Debug)]
pub(super) enum Update {
    Put(Arc<Resource>),
    Remove(Type, Arc<str>),
    Notice(Arc<str>, Option<Notice>),
}

impl Update {
    fn id(&self) -> Option<(Type, Arc<str>)> {
        match self {
            Self::Put(resource) => Some((resource.kind, Arc::clone(&resource.name))),
            Self::Remove(kind, name) => Some((*kind, Arc::clone(name))),
            Self::Notice(..) => None,
        }
    }
}

/// The names of one generation that differ from the one before.
type Step = Arc<[(Type, Arc<str>)]>;

/// How many generations back a subscriber may be and still be told names only.
const HISTORY: usize = 1024;

/// How many names one generation may have and still be remembered.
const LARGE_STEP: usize = 2048;
