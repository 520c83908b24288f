// SPDX-License-Identifier: Apache-2.0
//! How long to wait before a file is believed. Editors truncate before they write, delete before they create, and pause in between; a file caught in
//! such a moment must not cost anybody a pod. Pure: time is an argument. Called by `files`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What is known about the writing of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// Its writer closed it, or it was renamed into place.
    Finished,
    /// It was modified and not closed since.
    Going,
    /// Nobody said anything; it only looks different.
    Unknown,
}

/// A file's outside; the same outside means the same content. `None`: there is no such file.
pub(super) type Outside = Option<Fingerprint>;

/// Identity, size and times of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// Device and inode.
    pub identity: (u64, u64),
    /// Bytes.
    pub size: u64,
    /// Last change of the content, in ns.
    pub modified: i128,
    /// Last change of the inode, in ns.
    pub changed: i128,
}

/// The files that are being waited for.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience {
    waiting: BTreeMap<PathBuf, Wait>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    outside: Outside,
    since: Instant,
    until: Instant,
}

impl Patience {
    /// Whether the file can be believed now. Else it is to be asked for again by [`Self::next_deadline`].
    pub(super) fn is_over(&mut self, now: Instant, path: &Path, outside: Outside, needed: Duration) -> bool {
        let since = match self.waiting.get(path) {
            Some(wait) if wait.outside == outside => wait.since,
            _ => now,
        };
        let until = since + needed;
        if until <= now {
            self.waiting.remove(path);
            return true;
        }
        self.waiting.insert(path.to_owned(), Wait { outside, since, until });
        false
    }

    /// The file is as it was believed to be: nothing to wait for.
    pub(super) fn forget(&mut self, path: &Path) {
        self.waiting.remove(path);
    }

    /// When to look again.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|wait| wait.until).min()
    }
}

impl Writing {
    /// How long the content must stand still.
    pub(super) fn settling(self) -> Duration {
        match self {
            Self::Finished => Duration::ZERO,
            Self::Unknown => Duration::from_millis(300),
            Self::Going => Duration::from_secs(2),
        }
    }
}

/// How long an object must be missing before it is taken to be deleted.
pub(super) const SECOND_LOOK: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn outside(size: u64) -> Outside {
        Some(Fingerprint { identity: (1, 1), size, modified: 0, changed: 0 })
    }

    #[test]
    fn a_file_must_stand_still_and_every_change_starts_anew() {
        let (mut patience, start) = (Patience::default(), Instant::now());
        let (path, needed) = (Path::new("a"), Duration::from_millis(300));
        let after = |ms| start + Duration::from_millis(ms);
        assert!(!patience.is_over(after(0), path, outside(1), needed));
        assert!(!patience.is_over(after(299), path, outside(1), needed));
        assert!(!patience.is_over(after(300), path, outside(2), needed), "it grew meanwhile");
        assert_eq!(patience.next_deadline(), Some(after(600)));
        assert!(patience.is_over(after(600), path, outside(2), needed));
        assert_eq!(patience.next_deadline(), None);
    }

    #[test]
    fn a_vanished_file_that_comes_back_was_never_gone() {
        let (mut patience, start) = (Patience::default(), Instant::now());
        assert!(!patience.is_over(start, Path::new("a"), None, SECOND_LOOK));
        patience.forget(Path::new("a"));
        assert!(!patience.is_over(start + SECOND_LOOK, Path::new("a"), None, SECOND_LOOK));
    }

    #[test]
    fn a_finished_file_is_believed_at_once() {
        let mut patience = Patience::default();
        assert!(patience.is_over(Instant::now(), Path::new("a"), outside(1), Writing::Finished.settling()));
    }
}
