// SPDX-License-Identifier: Apache-2.0
//! One walk through the directory: which files there are, and which folders could not be asked. Reads files without ever waiting for one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;

use super::directory::Directory;

/// Nobody writes larger ones by hand.
const MAX_FILE_BYTES: u64 = 32 << 20;
/// Nobody nests folders deeper.
const MAX_DEPTH: usize = 16;

/// A file's outside: while it stays the same, so does the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: SystemTime,
    changed: (i64, i64),
    len: u64,
    identity: (u64, u64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> io::Result<Self> {
        Ok(Self {
            modified: metadata.modified()?,
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            len: metadata.len(),
            identity: (metadata.dev(), metadata.ino()),
        })
    }

    /// Whether the last write lies at least this far back. One in the future does not.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.modified.elapsed().is_ok_and(|elapsed| elapsed >= age)
    }
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) objects: BTreeMap<PathBuf, Stamp>,
    pub(super) observations: BTreeMap<PathBuf, Stamp>,
    /// What could not be looked into, and why. What was known below stands.
    pub(super) failed: BTreeMap<PathBuf, String>,
    /// The file system of each folder.
    devices: BTreeMap<PathBuf, u64>,
}

impl Listing {
    /// Walks through the directory; `before` is what the last walk found.
    pub(super) fn of(directory: &Directory, before: &Self) -> Self {
        let mut walk = Walk { directory, before, visited: BTreeSet::new(), listing: Self::default() };
        if let Ok(metadata) = fs::metadata(&directory.own) {
            walk.visited.insert((metadata.dev(), metadata.ino()));
        }
        // The status folder may be made later; once seen it has to be there.
        let is_absent = fs::metadata(&directory.status).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if !is_absent || before.devices.contains_key(&directory.status) {
            walk.folder(&directory.status, true, 0);
        }
        walk.folder(&directory.objects, false, 0);
        let mut listing = walk.listing;
        for (folder, device) in &before.devices {
            if listing.may_hide(folder) {
                listing.devices.entry(folder.clone()).or_insert(*device);
            }
        }
        listing
    }

    /// Whether a file that was not found may be there all the same.
    pub(super) fn may_hide(&self, path: &Path) -> bool {
        self.failed.keys().any(|folder| path.starts_with(folder))
    }
}

struct Walk<'a> {
    directory: &'a Directory,
    before: &'a Listing,
    /// Links may lead to where we have been.
    visited: BTreeSet<(u64, u64)>,
    listing: Listing,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, is_status: bool, depth: usize) {
        if let Err(error) = self.enter(folder, is_status, depth) {
            self.listing.failed.insert(folder.to_owned(), error.to_string());
        }
    }

    fn enter(&mut self, folder: &Path, is_status: bool, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!("lies more than {MAX_DEPTH} folders deep")));
        }
        let metadata = fs::metadata(folder)?;
        if self.visited.contains(&(metadata.dev(), metadata.ino())) {
            return Ok(());
        }
        let mut entries =
            fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
        if entries.is_empty() && self.before.devices.get(folder).is_some_and(|device| *device != metadata.dev()) {
            return Err(io::Error::other("is empty and on another file system than before; was it unmounted?"));
        }
        self.visited.insert((metadata.dev(), metadata.ino()));
        self.listing.devices.insert(folder.to_owned(), metadata.dev());
        // The same order every time, so that of several ways to a folder the same one counts.
        entries.sort();
        for path in entries {
            self.entry(path, is_status, depth);
        }
        Ok(())
    }

    fn entry(&mut self, path: PathBuf, is_status: bool, depth: usize) {
        let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_hidden || path == self.directory.own || path == self.directory.status {
            return;
        }
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => self.folder(&path, is_status, depth + 1),
            Ok(metadata) if is_wanted(&path) => {
                if let Ok(stamp) = Stamp::of(&metadata) {
                    let files = if is_status { &mut self.listing.observations } else { &mut self.listing.objects };
                    files.insert(path, stamp);
                }
            }
            Ok(_) => {}
            // A link into nothing or to itself, or a file that went while we looked.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ELOOP)) => {}
            Err(error) => _ = self.listing.failed.insert(path, error.to_string()),
        }
    }
}

/// Whether the name is that of a file we read.
pub(super) fn is_wanted(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

/// What reading a file came to.
#[derive(Debug)]
pub(super) enum Content {
    /// The content that belongs to the stamp.
    Text(String),
    /// The file is not one that can be understood.
    Unfit(String),
    /// The system does not let us now; it may the next time.
    Unread(io::Error),
    /// It is being written, or went.
    Moving,
}

/// Reads the file of this stamp.
pub(super) fn load(path: &Path, stamp: &Stamp) -> Content {
    match content(path, stamp) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Content::Moving,
        Err(error) => Content::Unread(error),
    }
}

fn content(path: &Path, stamp: &Stamp) -> io::Result<Content> {
    // Opening a pipe would wait for its writer, and opening some devices does things.
    if !fs::metadata(path)?.is_file() {
        return Ok(Content::Unfit("is not a regular file".to_owned()));
    }
    let mut file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(Content::Moving);
    }
    if stamp.len > MAX_FILE_BYTES {
        return Ok(Content::Unfit(format!("is larger than {MAX_FILE_BYTES} bytes; split it")));
    }
    let mut bytes = Vec::new();
    (&mut file).take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if Stamp::of(&file.metadata()?)? != *stamp {
        return Ok(Content::Moving);
    }
    Ok(String::from_utf8(bytes).map_or_else(|_| Content::Unfit("is not UTF-8".to_owned()), Content::Text))
}
