// SPDX-License-Identifier: Apache-2.0
//! A persistent table in which several records may share a key, the one that speaks for the key first.

use std::borrow::Borrow;
use std::cmp::{Ordering, Reverse};
use std::hash::Hash;
use std::sync::Arc;

use rpds::HashTrieMapSync;

use super::refused::PolicyEntry;
use super::service::Service;
use super::workload::Workload;

/// Records that share a key, the best first.
pub(super) type Several<T> = Arc<[Arc<T>]>;

/// Records by a key that need not be theirs alone.
#[derive(Debug, Clone)]
pub(super) struct Index<K: Eq + Hash, T>(HashTrieMapSync<K, Several<T>>);

/// A record with an order among those it shares a key with. Equal means: the same resource.
pub(super) trait Ranked {
    fn rank_against(&self, other: &Self) -> Ordering;
}

impl<K: Eq + Hash, T> Default for Index<K, T> {
    fn default() -> Self {
        Self(HashTrieMapSync::default())
    }
}

impl<K: Eq + Hash + Clone, T: Ranked> Index<K, T> {
    pub(super) fn at<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> &[Arc<T>]
    where
        K: Borrow<Q>,
    {
        self.0.get(key).map_or(&[], |several| several)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &[Arc<T>])> {
        self.0.iter().map(|(key, several)| (key, &**several))
    }

    /// Puts a record in its place; the same resource must not be there already.
    pub(super) fn add(&mut self, key: K, record: &Arc<T>) {
        let with = with(self.at(&key), record);
        self.0.insert_mut(key, with);
    }

    /// Takes a record out.
    pub(super) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q, record: &T)
    where
        K: Borrow<Q>,
    {
        let Some(several) = self.0.get_mut(key) else { return };
        *several = without(several, record);
        if several.is_empty() {
            self.0.remove_mut(key);
        }
    }
}

/// The list with one more record, in order.
pub(super) fn with<T: Ranked>(several: &[Arc<T>], record: &Arc<T>) -> Several<T> {
    let place = several.partition_point(|other| other.rank_against(record) == Ordering::Less);
    several[..place].iter().chain([record]).chain(&several[place..]).cloned().collect()
}

/// The list without one resource.
pub(super) fn without<T: Ranked>(several: &[Arc<T>], record: &T) -> Several<T> {
    several.iter().filter(|other| other.rank_against(record) != Ordering::Equal).cloned().collect()
}

impl Ranked for Workload {
    fn rank_against(&self, other: &Self) -> Ordering {
        (Reverse(self.rank()), &self.uid).cmp(&(Reverse(other.rank()), &other.uid))
    }
}

impl Ranked for Service {
    fn rank_against(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl Ranked for PolicyEntry {
    fn rank_against(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}
