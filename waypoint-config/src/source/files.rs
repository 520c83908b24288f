// SPDX-License-Identifier: Apache-2.0
//! A directory of YAML as a source: the API server of a machine without Kubernetes. `main` starts [`Directory::run`]; `line` takes what it sends.
//!
//! **What is read.** Every `*.yaml`, `*.yml` and `*.json` below the directory, symbolic links followed, names that begin with `.` left out. A file holds any
//! number of documents; other kinds than ours are passed over. Below `status/` (or where [`Options::status`] says) lie observations: what programs
//! saw of objects, see `observation`; but not what this program itself says of them ([`OWN`]).
//!
//! **What a mistake does.** It never takes anything else down: each object stands for itself, and one that cannot be read stays as it last was
//! (`ledger`). All standing faults go along with every batch.
//!
//! **When a file is believed.** Closed or renamed into place: at once. Otherwise when it has stood still for a moment; and an object that would vanish
//! gets a second look first (`patience`), observations excepted, which programs write in one go.
//!
//! Changes are noticed through inotify, and by looking at everything every [`Options::rescan`], for file systems that do not tell and for links that lead out
//! of the directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};
use thiserror::Error;
use tokio::{
    sync::{Notify, mpsc},
    task::{JoinError, spawn_blocking},
    time::{sleep, timeout_at},
};
use tracing::warn;

use super::{
    batch::{Batch, Fault},
    document::{Reading, Role},
    folder::{self, Listing},
    ledger::Ledger,
    patience::{Fingerprint, Patience, SECOND_LOOK, Writing},
};

/// What to read.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory.
    pub directory: PathBuf,
    /// Where observations are; `status` in the directory by default.
    pub status: Option<PathBuf>,
    /// Files in the directory that are for somebody else, as the key set of the callers.
    pub ignored: Vec<PathBuf>,
    /// How often to look even if nothing was noticed.
    pub rescan: Duration,
}

impl Options {
    /// A directory with its own `status` folder.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), status: None, ignored: Vec::new(), rescan: Duration::from_secs(2) }
    }
}

/// The folder among the observations in which this program writes what it has to say of objects. It is for others to read.
pub const OWN: &str = "waypoint-config";

