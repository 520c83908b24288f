// SPDX-License-Identifier: Apache-2.0
//! The authority's key material in its directory: read what an operator put there, or make a root of our own once.
//!
//! The names are those of Istio's `cacerts` Secret: `ca-cert.pem` and `ca-key.pem` sign, `cert-chain.pem` (optional)
//! leads from the signer up to the root, `root-cert.pem` is what the mesh trusts. An incomplete set that we did not
//! write is an error: a control plane that silently replaced an operator's root would cut every workload off.
//!
//! A set of ours is written as key, signer, root, each whole or not at all, and whatever a start that was cut off left
//! of it is gone on with: the key alone gets its certificate, and a lone certificate that its own key signed is both
//! signer and root.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData as _,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
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

/// Reads the set from `dir`; finishes one of ours that was cut off; an empty directory gets a new self-signed root named after `trust_domain`.
pub(super) fn load_or_create(dir: &Path, trust_domain: &str, now: OffsetDateTime) -> Result<KeyMaterial, KeyError> {
    fs::create_dir_all(dir).map_err(|source| KeyError::Io { path: dir.to_owned(), source })?;
    let present = |name: &str| dir.join(name).exists();
    match (present(CA_CERT), present(CA_KEY), present(ROOT_CERT)) {
        (true, true, true) => read(dir),
        // We never write a chain: whoever did has a signer to go with it.
        (false, _, false) if present(CERT_CHAIN) => Err(incomplete(dir, CERT_CHAIN, CA_CERT)),
        // The key is written first: a start that was cut off there has handed out nothing yet.
        (false, _, false) => create(dir, trust_domain, now),
        (true, true, false) => complete(dir, CA_CERT, ROOT_CERT),
        (false, true, true) => complete(dir, ROOT_CERT, CA_CERT),
        (true, false, _) => Err(incomplete(dir, CA_CERT, CA_KEY)),
        (false, false, true) => Err(incomplete(dir, ROOT_CERT, CA_CERT)),
    }
}

/// Goes on with a set of ours that has its key and one of its two equal certificates.
fn complete(dir: &Path, present: &'static str, missing: &'static str) -> Result<KeyMaterial, KeyError> {
    let certificate = text(dir, present)?;
    if dir.join(CERT_CHAIN).exists() || !is_root_of(&certificate, &key_pair(dir)?) {
        return Err(incomplete(dir, present, missing));
    }
    write(dir, missing, &certificate, 0o644)?;
    read(dir)
}

