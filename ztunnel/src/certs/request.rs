// SPDX-License-Identifier: Apache-2.0
//! A key with its signing request, and the checks of the CA's answer. Makes keys, performs no calls.
//!
//! What comes out is a [`Credential`]: leaf and key belong together, the leaf carries the identity asked for, there is at
//! least one root to trust, and who trusts these roots accepts the chain now. The key never leaves memory.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_proto::spiffe::Identity;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls::{Credential, Material, TlsError};

/// A key and the request for its certificate.
pub struct Draft {
    identity: Identity,
    key: KeyPair,
    csr: String,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// No key or request could be made.
    #[error("cannot make a key and a signing request for {identity}")]
    Draft {
        /// Whose.
        identity: Identity,
        /// Why.
        source: rcgen::Error,
    },
    /// The answer holds nothing.
    #[error("the CA sent an empty certificate chain for {identity}")]
    Empty {
        /// Whose.
        identity: Identity,
    },
    /// The answer holds only the leaf.
    #[error("the CA sent no root certificate for {identity}; without one no peer can be trusted")]
    NoRoot {
        /// Whose.
        identity: Identity,
    },
    /// An element is no certificate.
    #[error("element {element} of the certificate chain for {identity} is no PEM certificate")]
    Pem {
        /// Whose.
        identity: Identity,
        /// Counted from 0.
        element: usize,
        /// Why.
        source: pem::Error,
    },
    /// The leaf cannot be parsed.
    #[error("the CA's certificate for {identity} cannot be parsed")]
    Leaf {
        /// Whose.
        identity: Identity,
    },
    /// The leaf is for another key.
    #[error("the CA's certificate for {identity} is for another key than the one sent")]
    OtherKey {
        /// Whose.
        identity: Identity,
    },
    /// Nobody would accept it now.
    #[error(
        "peers would refuse the CA's certificate for {identity}: {reason}; compare the clocks, and is the CA's own chain in order?"
    )]
    Refutable {
        /// Whose.
        identity: Identity,
        /// What a peer would say.
        reason: String,
    },
    /// tls refuses it; says why, with the identity.
    #[error("the CA's certificate cannot be used")]
    Unusable(#[source] TlsError),
}

impl Draft {
    /// A new EC P-256 key and a request with an empty subject and one critical URI name.
    pub fn new(identity: Identity) -> Result<Self, CertificateError> {
        match sign(&identity) {
            Ok((key, csr)) => Ok(Self { identity, key, csr }),
            Err(source) => Err(CertificateError::Draft { identity, source }),
        }
    }

    /// The request, in PEM.
    pub fn csr(&self) -> &str {
        &self.csr
    }

    /// Check the CA's answer: leaf first, then intermediates, the last element all roots. What comes out is what a peer
    /// with the same roots accepts at `now`, as a client's and as a server's: a renewal that is worse than what is in
    /// force must not replace it.
    pub fn check(self, answer: &[String], now: SystemTime) -> Result<Credential, CertificateError> {
        let Self { identity, key, .. } = self;
        let (roots, chain) = match answer {
            [] => return Err(CertificateError::Empty { identity }),
            [_] => return Err(CertificateError::NoRoot { identity }),
            [chain @ .., roots] => (roots, chain),
        };
        let parse = |element: usize, text: &String| {
            CertificateDer::pem_slice_iter(text.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|source| CertificateError::Pem { identity: identity.clone(), element, source })
        };
        let mut certificates = Vec::new();
        for (element, text) in chain.iter().enumerate() {
            certificates.extend(parse(element, text)?);
        }
        let roots = parse(chain.len(), roots)?;
        let Some(leaf) = certificates.first() else { return Err(CertificateError::Empty { identity }) };
        match X509Certificate::from_der(leaf) {
            Ok((_, leaf)) if leaf.public_key().raw == key.subject_public_key_info() => {}
            Ok(_) => return Err(CertificateError::OtherKey { identity }),
            Err(_) => return Err(CertificateError::Leaf { identity }),
        }
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let (leaf, intermediates) = (leaf.clone(), certificates[1..].to_vec());
        let material = Material { identity: identity.clone(), key, chain: certificates, roots };
        let credential = Credential::new(material).map_err(CertificateError::Unusable)?;
        let begin = credential.not_before();
        // A clock that goes a little slow is no reason to wait.
        let then = if now < begin && now + CLOCK_LEEWAY >= begin { begin } else { now };
        accepted(&leaf, &intermediates, credential.root_certificates(), then)
            .map_err(|error| CertificateError::Refutable { identity, reason: error.to_string() })?;
        Ok(credential)
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

fn sign(identity: &Identity) -> Result<(KeyPair, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(identity.as_uri().try_into()?)];
    let csr = params.serialize_request(&key)?.pem()?;
    Ok((key, csr))
}

/// How far the CA's clock may be ahead of ours.
const CLOCK_LEEWAY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use mesh_proto::ca::IstioCertificateRequest;
    use mesh_proto::contract::grpc::IMPERSONATED_IDENTITY;
    use mesh_proto::discovery::string_field;
    use rcgen::{BasicConstraints, CertificateSigningRequestParams, IsCa, Issuer};

