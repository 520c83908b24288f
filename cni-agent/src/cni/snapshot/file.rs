// SPDX-License-Identifier: Apache-2.0
//! The snapshot's file. It decides who may start outside the mesh, so only one that nobody else can have written is believed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{fs, process};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use super::Snapshot;

/// Its name in the run directory.
pub const NAME: &str = "snapshot.json";
/// A thousand times what a large cluster needs.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Write permission of group and others.
const WRITABLE: u32 = 0o022;

/// Why there is no snapshot to be believed, or none could be left.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The agent has not written one since the node started, or there is no agent.
    #[error("it left no snapshot at {path}")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It could not be read.
    #[error("the snapshot it left at {path} cannot be read: {source}")]
    Read {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be written.
    #[error("cannot leave a snapshot for the CNI plugin at {path}: check that the directory can be written")]
    Write {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others could have written it.
    #[error("the snapshot at {path} is not believed: {why}; remove it, the agent writes a new one")]
    Untrusted {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It is no snapshot.
    #[error("the snapshot it left at {path} cannot be understood: {source}")]
    Decode {
        /// Where it is.
        path: PathBuf,
        /// Where in the file.
        source: serde_json::Error,
    },
}

/// Reads the snapshot in `run_dir`.
pub fn read(run_dir: &Path) -> Result<Snapshot, SnapshotError> {
    let path = run_dir.join(NAME);
    let failed = |source| SnapshotError::Read { path: path.clone(), source };
    let untrusted = |why| SnapshotError::Untrusted { path: path.clone(), why };
    // Not blocking: somebody may have put a pipe there.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SnapshotError::Missing { path }),
        Err(error) => return Err(failed(error)),
    };
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(untrusted("it is not a regular file"));
    }
    if found.uid() != geteuid().as_raw() {
        return Err(untrusted("it belongs to another user"));
    }
    if found.mode() & WRITABLE != 0 {
        return Err(untrusted("others may write to it"));
    }
    let mut bytes = Vec::new();
    let length = file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if length as u64 > MAX_BYTES {
        return Err(untrusted("it is far too long"));
    }
    serde_json::from_slice(&bytes).map_err(|source| SnapshotError::Decode { path, source })
}

/// Leaves `snapshot` in `run_dir`, in one step: a reader finds the old or the new one, never half of it.
pub fn write(run_dir: &Path, snapshot: &Snapshot) -> Result<(), SnapshotError> {
    let path = run_dir.join(NAME);
    let unfinished = run_dir.join(format!(".{NAME}.{}", process::id()));
    let finish = || -> io::Result<()> {
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(&serde_json::to_vec(snapshot)?)?;
        fs::rename(&unfinished, &path)
    };
    finish().map_err(|source| {
        let _ = fs::remove_file(&unfinished);
        SnapshotError::Write { path, source }
    })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cni::snapshot::Membership;

    fn snapshot() -> Snapshot {
        Snapshot { written_at: 1000, namespaces: [("a".to_owned(), Membership::Ambient)].into() }
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path()), Err(SnapshotError::Missing { .. })));
        write(folder.path(), &Snapshot::default()).unwrap();
        write(folder.path(), &snapshot()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), snapshot());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::metadata(folder.path().join(NAME)).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(write(&folder.path().join("none"), &snapshot()), Err(SnapshotError::Write { .. })));
    }

    #[test]
    fn what_others_could_have_written_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        write(folder.path(), &snapshot()).unwrap();
        for mode in [0o620, 0o602, 0o666] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read(folder.path()), Err(SnapshotError::Untrusted { .. })), "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        read(folder.path()).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(matches!(read(folder.path()), Err(SnapshotError::Read { .. })));
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(matches!(read(folder.path()), Err(SnapshotError::Untrusted { .. })));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(read(folder.path()), Err(SnapshotError::Untrusted { .. })));
    }

    #[test]
    fn half_a_snapshot_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "{", "[]", "{}", r#"{"written_at":1}"#, r#"{"written_at":1,"namespaces":{"a":"perhaps"}}"#] {
            fs::write(folder.path().join(NAME), text).unwrap();
            fs::set_permissions(folder.path().join(NAME), Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(read(folder.path()), Err(SnapshotError::Decode { .. })), "{text}");
        }
    }
}
