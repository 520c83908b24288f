// SPDX-License-Identifier: Apache-2.0
//! The way to the control plane: trust, token and channel for the discovery and certificate calls.
//!
//! Called by `xds::client` and `certs::keeper`. Contract (ztunnel.md §4.1, §10 A-07): HTTPS only, HTTP/2 only,
//! roots of our own, no client certificate, the address's host or else the alternative name must be in the server's
//! certificate; the token is read again for every call. Never talks in plaintext, whatever the address says.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mesh_proto::contract;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint, Uri};

/// How one service of the control plane is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// `https://host:port`.
    pub address: Uri,
    /// Whom we trust.
    pub roots: Roots,
    /// Another name the server's certificate may carry.
    pub alternative_name: Option<ServerName<'static>>,
    /// How we say who we are.
    pub token: Token,
    /// The `clusterid` header.
    pub cluster_id: String,
    /// More metadata for every call.
    pub headers: Vec<(String, String)>,
    /// Also speak TLS 1.2.
    pub tls12: bool,
}

/// Where the roots come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// A PEM file, read again for every connection.
    File(PathBuf),
    /// The operating system's.
    System,
    /// PEM text.
    Pem(String),
}

/// Where the bearer token comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// No authorization headers at all.
    None,
    /// A file, read again for every call.
    File(PathBuf),
    /// The token itself.
    Literal(String),
}

/// Why a call could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    /// The roots' file.
    #[error("cannot read the root certificates of the control plane from {path}; is the volume mounted?")]
    ReadRoots {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No roots.
    #[error("no usable root certificate for the control plane in {origin}; without one nothing can be trusted")]
    NoRoots {
        /// Where they should be.
        origin: String,
    },
    /// rustls does not accept them.
    #[error("the root certificates of the control plane cannot be used")]
    Verifier(#[source] VerifierBuilderError),
    /// rustls does not accept the settings.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The address lacks a host.
    #[error("the control plane's address {address} is no https://host:port")]
    Address {
        /// The address.
        address: Uri,
    },
    /// No connection.
    #[error("cannot connect to the control plane at {address}{}", hint(source))]
    Connect {
        /// Where.
        address: Uri,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The token's file.
    #[error("cannot read the token for the control plane from {path}; is the projected token mounted?")]
    ReadToken {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An empty token, or one that no header can carry.
    #[error("the token for the control plane{} is {what}", path.as_ref().map(|path| format!(" in {}", path.display())).unwrap_or_default())]
    BadToken {
        /// Its file.
        path: Option<PathBuf>,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A header that gRPC does not allow.
    #[error("{name} cannot be sent as a gRPC header; check XDS_HEADER_*, CA_HEADER_* and the cluster id")]
    BadHeader {
        /// Its name.
        name: String,
    },
}

/// A new connection to the control plane.
pub async fn connect(options: &Options) -> Result<Channel, ControlPlaneError> {
    let config = Arc::new(client_config(options).await?);
    let address = || ControlPlaneError::Address { address: options.address.clone() };
    let host = options.address.host().ok_or_else(address)?.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host.clone()).map_err(|_| address())?;
    let port = options.address.port_u16().unwrap_or(HTTPS_PORT);
    let connector = tower::service_fn(move |_: Uri| {
        let (config, host, name) = (Arc::clone(&config), host.clone(), name.clone());
        async move { open(config, &host, port, name).await.map(TokioIo::new) }
    });
    Endpoint::from(options.address.clone())
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect_with_connector(connector)
        .await
        .map_err(|source| ControlPlaneError::Connect { address: options.address.clone(), source })
}

/// The metadata of one call: token (read now), cluster, extra headers.
pub async fn metadata(options: &Options) -> Result<MetadataMap, ControlPlaneError> {
    let mut metadata = MetadataMap::new();
    if let Some(token) = options.token.read().await? {
        let path = options.token.path();
        let mut value = AsciiMetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| ControlPlaneError::BadToken { path, what: "no header text" })?;
        value.set_sensitive(true);
        metadata.insert(contract::grpc::AUTHORIZATION, value);
        insert(&mut metadata, contract::grpc::CLUSTER_ID, &options.cluster_id)?;
    }
    for (name, value) in &options.headers {
        insert(&mut metadata, name, value)?;
    }
    Ok(metadata)
}

/// An error with its causes, for one line of a log.
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let each = error.to_string();
        if !text.ends_with(&each) {
            text = format!("{text}: {each}");
        }
        cause = error.source();
    }
    text
}

