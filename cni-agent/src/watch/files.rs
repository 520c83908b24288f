// SPDX-License-Identifier: Apache-2.0
//! What is believed of the files: the last good state of each, and no change before it is sure to be whole.
//!
//! Nobody knows of a file that changes whether its writer is done, unless the writer closed it or renamed it into its place. So any other change is believed
//! once the file has stood still for a while, and one that takes something away always has to stand: editors empty files before they write them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::listing::{Content, Listing, Stamp, load};
use super::view::Documents;

/// A file that has not changed for this long is not being written.
pub(super) const STILL: Duration = Duration::from_millis(300);

/// Understands a text, or says why not.
pub(super) type Reader = fn(&str) -> Result<Documents, String>;

/// The files of one kind.
pub(super) struct Files {
    reader: Reader,
    stamps: BTreeMap<PathBuf, Stamp>,
    pub(super) documents: BTreeMap<PathBuf, Documents>,
    faults: BTreeMap<PathBuf, String>,
    /// Changes that are not believed yet, and since when they stand; `None`: the file is gone.
    waiting: BTreeMap<PathBuf, (Option<Stamp>, Instant)>,
}

impl Files {
    pub(super) fn new(reader: Reader) -> Self {
        Self {
            reader,
            stamps: BTreeMap::new(),
            documents: BTreeMap::new(),
            faults: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// Reads what has changed; says whether something has to be looked at again after [`STILL`]. `is_whole` knows files whose writers are done.
    pub(super) fn look(
        &mut self,
        found: &BTreeMap<PathBuf, Stamp>,
        listing: &Listing,
        is_whole: &dyn Fn(&Path) -> bool,
        now: Instant,
    ) -> bool {
        let before = std::mem::take(&mut self.waiting);
        let since = |path: &Path, stamp: Option<Stamp>| match before.get(path) {
            Some((same, since)) if *same == stamp => *since,
            _ => now,
        };
        let mut again = self.look_for_gone(found, listing, &since, now);
        for (path, stamp) in found {
            if self.stamps.get(path) == Some(stamp) {
                continue;
            }
            let since = since(path, Some(*stamp));
            let stood = now.duration_since(since) >= STILL;
            let mut wait = || _ = self.waiting.insert(path.clone(), (Some(*stamp), since));
            if !stood && !is_whole(path) && !stamp.is_older_than(STILL) {
                wait();
                again = true;
                continue;
            }
            let read = match load(path, stamp) {
                // The key set of token issuers lies in the same directory and is no object.
                Content::Text(_) if path.file_name().is_some_and(|name| name == "jwks.json") => Ok(Documents::new()),
                Content::Text(text) => (self.reader)(&text),
                Content::Unfit(reason) => Err(reason),
                Content::Unread(error) => {
                    // Without its stamp it will be tried at every look.
                    wait();
                    self.faults.insert(path.clone(), error.to_string());
                    continue;
                }
                Content::Moving => {
                    wait();
                    again = true;
                    continue;
                }
            };
            match read {
                Ok(documents) if !stood && documents.len() < self.documents.get(path).map_or(0, Vec::len) => {
                    wait();
                    again = true;
                    continue;
                }
                Ok(documents) => {
                    self.faults.remove(path);
                    self.documents.insert(path.clone(), documents);
                }
                Err(reason) => _ = self.faults.insert(path.clone(), reason),
            }
            self.stamps.insert(path.clone(), *stamp);
        }
        again
    }

    fn look_for_gone(
        &mut self,
        found: &BTreeMap<PathBuf, Stamp>,
        listing: &Listing,
        since: &dyn Fn(&Path, Option<Stamp>) -> Instant,
        now: Instant,
    ) -> bool {
        let known: BTreeSet<&PathBuf> = self.documents.keys().chain(self.faults.keys()).collect();
        let missing = known.into_iter().filter(|path| !found.contains_key(*path) && !listing.may_hide(path));
        let missing: Vec<PathBuf> = missing.cloned().collect();
        let mut again = false;
        for path in missing {
            let since = since(&path, None);
            if now.duration_since(since) >= STILL || !self.documents.contains_key(&path) {
                self.documents.remove(&path);
                self.stamps.remove(&path);
                self.faults.remove(&path);
            } else {
                self.waiting.insert(path, (None, since));
                again = true;
            }
        }
        again
    }

    /// What is wrong, a line for each file.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.faults.iter().map(|(path, reason)| {
            let stands =
                if self.documents.contains_key(path) { "its last good state stands" } else { "it is left out" };
            format!("{}: {reason} ({stands})", path.display())
        })
    }
}
