// SPDX-License-Identifier: Apache-2.0
//! Which file said what, and what stands. Pure: the old state and the new reading of some files make changes and faults. Called by `files`.
//!
//! The rules: an object that cannot be read stays as it last was. A file with a part that cannot even be told apart loses nothing of what it
//! had: the missing object may be in that part. Of two files with the same object the one that had it first keeps it, until it lets go.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    batch::Fault,
    document::{Broken, Entry, Reading, Role},
    observation,
};
use crate::{
    api::{Key, Object, ObjectError, ParentRef},
    store::Change,
};

/// The state of a directory.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    files: BTreeMap<PathBuf, File>,
    mentions: BTreeMap<Key, BTreeSet<PathBuf>>,
    live: BTreeMap<Key, Live>,
    shared: BTreeSet<Key>,
}

#[derive(Clone, Debug)]
struct File {
    role: Role,
    entries: BTreeMap<Key, Held>,
    broken: Vec<Broken>,
    repeated: Vec<(usize, Key)>,
}

/// What a file says of one object.
#[derive(Clone, Debug)]
struct Held {
    line: usize,
    /// As it could last be read.
    object: Option<Object>,
    error: Option<ObjectError>,
    parents: Vec<ParentRef>,
}

#[derive(Clone, Debug)]
struct Live {
    object: Object,
    owner: PathBuf,
}

impl Ledger {
    /// Whether taking this reading in would take an object away. Then a second look is due first: the file may be half written.
    pub fn loses(&self, path: &Path, reading: &Reading) -> bool {
        let Some(file) = self.files.get(path).filter(|file| file.role == Role::Objects && reading.broken.is_empty())
        else {
            return false;
        };
        let named: BTreeSet<&Key> = reading.entries.iter().map(|entry| &entry.key).collect();
        file.entries.iter().any(|(key, held)| held.object.is_some() && !named.contains(key))
    }

    /// Takes in what was read of some files; `None` is a file that is gone. Tells what that changes.
    pub fn update(&mut self, readings: impl IntoIterator<Item = (PathBuf, Role, Option<Reading>)>) -> Vec<Change> {
        let mut touched = BTreeSet::new();
        for (path, role, reading) in readings {
            let old = self.files.remove(&path);
            let old_keys: BTreeSet<Key> = old.iter().flat_map(|file| file.entries.keys().cloned()).collect();
            let new = reading.map(|reading| file(old, role, reading));
            let new_keys: BTreeSet<Key> = new.iter().flat_map(|file| file.entries.keys().cloned()).collect();
            for key in old_keys.difference(&new_keys) {
                if let Some(paths) = self.mentions.get_mut(key) {
                    paths.remove(&path);
                }
            }
            for key in &new_keys {
                self.mentions.entry(key.clone()).or_default().insert(path.clone());
            }
            if let Some(new) = new {
                self.files.insert(path, new);
            }
            touched.extend(old_keys);
            touched.extend(new_keys);
        }
        touched.into_iter().filter_map(|key| self.settle(key)).collect()
    }

    /// Everything that is wrong now.
    pub fn faults(&self) -> Vec<Fault> {
        let own = self.files.iter().flat_map(|(path, file)| faults_of(path, file));
        let shared = self.shared.iter().flat_map(|key| {
            let live = self.live.get(key);
            let others =
                self.sayings(key, Role::Objects).filter(move |(path, _)| live.is_none_or(|live| live.owner != **path));
            others.map(move |(path, held)| Fault {
                file: path.clone(),
                line: held.line,
                object: Some(key.clone()),
                path: String::new(),
                reason: format!(
                    "is in {} already; remove one of the two",
                    live.map(|live| live.owner.display().to_string()).unwrap_or_default()
                ),
                parents: Vec::new(),
                observed: false,
                stands: true,
            })
        });
        let mut faults: Vec<_> = own.chain(shared).collect();
        faults.sort();
        faults
    }

