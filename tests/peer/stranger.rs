// SPDX-License-Identifier: Apache-2.0
//! A caller with a certificate that nobody of the mesh signed: a correct TLS client in everything but its root.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, Stream,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};

/// Shakes hands and asks for a tunnel; prints how that was refused, and fails if it was not.
pub(crate) fn knock(to: SocketAddr, identity: &str) -> Result<()> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.subject_alt_names = vec![SanType::URI(identity.try_into()?)];
    let certificate = parameters.self_signed(&key)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_client_auth_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut session = ClientConnection::new(Arc::new(config), ServerName::IpAddress(to.ip().into()))?;
    let mut socket = TcpStream::connect_timeout(&to, Duration::from_secs(10)).context("connect")?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    // With TLS 1.3 a client learns only from its first read that its certificate was refused.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut stream = Stream::new(&mut session, &mut socket);
    let answer = stream.write_all(preface).and_then(|()| stream.read(&mut [0; 1024]));
    match answer {
        Err(error) => println!("refused: {error}"),
        Ok(0) => println!("refused: closed"),
        Ok(read) => bail!("the server accepted a stranger's certificate and sent {read} bytes"),
    }
    Ok(())
}

/// Accepts whatever the server shows: only the server's view of us is in question.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
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
