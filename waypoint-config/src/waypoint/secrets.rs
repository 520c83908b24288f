// SPDX-License-Identifier: Apache-2.0
//! The files Envoy reads key, certificate and roots from: discovery responses in a private folder, each replaced at once by a rename, which Envoy sees
//! because it watches the folder. Called by `keeper`.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use mesh_proto::contract::secret;
use serde_json::{Value, json};
use thiserror::Error;

use super::certificate::Credential;

/// The folder.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

/// A file that could not be written.
#[derive(Debug, Error)]
#[error("cannot write {path}: {source}; is --run-dir a folder this user may write to?")]
pub struct WriteError {
    path: PathBuf,
    source: io::Error,
}

impl Folder {
    /// The private folder in `run_dir`, made if it is not there; nobody else may look into it.
    ///
    /// # Errors
    /// It cannot be made, or made private.
    pub fn prepare(run_dir: &Path) -> Result<Self, WriteError> {
        let make = || {
            // Envoy is told whole paths.
            fs::create_dir_all(run_dir)?;
            let path = run_dir.canonicalize()?.join("secrets");
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.symlink_metadata()?.is_dir() => {}
                made => made?,
            }
            fs::set_permissions(&path, Permissions::from_mode(0o700))?;
            Ok(Self { path })
        };
        make().map_err(|source| WriteError { path: run_dir.join("secrets"), source })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the certificate with its key.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.path.join("default.json")
    }

    /// The file of the mesh's roots.
    #[must_use]
    pub fn roots(&self) -> PathBuf {
        self.path.join("ROOTCA.json")
    }

    /// The file of the roots discovery is verified with.
    #[must_use]
    pub fn discovery_roots(&self) -> PathBuf {
        self.path.join("discovery.json")
    }

    /// Writes roots and certificate: the roots first, so that whoever is shown the new certificate can be trusted back.
    ///
    /// # Errors
    /// What is there stays, but for the roots, perhaps.
    pub fn put(&self, credential: &Credential) -> Result<(), WriteError> {
        self.replace(&self.roots(), &trusted(secret::ROOTS, credential.roots()))?;
        self.replace(&self.certificate(), &certificate(credential))
    }

    /// Writes the roots discovery is verified with.
    ///
    /// # Errors
    /// What is there stays.
    pub fn put_discovery_roots(&self, pem: &str) -> Result<(), WriteError> {
        self.replace(&self.discovery_roots(), &trusted(DISCOVERY_ROOTS, pem))
    }

    fn replace(&self, path: &Path, response: &Value) -> Result<(), WriteError> {
        let draft = path.with_extension("draft");
        let write = || {
            // One that a former life left.
            if let Err(error) = fs::remove_file(&draft)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(response.to_string().as_bytes())?;
            fs::rename(&draft, path)
        };
        write().map_err(|source| WriteError { path: path.to_owned(), source })
    }
}

/// The name of the secret with the roots discovery is verified with; only our own bootstrap speaks of it.
pub(super) const DISCOVERY_ROOTS: &str = "discovery-roots";

fn certificate(credential: &Credential) -> Value {
    response(json!({
        "name": secret::CERTIFICATE,
        "tls_certificate": {
            "certificate_chain": { "inline_string": credential.chain() },
            "private_key": { "inline_string": credential.key() },
        },
    }))
}

fn trusted(name: &str, roots: &str) -> Value {
    response(json!({ "name": name, "validation_context": { "trusted_ca": { "inline_string": roots } } }))
}

fn response(mut secret: Value) -> Value {
    secret["@type"] = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret".into();
    json!({ "resources": [secret] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_and_files_are_for_their_owner_alone_and_no_draft_stays() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("run/secrets");
        fs::create_dir_all(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        fs::write(open.join("discovery.draft"), "of a former life").unwrap();
        let folder = Folder::prepare(&dir.path().join("run")).unwrap();
        folder.put_discovery_roots("one").unwrap();
        folder.put_discovery_roots("two").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.discovery_roots()), 0o600);
        assert!(fs::read_to_string(folder.discovery_roots()).unwrap().contains("\"two\""));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_no_private_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("secrets")).unwrap();
        let error = Folder::prepare(dir.path()).unwrap_err();
        assert!(error.to_string().contains("--run-dir"), "{error}");
    }
}
