// SPDX-License-Identifier: Apache-2.0
//! Slots with generations: a key that outlived its entry finds nothing, even after the slot was used again. Pure.

use std::fmt;
use std::marker::PhantomData;

/// Names one entry of a [`Table`], for ever.
pub(super) struct Key<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

/// Entries by key.
pub(super) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// With which generation new slots begin: above those of slots that were given back.
    floor: u32,
}

struct Slot<T> {
    generation: u32,
    entry: Option<T>,
}

impl<T> Key<T> {
    /// 28 bits of generation, 32 of index: the upper four bits are left to the caller.
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        // The casts take exactly the bits that `to_bits` put there.
        Self { index: bits as u32, generation: (bits >> 32) as u32 & GENERATIONS, of: PhantomData }
    }
}

impl<T> Table<T> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), floor: 0 }
    }

    pub(super) fn insert(&mut self, entry: T) -> Key<T> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: self.floor, entry: None });
            // More entries than file descriptors cannot be.
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.entry = Some(entry);
        Key { index, generation: slot.generation, of: PhantomData }
    }

    pub(super) fn get(&self, key: Key<T>) -> Option<&T> {
        self.slots.get(key.index as usize).filter(|slot| slot.generation == key.generation)?.entry.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)?.entry.as_mut()
    }

    pub(super) fn remove(&mut self, key: Key<T>) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)?;
        let entry = slot.entry.take()?;
        slot.generation = (slot.generation + 1) & GENERATIONS;
        self.free.push(key.index);
        Some(entry)
    }

    /// Gives back the room of a peak that is over. Keys of what was there then still find nothing.
    pub(super) fn trim(&mut self) {
        let used = self.slots.iter().rposition(|slot| slot.entry.is_some()).map_or(0, |last| last + 1);
        if self.slots.capacity() <= KEPT {
            return;
        }
        if used <= self.slots.capacity() / 2 {
            self.floor = self.slots[used..].iter().map(|slot| slot.generation).fold(self.floor, u32::max);
            self.slots.truncate(used);
            self.slots.shrink_to(KEPT);
            self.free.retain(|index| (*index as usize) < used);
            self.free.shrink_to(KEPT);
        }
        // The front is filled first, so that the end becomes free.
        self.free.sort_unstable_by(|a, b| b.cmp(a));
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key<T>, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let key = Key { index: index as u32, generation: slot.generation, of: PhantomData };
            slot.entry.as_ref().map(|entry| (key, entry))
        })
    }

    /// The keys of entries that fulfil a condition, so that the table can be changed while they are gone through.
    pub(super) fn keys_where(&self, fits: impl Fn(&T) -> bool) -> Vec<Key<T>> {
        self.iter().filter(|(_, entry)| fits(entry)).map(|(key, _)| key).collect()
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }
}

impl<T> Eq for Key<T> {}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

const GENERATIONS: u32 = (1 << 28) - 1;
/// Slots that are kept however few are in use.
const KEPT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_find_what_came_after_its_entry() {
        let mut table = Table::new();
        let first = table.insert("first");
        assert_eq!(table.remove(first), Some("first"));
        let second = table.insert("second");
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(Key::from_bits(second.to_bits())), Some(&"second"));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn the_room_of_a_peak_goes_back_and_its_keys_find_nothing() {
        let mut table = Table::new();
        let keys: Vec<_> = (0..10_000).map(|number| table.insert(number)).collect();
        let (held, gone) = keys.split_at(10);
        for key in gone {
            table.remove(*key);
        }
        table.trim();
        assert!(table.slots.capacity() <= KEPT, "{}", table.slots.capacity());
        assert_eq!((table.len(), table.get(held[9])), (10, Some(&9)));
        let again: Vec<_> = (0..10_000).map(|number| table.insert(number)).collect();
        assert!(gone.iter().all(|key| table.get(*key).is_none()), "a slot that came back is another one");
        assert_eq!(table.get(again[9_999]), Some(&9_999));
        // What lives long at the end keeps the rest only until it ends.
        for key in &again[..9_999] {
            table.remove(*key);
        }
        table.trim();
        let front = table.insert(1);
        assert_eq!(front.index, 10, "the front is filled first");
        table.remove(again[9_999]);
        table.trim();
        assert!(table.slots.capacity() <= KEPT);
    }

    #[test]
    fn bits_leave_the_upper_four_alone() {
        let key: Key<()> = Key { index: u32::MAX, generation: GENERATIONS, of: PhantomData };
        assert_eq!(key.to_bits() >> 60, 0);
        assert_eq!(Key::from_bits(key.to_bits() | 0xf << 60), key);
    }
}
