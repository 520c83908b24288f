// SPDX-License-Identifier: Apache-2.0
//! One to many, persistent: which values belong to a key. Part of the snapshot; kept by `build`.

use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

/// Values by key; a key without values is not there.
#[derive(Clone, Debug)]
pub struct Index<K: Ord, V: Ord> {
    sets: RedBlackTreeMapSync<K, RedBlackTreeSetSync<V>>,
}

impl<K: Ord + Clone, V: Ord + Clone> Index<K, V> {
    /// The values of a key, sorted.
    pub fn of<'a>(&'a self, key: &K) -> impl Iterator<Item = &'a V> + use<'a, K, V> {
        self.sets.get(key).into_iter().flat_map(RedBlackTreeSetSync::iter)
    }

    /// The keys that have values.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.sets.keys()
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        let mut set = self.sets.get(&key).cloned().unwrap_or_default();
        set.insert_mut(value);
        self.sets.insert_mut(key, set);
    }

    pub(super) fn remove(&mut self, key: &K, value: &V) {
        let Some(mut set) = self.sets.get(key).cloned() else { return };
        set.remove_mut(value);
        match set.is_empty() {
            true => _ = self.sets.remove_mut(key),
            false => self.sets.insert_mut(key.clone(), set),
        }
    }

    /// Moves a value from the keys it had to those it has now.
    pub(super) fn replace<'a>(
        &mut self,
        value: &V,
        old: impl IntoIterator<Item = &'a K>,
        new: impl IntoIterator<Item = &'a K>,
    ) where
        K: 'a,
    {
        for key in old {
            self.remove(key, value);
        }
        for key in new {
            self.insert(key.clone(), value.clone());
        }
    }
}

impl<K: Ord, V: Ord> Default for Index<K, V> {
    fn default() -> Self {
        Self { sets: RedBlackTreeMapSync::default() }
    }
}

impl<K: Ord, V: Ord> PartialEq for Index<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.sets == other.sets
    }
}
