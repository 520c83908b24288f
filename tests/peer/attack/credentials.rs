// SPDX-License-Identifier: Apache-2.0
//! Certificates of every kind an attacker can wish for, signed by the mesh's own authority where that makes them more convincing.

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context, Result, bail};
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName as Name, Error, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    version::{TLS12, TLS13},
};

/// Who signs, and for whom.
#[derive(Args, Clone, Debug)]
pub(crate) struct Claim {
    /// The folder of the authority whose key was stolen.
    #[arg(long, default_value = ".")]
    ca: PathBuf,
    /// The SPIFFE id to claim.
    #[arg(long = "as", default_value = "spiffe://cluster.local/ns/demo/sa/mallory")]
    identity: String,
}

/// What is wrong with a certificate, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Nothing,
    /// None is shown.
    Missing,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    TooYoung,
    /// Signed by nobody's authority.
    OtherRoot,
    /// Another trust domain.
    OtherDomain,
    /// A name, but no SPIFFE id.
    NoIdentity,
    /// Not for this role.
    OtherUse,
    /// Nothing but TLS 1.2.
    OldTls,
    /// Another protocol than `h2`.
    OtherProtocol,
}

impl Flaw {
    /// By its name on the command line.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "good" => Self::Nothing,
            "missing" => Self::Missing,
            "expired" => Self::Expired,
            "too-young" => Self::TooYoung,
            "other-root" => Self::OtherRoot,
            "other-domain" => Self::OtherDomain,
            "no-identity" => Self::NoIdentity,
            "other-use" => Self::OtherUse,
            "old-tls" => Self::OldTls,
            "other-protocol" => Self::OtherProtocol,
            other => bail!("no such flaw: {other}"),
        })
    }
}

impl Claim {
    /// A client that shows such a certificate and takes any server.
    pub(crate) fn client(&self, flaw: Flaw) -> Result<Arc<ClientConfig>> {
        let versions = if flaw == Flaw::OldTls { vec![&TLS12] } else { vec![&TLS13] };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody));
        let mut config = match flaw {
            Flaw::Missing => builder.with_no_client_auth(),
            _ => {
                let (chain, key) = self.mint(flaw, ExtendedKeyUsagePurpose::ClientAuth)?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols = protocols(flaw);
        Ok(Arc::new(config))
    }

    /// A server that shows such a certificate and takes any client.
    pub(crate) fn server(&self, flaw: Flaw) -> Result<Arc<ServerConfig>> {
        let versions = if flaw == Flaw::OldTls { vec![&TLS12] } else { vec![&TLS13] };
        let (chain, key) = self.mint(flaw, ExtendedKeyUsagePurpose::ServerAuth)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions)?
            .with_client_cert_verifier(Arc::new(Anybody))
            .with_single_cert(chain, key)?;
        config.alpn_protocols = protocols(flaw);
        Ok(Arc::new(config))
    }

    fn mint(
        &self,
        flaw: Flaw,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.distinguished_name = DistinguishedName::new();
        let name = match flaw {
            Flaw::NoIdentity => SanType::DnsName("mallory.demo".try_into()?),
            Flaw::OtherDomain => SanType::URI("spiffe://elsewhere.example/ns/demo/sa/mallory".try_into()?),
            _ => SanType::URI(self.identity.as_str().try_into()?),
        };
        parameters.subject_alt_names = vec![name];
        let (from, to) = match flaw {
            Flaw::Expired => (2001, 2002),
            Flaw::TooYoung => (2090, 2091),
            _ => (2001, 2091),
        };
        parameters.not_before = date_time_ymd(from, 1, 1);
        parameters.not_after = date_time_ymd(to, 1, 1);
        parameters.extended_key_usages = vec![match (flaw, purpose) {
            (Flaw::OtherUse, ExtendedKeyUsagePurpose::ClientAuth) => ExtendedKeyUsagePurpose::ServerAuth,
            (Flaw::OtherUse, _) => ExtendedKeyUsagePurpose::ClientAuth,
            (_, purpose) => purpose,
        }];
        let issuer = if flaw == Flaw::OtherRoot { own_root()? } else { self.stolen()? };
        let key = KeyPair::generate()?;
        let leaf = parameters.signed_by(&key, &issuer)?;
        Ok((vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into())))
    }

    fn stolen(&self) -> Result<Issuer<'static, KeyPair>> {
        let read = |name: &str| {
            let file = self.ca.join(name);
            fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
        };
        Ok(Issuer::from_ca_cert_pem(&read("ca-cert.pem")?, KeyPair::from_pem(&read("ca-key.pem")?)?)?)
    }
}

fn protocols(flaw: Flaw) -> Vec<Vec<u8>> {
    vec![if flaw == Flaw::OtherProtocol { b"http/1.1".to_vec() } else { b"h2".to_vec() }]
}

fn own_root() -> Result<Issuer<'static, KeyPair>> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(Issuer::new(parameters, KeyPair::generate()?))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Takes whatever the other end shows: only its view of us is in question.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[Name] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
