// SPDX-License-Identifier: Apache-2.0
//! The names a client asks for one by one, within bounds. Used by the sessions.

use std::collections::BTreeSet;

/// The names a client has asked for one by one, within bounds.
#[derive(Debug, Default)]
pub(super) struct Names {
    set: BTreeSet<String>,
    pub(super) bytes: usize,
}

impl Names {
    /// Whether it is among them now.
    pub(super) fn insert(&mut self, name: &str) -> bool {
        if self.set.contains(name) {
            return true;
        }
        let has_room = self.set.len() < MAX_NAMES && self.bytes + name.len() <= MAX_NAME_BYTES;
        if has_room {
            self.bytes += name.len();
            self.set.insert(name.to_owned());
        }
        has_room
    }

    pub(super) fn remove(&mut self, name: &str) {
        if self.set.remove(name) {
            self.bytes -= name.len();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.set.iter().map(String::as_str)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.set.contains(name)
    }
}

/// A client that subscribes one by one to more than this is told of further names that they do not exist: it would wait
/// for ever for an answer that never comes.
pub(super) const MAX_NAMES: usize = 100_000;
/// The same for the bytes of all its names: they stay with us as long as its stream.
pub(super) const MAX_NAME_BYTES: usize = 16 << 20;
