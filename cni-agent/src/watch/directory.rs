// SPDX-License-Identifier: Apache-2.0
//! Looks at a directory of YAML: when told that something changed, and every so often anyway.
//!
//! A file that cannot be read or understood counts as it last could; so does one that has vanished or become empty, until a second look a moment later:
//! editors empty files before they write them, and no half-written file may throw pods out of the mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{RecursiveMode, Watcher as _};
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tracing::{info, warn};

use super::view::{Documents, News, View, read};

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
/// When a file that seems to lose something is looked at again.
const SECOND_LOOK: Duration = Duration::from_millis(200);
/// Nobody writes larger ones by hand.
const MAX_FILE_BYTES: u64 = 32 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    len: u64,
    inode: u64,
}

#[derive(Default)]
struct Files {
    stamps: BTreeMap<PathBuf, Stamp>,
    documents: BTreeMap<PathBuf, Documents>,
    /// Files that seemed to lose something at the last look.
    doubted: BTreeSet<PathBuf>,
    faults: BTreeMap<PathBuf, String>,
}

impl Directory {
    /// Tells the news until nobody listens.
    ///
    /// # Errors
    /// The directory cannot be watched at all.
    pub async fn run(self, news: mpsc::Sender<News>) -> Result<(), WatchError> {
        let failed = |source| WatchError::Directory { path: self.objects.clone(), source };
        fs::read_dir(&self.objects).map_err(failed)?;
        let changed = Arc::new(Notify::new());
        let wake = Arc::clone(&changed);
        let mut watcher = notify::recommended_watcher(move |_| wake.notify_one())
            .map_err(|source| WatchError::Notify { path: self.objects.clone(), source })?;
        for folder in [&self.objects, &self.status] {
            // The status folder may be made later; rescans find it.
            if folder.exists() {
                watcher
                    .watch(folder, RecursiveMode::Recursive)
                    .map_err(|source| WatchError::Notify { path: folder.clone(), source })?;
            }
        }
        let (mut objects, mut observations) = (Files::default(), Files::default());
        let mut view = View::new(self.node.clone());
        let mut told_faults = BTreeSet::new();
        let mut synced = false;
        loop {
            let doubts = self.look(&mut objects, &mut observations);
            let (mut fresh, faults) = view.update(&objects.documents, &observations.documents);
            let faults: BTreeSet<String> =
                faults.into_iter().chain(objects.lines()).chain(observations.lines()).collect();
            for fault in faults.difference(&told_faults) {
                warn!("{fault}");
            }
            if faults.is_empty() && !told_faults.is_empty() {
                info!("everything in the directory can be read again");
            }
            told_faults = faults;
            if !synced {
                fresh.push(News::Synced);
                synced = true;
            }
            for item in fresh {
                if news.send(item).await.is_err() {
                    return Ok(());
                }
            }
            let pause = if doubts { SECOND_LOOK } else { RESCAN };
            if tokio::time::timeout(pause, changed.notified()).await.is_ok() {
                tokio::time::sleep(SETTLE).await;
            }
        }
    }

    /// Reads what has changed; says whether something has to be looked at again soon.
    fn look(&self, objects: &mut Files, observations: &mut Files) -> bool {
        let mut found = Vec::new();
        list(&self.objects, &mut found);
        if !self.status.starts_with(&self.objects) {
            list(&self.status, &mut found);
        }
        let (seen, objects_found): (Vec<_>, Vec<_>) = found
            .into_iter()
            .filter(|path| !path.starts_with(&self.own))
            .partition(|path| path.starts_with(&self.status));
        let doubts = objects.look(objects_found);
        observations.look(seen) || doubts
    }
}