/// Why a directory is no source.
#[derive(Debug, Error)]
pub enum Error {
    /// There is none.
    #[error("{} is not a directory that can be read", directory.display())]
    Directory {
        /// The path.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The reading thread died.
    #[error("reading the directory ended before its time; this is a mistake in the program, restart it")]
    Reading(#[from] JoinError),
}

/// A directory that is there.
#[derive(Debug)]
pub struct Directory {
    desk: Desk,
}

impl Directory {
    /// Makes sure that there is one, so that a wrong path ends the program at its start and not in its log.
    pub fn open(options: Options) -> Result<Self, Error> {
        match std::fs::read_dir(&options.directory) {
            Ok(_) => Ok(Self { desk: Desk::new(options) }),
            Err(source) => Err(Error::Directory { directory: options.directory, source }),
        }
    }

    /// What the directory holds now, each file believed as it is.
    #[must_use]
    pub fn read(mut self) -> Batch {
        let mut batch = self.desk.round(Instant::now(), BTreeMap::new()).unwrap_or_default();
        if self.desk.patience.next_deadline().is_some() {
            let fault = Fault {
                file: self.desk.options.directory,
                line: 0,
                object: None,
                path: String::new(),
                reason: "is being written; read it again when that is over".to_owned(),
                parents: Vec::new(),
                observed: false,
                stands: false,
            };
            batch.faults = batch.faults.iter().cloned().chain([fault]).collect();
        }
        batch
    }

    /// Sends what the directory holds, then what changes, until nobody listens any more.
    pub async fn run(self, out: mpsc::Sender<Batch>) -> Result<(), Error> {
        let Self { mut desk } = self;
        let marks = Arc::new(Marks::default());
        // Watch first, look second: nothing falls between the two.
        let mut watch = Watch::start(&desk, &marks);
        loop {
            let noticed = marks.take();
            let (next, batch) = spawn_blocking(move || {
                let batch = desk.round(Instant::now(), noticed);
                (desk, batch)
            })
            .await?;
            desk = next;
            if let Some(batch) = batch
                && out.send(batch).await.is_err()
            {
                return Ok(());
            }
            watch.renew(&desk, &marks);
            tokio::select! {
                _ = timeout_at(desk.next_look().into(), marks.noticed.notified()) => {}
                () = out.closed() => return Ok(()),
            }
            // A burst of events is one look.
            sleep(BURST).await;
        }
    }
}

/// The reader's whole state between two looks.
#[derive(Debug)]
struct Desk {
    options: Options,
    status: PathBuf,
    own: PathBuf,
    ledger: Ledger,
    believed: BTreeMap<PathBuf, (Role, Fingerprint)>,
    writing: BTreeMap<PathBuf, Writing>,
    patience: Patience,
    faults: Vec<Fault>,
    has_told: bool,
    last_look: Instant,
}

impl Desk {
    fn new(options: Options) -> Self {
        // inotify speaks of absolute paths; ours must compare equal.
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let directory = absolute(&options.directory);
        let status = options.status.as_ref().map_or_else(|| directory.join("status"), absolute);
        Self {
            own: status.join(OWN),
            status,
            options: Options { ignored: options.ignored.iter().map(absolute).collect(), directory, ..options },
            ledger: Ledger::default(),
            believed: BTreeMap::new(),
            writing: BTreeMap::new(),
            patience: Patience::default(),
            faults: Vec::new(),
            has_told: false,
            last_look: Instant::now(),
        }
    }

    fn next_look(&self) -> Instant {
        let rescan = self.last_look + self.options.rescan;
        self.patience.next_deadline().map_or(rescan, |deadline| deadline.min(rescan))
    }

    /// One look at the directory; a batch if anything is new.
    fn round(&mut self, now: Instant, noticed: BTreeMap<PathBuf, Writing>) -> Option<Batch> {
        self.last_look = now;
        self.writing.extend(noticed);
        let mut listing = Listing::of(&self.options.directory, &self.status, &self.own);
        listing.files.retain(|path, _| !self.options.ignored.contains(path));
        let mut readings = Vec::new();
        for (path, (role, outside)) in &listing.files {
            if self.believed.get(path) == Some(&(*role, *outside)) {
                self.patience.forget(path);
                continue;
            }
            if let Some((outside, reading)) = self.read(now, path, *role, *outside) {
                self.believed.insert(path.clone(), (*role, outside));
                readings.push((path.clone(), *role, Some(reading)));
            }
        }
        for path in self.gone(now, &listing) {
            let role = self.believed.remove(&path).map_or(Role::Objects, |(role, _)| role);
            readings.push((path, role, None));
        }
        self.writing.retain(|path, _| self.believed.get(path) != listing.files.get(path));
        let changes = self.ledger.update(readings);
        self.batch(changes, &listing)
    }

    fn batch(&mut self, changes: Vec<crate::store::Change>, listing: &Listing) -> Option<Batch> {
        let mut faults = self.ledger.faults();
        faults.extend(listing.unknown.iter().map(|(path, reason)| Fault {
            file: path.clone(),
            line: 0,
            object: None,
            path: String::new(),
            reason: reason.clone(),
            parents: Vec::new(),
            observed: false,
            stands: true,
        }));
        if changes.is_empty() && faults == self.faults && self.has_told {
            return None;
        }
        self.has_told = true;
        self.faults.clone_from(&faults);
        Some(Batch { changes, faults: faults.into(), synced: true })
    }

    /// The content of a new or changed file, once it can be believed.
    fn read(&mut self, now: Instant, path: &Path, role: Role, outside: Fingerprint) -> Option<(Fingerprint, Reading)> {
        let writing = self.writing.get(path).copied().unwrap_or(Writing::Unknown);
        // At the start there is nothing to lose; and programs write in one go.
        let is_whole = !self.has_told || role == Role::Observations && writing != Writing::Going;
        let settling = if is_whole { Duration::ZERO } else { writing.settling() };
        if !settling.is_zero() && !self.patience.is_over(now, path, Some(outside), settling) {
            return None;
        }
        let Some((outside, reading)) = folder::read(path, role) else {
            self.patience.is_over(now, path, Some(outside), SECOND_LOOK);
            return None;
        };
        let needed = if self.ledger.loses(path, &reading) { SECOND_LOOK } else { Duration::ZERO };
        self.patience.is_over(now, path, Some(outside), needed).then_some((outside, reading))
    }

    /// The files that are no longer there, once that can be believed.
    fn gone(&mut self, now: Instant, listing: &Listing) -> Vec<PathBuf> {
        let Self { believed, patience, .. } = self;
        let missing = believed.iter().filter(|(path, _)| !listing.files.contains_key(*path) && !listing.may_hide(path));
        let gone = missing.filter(|(path, (role, _))| {
            let needed = if *role == Role::Objects { SECOND_LOOK } else { Duration::ZERO };
            patience.is_over(now, path, None, needed)
        });
        gone.map(|(path, _)| path.clone()).collect()
    }
}

/// What inotify said since the last look.
#[derive(Debug, Default)]
struct Marks {
    writing: Mutex<BTreeMap<PathBuf, Writing>>,
    noticed: Notify,
}

impl Marks {
    fn take(&self) -> BTreeMap<PathBuf, Writing> {
        std::mem::take(&mut *self.writing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Anything below `own` is our own doing.
    fn note(&self, own: &Path, event: notify::Result<Event>) {
        // An error is an overflow or a folder that went away: look, and believe by settling.
        if let Ok(event) = event {
            let writing = match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => Writing::Finished,
                // Our own reading, too.
                EventKind::Access(_) => return,
                EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => Writing::Finished,
                EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => Writing::Going,
                _ => Writing::Unknown,
            };
            if !event.paths.is_empty() && event.paths.iter().all(|path| path.starts_with(own)) {
                return;
            }
            let mut marks = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            for path in event.paths.into_iter().filter(|_| writing != Writing::Unknown) {
                // A link is whole as soon as it is there.
                let is_link = writing == Writing::Going && path.is_symlink();
                marks.insert(path, if is_link { Writing::Finished } else { writing });
            }
            if marks.len() > MAX_MARKS {
                marks.clear();
            }
        }
        self.noticed.notify_one();
    }
}

/// The inotify watch; begun anew when the directory is another one than before.
struct Watch {
    _watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<(u64, u64)>,
}

impl Watch {
    fn start(desk: &Desk, marks: &Arc<Marks>) -> Self {
        let folders = roots(desk);
        let (marks, own) = (Arc::clone(marks), desk.own.clone());
        let begun = notify::recommended_watcher(move |event| marks.note(&own, event)).and_then(|mut watcher| {
            watcher.watch(&desk.options.directory, RecursiveMode::Recursive)?;
            if desk.status.is_dir() && !desk.status.starts_with(&desk.options.directory) {
                watcher.watch(&desk.status, RecursiveMode::Recursive)?;
            }
            Ok(watcher)
        });
        let watcher = begun
            .inspect_err(|error| {
                warn!("{}: {error}; looking every {:?} instead", desk.options.directory.display(), desk.options.rescan)
            })
            .ok();
        Self { _watcher: watcher, folders }
    }

    fn renew(&mut self, desk: &Desk, marks: &Arc<Marks>) {
        let folders = roots(desk);
        if folders != self.folders {
            *self = Self::start(desk, marks);
        }
    }
}

fn roots(desk: &Desk) -> BTreeSet<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &PathBuf| std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    [&desk.options.directory, &desk.status].into_iter().filter_map(identity).collect()
}

const BURST: Duration = Duration::from_millis(5);
const MAX_MARKS: usize = 100_000;

#[cfg(test)]
mod tests;
