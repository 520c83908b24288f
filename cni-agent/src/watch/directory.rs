// SPDX-License-Identifier: Apache-2.0
//! Looks at a directory of YAML: when told that something changed, and every so often anyway.
//!
//! A file or folder that cannot be read or understood counts as it last could: no half-written file and no failing disk may throw pods out of the mesh.
//! At the start, when nothing is known, all has to be read before the source counts as told.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tracing::{info, warn};

use super::files::{Files, STILL};
use super::listing::{Listing, is_wanted};
use super::observation;
use super::view::{News, View, read};

/// Why the directory cannot be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// It is not there, or no directory.
    #[error("{}: {source}; --source dir:PATH must name a directory that can be read", path.display())]
    Directory {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel does not tell of changes.
    #[error("cannot be told of changes in {}: {source}; is the limit fs.inotify.max_user_watches reached?", path.display())]
    Notify {
        /// The path.
        path: PathBuf,
        /// What the library said.
        source: notify::Error,
    },
    /// The look at it did not come to its end: a bug, or the program ends.
    #[error("the look at the directory broke off; the lines before this one say why")]
    Ended,
}

/// A directory of objects, with a folder of observations.
#[derive(Clone, Debug)]
pub struct Directory {
    /// The objects.
    pub objects: PathBuf,
    /// The observations; usually below `objects`.
    pub status: PathBuf,
    /// The folder in it that this agent writes, and does not read.
    pub own: PathBuf,
    /// The node whose pods count.
    pub node: String,
}

/// Looked at this often even if nothing was told.
const RESCAN: Duration = Duration::from_secs(5);
/// Changes that follow each other this closely are read together.
const SETTLE: Duration = Duration::from_millis(20);

impl Directory {
    /// Tells the news until nobody listens.
    ///
    /// # Errors
    /// The directory cannot be watched at all.
    pub async fn run(self, news: mpsc::Sender<News>) -> Result<(), WatchError> {
        let directory = self.absolute()?;
        let (changes, _watcher) = directory.watch()?;
        let mut scan = Scan::new(directory);
        let mut told_faults = BTreeSet::new();
        let mut synced = false;
        loop {
            let whole = changes.take();
            // The disk may be slow; everything else in this thread is not.
            let looked = tokio::task::spawn_blocking(move || {
                let found = scan.look(&whole, Instant::now());
                (scan, found)
            });
            let found;
            (scan, found) = looked.await.map_err(|_| WatchError::Ended)?;
            for fault in found.faults.difference(&told_faults) {
                warn!("{fault}");
            }
            if found.faults.is_empty() && !told_faults.is_empty() {
                info!("everything in the directory can be read again");
            }
            told_faults = found.faults;
            let mut fresh = found.news;
            if !synced && found.complete {
                fresh.push(News::Synced);
                synced = true;
            }
            for item in fresh {
                if news.send(item).await.is_err() {
                    return Ok(());
                }
            }
            let pause = if found.again { STILL } else { RESCAN };
            if tokio::time::timeout(pause, changes.wake.notified()).await.is_ok() {
                tokio::time::sleep(SETTLE).await;
            }
        }
    }

    /// The kernel tells of absolute paths.
    fn absolute(self) -> Result<Self, WatchError> {
        let absolute =
            |path: PathBuf| std::path::absolute(&path).map_err(|source| WatchError::Directory { path, source });
        Ok(Self {
            objects: absolute(self.objects)?,
            status: absolute(self.status)?,
            own: absolute(self.own)?,
            node: self.node,
        })
    }

    fn watch(&self) -> Result<(Arc<Changes>, RecommendedWatcher), WatchError> {
        fs::read_dir(&self.objects).map_err(|source| WatchError::Directory { path: self.objects.clone(), source })?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| WatchError::Notify { path, source }
        };
        let changes = Arc::new(Changes::default());
        let told = Arc::clone(&changes);
        // Links may lead in circles; what lies behind them is found by rescans.
        let config = notify::Config::default().with_follow_symlinks(false);
        let mut watcher =
            RecommendedWatcher::new(move |event| told.hear(event), config).map_err(failed(&self.objects))?;
        for folder in [&self.objects, &self.status] {
            // The status folder may be made later; rescans find it.
            if folder.exists() {
                watcher.watch(folder, RecursiveMode::Recursive).map_err(failed(folder))?;
            }
        }
        Ok((changes, watcher))
    }
}

/// What the kernel told since the last look.
#[derive(Default)]
struct Changes {
    wake: Notify,
    /// Files that were closed or renamed into place, and not written to since.
    whole: Mutex<BTreeSet<PathBuf>>,
}

impl Changes {
    fn hear(&self, event: notify::Result<notify::Event>) {
        if let Ok(event) = event {
            let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
            match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write))
                | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                    whole.extend(event.paths.into_iter().filter(|path| is_wanted(path)));
                }
                // Our own looking must not make us look again.
                EventKind::Access(_) => return,
                EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => {
                    whole.retain(|path| !event.paths.contains(path));
                }
                // The kernel lost some.
                _ if event.need_rescan() => whole.clear(),
                _ => {}
            }
        }
        self.wake.notify_one();
    }

    fn take(&self) -> BTreeSet<PathBuf> {
        std::mem::take(&mut *self.whole.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Everything that is known of the directory.
struct Scan {
    directory: Directory,
    listing: Listing,
    objects: Files,
    observations: Files,
    view: View,
}

struct Found {
    news: Vec<News>,
    faults: BTreeSet<String>,
    /// Something has to be looked at again soon.
    again: bool,
    /// Nothing was left out because it could not be listed or is being written.
    complete: bool,
}

impl Scan {
    fn new(directory: Directory) -> Self {
        Self {
            listing: Listing::default(),
            objects: Files::new(read),
            observations: Files::new(observation::read),
            view: View::new(directory.node.clone()),
            directory,
        }
    }

    fn look(&mut self, whole: &BTreeSet<PathBuf>, now: Instant) -> Found {
        self.listing = Listing::of(&self.directory, &self.listing);
        let listing = &self.listing;
        let objects = self.objects.look(&listing.objects, listing, &|path| whole.contains(path), now);
        // Programs write observations, and rename them into place.
        let observations = self.observations.look(&listing.observations, listing, &|_| true, now);
        let (news, faults) = self.view.update(&self.objects.documents, &self.observations.documents);
        let hidden = listing.failed.iter().map(|(path, reason)| {
            format!(
                "{}: cannot be listed: {reason} (what was known of it stands; no pod leaves for it)",
                path.display()
            )
        });
        let faults =
            faults.into_iter().chain(self.objects.lines()).chain(self.observations.lines()).chain(hidden).collect();
        let again = objects || observations;
        Found { news, faults, again, complete: !again && listing.failed.is_empty() }
    }
}

#[cfg(test)]
mod tests;
