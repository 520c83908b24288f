// SPDX-License-Identifier: Apache-2.0
//! The public keys that service account tokens are checked against, from a JSON Web Key Set file (RFC 7517).
//!
//! The file is read again when it has changed. A file that cannot be read or understood leaves the last good set in
//! force, and says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet};
use thiserror::Error;
use tracing::warn;

/// Why there is no key set.
#[derive(Debug, Error)]
pub enum KeySetError {
    /// The file could not be read.
    #[error("{}: {source}; --jwks must name a JSON Web Key Set file", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a key set.
    #[error("{}: not a JSON Web Key Set: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// A key set file, watched by its modification time.
pub struct KeySet {
    path: PathBuf,
    cached: Mutex<Cached>,
}

#[derive(Default)]
struct Cached {
    stamp: Option<Stamp>,
    keys: Vec<Jwk>,
}

/// What tells one version of the file from the next.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    len: u64,
}

/// No honest key set is larger.
const MAX_BYTES: u64 = 1 << 20;

impl KeySet {
    /// A key set in the file at `path`, which may appear later: until then no token is accepted.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, cached: Mutex::default() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys that may have signed a token whose header names `kid`: the one of that name, or all without names.
    pub(super) fn candidates(&self, kid: Option<&str>) -> Vec<Jwk> {
        // A poisoned lock cannot leave the cache half-written: it is replaced whole.
        let mut cached = self.cached.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(error) = refresh(&self.path, &mut cached) {
            warn!(%error, kept = cached.keys.len(), "cannot read the key set for tokens");
        }
        let named = |key: &&Jwk| match (kid, key.common.key_id.as_deref()) {
            (Some(wanted), Some(name)) => wanted == name,
            _ => true,
        };
        cached.keys.iter().filter(named).cloned().collect()
    }
}

fn refresh(path: &Path, cached: &mut Cached) -> Result<(), KeySetError> {
    let io = |source| KeySetError::Io { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(io)?;
    let stamp = Stamp { modified: metadata.modified().map_err(io)?, len: metadata.len() };
    if cached.stamp == Some(stamp) {
        return Ok(());
    }
    let content = |reason: String| KeySetError::Content { path: path.to_owned(), reason };
    if stamp.len > MAX_BYTES {
        return Err(content(format!("{} bytes, more than the {MAX_BYTES} a key set may have", stamp.len)));
    }
    let set: JwkSet =
        serde_json::from_slice(&fs::read(path).map_err(io)?).map_err(|error| content(error.to_string()))?;
    // A shared secret in a file of public keys would let anybody who reads it sign tokens.
    cached.keys =
        set.keys.into_iter().filter(|key| !matches!(key.algorithm, AlgorithmParameters::OctetKey(_))).collect();
    cached.stamp = Some(stamp);
    Ok(())
}
