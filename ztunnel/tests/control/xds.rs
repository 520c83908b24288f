// SPDX-License-Identifier: Apache-2.0
//! Discovery over a real stream.

mod hostile;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh_common::lifecycle::{Readiness, Tasks};
use mesh_proto::contract::type_url;
use mesh_proto::discovery::{DeltaDiscoveryResponse, Resource, pack};
use mesh_proto::workload::{Address, Workload, address};
use tokio::sync::{mpsc, oneshot};
use ztunnel::control_plane::{Options as Plane, Roots, Token};
use ztunnel::mesh::{Changed, Snapshot};
use ztunnel::metrics::{Counters, Page, Traffic, TrafficReading};
use ztunnel::xds::{Client, NodeOptions, Options, Publisher, Synced};

use super::server::{Authority, Server};

struct World {
    tasks: Tasks,
    authority: Authority,
    server: Server,
    mesh: Arc<ArcSwap<Snapshot>>,
    readiness: Readiness,
    counters: Counters,
}

impl World {
    async fn new() -> Self {
        let (tasks, authority) = (Tasks::new(), Authority::new());
        let server = Server::discovery(&tasks, &authority).await;
        let (mesh, readiness) = (Arc::default(), Readiness::new());
        Self { tasks, authority, server, mesh, readiness, counters: Counters::default() }
    }

    fn client(&self, change: impl FnOnce(&mut Plane)) -> (oneshot::Receiver<()>, mpsc::UnboundedReceiver<Changed>) {
        let mut control_plane = self.server.options(&self.authority);
        change(&mut control_plane);
        let (news, heard) = mpsc::unbounded_channel();
        let (synced, told) = Synced::new(self.readiness.gate("state manager"));
        let publisher = Publisher::new("n1", Arc::clone(&self.mesh), news);
        let node = NodeOptions {
            name: "z".into(),
            namespace: "istio-system".into(),
            ip: [10, 0, 0, 1].into(),
            node_name: "n1".into(),
            metadata: Vec::new(),
            json_metadata: Vec::new(),
        };
        let options = Options { control_plane, node };
        self.tasks.spawn_background("xds", Client::new(options, publisher, self.counters.xds.clone(), synced).run());
        (told, heard)
    }

    fn metrics(&self) -> String {
        Page::new(&self.counters, Traffic::new(TrafficReading::default), "x").text().unwrap()
    }
}

