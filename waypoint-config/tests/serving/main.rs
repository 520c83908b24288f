// SPDX-License-Identifier: Apache-2.0
//! The control plane as its clients see it: real TLS, real tokens, the generated gRPC clients.
#![allow(clippy::unwrap_used)]

mod hostile;
mod waypoint;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mesh_common::lifecycle::{Shutdown, Tasks};
use mesh_common::telemetry;
use mesh_proto::ca::IstioCertificateRequest;
use mesh_proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use mesh_proto::contract::{grpc, node_metadata, type_url};
use mesh_proto::discovery::{
    AggregatedDiscoveryServiceClient, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Struct, string_value,
};
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status, Streaming};
use waypoint_config::api::{Key, Kind, Object};
use waypoint_config::app::App;
use waypoint_config::config::Config;
use waypoint_config::source::Batch;
use waypoint_config::store::Change;

/// A running control plane, and what a client needs to talk to it.
struct World {
    dir: tempfile::TempDir,
    address: std::net::SocketAddr,
    signer: EncodingKey,
    batches: mpsc::Sender<Batch>,
    shutdown: Shutdown,
    running: tokio::task::JoinHandle<()>,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let pair = KeyPair::generate().unwrap();
    let signer = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    let jwk = Jwk::from_encoding_key(&signer, Algorithm::ES256).unwrap();
    std::fs::write(dir.path().join("jwks.json"), json!({"keys": [jwk]}).to_string()).unwrap();
    let source = format!("dir:{}", dir.path().display());
    let ca = dir.path().join("ca");
    let flags = [
        "waypoint-config",
        "--source",
        &source,
        "--ca-dir",
        ca.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--monitoring",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ];
    let config = <Config as clap::Parser>::try_parse_from(flags).unwrap();
    let (batches, received) = mpsc::channel(8);
    let shutdown = Shutdown::new();
    static TELEMETRY: OnceLock<telemetry::Handle> = OnceLock::new();
    let telemetry = TELEMETRY.get_or_init(|| telemetry::init(&telemetry::Options::default()).unwrap()).clone();
    let app = App::start(&config, received, telemetry, Tasks::new(), shutdown.clone()).await.unwrap();
    let address = app.address();
    #[expect(clippy::disallowed_methods, reason = "the test is the main here")]
    let running = tokio::spawn(app.run());
    World { dir, address, signer, batches, shutdown, running }
}

fn pod(namespace: &str, name: &str, account: &str, address: &str) -> Change {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{name}"),
            "annotations": {"ambient.istio.io/redirection": "enabled"}},
        "spec": {"nodeName": "n1", "serviceAccountName": account, "containers": []},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}]},
    });
    Change::Put(Object::read(Kind::Pod, object).unwrap())
}

impl World {
    async fn say(&self, changes: Vec<Change>) {
        self.batches.send(Batch { changes, synced: true, ..Batch::default() }).await.unwrap();
    }

    async fn channel(&self, client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>) -> Channel {
        self.channel_from([127, 0, 0, 1], client).await
    }

    async fn channel_from(
        &self,
        source: [u8; 4],
        client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Channel {
        let mut roots = RootCertStore::empty();
        let pem = std::fs::read(self.dir.path().join("ca/root-cert.pem")).unwrap();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut tls = match client {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
        let address = self.address;
        let connect = tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move {
                let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
                let stream = connector.connect(name, connect_from(source, address).await?).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        Endpoint::from_static("https://istiod.istio-system.svc:15012").connect_with_connector(connect).await.unwrap()
    }

    fn token(&self, account: &str, pod: &str) -> String {
        let exp = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 600;
        let (namespace, _) = account.split_once(':').unwrap();
        let claims: Value = json!({"sub": format!("system:serviceaccount:{account}"), "aud": ["istio-ca"], "exp": exp,
            "kubernetes.io": {"namespace": namespace, "pod": {"name": pod, "uid": format!("uid-{pod}")}}});
        format!("Bearer {}", jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.signer).unwrap())
    }

    fn node_proxy(&self) -> String {
        self.token("istio-system:ztunnel", "ztunnel-a")
    }

    async fn discover(
        &self,
        token: &str,
    ) -> Result<(mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>), Status> {
        self.discover_with(token, first(type_url::ADDRESS)).await
    }

    async fn discover_with(
        &self,
        token: &str,
        first: DeltaDiscoveryRequest,
    ) -> Result<(mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>), Status> {
        open(self.channel(None).await, token, first).await
    }

    async fn discover_over(
        &self,
        channel: Channel,
        token: &str,
    ) -> Result<(mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>), Status> {
        open(channel, token, first(type_url::ADDRESS)).await
    }

    async fn end(self) {
        self.shutdown.request("test");
        tokio::time::timeout(Duration::from_secs(20), self.running).await.unwrap().unwrap();
    }
}

/// A discovery stream over a channel.
async fn open(
    channel: Channel,
    token: &str,
    first: DeltaDiscoveryRequest,
) -> Result<(mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>), Status> {
    let (requests, outgoing) = mpsc::channel(8);
    requests.send(first).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(outgoing));
    request.metadata_mut().insert(grpc::AUTHORIZATION, token.parse().unwrap());
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let responses = client.delta_aggregated_resources(request).await?;
    Ok((requests, responses.into_inner()))
}

/// A connection from this address of the loopback.
async fn connect_from(source: [u8; 4], address: std::net::SocketAddr) -> std::io::Result<TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    socket.connect(address).await
}

