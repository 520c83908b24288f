// SPDX-License-Identifier: Apache-2.0
//! The authority's key material in its directory: read what an operator put there, or make a root of our own once.
//!
//! The names are those of Istio's `cacerts` Secret: `ca-cert.pem` and `ca-key.pem` sign, `cert-chain.pem` (optional)
//! leads from the signer up to the root, `root-cert.pem` is what the mesh trusts. An incomplete set that we did not
//! write is an error: a control plane that silently replaced an operator's root would cut every workload off.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

/// What is wrong with the authority's directory.
#[derive(Debug, Error)]
pub enum KeyError {
    /// A file could not be read or written.
    #[error("{}: {source}; check that the directory given by --ca-dir exists and belongs to this user", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Part of a set is there and the rest is not.
    #[error("{} has {present} but no {missing}; put the whole set there, or remove it to have a new root made", dir.display())]
    Incomplete {
        /// The authority's directory.
        dir: PathBuf,
        /// A file that is there.
        present: &'static str,
        /// A file that is not.
        missing: &'static str,
    },
    /// A file's content is not what its name says.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, in words.
        reason: String,
    },
    /// The key can be read by others.
    #[error("{} has mode {mode:o}: the authority's key must be readable by its owner alone (chmod 600)", path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A new root could not be made.
    #[error("cannot make a root certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// The set as read: PEM texts.
pub(super) struct KeyMaterial {
    pub(super) ca_cert: String,
    pub(super) ca_key: String,
    pub(super) cert_chain: String,
    pub(super) root_cert: String,
}

const CA_CERT: &str = "ca-cert.pem";
const CA_KEY: &str = "ca-key.pem";
const CERT_CHAIN: &str = "cert-chain.pem";
const ROOT_CERT: &str = "root-cert.pem";

/// How long a root we make is valid, as Istio's (`CITADEL_SELF_SIGNED_CA_CERT_TTL`).
const ROOT_LIFETIME: Duration = Duration::days(3650);

/// How far certificates reach back, against clocks that differ.
pub(super) const CLOCK_SKEW: Duration = Duration::minutes(2);

/// Reads the set from `dir`; an empty directory gets a new self-signed root named after `trust_domain`.
pub(super) fn load_or_create(dir: &Path, trust_domain: &str, now: OffsetDateTime) -> Result<KeyMaterial, KeyError> {
    fs::create_dir_all(dir).map_err(|source| KeyError::Io { path: dir.to_owned(), source })?;
    let present = |name: &str| dir.join(name).exists();
    match (present(CA_CERT), present(CA_KEY), present(ROOT_CERT)) {
        (true, true, true) => read(dir),
        // The key is written first: a start that was cut off there has handed out nothing yet.
        (false, false, false) | (false, true, false) => create(dir, trust_domain, now),
        (true, true, false) => Err(incomplete(dir, CA_CERT, ROOT_CERT)),
        (true, false, _) => Err(incomplete(dir, CA_CERT, CA_KEY)),
        (false, _, true) => Err(incomplete(dir, ROOT_CERT, CA_CERT)),
    }
}

fn incomplete(dir: &Path, present: &'static str, missing: &'static str) -> KeyError {
    KeyError::Incomplete { dir: dir.to_owned(), present, missing }
}

fn read(dir: &Path) -> Result<KeyMaterial, KeyError> {
    let cert_chain = if dir.join(CERT_CHAIN).exists() { text(dir, CERT_CHAIN)? } else { String::new() };
    Ok(KeyMaterial { ca_cert: text(dir, CA_CERT)?, ca_key: key(dir)?, cert_chain, root_cert: text(dir, ROOT_CERT)? })
}

fn text(dir: &Path, name: &str) -> Result<String, KeyError> {
    let path = dir.join(name);
    fs::read_to_string(&path).map_err(|source| KeyError::Io { path, source })
}

fn key(dir: &Path) -> Result<String, KeyError> {
    let path = dir.join(CA_KEY);
    let metadata = fs::metadata(&path).map_err(|source| KeyError::Io { path: path.clone(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path, mode });
    }
    text(dir, CA_KEY)
}

fn create(dir: &Path, trust_domain: &str, now: OffsetDateTime) -> Result<KeyMaterial, KeyError> {
    let key_pair = if dir.join(CA_KEY).exists() {
        let path = dir.join(CA_KEY);
        KeyPair::from_pem(&key(dir)?)
            .map_err(|e| KeyError::Content { path, reason: format!("not a private key: {e}") })?
    } else {
        KeyPair::generate()?
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + ROOT_LIFETIME;
    let root = params.self_signed(&key_pair)?.pem();

    write(dir, CA_KEY, &key_pair.serialize_pem(), 0o600)?;
    write(dir, ROOT_CERT, &root, 0o644)?;
    write(dir, CA_CERT, &root, 0o644)?;
    Ok(KeyMaterial {
        ca_cert: root.clone(),
        ca_key: key_pair.serialize_pem(),
        cert_chain: String::new(),
        root_cert: root,
    })
}

/// Writes a file whole or not at all.
fn write(dir: &Path, name: &str, content: &str, mode: u32) -> Result<(), KeyError> {
    let path = dir.join(name);
    let partial = dir.join(format!(".{name}.partial"));
    let io = |source| KeyError::Io { path: path.clone(), source };
    let _ = fs::remove_file(&partial);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial).map_err(io)?;
    file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    fs::rename(&partial, &path).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    #[test]
    fn a_new_root_is_kept_and_its_key_is_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let made = load_or_create(dir.path(), "cluster.local", now()).unwrap();
        let mode = fs::metadata(dir.path().join(CA_KEY)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let again = load_or_create(dir.path(), "cluster.local", now()).unwrap();
        assert_eq!(made.root_cert, again.root_cert);
        assert_eq!(made.ca_key, again.ca_key);
    }

    #[test]
    fn a_start_cut_off_after_the_key_goes_on_with_that_key() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_create(dir.path(), "cluster.local", now()).unwrap();
        fs::remove_file(dir.path().join(CA_CERT)).unwrap();
        fs::remove_file(dir.path().join(ROOT_CERT)).unwrap();
        let second = load_or_create(dir.path(), "cluster.local", now()).unwrap();
        assert_eq!(first.ca_key, second.ca_key);
    }

    #[test]
    fn an_incomplete_set_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        load_or_create(dir.path(), "cluster.local", now()).unwrap();
        fs::remove_file(dir.path().join(CA_KEY)).unwrap();
        let Err(error) = load_or_create(dir.path(), "cluster.local", now()) else { panic!("must not start") };
        assert!(matches!(error, KeyError::Incomplete { missing: CA_KEY, .. }), "{error}");
        assert!(!dir.path().join(CA_KEY).exists());
    }

    #[test]
    fn a_key_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        load_or_create(dir.path(), "cluster.local", now()).unwrap();
        fs::set_permissions(dir.path().join(CA_KEY), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            load_or_create(dir.path(), "cluster.local", now()),
            Err(KeyError::Exposed { mode: 0o644, .. })
        ));
    }
}
