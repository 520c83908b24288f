// SPDX-License-Identifier: Apache-2.0
//! What a source says in one go. Made by the sources, read by `line` and by whoever reports faults.

use std::{fmt, path::PathBuf, sync::Arc};

use crate::{
    api::{Key, ParentRef},
    store::Change,
};

/// Changes that belong together, and everything that is wrong at this moment.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// What to take in.
    pub changes: Vec<Change>,
    /// All standing faults, not only new ones.
    pub faults: Arc<[Fault]>,
    /// Whether the source has told everything it had at the start. Nobody is served before.
    pub synced: bool,
}

/// Something that was not taken in, and what stands instead.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// Line in the file; 0 when it is the whole file.
    pub line: usize,
    /// The object, when that much could be read.
    pub object: Option<Key>,
    /// Field path in the object; empty when it is the whole object.
    pub path: String,
    /// What is wrong, and what to do.
    pub reason: String,
    /// Of a route: its parents, as far as they could be read.
    pub parents: Vec<ParentRef>,
    /// Whether it is in what programs observed of the object, and not in the object itself.
    pub observed: bool,
    /// Whether an earlier good state still stands.
    pub stands: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if let Some(object) = &self.object {
            write!(f, ": {object}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.reason)?;
        f.write_str(if self.stands { " (the last good state stands)" } else { " (not taken in)" })
    }
}
