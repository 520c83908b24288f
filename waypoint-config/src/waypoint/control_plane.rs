// SPDX-License-Identifier: Apache-2.0
//! The call for a certificate: TLS verified by the configured roots, the token as proof. Roots and token are read again for every call. Called by
//! `keeper`, twice a day or so: each call has a connection of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mesh_proto::ca::IstioCertificateRequest;
use mesh_proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use mesh_proto::contract::{grpc, hbone_header};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use super::config::Place;

/// How the certificate authority is reached.
#[derive(Debug, Clone)]
pub(super) struct Authority {
    /// Where.
    pub(super) place: Place,
    /// A file with the roots its server is verified with.
    pub(super) roots: PathBuf,
    /// A file with the token.
    pub(super) token: PathBuf,
    /// The cluster the token is of.
    pub(super) cluster_id: String,
}

/// Why a call failed.
#[derive(Debug, Error)]
pub(super) enum CallError {
    /// A file.
    #[error("cannot read {what} from {path}: {source}; is the volume mounted?")]
    Read {
        /// What should be in it.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No roots.
    #[error("{0} holds no root certificate; without one nothing can be trusted")]
    NoRoots(PathBuf),
    /// A token no header can carry.
    #[error("the token in {0} is empty or no header text")]
    Token(PathBuf),
    /// A host no certificate can be for.
    #[error("{0} is neither a DNS name nor an address: {1}")]
    Host(Place, InvalidDnsNameError),
    /// The name of the cluster.
    #[error("the cluster id `{0}` is no header text")]
    Cluster(String),
    /// TLS.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// No connection.
    #[error("cannot connect to the certificate authority at {place}: {}", causes(source))]
    Connect {
        /// Where.
        place: Place,
        /// Why.
        source: tonic::transport::Error,
    },
    /// It refused.
    #[error("the certificate authority refused: {} ({:?}); its log says why", .0.message(), .0.code())]
    Refused(#[from] Box<Status>),
    /// It did not answer.
    #[error("the certificate authority did not answer within {} s", CALL_PATIENCE.as_secs())]
    Silent,
}

impl Authority {
    /// Asks for a certificate; what comes is not checked yet.
    pub(super) async fn sign(&self, csr: &str, lifetime: Duration) -> Result<Vec<String>, CallError> {
        tokio::time::timeout(CALL_PATIENCE, self.call(csr, lifetime)).await.map_err(|_| CallError::Silent)?
    }

    async fn call(&self, csr: &str, lifetime: Duration) -> Result<Vec<String>, CallError> {
        let token = read(&self.token, "the token").await?;
        let bearer = Some(token.trim()).filter(|token| !token.is_empty());
        let bearer = bearer.and_then(|token| AsciiMetadataValue::try_from(format!("Bearer {token}")).ok());
        let mut bearer = bearer.ok_or_else(|| CallError::Token(self.token.clone()))?;
        bearer.set_sensitive(true);
        let cluster = AsciiMetadataValue::try_from(&self.cluster_id);
        let cluster = cluster.map_err(|_| CallError::Cluster(self.cluster_id.clone()))?;
        let validity_duration = lifetime.as_secs().try_into().unwrap_or(i64::MAX);
        let mut request =
            Request::new(IstioCertificateRequest { csr: csr.to_owned(), validity_duration, metadata: None });
        request.metadata_mut().insert(grpc::AUTHORIZATION, bearer);
        request.metadata_mut().insert(grpc::CLUSTER_ID, cluster);
        let channel = self.connect().await?;
        let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await.map_err(Box::new)?;
        Ok(answer.into_inner().cert_chain)
    }

    async fn connect(&self) -> Result<Channel, CallError> {
        let pem = roots(&self.roots).await?;
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok));
        if store.is_empty() {
            return Err(CallError::NoRoots(self.roots.clone()));
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![hbone_header::ALPN.to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(self.place.host.clone());
        let name = name.map_err(|error| CallError::Host(self.place.clone(), error))?;
        let Place { host, port } = self.place.clone();
        let open = tower::service_fn(move |_: Uri| {
            let (connector, host, name) = (connector.clone(), host.clone(), name.clone());
            async move {
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                connector.connect(name, stream).await.map(TokioIo::new)
            }
        });
        // The real place is in the connector; this is the `:authority`.
        let endpoint = Endpoint::from_shared(format!("https://{}", self.place));
        let failed = |source| CallError::Connect { place: self.place.clone(), source };
        endpoint.map_err(failed)?.connect_with_connector(open).await.map_err(failed)
    }
}

/// A file of roots, as it is now.
pub(super) async fn roots(path: &Path) -> Result<String, CallError> {
    let pem = read(path, "root certificates").await?;
    let any = CertificateDer::pem_slice_iter(pem.as_bytes()).any(|one| one.is_ok());
    if any { Ok(pem) } else { Err(CallError::NoRoots(path.to_owned())) }
}

async fn read(path: &Path, what: &'static str) -> Result<String, CallError> {
    let read = tokio::fs::read_to_string(path).await;
    read.map_err(|source| CallError::Read { what, path: path.to_owned(), source })
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

const CALL_PATIENCE: Duration = Duration::from_secs(10);
