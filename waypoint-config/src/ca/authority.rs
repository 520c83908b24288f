// SPDX-License-Identifier: Apache-2.0
//! Signs workload certificates and the control plane's own serving certificate.
//!
//! The profile is Istio's: a CSR gives the public key and nothing else; the identity is what the caller may have,
//! rebuilt from its parts; 24 hours unless asked otherwise, never longer than the signer itself.

use std::net::IpAddr;
use std::path::Path;

use mesh_proto::spiffe::Identity;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, string::Ia5String,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use super::files::{self, CLOCK_SKEW, KeyError, KeyMaterial};

/// The mesh's certificate authority. Cheap to share behind an `Arc`; it never changes after it was loaded.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The signer's own end: nothing it signs outlives it.
    not_after: OffsetDateTime,
    /// Certificates between the leaf and the roots, PEM, one each.
    intermediates: Vec<String>,
    /// All roots, PEM, as the last element of every answer.
    roots: String,
    trust_domain: String,
}

/// Why a certificate was not issued.
#[derive(Debug, Error)]
pub enum IssueError {
    /// The request is not a PKCS#10 request we can take, or its signature does not fit its key.
    #[error("the certificate signing request is not valid: {0}")]
    Request(rcgen::Error),
    /// The key is too weak or of an unknown kind.
    #[error(
        "the key of the certificate signing request is not accepted ({0}); use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits or more"
    )]
    Key(String),
    /// More life was asked for than is ever given.
    #[error("requested a life of {requested}, but no certificate is given more than {maximum}")]
    Lifetime {
        /// What was asked for.
        requested: Duration,
        /// The most that is given.
        maximum: Duration,
    },
    /// The identity cannot be written into a certificate.
    #[error("identity {0} is not valid in a certificate")]
    Identity(String),
    /// The signer has expired.
    #[error("the signing certificate expired at {0}; renew the files in the authority's directory")]
    Expired(OffsetDateTime),
    /// Signing failed.
    #[error("signing failed: {0}")]
    Sign(rcgen::Error),
}

/// The certificate and key the control plane serves with.
pub struct ServingCertificate {
    /// The leaf, then intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// When to make the next one.
    pub renew_at: OffsetDateTime,
}

/// What a workload gets when it asks for no particular life (`DEFAULT_WORKLOAD_CERT_TTL`).
const DEFAULT_LIFETIME: Duration = Duration::hours(24);
/// The most a workload can ask for (`MAX_WORKLOAD_CERT_TTL`).
const MAX_LIFETIME: Duration = Duration::days(90);
/// The serving certificate's life.
const SERVING_LIFETIME: Duration = Duration::days(30);

impl Authority {
    /// Reads the authority from `dir`, or makes a self-signed root there if the directory holds none.
    ///
    /// # Errors
    /// A set of files that is incomplete, unreadable or not what it should be.
    pub fn load_or_create(dir: &Path, trust_domain: &str, now: OffsetDateTime) -> Result<Self, KeyError> {
        let KeyMaterial { ca_cert, ca_key, cert_chain, root_cert } = files::load_or_create(dir, trust_domain, now)?;
        let content = |name: &str, reason: String| KeyError::Content { path: dir.join(name), reason };
        let key = KeyPair::from_pem(&ca_key)
            .map_err(|e| content("ca-key.pem", format!("not a private key in PKCS#8 PEM: {e}")))?;
        let signer = CertificateDer::from_pem_slice(ca_cert.as_bytes())
            .map_err(|e| content("ca-cert.pem", format!("not a PEM certificate: {e:?}")))?;
        let not_after = check_signer(&signer, &key).map_err(|reason| content("ca-cert.pem", reason))?;
        let issuer = Issuer::from_ca_cert_der(&signer, key)
            .map_err(|e| content("ca-cert.pem", format!("not a usable signing certificate: {e}")))?;
        let roots =
            certificates(&root_cert).ok_or_else(|| content("root-cert.pem", "holds no PEM certificate".to_owned()))?;
        let mut intermediates: Vec<String> = certificates(&cert_chain).unwrap_or_default();
        let signer_pem = pem(&signer);
        if !roots.contains(&signer_pem) && !intermediates.contains(&signer_pem) {
            intermediates.insert(0, signer_pem);
        }
        intermediates.retain(|certificate| !roots.contains(certificate));
        Ok(Self { issuer, not_after, intermediates, roots: roots.concat(), trust_domain: trust_domain.to_owned() })
    }

    /// The trust domain of every identity this authority vouches for.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The roots of the mesh, PEM.
    #[must_use]
    pub fn roots(&self) -> &str {
        &self.roots
    }