impl Token {
    async fn read(&self) -> Result<Option<String>, ControlPlaneError> {
        let text = match self {
            Self::None => return Ok(None),
            Self::Literal(text) => text.clone(),
            Self::File(path) => tokio::fs::read_to_string(path)
                .await
                .map_err(|source| ControlPlaneError::ReadToken { path: path.clone(), source })?,
        };
        match text.trim() {
            "" => Err(ControlPlaneError::BadToken { path: self.path(), what: "empty" }),
            token => Ok(Some(token.to_owned())),
        }
    }

    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.clone()),
            Self::None | Self::Literal(_) => None,
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Literal(_) => f.write_str("Literal"),
        }
    }
}

impl Roots {
    /// The PEM text as it is now.
    pub async fn text(&self) -> Result<Vec<u8>, ControlPlaneError> {
        match self {
            Self::Pem(text) => Ok(text.clone().into_bytes()),
            Self::File(path) => read_roots(path).await,
            Self::System => {
                let bundle = SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists());
                read_roots(bundle.ok_or_else(|| ControlPlaneError::NoRoots { origin: self.origin() })?).await
            }
        }
    }

    fn origin(&self) -> String {
        match self {
            Self::Pem(_) => "the configured text".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::System => SYSTEM_BUNDLES.join(", "),
        }
    }

    async fn store(&self) -> Result<RootCertStore, ControlPlaneError> {
        let pem = self.text().await?;
        let origin = self.origin();
        let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
        let mut store = RootCertStore::empty();
        let (added, ignored) = store.add_parsable_certificates(certificates);
        if ignored > 0 && *self != Self::System {
            tracing::warn!(origin, ignored, "some root certificates of the control plane cannot be used");
        }
        if added == 0 {
            return Err(ControlPlaneError::NoRoots { origin });
        }
        Ok(store)
    }
}

async fn read_roots(path: &Path) -> Result<Vec<u8>, ControlPlaneError> {
    tokio::fs::read(path).await.map_err(|source| ControlPlaneError::ReadRoots { path: path.to_owned(), source })
}

fn insert(metadata: &mut MetadataMap, name: &str, value: &str) -> Result<(), ControlPlaneError> {
    let bad = || ControlPlaneError::BadHeader { name: name.to_owned() };
    let key = AsciiMetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes()).map_err(|_| bad())?;
    metadata.insert(key, AsciiMetadataValue::try_from(value).map_err(|_| bad())?);
    Ok(())
}

async fn client_config(options: &Options) -> Result<ClientConfig, ControlPlaneError> {
    let roots = options.roots.store().await?;
    let mut provider = aws_lc_rs::default_provider();
    // H-10, H-16: AES-GCM only, as the whole mesh.
    provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains("AES"));
    let provider = Arc::new(provider);
    let versions: &[_] =
        if options.tls12 { &[&rustls::version::TLS13, &rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
    let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(ControlPlaneError::Verifier)?;
    let verifier: Arc<dyn ServerCertVerifier> = match &options.alternative_name {
        None => usual,
        Some(name) => Arc::new(EitherName { usual, alternative: name.clone() }),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(ControlPlaneError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![contract::hbone_header::ALPN.to_vec()];
    Ok(config)
}

async fn open(
    config: Arc<ClientConfig>,
    host: &str,
    port: u16,
    name: ServerName<'static>,
) -> io::Result<TlsStream<TcpStream>> {
    let opening = async {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_TIME)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        TlsConnector::from(config).connect(name, stream).await
    };
    tokio::time::timeout(CONNECT_TIMEOUT, opening).await.map_err(|_| {
        let text = format!("no TLS connection to {host}:{port} within {} s", CONNECT_TIMEOUT.as_secs());
        io::Error::new(io::ErrorKind::TimedOut, text)
    })?
}

/// Accepts what the usual verifier accepts, and a certificate for the alternative name.
#[derive(Debug)]
struct EitherName {
    usual: Arc<WebPkiServerVerifier>,
    alternative: ServerName<'static>,
}

impl ServerCertVerifier for EitherName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify =
            |name: &ServerName<'_>| self.usual.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        match verify(server_name) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => verify(&self.alternative),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

fn hint(error: &tonic::transport::Error) -> &'static str {
    let text = explain(error);
    if text.contains("lookup address") || text.contains("resolve") {
        "; is the DNS server reachable?"
    } else if text.contains("certificate") {
        "; does the configured root certificate belong to this control plane?"
    } else {
        ""
    }
}

/// Where distributions keep their roots.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const HTTPS_PORT: u16 = 443;
///
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_TIME: Duration = Duration::from_secs(300);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(75);
const KEEPALIVE_RETRIES: u32 = 9;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// A first push of a large mesh is many megabytes: do not stop for every 64 KiB of it.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
