// SPDX-License-Identifier: Apache-2.0
//! A key with its signing request, and the checks of the CA's answer. Makes keys, performs no calls.
//!
//! What comes out is a [`Credential`]: leaf and key belong together, the leaf carries the identity asked for and nothing
//! says it has ended already, and there is at least one root to trust. The key never leaves memory.

use mesh_proto::spiffe::Identity;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
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

    /// Check the CA's answer: leaf first, then intermediates, the last element all roots.
    pub fn check(self, answer: &[String]) -> Result<Credential, CertificateError> {
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
        Credential::new(Material { identity, key, chain: certificates, roots }).map_err(CertificateError::Unusable)
    }
}

fn sign(identity: &Identity) -> Result<(KeyPair, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(identity.as_uri().try_into()?)];
    let csr = params.serialize_request(&key)?.pem()?;
    Ok((key, csr))
}

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
            CertificateSigningRequestParams::from_pem(csr).unwrap().signed_by(&self.issuer).unwrap().pem()
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
        let credential = draft.check(&answer).unwrap();
        assert_eq!(*credential.identity(), id("a"));
        assert_eq!(credential.root_certificates().len(), 1);
    }

    #[test]
    fn answers_that_do_not_fit_are_refused() {
        let ca = Ca::new();
        let check = |answer: &dyn Fn(&Draft) -> Vec<String>| {
            let draft = Draft::new(id("a")).unwrap();
            let answer = answer(&draft);
            draft.check(&answer).unwrap_err()
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
}
