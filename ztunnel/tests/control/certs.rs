// SPDX-License-Identifier: Apache-2.0
//! Certificates from a real authority.

mod hostile;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_common::lifecycle::Tasks;
use mesh_proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use mesh_proto::contract::grpc::IMPERSONATED_IDENTITY;
use mesh_proto::discovery::string_field;
use mesh_proto::spiffe::Identity;
use tokio::sync::mpsc;
use tonic::Status;
use ztunnel::certs::{Authority as Client, Keeper, Options, Order, Outcome, Published, Standing, State, Wanted};
use ztunnel::control_plane::Token;

use super::server::{Authority, Server};

struct World {
    server: Server,
    orders: mpsc::UnboundedSender<Order>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    published: Published,
    standing: Standing,
}

impl World {
    async fn new(
        tasks: &Tasks,
        authority: &Arc<Authority>,
        sign: impl Fn(IstioCertificateRequest) -> Result<IstioCertificateResponse, Status> + Send + Sync + 'static,
    ) -> Self {
        let server = Server::start(tasks, authority, "localhost", move |metadata, request| {
            assert_eq!(metadata.get("authorization").unwrap(), "Bearer secret");
            assert_eq!(metadata.get("clusterid").unwrap(), "Kubernetes");
            sign(request)
        })
        .await;
        let mut control_plane = server.options(authority);
        control_plane.token = Token::Literal("secret".into());
        let client = Client::new(Options { control_plane, ttl: Duration::from_secs(86_400) });
        let (orders, ordered) = mpsc::unbounded_channel();
        let (told, outcomes) = mpsc::unbounded_channel();
        let (published, standing) = (Published::default(), Standing::default());
        let keeper = Keeper::new(client, Arc::clone(&published), Arc::clone(&standing), told);
        tasks.spawn_background("keeper", keeper.run(ordered));
        Self { server, orders, outcomes, published, standing }
    }

    async fn outcome(&mut self) -> Outcome {
        tokio::time::timeout(Duration::from_secs(30), self.outcomes.recv()).await.expect("too slow").unwrap()
    }
}

fn id(name: &str) -> Identity {
    Identity::new("cluster.local", "demo", name).unwrap()
}

fn want(uid: &str, identity: Option<Identity>) -> Order {
    Order::Want(Wanted::Pod(uid.into()), identity)
}

fn impersonated(request: &IstioCertificateRequest) -> String {
    string_field(request.metadata.as_ref().unwrap(), IMPERSONATED_IDENTITY).unwrap().to_owned()
}

#[tokio::test]
async fn a_wanted_identity_gets_a_certificate_and_an_unwanted_one_loses_it() {
    let (tasks, authority) = (Tasks::new(), Arc::new(Authority::new()));
    let signing = Arc::clone(&authority);
    let mut world = World::new(&tasks, &authority, move |request| {
        assert_eq!(impersonated(&request), id("a").as_uri());
        assert_eq!(request.validity_duration, 86_400);
        Ok(IstioCertificateResponse { cert_chain: vec![signing.sign(&request.csr, 3600), signing.root.clone()] })
    })
    .await;
    world.orders.send(want("pod", Some(id("a")))).unwrap();
    assert_eq!(world.outcome().await, Outcome::Changed(id("a")));
    let credential = Arc::clone(&world.published.load()[&id("a")]);
    assert_eq!(credential.root_certificates().len(), 1);
    assert_eq!(world.standing.load()[&id("a")], State::Available);

    world.orders.send(want("pod", None)).unwrap();
    assert_eq!(world.outcome().await, Outcome::Changed(id("a")));
    assert!(world.published.load().is_empty());
}

#[tokio::test]
async fn a_short_certificate_is_renewed_before_it_ends() {
    let (tasks, authority) = (Tasks::new(), Arc::new(Authority::new()));
    let (signing, calls) = (Arc::clone(&authority), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&calls);
    let mut world = World::new(&tasks, &authority, move |request| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(IstioCertificateResponse { cert_chain: vec![signing.sign(&request.csr, 4), signing.root.clone()] })
    })
    .await;
    world.orders.send(want("pod", Some(id("a")))).unwrap();
    world.outcome().await;
    let first = Arc::clone(&world.published.load()[&id("a")]);
    assert_eq!(world.outcome().await, Outcome::Changed(id("a")));
    let second = Arc::clone(&world.published.load()[&id("a")]);
    assert_ne!(first.chain(), second.chain());
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_refusal_reaches_who_waits_and_the_next_try_succeeds() {
    let (tasks, authority) = (Tasks::new(), Arc::new(Authority::new()));
    let (signing, refusals) = (Arc::clone(&authority), Mutex::new(1));
    let mut world = World::new(&tasks, &authority, move |request| {
        let mut left = refusals.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return Err(Status::unauthenticated("request impersonation authentication failure"));
        }
        Ok(IstioCertificateResponse { cert_chain: vec![signing.sign(&request.csr, 3600), signing.root.clone()] })
    })
    .await;
    world.orders.send(want("pod", Some(id("a")))).unwrap();
    let Outcome::Refused(identity, reason) = world.outcome().await else { panic!("not refused") };
    assert_eq!(identity, id("a"));
    assert!(reason.contains("does a pod with this identity run on this node?"), "{reason}");
    assert_eq!(world.outcome().await, Outcome::Changed(id("a")));
}

#[tokio::test]
async fn a_certificate_for_somebody_else_is_never_used() {
    let (tasks, authority) = (Tasks::new(), Arc::new(Authority::new()));
    let signing = Arc::clone(&authority);
    let other = ztunnel::certs::Draft::new(id("b")).unwrap();
    let mut world = World::new(&tasks, &authority, move |_| {
        Ok(IstioCertificateResponse { cert_chain: vec![signing.sign(other.csr(), 3600), signing.root.clone()] })
    })
    .await;
    world.orders.send(Order::Need(id("a"))).unwrap();
    assert!(matches!(world.outcome().await, Outcome::Refused(..)));
    assert!(world.published.load().is_empty());
}