    /// What holds of an object after what its files now say.
    fn settle(&mut self, key: Key) -> Option<Change> {
        let (said, is_shared) = {
            let owner = self.live.get(&key).map(|live| &live.owner);
            let sayings: Vec<_> = self.sayings(&key, Role::Objects).collect();
            let kept = sayings.iter().find(|(path, _)| Some(*path) == owner).or_else(|| sayings.first());
            let said =
                kept.and_then(|(path, held)| Some(((*path).clone(), self.observed(&key, held.object.as_ref()?))));
            (said, sayings.len() > 1)
        };
        match is_shared {
            true => _ = self.shared.insert(key.clone()),
            false => _ = self.shared.remove(&key),
        }
        if self.mentions.get(&key).is_some_and(BTreeSet::is_empty) {
            self.mentions.remove(&key);
        }
        match said {
            None => self.live.remove(&key).map(|_| Change::Delete(key)),
            Some((owner, object)) => {
                let is_same = self.live.get(&key).is_some_and(|live| live.object == object);
                self.live.insert(key, Live { object: object.clone(), owner });
                (!is_same).then_some(Change::Put(object))
            }
        }
    }

    /// The object with everything that was observed of this life of it.
    fn observed(&self, key: &Key, object: &Object) -> Object {
        let observations = self.sayings(key, Role::Observations).filter_map(|(_, held)| held.object.as_ref());
        observations.fold(object.clone(), |object, seen| observation::lay(&object, seen).unwrap_or(object))
    }

    /// The files that have something valid to say of an object, in the order of their paths.
    fn sayings<'a>(&'a self, key: &'a Key, role: Role) -> impl Iterator<Item = (&'a PathBuf, &'a Held)> + Clone {
        let files = self.mentions.get(key).into_iter().flatten().filter_map(|path| Some((path, self.files.get(path)?)));
        let files = files.filter(move |(_, file)| file.role == role);
        files.filter_map(move |(path, file)| Some((path, file.entries.get(key).filter(|held| held.object.is_some())?)))
    }
}

/// The next state of a file from its last one and a new reading.
fn file(old: Option<File>, role: Role, reading: Reading) -> File {
    let mut old = old.filter(|file| file.role == role).map(|file| file.entries).unwrap_or_default();
    let mut new = File { role, entries: BTreeMap::new(), broken: reading.broken, repeated: Vec::new() };
    for Entry { line, key, object, parents } in reading.entries {
        if new.entries.contains_key(&key) {
            new.repeated.push((line, key));
            continue;
        }
        let before = old.remove(&key).and_then(|held| held.object);
        let held = match object {
            Ok(object) => Held { line, object: Some(object), error: None, parents },
            Err(error) => Held { line, object: before, error: Some(error), parents },
        };
        new.entries.insert(key, held);
    }
    if !new.broken.is_empty() {
        let kept = old.into_iter().filter(|(_, held)| held.object.is_some());
        new.entries.extend(kept.map(|(key, held)| (key, Held { error: None, ..held })));
    }
    new
}

fn faults_of<'a>(path: &'a Path, file: &'a File) -> impl Iterator<Item = Fault> + 'a {
    let fault = |line: usize, object: Option<&Key>, field: &str, reason: &str, stands: bool| Fault {
        file: path.to_owned(),
        line,
        object: object.cloned(),
        path: field.to_owned(),
        reason: reason.to_owned(),
        parents: Vec::new(),
        observed: file.role == Role::Observations,
        stands,
    };
    let broken =
        file.broken.iter().map(move |broken| fault(broken.line, None, "", &broken.reason, !file.entries.is_empty()));
    let entries = file.entries.iter().filter_map(move |(key, held)| {
        let error = held.error.as_ref()?;
        let fault = fault(held.line, Some(key), &error.path, &error.reason, held.object.is_some());
        Some(Fault { parents: held.parents.clone(), ..fault })
    });
    let repeated = file
        .repeated
        .iter()
        .map(move |(line, key)| fault(*line, Some(key), "", "is in this file already; remove one of the two", true));
    broken.chain(entries).chain(repeated)
}

#[cfg(test)]
mod tests;
