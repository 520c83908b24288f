// SPDX-License-Identifier: Apache-2.0
//! How much of something each of many may have at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what each has.
#[derive(Debug)]
pub struct Shares<K: Eq + Hash> {
    most: usize,
    taken: Mutex<HashMap<K, usize>>,
}

/// One that was taken; given back when dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash> {
    of: Arc<Shares<K>>,
    key: K,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// At most so many for each.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// How many each may have.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most
    }

    /// One more for `key`; `None` if it has all it may.
    pub fn take(self: &Arc<Self>, key: K) -> Option<Share<K>> {
        let mut taken = self.lock();
        let count = taken.entry(key.clone()).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Share { of: Arc::clone(self), key })
    }
}

impl<K: Eq + Hash> Shares<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        // Every change is a single step, so a poisoned table is whole.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut taken = self.of.lock();
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_share_and_can_give_back() {
        let shares = Shares::new(2);
        let first = shares.take("a").unwrap();
        let _second = shares.take("a").unwrap();
        assert!(shares.take("a").is_none());
        let _other = shares.take("b").unwrap();
        drop(first);
        let _third = shares.take("a").unwrap();
        assert!(shares.take("a").is_none());
    }

    #[test]
    fn nothing_is_remembered_of_who_has_nothing() {
        let shares = Shares::new(1);
        drop(shares.take("a").unwrap());
        assert!(shares.lock().is_empty());
    }
}