fn workload(uid: &str, padding: usize) -> Resource {
    let workload = Workload {
        uid: uid.into(),
        name: uid.into(),
        namespace: "demo".into(),
        workload_name: "x".repeat(padding),
        ..Default::default()
    };
    let address = Address { r#type: Some(address::Type::Workload(workload)) };
    Resource { name: uid.into(), version: "v1".into(), resource: Some(pack(&address)), ..Default::default() }
}

fn response(type_url: &str, nonce: &str, resources: Vec<Resource>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse { type_url: type_url.into(), nonce: nonce.into(), resources, ..Default::default() }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("too slow")
}

#[tokio::test]
async fn a_first_sync_a_refusal_and_a_reconnect_with_a_fresh_token() {
    let mut world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let (token, roots) = (folder.path().join("token"), folder.path().join("root.pem"));
    std::fs::write(&token, "one\n").unwrap();
    std::fs::write(&roots, &world.authority.root).unwrap();
    let (synced, mut heard) = world.client(|plane| {
        plane.token = Token::File(token.clone());
        plane.roots = Roots::File(roots);
        plane.headers = vec![("X-Extra".into(), "1".into())];
    });

    let mut stream = soon(world.server.conversations.recv()).await.unwrap();
    assert_eq!(stream.metadata.get("authorization").unwrap(), "Bearer one");
    assert_eq!(stream.metadata.get("clusterid").unwrap(), "Kubernetes");
    assert_eq!(stream.metadata.get("x-extra").unwrap(), "1");
    let (first, second) = (soon(stream.request()).await, soon(stream.request()).await);
    assert_eq!((first.type_url.as_str(), second.type_url.as_str()), (type_url::ADDRESS, type_url::AUTHORIZATION));
    assert_eq!(first.node.unwrap().id, "ztunnel~10.0.0.1~z.istio-system~istio-system.svc.cluster.local");

    let bad = Resource { name: "bad".into(), version: "v1".into(), ..Default::default() };
    stream.respond(response(type_url::ADDRESS, "1", vec![bad, workload("good", 0)]));
    let answer = soon(stream.request()).await;
    assert_eq!(answer.response_nonce, "1");
    assert!(answer.error_detail.unwrap().message.starts_with("bad: "));
    assert!(world.mesh.load().workload("good").is_some());
    assert!(soon(heard.recv()).await.unwrap().workloads);
    assert!(!world.readiness.is_ready());

    stream.respond(response(type_url::AUTHORIZATION, "2", Vec::new()));
    let answer = soon(stream.request()).await;
    assert_eq!((answer.response_nonce.as_str(), answer.error_detail), ("2", None));
    soon(synced).await.unwrap();
    assert!(world.readiness.is_ready());

    std::fs::write(&token, "two").unwrap();
    drop(stream);
    let mut stream = soon(world.server.conversations.recv()).await.unwrap();
    assert_eq!(stream.metadata.get("authorization").unwrap(), "Bearer two");
    let first = soon(stream.request()).await;
    assert_eq!(first.initial_resource_versions.len(), 2);
    assert_ne!(first.initial_resource_versions["bad"], "v1", "to be sent again");
    assert_eq!(first.initial_resource_versions["good"], "v1");
    assert!(world.readiness.is_ready(), "what was learnt stays in force");
    let metrics = world.metrics();
    assert!(metrics.contains(r#"istio_xds_connection_terminations_total{reason="Complete"} 1"#), "{metrics}");
    assert!(
        metrics.contains(r#"mesh_xds_rejected_resources_total{url="type.googleapis.com/istio.workload.Address"} 1"#)
    );
}

#[tokio::test]
async fn a_response_larger_than_grpcs_usual_limit_arrives() {
    let mut world = World::new().await;
    let (_synced, _heard) = world.client(|_| {});
    let mut stream = soon(world.server.conversations.recv()).await.unwrap();
    let resources = (0..8).map(|n| workload(&format!("w{n}"), 1 << 20)).collect();
    stream.respond(response(type_url::ADDRESS, "1", resources));
    soon(stream.request()).await;
    soon(stream.request()).await;
    assert_eq!(soon(stream.request()).await.response_nonce, "1");
    assert!(world.mesh.load().workload("w7").is_some());
}

#[tokio::test]
async fn a_server_of_another_authority_is_never_asked() {
    let mut world = World::new().await;
    let stranger = Authority::new();
    let (_synced, _heard) = world.client(|plane| plane.roots = Roots::Pem(stranger.root.clone()));
    let asked = tokio::time::timeout(Duration::from_millis(300), world.server.conversations.recv()).await;
    assert!(asked.is_err());
    assert!(world.metrics().contains(r#"istio_xds_connection_terminations_total{reason="ConnectionError"}"#));
}

#[tokio::test]
async fn another_name_is_accepted_only_if_it_was_configured() {
    let (tasks, authority) = (Tasks::new(), Authority::new());
    let server = Server::start(&tasks, &authority, "istiod.elsewhere", |_, _| Err(tonic::Status::ok(""))).await;
    let mut options = server.options(&authority);
    let refused = ztunnel::control_plane::connect(&options).await.unwrap_err();
    let text = ztunnel::control_plane::explain(&refused);
    assert!(text.contains("certificate"), "{text}");
    options.alternative_name = Some("istiod.elsewhere".try_into().unwrap());
    ztunnel::control_plane::connect(&options).await.unwrap();
    options.roots = Roots::Pem(Authority::new().root);
    ztunnel::control_plane::connect(&options).await.unwrap_err();
    options.roots = Roots::Pem("no certificate".into());
    assert!(ztunnel::control_plane::connect(&options).await.unwrap_err().to_string().contains("no usable root"));
}
