// SPDX-License-Identifier: Apache-2.0
//! A key with its signing request, and the checks of the CA's answer. Makes keys, performs no calls; called by `keeper`.
//!
//! What comes out is what a peer with the same roots accepts now, as a client's and as a server's, for the identity asked for.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_proto::spiffe::Identity;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A key and the request for its certificate.
pub struct Draft {
    identity: Identity,
    key: KeyPair,
    csr: String,
}

/// A key with its certificate, checked.
#[derive(Clone)]
pub struct Credential {
    chain: String,
    key: String,
    roots: String,
    not_after: SystemTime,
}

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// No key or request could be made.
    #[error("cannot make a key and a signing request: {0}")]
    Draft(#[from] rcgen::Error),
    /// The answer holds no leaf and roots.
    #[error("the CA sent {0} elements; a certificate and roots are needed")]
    Short(usize),
    /// An element is no certificate.
    #[error("element {0} of the CA's answer is no PEM certificate")]
    Pem(usize),
    /// The leaf is for another key.
    #[error("the CA's certificate is for another key than the one sent")]
    OtherKey,
    /// The leaf is for somebody else.
    #[error(
        "the CA's certificate is for {said}, not for {wanted}; is the token another service account's, or the trust domain another?"
    )]
    OtherIdentity {
        /// Whom it is for.
        said: String,
        /// Whom it should be for.
        wanted: Identity,
    },
    /// Nobody would accept it now.
    #[error("peers would refuse the CA's certificate: {0}; compare the clocks, and is the CA's own chain in order?")]
    Refutable(#[from] rustls::Error),
    /// It would be a step back.
    #[error("the CA's certificate ends {0:?} before the one in place, which stays")]
    Shorter(Duration),
}

impl Draft {
    /// A new key and a request with an empty subject and the identity as its one name.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn new(identity: Identity) -> Result<Self, CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.as_uri().try_into()?)];
        let csr = params.serialize_request(&key)?.pem()?;
        Ok(Self { identity, key, csr })
    }

    /// The request, in PEM.
    #[must_use]
    pub fn csr(&self) -> &str {
        &self.csr
    }

    /// Checks the CA's answer: leaf first, then intermediates, the last element all roots.
    ///
    /// # Errors
    /// What comes is not what was asked for, or nobody would accept it at `now`.
    pub fn check(self, answer: &[String], now: SystemTime) -> Result<Credential, CertificateError> {
        let [chain @ .., roots] = answer else { return Err(CertificateError::Short(0)) };
        let parse = |element: usize, text: &String| {
            let parsed = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
            parsed.ok().filter(|parsed| !parsed.is_empty()).ok_or(CertificateError::Pem(element))
        };
        let mut certificates = Vec::new();
        for (element, text) in chain.iter().enumerate() {
            certificates.extend(parse(element, text)?);
        }
        let Some((leaf, intermediates)) = certificates.split_first() else {
            return Err(CertificateError::Short(answer.len()));
        };
        let roots = parse(chain.len(), roots)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::Pem(0))?;
        if parsed.public_key().raw != self.key.subject_public_key_info() {
            return Err(CertificateError::OtherKey);
        }
        let names = uris(&parsed);
        if names != [self.identity.as_uri()] {
            return Err(CertificateError::OtherIdentity { said: names.join(", "), wanted: self.identity });
        }
        let valid = parsed.validity();
        let begin = instant(valid.not_before.timestamp());
        // A clock that goes a little slow is no reason to wait.
        let then = if now < begin && now + CLOCK_LEEWAY >= begin { begin } else { now };
        accepted(leaf, intermediates, &roots, then)?;
        let text = |certificates: &[CertificateDer<'_>]| certificates.iter().map(|one| pem(one)).collect::<String>();
        Ok(Credential {
            chain: text(&certificates),
            key: self.key.serialize_pem(),
            roots: text(&roots),
            not_after: instant(valid.not_after.timestamp()),
        })
    }
}

impl Credential {
    /// The leaf and what is between it and the roots, in PEM.
    #[must_use]
    pub fn chain(&self) -> &str {
        &self.chain
    }

    /// The key, in PEM.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whom to trust, in PEM.
    #[must_use]
    pub fn roots(&self) -> &str {
        &self.roots
    }

    /// Until when it is good.
    #[must_use]
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether it is to take the place of `present`: not if it ends earlier and brings no other roots.
    ///
    /// # Errors
    /// It is not.
    pub fn instead_of(&self, present: &Self) -> Result<(), CertificateError> {
        match present.not_after.duration_since(self.not_after) {
            Ok(shorter) if shorter > Duration::ZERO && self.roots == present.roots => {
                Err(CertificateError::Shorter(shorter))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Credential {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// What a peer would make of it in either role.
fn accepted(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &[CertificateDer<'static>],
    now: SystemTime,
) -> Result<(), rustls::Error> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned());
    let (store, provider) = (Arc::new(store), Arc::new(aws_lc_rs::default_provider()));
    let algorithms = provider.signature_verification_algorithms;
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    let client = WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), provider)
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    client.verify_client_cert(leaf, intermediates, now)?;
    let parsed = ParsedCertificate::try_from(leaf)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, &store, intermediates, now, algorithms.all)
}

fn uris(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.into_iter().flat_map(|names| &names.value.general_names);
    names.filter_map(|name| if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None }).collect()
}