fn first(type_url: &str) -> DeltaDiscoveryRequest {
    let fields = [(node_metadata::NAMESPACE.to_owned(), string_value("istio-system"))].into();
    let id = "ztunnel~10.0.0.9~ztunnel-a.istio-system~istio-system.svc.cluster.local".to_owned();
    let node = Node { id, metadata: Some(Struct { fields }), ..Default::default() };
    DeltaDiscoveryRequest { node: Some(node), type_url: type_url.to_owned(), ..Default::default() }
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

const CART: &str = "Kubernetes//Pod/shop/cart-0";

#[tokio::test]
async fn a_node_proxy_discovers_changes_and_deletions() {
    let world = world().await;
    world.say(vec![pod("shop", "cart-0", "cart", "10.0.0.1")]).await;
    let (requests, mut responses) = until_synced(&world).await;
    let all = responses.message().await.unwrap().unwrap();
    assert_eq!(names(&all), [CART]);
    let mut ack = DeltaDiscoveryRequest { type_url: type_url::ADDRESS.to_owned(), ..Default::default() };
    ack.response_nonce.clone_from(&all.nonce);
    requests.send(ack).await.unwrap();
    requests.send(first(type_url::AUTHORIZATION)).await.unwrap();
    let policies = responses.message().await.unwrap().unwrap();
    assert_eq!((policies.type_url.as_str(), policies.resources.len()), (type_url::AUTHORIZATION, 0));

    world.say(vec![pod("shop", "cart-0", "cart", "10.0.0.2"), pod("shop", "till-0", "till", "10.0.0.3")]).await;
    let changed = responses.message().await.unwrap().unwrap();
    assert_eq!(names(&changed), [CART, "Kubernetes//Pod/shop/till-0"]);
    world.say(vec![Change::Delete(Key::new(Kind::Pod, "shop", "cart-0"))]).await;
    let gone = responses.message().await.unwrap().unwrap();
    assert_eq!((gone.removed_resources, gone.resources.len()), (vec![CART.to_owned()], 0));
    world.end().await;
}

#[tokio::test]
async fn a_node_proxy_of_a_large_mesh_reconnects() {
    let world = world().await;
    world.say(vec![pod("shop", "cart-0", "cart", "10.0.0.1")]).await;
    drop(until_synced(&world).await);
    let mut back = first(type_url::ADDRESS);
    back.initial_resource_versions = (0..80_000)
        .map(|number| (format!("Kubernetes//Pod/shop/gone-{number:032}"), "0123456789abcdef".into()))
        .collect();
    assert!(prost::Message::encoded_len(&back) > 4 << 20);
    let (_requests, mut responses) = world.discover_with(&world.node_proxy(), back).await.unwrap();
    let all = responses.message().await.unwrap().unwrap();
    assert_eq!((names(&all), all.removed_resources.len()), (vec![CART], 80_000));
    world.end().await;
}

/// The program itself, until it is up: what it warns of.
fn warnings(more: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_waypoint-config"))
        .args(["--listen", "127.0.0.1:0", "--monitoring", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--source"])
        .arg(format!("dir:{}", dir.path().display()))
        .arg("--ca-dir")
        .arg(dir.path().join("ca"))
        .args(more)
        .env_clear()
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(program.stdout.take().unwrap());
    let lines = std::io::BufRead::lines(output).map_while(Result::ok);
    let start: Vec<String> = lines.take_while(|line| !line.contains("waypoint-config is up")).collect();
    program.kill().unwrap();
    program.wait().unwrap();
    start.into_iter().filter(|line| line.contains("warn")).collect()
}

#[test]
fn a_start_says_once_that_any_issuer_is_accepted() {
    let said = |more: &[&str]| warnings(more).iter().filter(|line| line.contains("--token-issuer")).count();
    assert_eq!(said(&[]), 1);
    assert_eq!(said(&["--token-issuer", "https://kubernetes.default.svc"]), 0);
}

/// Before the source has told everything, streams are refused as "try again": half a mesh would look like deletions.
async fn until_synced(world: &World) -> (mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        match world.discover(&world.node_proxy()).await {
            Ok(stream) => return stream,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
        assert!(tokio::time::Instant::now() < deadline, "never synced");
    }
}

#[tokio::test]
async fn streams_of_unknown_callers_and_before_the_first_sync_are_refused() {
    let world = world().await;
    let early = world.discover(&world.node_proxy()).await.unwrap_err();
    assert_eq!(early.code(), Code::Unavailable);
    world.say(Vec::new()).await;
    drop(until_synced(&world).await);
    let stranger = world.discover("Bearer nonsense").await.unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated);
    // A known caller that claims to be a node of another namespace.
    let impostor = world.discover(&world.token("shop:cart", "cart-0")).await.unwrap_err();
    assert_eq!(impostor.code(), Code::PermissionDenied);
    world.end().await;
}

async fn certify(
    channel: Channel,
    token: Option<&str>,
    impersonate: Option<&str>,
) -> Result<(Vec<String>, KeyPair), Status> {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let metadata = impersonate
        .map(|identity| Struct { fields: [(grpc::IMPERSONATED_IDENTITY.to_owned(), string_value(identity))].into() });
    let mut request = Request::new(IstioCertificateRequest { csr, validity_duration: 86400, metadata });
    if let Some(token) = token {
        request.metadata_mut().insert(grpc::AUTHORIZATION, token.parse().unwrap());
    }
    let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await?;
    Ok((answer.into_inner().cert_chain, key))
}

#[tokio::test]
async fn certificates_go_to_workloads_and_to_the_proxy_of_their_node() {
    let world = world().await;
    world
        .say(vec![pod("istio-system", "ztunnel-a", "ztunnel", "10.0.0.9"), pod("shop", "cart-0", "cart", "10.0.0.1")])
        .await;
    let cart = "spiffe://cluster.local/ns/shop/sa/cart";
    let channel = world.channel(None).await;
    let (chain, key) = certify(channel.clone(), Some(&world.node_proxy()), Some(cart)).await.unwrap();
    assert_eq!(chain.len(), 2);

    let nobody = "spiffe://cluster.local/ns/shop/sa/nobody";
    let refused = certify(channel.clone(), Some(&world.node_proxy()), Some(nobody)).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unauthenticated, "request impersonation authentication failure")
    );
    let unknown = certify(channel.clone(), None, None).await.unwrap_err();
    assert_eq!((unknown.code(), unknown.message()), (Code::Unauthenticated, "request authenticate failure"));

    // The certificate is good as a client's, and renews itself.
    let leaf = CertificateDer::from_pem_slice(chain[0].as_bytes()).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mutual = world.channel(Some((vec![leaf], key))).await;
    let (renewed, _) = certify(mutual, None, None).await.unwrap();
    let der = CertificateDer::from_pem_slice(renewed[0].as_bytes()).unwrap();
    assert!(der.windows(cart.len()).any(|window| window == cart.as_bytes()));
    world.end().await;
}

#[tokio::test]
async fn a_peer_that_says_nothing_or_nonsense_holds_nobody_up() {
    let world = world().await;
    world.say(vec![pod("shop", "cart-0", "cart", "10.0.0.1")]).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(world.address).await.unwrap());
    }
    for stream in silent.iter_mut().take(25) {
        tokio::io::AsyncWriteExt::write_all(stream, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    }
    let (_requests, mut responses) = until_synced(&world).await;
    assert_eq!(names(&responses.message().await.unwrap().unwrap()), [CART]);
    world.end().await;
}
