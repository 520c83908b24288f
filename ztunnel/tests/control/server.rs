// SPDX-License-Identifier: Apache-2.0
//! A control plane that does what a test tells it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mesh_common::lifecycle::Tasks;
use mesh_proto::ca::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
use mesh_proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use mesh_proto::discovery::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer, DeltaDiscoveryRequest, DeltaDiscoveryResponse,
    DiscoveryRequest, DiscoveryResponse,
};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};
use ztunnel::control_plane::{Options, Roots, Token};

/// A root that signs what it is asked to.
pub(crate) struct Authority {
    pub(crate) root: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().pem();
        Self { root, issuer: Issuer::new(params, key) }
    }

    /// Sign a request, good for so many seconds.
    pub(crate) fn sign(&self, csr: &str, seconds: i64) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        let now = time::OffsetDateTime::now_utc();
        request.params.not_before = now;
        request.params.not_after = now + time::Duration::seconds(seconds);
        request.signed_by(&self.issuer).unwrap().pem()
    }

    fn server_config(&self, name: &str) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

/// One stream of discovery, as the server sees it.
pub(crate) struct Conversation {
    pub(crate) metadata: MetadataMap,
    pub(crate) requests: Streaming<DeltaDiscoveryRequest>,
    pub(crate) responses: mpsc::UnboundedSender<Result<DeltaDiscoveryResponse, Status>>,
}

impl Conversation {
    pub(crate) async fn request(&mut self) -> DeltaDiscoveryRequest {
        self.requests.message().await.unwrap().expect("the client ended its stream")
    }

    pub(crate) fn respond(&self, response: DeltaDiscoveryResponse) {
        self.responses.send(Ok(response)).unwrap();
    }
}

type Sign = dyn Fn(&MetadataMap, IstioCertificateRequest) -> Result<IstioCertificateResponse, Status> + Send + Sync;

#[derive(Clone)]
struct Plane {
    conversations: mpsc::UnboundedSender<Conversation>,
    sign: Arc<Sign>,
}

/// A running control plane.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) conversations: mpsc::UnboundedReceiver<Conversation>,
}

impl Server {
    /// Serve TLS as `name`.
    pub(crate) async fn start(
        tasks: &Tasks,
        authority: &Authority,
        name: &str,
        sign: impl Fn(&MetadataMap, IstioCertificateRequest) -> Result<IstioCertificateResponse, Status>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(authority.server_config(name)));
        let (accepted, incoming) = mpsc::unbounded_channel();
        tasks.spawn_background("accept", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A client that does not trust us ends here.
                if let Ok(stream) = acceptor.accept(stream).await {
                    accepted.send(Ok::<_, std::io::Error>(Io(stream))).unwrap();
                }
            }
        });
        let (conversations, begun) = mpsc::unbounded_channel();
        let plane = Plane { conversations, sign: Arc::new(sign) };
        tasks.spawn_background("serve", async move {
            tonic::transport::Server::builder()
                .add_service(AggregatedDiscoveryServiceServer::new(plane.clone()).max_encoding_message_size(usize::MAX))
                .add_service(IstioCertificateServiceServer::new(plane))
                .serve_with_incoming(UnboundedReceiverStream::new(incoming))
                .await
                .unwrap();
        });
        Self { address, conversations: begun }
    }

    /// One that only speaks discovery.
    pub(crate) async fn discovery(tasks: &Tasks, authority: &Authority) -> Self {
        Self::start(tasks, authority, "localhost", |_, _| Err(Status::unimplemented("no"))).await
    }

    /// How a client reaches it.
    pub(crate) fn options(&self, authority: &Authority) -> Options {
        Options {
            address: format!("https://localhost:{}", self.address.port()).parse().unwrap(),
            roots: Roots::Pem(authority.root.clone()),
            alternative_name: None,
            token: Token::None,
            cluster_id: "Kubernetes".into(),
            headers: Vec::new(),
            tls12: false,
        }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Plane {
    type StreamAggregatedResourcesStream = UnboundedReceiverStream<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = UnboundedReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("state of the world"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let metadata = request.metadata().clone();
        let (responses, stream) = mpsc::unbounded_channel();
        let conversation = Conversation { metadata, requests: request.into_inner(), responses };
        self.conversations.send(conversation).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(UnboundedReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Plane {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let metadata = request.metadata().clone();
        (self.sign)(&metadata, request.into_inner()).map(Response::new)
    }
}

/// tonic knows such streams only with a TLS of its own.
struct Io(TlsStream<TcpStream>);

impl Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
