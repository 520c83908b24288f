// SPDX-License-Identifier: Apache-2.0
//! Keeps what is said of objects as small files below the `status` folder of a directory of objects: `status/waypoint-config/<namespace>/<Kind>_<name>.yaml`,
//! each an object with its status only, as `kubectl get -o yaml` would show it. A file is written when what it says differs, in one go, and removed when
//! nothing is said any more. Nothing here is ever read back as an object; if it cannot be written, the mesh goes on without.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::status;
use crate::{
    api::{Key, Kind, is_dns_subdomain},
    line::{Statuses, Told},
    view::status::Status,
};

/// Writes whatever is said, until the program ends.
pub async fn run(folder: PathBuf, statuses: Statuses) {
    let mut shelf = Shelf::new(folder);
    loop {
        let told = statuses.next().await;
        let written = spawn_blocking(move || {
            shelf.take(told, OffsetDateTime::now_utc());
            shelf
        });
        shelf = match written.await {
            Ok(shelf) => shelf,
            Err(error) => return warn!(%error, "the writer of conditions ended before its time"),
        };
    }
}

/// The folder.
#[derive(Debug)]
pub struct Shelf {
    folder: PathBuf,
    /// What was told before everything was; what lies there beside is of objects that are gone.
    known: Option<BTreeSet<PathBuf>>,
    fails: bool,
}

impl Shelf {
    /// A folder that need not be there yet.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, known: Some(BTreeSet::new()), fails: false }
    }

    /// Writes down what differs.
    pub fn take(&mut self, told: Told, now: OffsetDateTime) {
        let mut failed = None;
        // The time a format cannot show is one no clock shows.
        let now = now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default();
        for (key, status) in told.of {
            let Some(path) = self.path(&key) else { continue };
            if let Err(error) = write(&path, &key, &status, &now) {
                failed = Some((path.clone(), error));
            }
            if let Some(known) = &mut self.known {
                known.insert(path);
            }
        }
        if told.complete
            && let Some(known) = self.known.take()
        {
            sweep(&self.folder, &known);
        }
        self.report(failed);
    }

    /// Once when it begins, and once when it is over.
    fn report(&mut self, failed: Option<(PathBuf, io::Error)>) {
        match failed {
            Some((path, error)) if !self.fails => {
                self.fails = true;
                warn!("conditions cannot be written to {}: {error}; see the rights of that folder", path.display());
            }
            None if self.fails => {
                self.fails = false;
                info!("conditions are written again");
            }
            _ => {}
        }
    }

    /// Where an object has its file. None for names that no object can have: they may hold anything, a way out of the folder, too. And none for what
    /// others observe: a node agent that reads the folder would take what we say of a Pod for what its kubelet says.
    fn path(&self, key: &Key) -> Option<PathBuf> {
        if matches!(key.kind, Kind::Pod | Kind::Namespace | Kind::Node) {
            return None;
        }
        let is_name = is_dns_subdomain(&key.name) && (key.namespace.is_empty() || is_dns_subdomain(&key.namespace));
        let folder = if key.namespace.is_empty() { self.folder.clone() } else { self.folder.join(&*key.namespace) };
        let file = format!("{}_{}.yaml", key.kind.name(), key.name);
        (is_name && file.len() <= LONGEST_NAME).then(|| folder.join(file))
    }
}

fn write(path: &Path, key: &Key, status: &Status, now: &str) -> io::Result<()> {
    let before = fs::read_to_string(path).ok().and_then(|text| serde_saphyr::from_str::<Value>(&text).ok());
    let Some(document) = status::document(key, status, before.as_ref(), now) else {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    };
    if before.as_ref() == Some(&document) {
        return Ok(());
    }
    let text = serde_saphyr::to_string(&document).map_err(io::Error::other)?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    fs::create_dir_all(folder)?;
    // Readers of the directory leave such names out.
    let draft = folder.join(format!(".{}", name.to_string_lossy()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&draft)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    drop(file);
    fs::rename(&draft, path)
}

/// Removes the files of which nothing was told, and folders that are empty then.
fn sweep(folder: &Path, known: &BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                sweep(&path, known);
                // Fails while there is something in it.
                let _ = fs::remove_dir(&path);
            }
            Ok(kind) if kind.is_file() && !known.contains(&path) => _ = fs::remove_file(&path),
            _ => {}
        }
    }
}

/// The longest name of a file, with room for the dot of a draft.
const LONGEST_NAME: usize = 254;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::view::status::Condition;

    fn told(of: &[(&Key, bool)], complete: bool) -> Told {
        let status = |holds| Status {
            conditions: vec![Condition::new("Accepted", holds, "Because", "a: b\n#c")],
            ..Status::default()
        };
        Told { of: of.iter().map(|(key, holds)| ((*key).clone(), status(*holds))).collect(), complete }
    }

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    #[test]
    fn a_file_is_written_when_it_differs_and_goes_with_what_was_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut shelf = Shelf::new(folder.path().join("status/waypoint-config"));
        let key = Key::new(Kind::Gateway, "shop", "waypoint");
        let path = folder.path().join("status/waypoint-config/shop/Gateway_waypoint.yaml");
        shelf.take(told(&[(&key, true)], true), at(1));
        let first = fs::read_to_string(&path).unwrap();
        assert!(first.contains("1970-01-01T00:00:01Z"), "{first}");
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        shelf.take(told(&[(&key, true)], true), at(2));
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
        shelf.take(told(&[(&key, false)], true), at(3));
        assert!(fs::read_to_string(&path).unwrap().contains("1970-01-01T00:00:03Z"));
        shelf.take(Told { of: BTreeMap::from([(key, Status::default())]), complete: true }, at(4));
        assert!(!path.exists());
    }

    #[test]
    fn what_a_former_program_said_of_objects_that_are_gone_is_removed_once_all_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (Key::new(Kind::Gateway, "old", "a"), Key::new(Kind::Gateway, "shop", "a"));
        Shelf::new(folder.path().to_owned()).take(told(&[(&old, true), (&new, true)], true), at(1));
        let mut shelf = Shelf::new(folder.path().to_owned());
        shelf.take(told(&[(&new, true)], false), at(2));
        assert!(folder.path().join("old/Gateway_a.yaml").exists());
        shelf.take(told(&[], true), at(3));
        assert!(!folder.path().join("old").exists());
        let text = fs::read_to_string(folder.path().join("shop/Gateway_a.yaml")).unwrap();
        assert!(text.contains("1970-01-01T00:00:01Z"), "{text}");
    }

    #[test]
    fn a_name_leads_nowhere_else_and_of_pods_others_speak() {
        let folder = tempfile::tempdir().unwrap();
        let mut shelf = Shelf::new(folder.path().join("inner"));
        let keys = [
            Key::new(Kind::Pod, "shop", "a"),
            Key::new(Kind::Gateway, "..", "a"),
            Key::new(Kind::Gateway, "shop", "../../a"),
            Key::new(Kind::Gateway, "shop", &"a.".repeat(130)),
        ];
        shelf.take(told(&keys.each_ref().map(|key| (key, true)), true), at(1));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
