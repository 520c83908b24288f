// SPDX-License-Identifier: Apache-2.0
//! Which waypoints are asked for. The discovery server makes a wish for every stream and drops it with the stream; the line makes what is wished for, and
//! nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::fleet::Key;

/// What is asked for. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    counts: Mutex<BTreeMap<Key, usize>>,
    changed: Notify,
}

/// One who asks; ends when dropped.
#[derive(Debug)]
pub struct Wish {
    key: Key,
    demand: Demand,
}

impl Demand {
    /// Asks for a waypoint.
    #[must_use]
    pub fn wish(&self, key: Key) -> Wish {
        self.change(|counts| *counts.entry(key.clone()).or_default() += 1);
        Wish { key, demand: self.clone() }
    }

    /// All that is asked for now.
    pub fn wanted(&self) -> BTreeSet<Key> {
        self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Waits for a change after the last one waited for. For one reader.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Key, usize>)) {
        // The map is whole after every statement that holds the lock, so a panic elsewhere leaves nothing half done.
        change(&mut self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.changed.notify_one();
    }
}

impl Wish {
    /// For what.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        self.demand.change(|counts| {
            let count = counts.get(&self.key).copied().unwrap_or_default();
            match count {
                0 | 1 => _ = counts.remove(&self.key),
                more => _ = counts.insert(self.key.clone(), more - 1),
            }
        });
    }
}