impl Files {
    fn look(&mut self, found: Vec<PathBuf>) -> bool {
        let found: BTreeSet<PathBuf> = found.into_iter().collect();
        let mut doubted = BTreeSet::new();
        let known: BTreeSet<PathBuf> = self.documents.keys().chain(self.faults.keys()).cloned().collect();
        for path in known.difference(&found) {
            if self.doubted.contains(path) || !self.documents.contains_key(path) {
                self.documents.remove(path);
                self.stamps.remove(path);
                self.faults.remove(path);
            } else {
                doubted.insert(path.clone());
            }
        }
        for path in found {
            let Some(stamp) = stamp(&path) else { continue };
            if self.stamps.get(&path) == Some(&stamp) {
                continue;
            }
            match load(&path, stamp.len) {
                Ok(documents) => {
                    let before = self.documents.get(&path).map_or(0, Vec::len);
                    if documents.len() < before && !self.doubted.contains(&path) {
                        doubted.insert(path);
                        continue;
                    }
                    self.faults.remove(&path);
                    self.documents.insert(path.clone(), documents);
                }
                Err(reason) => _ = self.faults.insert(path.clone(), reason),
            }
            self.stamps.insert(path, stamp);
        }
        self.doubted = doubted;
        !self.doubted.is_empty()
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        self.faults.iter().map(|(path, reason)| {
            let stands =
                if self.documents.contains_key(path) { "its last good state stands" } else { "it is left out" };
            format!("{}: {reason} ({stands})", path.display())
        })
    }
}

fn list(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        if path.is_dir() {
            list(&path, found);
        } else if path.extension().and_then(OsStr::to_str).is_some_and(|e| ["yaml", "yml", "json"].contains(&e)) {
            found.push(path);
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp { modified: metadata.modified().ok()?, len: metadata.len(), inode: metadata.ino() })
}

fn load(path: &Path, len: u64) -> Result<Documents, String> {
    // The key set of token issuers lies in the same directory and is no object.
    if path.file_name().is_some_and(|name| name == "jwks.json") {
        return Ok(Documents::new());
    }
    if len > MAX_FILE_BYTES {
        return Err(format!("is larger than {MAX_FILE_BYTES} bytes; split it"));
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    read(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";

    fn file(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("a.yaml");
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_file_that_is_emptied_or_broken_or_gone_for_a_moment_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), NAMESPACE);
        let mut files = Files::default();
        let look = |files: &mut Files| {
            let mut found = Vec::new();
            list(folder.path(), &mut found);
            files.look(found)
        };
        assert!(!look(&mut files));
        assert_eq!(files.documents[&path].len(), 1);

        fs::write(&path, "").unwrap();
        assert!(look(&mut files), "a second look is due");
        assert_eq!(files.documents[&path].len(), 1);
        fs::write(&path, "apiVersion: v1\nkind: [").unwrap();
        look(&mut files);
        assert_eq!(files.documents[&path].len(), 1);
        assert_eq!(files.lines().count(), 1);
        fs::write(&path, NAMESPACE).unwrap();
        assert!(!look(&mut files));
        assert_eq!(files.lines().count(), 0);

        fs::remove_file(&path).unwrap();
        assert!(look(&mut files));
        assert_eq!(files.documents.len(), 1);
        assert!(!look(&mut files));
        assert!(files.documents.is_empty());
    }

    #[tokio::test]
    async fn changes_are_told_as_they_happen() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), NAMESPACE);
        let status = folder.path().join("status");
        let own = status.join("b-agent-n1");
        let directory = Directory { objects: folder.path().into(), status, own, node: "n1".into() };
        let (sender, mut news) = mpsc::channel(8);
        let watching = directory.run(sender);
        tokio::pin!(watching);
        let next = async |watching: &mut std::pin::Pin<&mut _>, news: &mut mpsc::Receiver<News>| {
            tokio::select! {
                item = news.recv() => item.unwrap(),
                _ = watching => panic!("the watch ended"),
                () = tokio::time::sleep(Duration::from_secs(10)) => panic!("no news"),
            }
        };
        assert!(matches!(next(&mut watching, &mut news).await, News::Namespace(_)));
        assert_eq!(next(&mut watching, &mut news).await, News::Synced);
        fs::write(&path, NAMESPACE.replace("shop}", "shop, labels: {a: b}}")).unwrap();
        let News::Namespace(namespace) = next(&mut watching, &mut news).await else { panic!("another") };
        assert_eq!(namespace.labels["a"], "b");
        fs::remove_file(&path).unwrap();
        assert_eq!(next(&mut watching, &mut news).await, News::NamespaceGone { name: "shop".into() });
    }
}