    /// Signs the key of `csr` for `identity`. The answer is leaf, intermediates and, last, all roots; each ends with a
    /// line feed.
    ///
    /// # Errors
    /// A request that is malformed, has a weak key, or asks for too long a life; an expired signer.
    pub fn issue(
        &self,
        csr: &str,
        identity: &Identity,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Vec<String>, IssueError> {
        let request = CertificateSigningRequestParams::from_pem(csr).map_err(IssueError::Request)?;
        check_key(request.public_key.algorithm(), request.public_key.der_bytes())?;
        let lifetime = if lifetime <= Duration::ZERO { DEFAULT_LIFETIME } else { lifetime };
        if lifetime > MAX_LIFETIME {
            return Err(IssueError::Lifetime { requested: lifetime, maximum: MAX_LIFETIME });
        }
        let uri = identity.to_string();
        let uri = Ia5String::try_from(uri.as_str()).map_err(|_| IssueError::Identity(uri))?;
        let params = self.leaf(vec![SanType::URI(uri)], lifetime, now)?;
        let leaf = params.signed_by(&request.public_key, &self.issuer).map_err(IssueError::Sign)?;
        let mut chain = Vec::with_capacity(self.intermediates.len() + 2);
        chain.push(pem(leaf.der()));
        chain.extend(self.intermediates.iter().cloned());
        chain.push(self.roots.clone());
        Ok(chain)
    }

    /// A serving certificate for the control plane under the given DNS names and addresses.
    ///
    /// # Errors
    /// A name that is not a DNS name; an expired signer.
    pub fn serving(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        now: OffsetDateTime,
    ) -> Result<ServingCertificate, IssueError> {
        let mut subjects = Vec::with_capacity(names.len() + addresses.len());
        for name in names {
            let dns = Ia5String::try_from(name.as_str()).map_err(|_| IssueError::Identity(name.clone()))?;
            subjects.push(SanType::DnsName(dns));
        }
        subjects.extend(addresses.iter().copied().map(SanType::IpAddress));
        let params = self.leaf(subjects, SERVING_LIFETIME, now)?;
        let key = KeyPair::generate().map_err(IssueError::Sign)?;
        let leaf = params.signed_by(&key, &self.issuer).map_err(IssueError::Sign)?;
        let mut chain = vec![leaf.der().clone()];
        for intermediate in &self.intermediates {
            chain.extend(CertificateDer::pem_slice_iter(intermediate.as_bytes()).flatten());
        }
        let renew_at = now + (params.not_after - now) / 2;
        Ok(ServingCertificate { chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(), renew_at })
    }

    fn leaf(
        &self,
        subjects: Vec<SanType>,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<CertificateParams, IssueError> {
        if self.not_after <= now {
            return Err(IssueError::Expired(self.not_after));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = subjects;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial());
        params.not_before = now - CLOCK_SKEW;
        params.not_after = (now + lifetime).min(self.not_after);
        Ok(params)
    }
}

/// A random serial of 127 bits: positive in DER.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}

/// The signer must be a certificate authority and own the key; answers when it ends.
fn check_signer(signer: &CertificateDer<'_>, key: &KeyPair) -> Result<OffsetDateTime, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(signer).map_err(|e| format!("not a certificate: {e}"))?;
    if !parsed.is_ca() {
        return Err("is not a certificate authority (basic constraints CA:TRUE is missing)".to_owned());
    }
    if parsed.public_key().subject_public_key.data != key.der_bytes() {
        return Err("does not belong to the key in ca-key.pem".to_owned());
    }
    Ok(parsed.validity().not_after.to_datetime())
}

/// Accepts the key kinds the mesh uses. The algorithm is that of the request's signature, so the key's own size is
/// checked against it: a P-384 key signed with SHA-256 would otherwise be certified as P-256.
fn check_key(algorithm: &SignatureAlgorithm, key: &[u8]) -> Result<(), IssueError> {
    let sizes: [(&SignatureAlgorithm, usize); 3] =
        [(&rcgen::PKCS_ECDSA_P256_SHA256, 65), (&rcgen::PKCS_ECDSA_P384_SHA384, 97), (&rcgen::PKCS_ED25519, 32)];
    if sizes.iter().any(|(accepted, size)| *accepted == algorithm && *size == key.len()) {
        return Ok(());
    }
    let rsa = [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_RSA_SHA384, &rcgen::PKCS_RSA_SHA512];
    // The DER of an RSA key of 2048 bits: modulus of 257 bytes, exponent, headers.
    if rsa.contains(&algorithm) && key.len() >= 2048 / 8 + 10 {
        return Ok(());
    }
    Err(IssueError::Key(format!("{algorithm:?}, {} bytes", key.len())))
}

/// Each certificate of a PEM bundle on its own, written our way; `None` if there is none.
fn certificates(bundle: &str) -> Option<Vec<String>> {
    let found: Vec<String> =
        CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(Result::ok).map(|der| pem(&der)).collect();
    (!found.is_empty()).then_some(found)
}

/// PEM with line feeds and a last one, as Istio's clients concatenate the elements.
fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::with_capacity(text.len() + text.len() / 64 + 64);
    out.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

#[cfg(test)]
#[path = "authority/tests.rs"]
mod tests;
