// SPDX-License-Identifier: Apache-2.0
//! Everything one waypoint's Envoys are sent, by type and name, with versions, and what changed from one generation to the next. Written by `render`,
//! read by the discovery server. An immutable value: a clone is cheap and never changes under its reader.

use std::{collections::BTreeSet, sync::Arc};

use envoy_types::pb::envoy::config::{cluster::v3::Cluster, listener::v3::Listener};
use mesh_proto::discovery::{Any, unpack};
use prost::{Message, Name};
use rpds::RedBlackTreeMapSync;
use twox_hash::XxHash64;

use super::encode::pack;

/// The types an Envoy subscribes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Type {
    /// `envoy.config.cluster.v3.Cluster`.
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    Endpoints,
    /// `envoy.config.listener.v3.Listener`.
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`.
    Routes,
}

impl Type {
    /// All, in the order they must be sent: nothing speaks of what is not there yet (control-plane.md §2.4).
    pub const ALL: [Self; 4] = [Self::Cluster, Self::Endpoints, Self::Listener, Self::Routes];

    /// Its type URL.
    pub const fn url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The type with this URL.
    pub fn of(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }
}

/// One resource, encoded once for all subscribers.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Its type.
    pub kind: Type,
    /// Its name.
    pub name: Arc<str>,
    /// Hash of its bytes: equal content has an equal version on every control plane and after every restart.
    pub version: Arc<str>,
    /// The message.
    pub body: Any,
    /// Of a listener: the names of its chains; a chain whose requests are routed asks for routes of the same name.
    pub routes: Vec<Arc<str>>,
}

impl Resource {
    pub(super) fn new<M: Message + Name>(kind: Type, name: &str, message: &M) -> Arc<Self> {
        Arc::new(Self::plain(kind, name, message))
    }

    pub(super) fn listener(message: &Listener) -> Arc<Self> {
        let routes = message.filter_chains.iter().map(|chain| chain.name.as_str().into()).collect();
        Arc::new(Self { routes, ..Self::plain(Type::Listener, &message.name, message) })
    }

    fn plain<M: Message + Name>(kind: Type, name: &str, message: &M) -> Self {
        let body = pack(message);
        let version = format!("{:x}", XxHash64::oneshot(0, &body.value)).into();
        Self { kind, name: name.into(), version, body, routes: Vec::new() }
    }

    /// The name under which a cluster asks for its endpoints, if it does.
    pub fn endpoints(&self) -> Option<String> {
        if self.kind != Type::Cluster {
            return None;
        }
        let cluster: Cluster = unpack(&self.body).ok()?;
        Some(cluster.eds_cluster_config?.service_name)
    }
}

/// All resources of one generation.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    generation: u64,
    tables: [Table; Type::ALL.len()],
    history: RedBlackTreeMapSync<u64, Step>,
}

type Table = RedBlackTreeMapSync<Arc<str>, Arc<Resource>>;

/// What one generation changed.
type Step = Arc<[(Type, Arc<str>)]>;

/// One step from a generation to the next.
#[derive(Clone, Debug)]
pub(super) enum Update {
    Put(Arc<Resource>),
    Remove(Type, Arc<str>),
}

impl Resources {
    /// Counts up by one with every set of changes.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// All resources of a type, by name.
    pub fn all(&self, kind: Type) -> impl Iterator<Item = &Arc<Resource>> {
        self.tables[kind as usize].values()
    }

    /// The resource of that name.
    pub fn named(&self, kind: Type, name: &str) -> Option<&Arc<Resource>> {
        self.tables[kind as usize].get(name)
    }

    /// The names that changed after `generation`; `None` if that was too long ago to tell.
    pub fn changed_since(&self, kind: Type, generation: u64) -> Option<BTreeSet<Arc<str>>> {
        if generation >= self.generation {
            return Some(BTreeSet::new());
        }
        if self.history.first().is_none_or(|(oldest, _)| *oldest > generation + 1) {
            return None;
        }
        let steps = self.history.range::<u64, _>(generation + 1..);
        Some(
            steps
                .flat_map(|(_, step)| step.iter())
                .filter(|(of, _)| *of == kind)
                .map(|(_, name)| Arc::clone(name))
                .collect(),
        )
    }

    /// The next generation, or `None` when no byte differs.
    pub(super) fn next(&self, updates: Vec<Update>) -> Option<Self> {
        let mut next = self.clone();
        let mut changed = BTreeSet::new();
        for update in updates {
            match update {
                Update::Put(resource) => {
                    let table = &mut next.tables[resource.kind as usize];
                    if table.get(&resource.name).is_none_or(|old| **old != *resource) {
                        changed.insert((resource.kind, Arc::clone(&resource.name)));
                        table.insert_mut(Arc::clone(&resource.name), resource);
                    }
                }
                Update::Remove(kind, name) => {
                    if next.tables[kind as usize].remove_mut(&name) {
                        changed.insert((kind, name));
                    }
                }
            }
        }
        if changed.is_empty() {
            return None;
        }
        next.generation += 1;
        match changed.len() > LARGE_STEP {
            // Whoever missed it may as well compare.
            true => next.history = RedBlackTreeMapSync::default(),
            false => next.history.insert_mut(next.generation, changed.into_iter().collect()),
        }
        while next.history.size() > HISTORY {
            let oldest = next.history.first().map(|(generation, _)| *generation);
            oldest.map(|generation| next.history.remove_mut(&generation));
        }
        Some(next)
    }
}

/// How many generations back a subscriber may be and still be told names only.
const HISTORY: usize = 1024;

/// How many names one generation may have and still be remembered.
const LARGE_STEP: usize = 2048;