    use super::*;

    fn id(name: &str) -> Identity {
        Identity::new("cluster.local", "demo", name).unwrap()
    }

    /// A CA: gives the root and signs what the request asks for.
    struct Ca {
        root: String,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Ca {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let root = params.self_signed(&key).unwrap().pem();
            Self { root, issuer: Issuer::new(params, key) }
        }

        fn sign(&self, csr: &str) -> String {
            self.sign_as(csr, |_| {})
        }

        fn sign_as(&self, csr: &str, change: impl FnOnce(&mut CertificateParams)) -> String {
            let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
            change(&mut request.params);
            request.signed_by(&self.issuer).unwrap().pem()
        }

        /// One below this one.
        fn intermediate(&self) -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let root = params.signed_by(&key, &self.issuer).unwrap().pem();
            Self { root, issuer: Issuer::new(params, key) }
        }
    }

    #[test]
    fn the_request_has_no_subject_and_one_critical_uri() {
        let draft = Draft::new(id("a")).unwrap();
        let der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(draft.csr().as_bytes()).unwrap();
        let (_, csr) = x509_parser::prelude::X509CertificationRequest::from_der(&der).unwrap();
        csr.verify_signature().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(csr.certification_request_info.subject.iter().count(), 0);
        let names: Vec<_> = csr.requested_extensions().unwrap().collect();
        assert!(
            matches!(&names[..], [x509_parser::extensions::ParsedExtension::SubjectAlternativeName(names)]
                if names.general_names == [x509_parser::extensions::GeneralName::URI(id("a").as_uri())]),
            "{names:?}"
        );
        assert!(
            csr.certification_request_info.raw.windows(6).any(|bytes| bytes == [0x55, 0x1d, 0x11, 0x01, 0x01, 0xff])
        );
    }

    #[test]
    fn but_for_key_and_signature_the_request_is_the_one_a_recorded_ztunnel_sent() {
        let recorded = include_str!("../../tests/wire/ca-ztunnel.jsonl")
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .find(|record| record["who"] == "IstioCertificateRequest")
            .unwrap();
        let hex = recorded["hex"].as_str().unwrap();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let request = <IstioCertificateRequest as prost::Message>::decode(bytes.as_slice()).unwrap();
        let identity: Identity =
            string_field(request.metadata.as_ref().unwrap(), IMPERSONATED_IDENTITY).unwrap().parse().unwrap();
        let ours = Draft::new(identity).unwrap();
        assert_eq!(around_the_key(ours.csr()), around_the_key(&request.csr));
    }

    /// What a request says before and after its public key.
    fn around_the_key(csr: &str) -> (Vec<u8>, Vec<u8>) {
        let der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).unwrap();
        let (_, csr) = x509_parser::prelude::X509CertificationRequest::from_der(&der).unwrap();
        let (whole, key) = (csr.certification_request_info.raw, csr.certification_request_info.subject_pki.raw);
        let at = whole.windows(key.len()).position(|bytes| bytes == key).unwrap();
        (whole[..at].to_vec(), whole[at + key.len()..].to_vec())
    }

    #[test]
    fn a_good_answer_becomes_a_credential() {
        let ca = Ca::new();
        let draft = Draft::new(id("a")).unwrap();
        let answer = [ca.sign(draft.csr()), ca.root.clone()];
        let credential = draft.check(&answer, SystemTime::now()).unwrap();
        assert_eq!(*credential.identity(), id("a"));
        assert_eq!(credential.root_certificates().len(), 1);
    }

    #[test]
    fn answers_that_do_not_fit_are_refused() {
        let ca = Ca::new();
        let check = |answer: &dyn Fn(&Draft) -> Vec<String>| {
            let draft = Draft::new(id("a")).unwrap();
            let answer = answer(&draft);
            draft.check(&answer, SystemTime::now()).unwrap_err()
        };
        let other = Draft::new(id("b")).unwrap();
        let same_name = Draft::new(id("a")).unwrap();
        assert!(matches!(check(&|_| vec![]), CertificateError::Empty { .. }));
        assert!(matches!(check(&|draft| vec![ca.sign(draft.csr())]), CertificateError::NoRoot { .. }));
        assert!(matches!(check(&|_| vec![String::new(), ca.root.clone()]), CertificateError::Empty { .. }));
        assert!(matches!(
            check(&|_| vec!["-----BEGIN CERTIFICATE-----\n!".into(), ca.root.clone()]),
            CertificateError::Pem { element: 0, .. }
        ));
        assert!(matches!(
            check(&|_| vec![ca.sign(same_name.csr()), ca.root.clone()]),
            CertificateError::OtherKey { .. }
        ));
        assert!(matches!(check(&|_| vec![ca.sign(other.csr()), ca.root.clone()]), CertificateError::OtherKey { .. }));
        assert!(matches!(check(&|draft| vec![ca.sign(draft.csr()), String::new()]), CertificateError::Unusable(_)));
    }

    #[test]
    fn what_peers_would_refuse_is_refused_here_with_their_reason() {
        let (ca, stranger) = (Ca::new(), Ca::new());
        let now = SystemTime::now();
        let seconds = |seconds: i64| time::OffsetDateTime::from(now) + time::Duration::seconds(seconds);
        let check = |answer: &dyn Fn(&Draft) -> Vec<String>| {
            let draft = Draft::new(id("a")).unwrap();
            let answer = answer(&draft);
            draft.check(&answer, now)
        };
        let refused = |answer: &dyn Fn(&Draft) -> Vec<String>| match check(answer) {
            Err(CertificateError::Refutable { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        // All of these authorities have the same name.
        let unknown = refused(&|draft| vec![ca.sign(draft.csr()), stranger.root.clone()]);
        assert!(unknown.contains("BadSignature"), "{unknown}");
        let lasting = |from: i64, to: i64| {
            let ca = &ca;
            move |draft: &Draft| {
                let leaf = ca.sign_as(draft.csr(), |params| {
                    (params.not_before, params.not_after) = (seconds(from), seconds(to));
                });
                vec![leaf, ca.root.clone()]
            }
        };
        assert!(refused(&lasting(-100, -10)).contains("xpired"));
        assert!(refused(&lasting(600, 1200)).contains("alid"));
        check(&lasting(30, 1200)).unwrap();
        check(&lasting(-100, 100)).unwrap();

        // The chain between must be there, and in order.
        let between = ca.intermediate();
        let missing = refused(&|draft| vec![between.sign(draft.csr()), ca.root.clone()]);
        assert!(missing.contains("BadSignature"), "{missing}");
        check(&|draft| vec![between.sign(draft.csr()), between.root.clone(), ca.root.clone()]).unwrap();
        let useless = refused(&|draft| {
            vec![
                ca.sign_as(draft.csr(), |params| {
                    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning];
                }),
                ca.root.clone(),
            ]
        });
        assert!(!useless.is_empty());
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
