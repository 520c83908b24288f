// SPDX-License-Identifier: Apache-2.0
//! A control plane that does what a test tells it.

use std::convert::Infallible;
use std::future::Ready;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::http;
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
use tonic::body::Body;
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
        self.sign_from(csr, 0, seconds)
    }

    /// Sign a request, good from so many seconds on until so many.
    pub(crate) fn sign_from(&self, csr: &str, from: i64, until: i64) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        let now = time::OffsetDateTime::now_utc();
        request.params.not_before = now + time::Duration::seconds(from);
        request.params.not_after = now + time::Duration::seconds(until);
        request.signed_by(&self.issuer).unwrap().pem()
    }

    /// Sign the key of a request for somebody else.
    pub(crate) fn sign_as_nobody(&self, csr: &str) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        let name = "spiffe://cluster.local/ns/demo/sa/nobody".try_into().unwrap();
        request.params.subject_alt_names = vec![rcgen::SanType::URI(name)];
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
    /// How many connections have shaken hands.
    pub(crate) connections: Arc<AtomicUsize>,
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
        let (address, connections, incoming) = listen(tasks, authority, name).await;
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
        Self { address, connections, conversations: begun }
    }

    /// One that answers each discovery stream with these bytes, whatever they are, and then stays open or ends.
    pub(crate) async fn raw(
        tasks: &Tasks,
        authority: &Authority,
        answer: impl Fn(usize) -> (Vec<u8>, bool) + Send + Sync + 'static,
    ) -> Self {
        let (address, connections, incoming) = listen(tasks, authority, "localhost").await;
        let (conversations, begun) = mpsc::unbounded_channel();
        let raw = Raw { answer: Arc::new(answer), calls: Arc::default(), _conversations: conversations };
        tasks.spawn_background("serve", async move {
            tonic::transport::Server::builder()
                .add_service(raw)
                .serve_with_incoming(UnboundedReceiverStream::new(incoming))
                .await
                .unwrap();
        });
        Self { address, connections, conversations: begun }
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

type Incoming = mpsc::UnboundedReceiver<Result<Io, std::io::Error>>;

async fn listen(tasks: &Tasks, authority: &Authority, name: &str) -> (SocketAddr, Arc<AtomicUsize>, Incoming) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(authority.server_config(name)));
    let (accepted, incoming) = mpsc::unbounded_channel();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tasks.spawn_background("accept", async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust us ends here.
            if let Ok(stream) = acceptor.accept(stream).await {
                counted.fetch_add(1, Ordering::Relaxed);
                accepted.send(Ok::<_, std::io::Error>(Io(stream))).unwrap();
            }
        }
    });
    (address, connections, incoming)
}

/// A server of discovery that speaks HTTP/2 and then what a test makes it say.
#[derive(Clone)]
struct Raw {
    answer: Arc<dyn Fn(usize) -> (Vec<u8>, bool) + Send + Sync>,
    calls: Arc<AtomicUsize>,
    _conversations: mpsc::UnboundedSender<Conversation>,
}

impl tonic::server::NamedService for Raw {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl tower::Service<http::Request<Body>> for Raw {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let (bytes, stays) = (self.answer)(self.calls.fetch_add(1, Ordering::Relaxed));
        let frame = Ok::<_, Status>(Frame::data(bytes::Bytes::from(bytes)));
        let first = futures_util::stream::iter([frame]);
        let body = match stays {
            true => Body::new(StreamBody::new(first.chain(futures_util::stream::pending()))),
            false => Body::new(StreamBody::new(first)),
        };
        let answer = http::Response::builder().header("content-type", "application/grpc").body(body).unwrap();
        std::future::ready(Ok(answer))
    }
}

/// A refusal that never comes.
pub(crate) const NEVER: &str = "never";

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
        let answer = (self.sign)(&metadata, request.into_inner());
        if answer.as_ref().is_err_and(|status| status.message() == NEVER) {
            std::future::pending::<()>().await;
        }
        answer.map(Response::new)
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