/// Whether `pem` is one certificate, of `key` and signed by it.
fn is_root_of(pem: &str, key: &KeyPair) -> bool {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let Ok([der]) = all.as_deref() else { return false };
    x509_parser::parse_x509_certificate(der).is_ok_and(|(_, certificate)| {
        certificate.subject() == certificate.issuer()
            && certificate.public_key().subject_public_key.data == key.der_bytes()
            && certificate.verify_signature(None).is_ok()
    })
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

fn key_pair(dir: &Path) -> Result<KeyPair, KeyError> {
    let content =
        |e| KeyError::Content { path: dir.join(CA_KEY), reason: format!("not a private key in PKCS#8 PEM: {e}") };
    KeyPair::from_pem(&key(dir)?).map_err(content)
}

fn create(dir: &Path, trust_domain: &str, now: OffsetDateTime) -> Result<KeyMaterial, KeyError> {
    let key_pair = if dir.join(CA_KEY).exists() { key_pair(dir)? } else { KeyPair::generate()? };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + ROOT_LIFETIME;
    let root = params.self_signed(&key_pair)?.pem();

    write(dir, CA_KEY, &key_pair.serialize_pem(), 0o600)?;
    write(dir, CA_CERT, &root, 0o644)?;
    write(dir, ROOT_CERT, &root, 0o644)?;
    Ok(KeyMaterial {
        ca_cert: root.clone(),
        ca_key: key_pair.serialize_pem(),
        cert_chain: String::new(),
        root_cert: root,
    })
}

/// Writes a file whole or not at all, and for good: the next one must not outlive it.
fn write(dir: &Path, name: &str, content: &str, mode: u32) -> Result<(), KeyError> {
    let path = dir.join(name);
    let partial = dir.join(format!(".{name}.partial"));
    let io = |source| KeyError::Io { path: path.clone(), source };
    let _ = fs::remove_file(&partial);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial).map_err(io)?;
    file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    fs::rename(&partial, &path).and_then(|()| fs::File::open(dir)?.sync_all()).map_err(io)
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
    fn a_start_cut_off_anywhere_goes_on_with_the_same_key() {
        const ORDER: [&str; 3] = [CA_KEY, CA_CERT, ROOT_CERT];
        for written in 0..=ORDER.len() {
            // A full set stands for the start; a directory in the place of a partial file cuts it off there.
            let dir = tempfile::tempdir().unwrap();
            let stop = ORDER.get(written).map(|name| dir.path().join(format!(".{name}.partial")));
            if let Some(stop) = &stop {
                fs::create_dir(stop).unwrap();
                assert!(load_or_create(dir.path(), "cluster.local", now()).is_err());
                fs::remove_dir(stop).unwrap();
                fs::write(stop, "half of a file").unwrap();
            } else {
                load_or_create(dir.path(), "cluster.local", now()).unwrap();
            }
            let left: Vec<_> = ORDER.map(|name| fs::read_to_string(dir.path().join(name)).ok()).into();
            assert_eq!(left.iter().flatten().count(), written, "{left:?}");

            let next = load_or_create(dir.path(), "cluster.local", now() + Duration::HOUR).unwrap();
            for (before, after) in left.iter().zip([&next.ca_key, &next.ca_cert, &next.root_cert]) {
                assert!(before.as_ref().is_none_or(|before| before == after), "cut off after {written} files");
            }
            assert_eq!(next.ca_cert, next.root_cert);
            assert!(is_root_of(&next.root_cert, &KeyPair::from_pem(&next.ca_key).unwrap()));
        }
    }

    #[test]
    fn a_lone_root_of_its_key_is_its_own_signer() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_create(dir.path(), "cluster.local", now()).unwrap();
        fs::remove_file(dir.path().join(CA_CERT)).unwrap();
        let second = load_or_create(dir.path(), "cluster.local", now()).unwrap();
        assert_eq!((first.ca_key, first.root_cert), (second.ca_key, second.ca_cert));
    }

    #[test]
    fn a_signer_that_is_no_root_of_its_key_waits_for_the_operators_root() {
        let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        load_or_create(ours.path(), "cluster.local", now()).unwrap();
        load_or_create(other.path(), "cluster.local", now()).unwrap();
        fs::remove_file(ours.path().join(ROOT_CERT)).unwrap();
        let root = fs::read_to_string(ours.path().join(CA_CERT)).unwrap();
        let foreign = fs::read_to_string(other.path().join(CA_CERT)).unwrap();
        // Of another key; signed by another; more than one.
        let issuer_key = KeyPair::from_pem(&fs::read_to_string(other.path().join(CA_KEY)).unwrap()).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(&foreign, issuer_key).unwrap();
        let key = KeyPair::from_pem(&fs::read_to_string(ours.path().join(CA_KEY)).unwrap()).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "cluster.local");
        let signed = params.signed_by(&key, &issuer).unwrap().pem();
        for signer in [foreign.clone(), signed, format!("{root}{foreign}"), "nonsense".to_owned()] {
            fs::write(ours.path().join(CA_CERT), &signer).unwrap();
            let Err(error) = load_or_create(ours.path(), "cluster.local", now()) else { panic!("must not start") };
            assert!(matches!(error, KeyError::Incomplete { missing: ROOT_CERT, .. }), "{error}");
            assert!(!ours.path().join(ROOT_CERT).exists());
        }
    }

    #[test]
    fn a_chain_without_a_signer_is_an_operators() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CERT_CHAIN), "").unwrap();
        let Err(error) = load_or_create(dir.path(), "cluster.local", now()) else { panic!("must not start") };
        assert!(matches!(error, KeyError::Incomplete { present: CERT_CHAIN, .. }), "{error}");
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
