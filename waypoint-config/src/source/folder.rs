// SPDX-License-Identifier: Apache-2.0
//! Reads a directory tree from the disk: which files there are and what they hold. Called by `files`. It follows symbolic links (a mounted ConfigMap
//! is made of them), never opens anything but regular files, and never waits for one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;

use super::{
    document::{MAX_FILE_BYTES, Reading, Role},
    patience::Fingerprint,
};

/// What one look at the directory found.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: BTreeMap<PathBuf, (Role, Fingerprint)>,
    /// Folders that could not be listed. What was known of them stands.
    pub(super) unknown: Vec<(PathBuf, String)>,
    folders: BTreeSet<(u64, u64)>,
}

impl Listing {
    pub(super) fn of(directory: &Path, status: &Path, own: &Path) -> Self {
        let mut listing = Self::default();
        listing.walk(directory, Role::Objects, 0, Some(status));
        if status.is_dir() {
            listing.walk(status, Role::Observations, 0, Some(own));
        }
        listing
    }

    /// Whether a file that is not listed may be there all the same.
    pub(super) fn may_hide(&self, path: &Path) -> bool {
        self.unknown.iter().any(|(folder, _)| path.starts_with(folder))
    }

    fn walk(&mut self, folder: &Path, role: Role, depth: usize, except: Option<&Path>) {
        if depth > MAX_DEPTH {
            return self.unknown.push((folder.to_owned(), format!("is more than {MAX_DEPTH} folders deep")));
        }
        let listed = fs::metadata(folder).and_then(|metadata| Ok((metadata, fs::read_dir(folder)?)));
        let (metadata, entries) = match listed {
            Ok(found) => found,
            Err(error) => return self.unknown.push((folder.to_owned(), format!("cannot be listed: {error}"))),
        };
        // A link that leads back up ends here.
        if !self.folders.insert((metadata.dev(), metadata.ino())) {
            return;
        }
        for entry in entries {
            match entry {
                Ok(entry) => self.look_at(&entry.path(), role, depth, except),
                Err(error) => self.unknown.push((folder.to_owned(), format!("cannot be listed: {error}"))),
            }
        }
    }

    fn look_at(&mut self, path: &Path, role: Role, depth: usize, except: Option<&Path>) {
        let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_hidden || except == Some(path) {
            return;
        }
        if self.files.len() >= MAX_FILES {
            // Whatever is not listed any more must not look deleted.
            return self.unknown.push((PathBuf::new(), format!("the directory has more than {MAX_FILES} files")));
        }
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.walk(path, role, depth + 1, except),
            Ok(metadata) if is_wanted(path) => _ = self.files.insert(path.to_owned(), (role, fingerprint(&metadata))),
            // A link into nothing, or gone while we looked.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.unknown.push((path.to_owned(), format!("cannot be looked at: {error}")));
            }
            Ok(_) | Err(_) => {}
        }
    }
}

/// The content of a file, and the outside that belongs to exactly this content; `None` if it was written while it was read.
pub(super) fn read(path: &Path, role: Role) -> Option<(Fingerprint, Reading)> {
    match content(path) {
        Ok(content) => content.map(|(outside, bytes)| (outside, Reading::of(&bytes, role))),
        Err(error) => {
            let outside = fs::metadata(path).map(|metadata| fingerprint(&metadata)).ok()?;
            Some((outside, Reading::unreadable(format!("cannot be read: {error}"))))
        }
    }
}

fn content(path: &Path) -> io::Result<Option<(Fingerprint, Vec<u8>)>> {
    // Without O_NONBLOCK a pipe named x.yaml would hold up everything.
    let mut file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let before = regular(&file)?;
    let mut bytes = Vec::new();
    (&mut file).take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    let after = regular(&file)?;
    Ok((before == after).then_some((after, bytes)))
}

fn regular(file: &File) -> io::Result<Fingerprint> {
    let metadata = file.metadata()?;
    match metadata.is_file() {
        true => Ok(fingerprint(&metadata)),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

fn fingerprint(metadata: &Metadata) -> Fingerprint {
    let time = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Fingerprint {
        identity: (metadata.dev(), metadata.ino()),
        size: metadata.size(),
        modified: time(metadata.mtime(), metadata.mtime_nsec()),
        changed: time(metadata.ctime(), metadata.ctime_nsec()),
    }
}

fn is_wanted(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

const MAX_DEPTH: usize = 16;
const MAX_FILES: usize = 200_000;
