// SPDX-License-Identifier: Apache-2.0
//! The socket's place in the file system: its directory, its mode, and what an earlier agent left there.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::Path;

use tokio::net::UnixListener;

use super::PluginError;

/// Who may look into the run directory, if it has to be made (cni-agent.md P-10).
const DIRECTORY_MODE: u32 = 0o750;
/// Nobody but the plugin, which runs as the same user, has business here (K-29; Istio's is 0666).
const SOCKET_MODE: u32 = 0o600;

/// Listens at `path`. A socket of an earlier agent is replaced in one step, so that a plugin always finds one of the two; anything else there is left alone
/// and is an error.
pub(super) fn bind(path: &Path) -> Result<UnixListener, PluginError> {
    let failed = |source: io::Error| PluginError::Bind { path: path.to_owned(), source };
    let directory = path.parent().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(failed)?;
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(PluginError::Occupied { path: path.to_owned() }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // Short: the path of a socket has 107 bytes at most, and this one should not be what exceeds them.
    let unfinished = directory.join(format!(".plugin{:x}", std::process::id()));
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&unfinished).map_err(failed)?;
    fs::set_permissions(&unfinished, Permissions::from_mode(SOCKET_MODE))
        .and_then(|()| fs::rename(&unfinished, path))
        .map_err(|error| {
            let _ = fs::remove_file(&unfinished);
            failed(error)
        })?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_missing_directory_is_made_and_only_the_owner_may_connect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/istio-cni/pluginevent.sock");
        let _listener = bind(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()) & !0o750, 0);
        UnixStream::connect(&path).unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());
        let _listener = bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn what_is_not_a_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(PluginError::Occupied { .. })));
        let link = folder.path().join("l");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(bind(&link), Err(PluginError::Occupied { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_path_too_long_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x".repeat(120)).join("s");
        assert!(bind(&path).unwrap_err().to_string().contains(&"x".repeat(120)));
    }
}
