// SPDX-License-Identifier: Apache-2.0
//! Who the peer must be: chain by webpki, then SPIFFE URI names (ztunnel.md §8.2 H-13, §7.1 I-03).
//!
//! rustls calls the verifiers inside the handshake, so a wrong peer gets an alert and no byte of data.

use std::fmt;
use std::sync::Arc;

use mesh_proto::spiffe::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// The SPIFFE identities in a certificate's URI names, in order. Other names, and URIs that are not identities, are skipped.
pub fn identities_of(certificate: &CertificateDer<'_>) -> Vec<Identity> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    let uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    uris.filter_map(|uri| uri.parse().ok()).collect()
}

/// The peer's certificate is valid, but it is somebody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongIdentity {
    /// What was acceptable.
    pub expected: String,
    /// What the certificate says.
    pub presented: Vec<Identity>,
}

impl fmt::Display for WrongIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer did not present the expected SAN ({}), got {}", self.expected, list(&self.presented))
    }
}

impl std::error::Error for WrongIdentity {}

/// Finds our own verdict in what rustls made of it.
pub(super) fn wrong_identity(error: &Error) -> Option<WrongIdentity> {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) = error else { return None };
    cause.downcast_ref::<WrongIdentity>().cloned()
}

/// A client's view: the chain must end in our roots, and one of the names must be expected.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    /// An empty list admits nobody.
    pub(super) expected: Vec<Identity>,
}

impl ServerVerifier {
    /// The first name of the certificate that is expected.
    pub(super) fn matching(&self, certificate: &CertificateDer<'_>) -> Result<Identity, WrongIdentity> {
        let presented = identities_of(certificate);
        match presented.iter().find(|identity| self.expected.contains(identity)) {
            Some(identity) => Ok(identity.clone()),
            None => Err(WrongIdentity { expected: list(&self.expected), presented }),
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)?;
        self.matching(end_entity).map_err(refuse)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A server's view: the chain must end in our roots, and one of the names must be in our own trust domain.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub(super) chain: Arc<dyn ClientCertVerifier>,
    pub(super) trust_domain: String,
}

/// The first name of the certificate in the trust domain: the only one that counts.
pub(super) fn in_trust_domain(certificate: &CertificateDer<'_>, trust_domain: &str) -> Result<Identity, WrongIdentity> {
    let presented = identities_of(certificate);
    match presented.iter().find(|identity| identity.trust_domain() == trust_domain) {
        Some(identity) => Ok(identity.clone()),
        None => Err(WrongIdentity { expected: format!("spiffe://{trust_domain}/..."), presented }),
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: every client of the mesh has one certificate, and the list would cost bytes in every handshake.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        in_trust_domain(end_entity, &self.trust_domain).map_err(refuse)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn refuse(wrong: WrongIdentity) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(wrong))))
}

fn list(identities: &[Identity]) -> String {
    if identities.is_empty() {
        return "none".to_owned();
    }
    identities.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