fn pem(certificate: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut lines = String::from("-----BEGIN CERTIFICATE-----\n");
    // Base64 is ASCII: any place is a border of characters.
    for at in (0..text.len()).step_by(64) {
        lines.push_str(&text[at..text.len().min(at + 64)]);
        lines.push('\n');
    }
    lines + "-----END CERTIFICATE-----\n"
}

fn instant(timestamp: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(timestamp.try_into().unwrap_or_default())
}

/// How far the CA's clock may be ahead of ours.
const CLOCK_LEEWAY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::ca::Authority;

    fn id(name: &str) -> Identity {
        Identity::new("cluster.local", "demo", name).unwrap()
    }

    fn authority() -> (tempfile::TempDir, Authority) {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(dir.path(), "cluster.local", OffsetDateTime::now_utc()).unwrap();
        (dir, authority)
    }

    fn issued(authority: &Authority, hours: i64) -> Credential {
        let draft = Draft::new(id("a")).unwrap();
        let lifetime = time::Duration::hours(hours);
        let answer = authority.issue(draft.csr(), &id("a"), lifetime, OffsetDateTime::now_utc()).unwrap();
        draft.check(&answer, SystemTime::now()).unwrap()
    }

    #[test]
    fn a_good_answer_becomes_a_credential_that_does_not_show_its_key() {
        let (_dir, authority) = authority();
        let credential = issued(&authority, 24);
        assert_eq!(credential.roots().trim(), authority.roots().trim());
        assert!(
            credential.key().contains("PRIVATE KEY") && credential.chain().ends_with("-----END CERTIFICATE-----\n")
        );
        let left = credential.not_after().duration_since(SystemTime::now()).unwrap();
        assert!(left > Duration::from_secs(23 * 3600) && left <= Duration::from_secs(24 * 3600), "{left:?}");
        assert!(!format!("{credential:?}").contains("PRIVATE"));
    }

    #[test]
    fn answers_that_do_not_fit_are_refused() {
        let ((_dir, authority), (_other, stranger)) = (authority(), authority());
        let now = OffsetDateTime::now_utc();
        let day = time::Duration::DAY;
        let refused = |answer: &dyn Fn(&Draft) -> Vec<String>| {
            let draft = Draft::new(id("a")).unwrap();
            let answer = answer(&draft);
            draft.check(&answer, SystemTime::now()).unwrap_err()
        };
        let issue = |csr: &str, whose: &str| authority.issue(csr, &id(whose), day, now).unwrap();
        let another = Draft::new(id("a")).unwrap();
        assert!(matches!(refused(&|_| vec![]), CertificateError::Short(0)));
        assert!(matches!(refused(&|draft| vec![issue(draft.csr(), "a").remove(0)]), CertificateError::Short(1)));
        assert!(matches!(refused(&|_| vec!["?".into(), authority.roots().into()]), CertificateError::Pem(0)));
        assert!(matches!(refused(&|_| issue(another.csr(), "a")), CertificateError::OtherKey));
        assert!(matches!(refused(&|draft| issue(draft.csr(), "b")), CertificateError::OtherIdentity { .. }));
        assert!(matches!(
            refused(&|draft| vec![issue(draft.csr(), "a").remove(0), stranger.roots().into()]),
            CertificateError::Refutable(_)
        ));
        let past = |draft: &Draft| authority.issue(draft.csr(), &id("a"), day, now - day * 3).unwrap();
        assert!(matches!(refused(&past), CertificateError::Refutable(_)));
    }

    #[test]
    fn one_that_ends_earlier_is_only_taken_for_its_new_roots() {
        let ((_dir, authority), (_other, stranger)) = (authority(), authority());
        let (long, short) = (issued(&authority, 24), issued(&authority, 1));
        assert!(matches!(short.instead_of(&long), Err(CertificateError::Shorter(_))));
        long.instead_of(&short).unwrap();
        long.instead_of(&long).unwrap();
        issued(&stranger, 1).instead_of(&long).unwrap();
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn no_answer_is_more_than_refused(answer in proptest::collection::vec(proptest::prelude::any::<String>(), 0..4)) {
            let draft = Draft::new(id("a")).unwrap();
            proptest::prop_assert!(draft.check(&answer, SystemTime::now()).is_err());
        }
    }
}
