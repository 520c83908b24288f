// SPDX-License-Identifier: Apache-2.0
//! In which order types travel, and what a client waits for because of it. Used by the sessions.

use std::collections::{BTreeMap, BTreeSet};

use mesh_proto::contract::type_url::{ADDRESS, AUTHORIZATION};

use super::delta::{Catalog, Entry};
use crate::envoy::Type;

/// Types are pushed in this order, others follow by name: what is spoken of before what speaks of it.
const ORDER: [&str; 6] =
    [Type::Cluster.url(), Type::Endpoints.url(), Type::Listener.url(), Type::Routes.url(), ADDRESS, AUTHORIZATION];

/// Sorted for pushing.
pub(super) fn in_order<'a>(types: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut types: Vec<String> = types.cloned().collect();
    types.sort_by_key(|url| ORDER.iter().position(|known| known == url).unwrap_or(ORDER.len()));
    types
}

/// Whether resources of this type may speak of clusters.
pub(super) fn speaks_of_clusters(type_url: &str) -> bool {
    matches!(Type::of(type_url), Some(Type::Listener | Type::Routes))
}

/// Whether removals of this type wait until everything that is new has been sent.
pub(super) fn breaks_last(type_url: &str) -> bool {
    Type::of(type_url).is_some()
}

/// What a client waits for anew, by type.
#[derive(Debug, Default)]
pub(super) struct Awaited(BTreeMap<&'static str, BTreeSet<String>>);

impl Awaited {
    /// These entries are being sent.
    pub(super) fn add(&mut self, catalog: &dyn Catalog, sent: &[Entry]) {
        for (type_url, name) in sent.iter().filter_map(|entry| catalog.awaits(entry)) {
            self.0.entry(type_url).or_default().insert(name);
        }
    }

    /// Whether something of a type is to be sent anew.
    pub(super) fn has(&self, type_url: &str) -> bool {
        self.0.contains_key(type_url)
    }

    /// The names of a type, which are being sent now.
    pub(super) fn take(&mut self, type_url: &str) -> BTreeSet<String> {
        self.0.remove(type_url).unwrap_or_default()
    }
}
