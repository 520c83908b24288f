// SPDX-License-Identifier: Apache-2.0
//! Remembers which network namespace the container runtime made for which pod, also of pods outside the mesh: they may be asked in later. On disk, in
//! the run directory, so that an agent that starts again knows the pods that were started before it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::find::{NetnsId, PodNetns};
use crate::plugin::Sandbox;

use super::status::file_stem;

/// One sandbox, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    namespace: String,
    name: String,
    uid: Option<String>,
    container_id: Option<String>,
    netns: PathBuf,
}

/// A sandbox that is there.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: Option<String>,
    pub(super) netns: PodNetns,
    path: PathBuf,
    container_id: Option<String>,
}

/// The sandboxes of the node.
#[derive(Debug)]
pub(super) struct Sandboxes {
    folder: PathBuf,
    known: BTreeMap<(String, String), Known>,
}

impl Sandboxes {
    /// Reads what is remembered in `folder`. What has gone meanwhile is forgotten.
    pub(super) fn load(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            match remembered(&path) {
                Some(one) => _ = known.insert((one.namespace.clone(), one.name.clone()), one),
                None => fs::remove_file(&path)?,
            }
        }
        Ok(Self { folder, known })
    }

    /// All that are there.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.known.values()
    }

    /// Remembers a new one, in place of an older one of the same pod.
    pub(super) fn add(&mut self, sandbox: &Sandbox, netns: PodNetns) -> io::Result<()> {
        let record = Record {
            namespace: sandbox.namespace.clone(),
            name: sandbox.name.clone(),
            uid: sandbox.uid.clone(),
            container_id: sandbox.container_id.clone(),
            netns: sandbox.netns.clone(),
        };
        let path = self.path(&sandbox.namespace, &sandbox.name);
        let partial = path.with_extension("partial");
        fs::write(&partial, serde_json::to_vec(&record)?)?;
        fs::rename(&partial, &path)?;
        let Record { namespace, name, uid, container_id, netns: path } = record;
        let one = Known { namespace: namespace.clone(), name: name.clone(), uid, netns, path, container_id };
        self.known.insert((namespace, name), one);
        Ok(())
    }

    /// Forgets one that goes away, unless a newer one has taken its place.
    pub(super) fn remove(&mut self, sandbox: &Sandbox) -> Option<Known> {
        let key = (sandbox.namespace.clone(), sandbox.name.clone());
        let known = self.known.get(&key)?;
        let another = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        if another(&known.container_id, &sandbox.container_id) {
            return None;
        }
        if let Err(error) = fs::remove_file(self.path(&sandbox.namespace, &sandbox.name)) {
            warn!(%error, "cannot forget a sandbox on disk; it is noticed to be gone at the next start");
        }
        self.known.remove(&key)
    }

    /// Forgets those whose network namespace is gone though nobody said so: a DEL that never reached us. Holding on
    /// would keep the namespace and its interfaces alive.
    pub(super) fn vanished(&mut self) -> Vec<Known> {
        let stands = |known: &Known| {
            let found = fs::metadata(&known.path).ok();
            found.is_some_and(|found| known.netns.id() == NetnsId { device: found.dev(), inode: found.ino() })
        };
        let gone: Vec<_> = self.known.extract_if(.., |_, known| !stands(known)).map(|(_, known)| known).collect();
        for known in &gone {
            // One that stays is noticed at the next start.
            let _ = fs::remove_file(self.path(&known.namespace, &known.name));
        }
        gone
    }

    fn path(&self, namespace: &str, name: &str) -> PathBuf {
        self.folder.join(format!("{}.json", file_stem(namespace, name)))
    }
}

fn remembered(path: &Path) -> Option<Known> {
    let record: Record = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    match PodNetns::open(&record.netns) {
        Ok(netns) => Some(Known {
            namespace: record.namespace,
            name: record.name,
            uid: record.uid,
            netns,
            path: record.netns,
            container_id: record.container_id,
        }),
        Err(error) => {
            debug!(%error, pod = record.name, "a remembered sandbox has gone");
            None
        }
    }
}
