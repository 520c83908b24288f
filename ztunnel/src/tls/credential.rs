// SPDX-License-Identifier: Apache-2.0
//! One identity's key, chain and roots, with everything that can be computed from them once.
//!
//! `certs` makes a new one per issued certificate; the engine takes handshakes from it. Nothing here is rebuilt per connection except
//! the short list of identities a client expects.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_proto::spiffe::Identity;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::TlsError;
use super::session::Handshake;
use super::verify::{ClientVerifier, ServerVerifier, identities_of};

/// What the CA and the key generator gave.
pub struct Material {
    /// Whose.
    pub identity: Identity,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
    /// Leaf first, then intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// Everybody we trust. Unusable ones are skipped as long as one is left.
    pub roots: Vec<CertificateDer<'static>>,
}

/// See the module.
pub struct Credential {
    identity: Identity,
    chain: Vec<CertificateDer<'static>>,
    root_certificates: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    server: Arc<ServerConfig>,
    client: ClientConfig,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Credential {
    /// Checks that the parts fit together and prepares both roles.
    pub fn new(material: Material) -> Result<Self, TlsError> {
        let Material { identity, key, chain, roots: root_certificates } = material;
        let unusable = |reason: String| TlsError::Credential { identity: Box::new(identity.clone()), reason };
        let leaf = chain.first().ok_or_else(|| unusable("the certificate chain is empty".to_owned()))?;
        if !identities_of(leaf).contains(&identity) {
            return Err(unusable("the certificate was issued for another identity".to_owned()));
        }
        let (not_before, not_after) = validity(leaf).map_err(unusable)?;
        let mut roots = RootCertStore::empty();
        let (_, ignored) = roots.add_parsable_certificates(root_certificates.iter().cloned());
        if roots.is_empty() {
            return Err(unusable(format!("none of the {} root certificates can be used", root_certificates.len())));
        }
        if ignored > 0 {
            tracing::warn!(%identity, ignored, "root certificates that cannot be used are left out");
        }
        let roots = Arc::new(roots);
        let provider = provider();
        let unusable_tls = |error: rustls::Error| unusable(error.to_string());

        let webpki = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        let verifier = Arc::new(ClientVerifier { chain: webpki, trust_domain: identity.trust_domain().to_owned() });
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable_tls)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unusable_tls)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let verifier = ServerVerifier {
            roots: roots.clone(),
            algorithms: provider.signature_verification_algorithms,
            expected: Vec::new(),
        };
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable_tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(chain.clone(), key)
            .map_err(unusable_tls)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.enable_sni = false;
        client.resumption = Resumption::disabled();

        Ok(Self {
            identity,
            chain,
            root_certificates,
            roots,
            provider,
            server: Arc::new(server),
            client,
            not_before,
            not_after,
        })
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The roots as they came.
    pub fn root_certificates(&self) -> &[CertificateDer<'static>] {
        &self.root_certificates
    }

    /// Start of the leaf's validity.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// End of the leaf's validity.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The client end of a session with a peer that must be one of `expected`.
    pub fn dial(&self, expected: Vec<Identity>) -> Result<Handshake, TlsError> {
        let verifier = Arc::new(ServerVerifier {
            roots: self.roots.clone(),
            algorithms: self.provider.signature_verification_algorithms,
            expected,
        });
        let mut config = self.client.clone();
        config.dangerous().set_certificate_verifier(verifier.clone());
        // Never sent and never compared: the verifier looks at identities only.
        let name = ServerName::try_from("hbone.invalid").map_err(|error| TlsError::Credential {
            identity: Box::new(self.identity.clone()),
            reason: error.to_string(),
        })?;
        Handshake::client(Arc::new(config), name, verifier)
    }

    /// The server end of a session.
    pub fn accept(&self) -> Result<Handshake, TlsError> {
        Handshake::server(self.server.clone(), self.identity.trust_domain())
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("identity", &self.identity)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// aws-lc with the two suites of the contract, in its order (H-10).
fn provider() -> Arc<CryptoProvider> {
    let suites = aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384;
    let more = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    Arc::new(CryptoProvider { cipher_suites: vec![suites, more], ..aws_lc_rs::default_provider() })
}

fn validity(leaf: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), String> {
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|error| format!("the certificate cannot be read: {error}"))?;
    let at = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = parsed.validity();
    Ok((at(validity.not_before.timestamp()), at(validity.not_after.timestamp())))
}

const ALPN: &[u8] = b"h2";
