// SPDX-License-Identifier: Apache-2.0
//! Clients that want too much, never read, or talk nonsense; and others beside them, who must not notice.

use mesh_proto::discovery::Status as Detail;
use tokio::io::AsyncReadExt as _;

use super::*;

const STRANGE: [u8; 4] = [127, 0, 0, 2];
const LIMIT: Duration = Duration::from_secs(20);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.expect("too slow")
}

/// A world with one pod to be told of, and the proxies of two nodes.
async fn small() -> World {
    let world = world().await;
    let proxies = [("ztunnel-a", "10.0.0.9"), ("ztunnel-b", "10.0.0.8")];
    let mut changes: Vec<Change> =
        proxies.map(|(name, address)| pod("istio-system", name, "ztunnel", address)).into_iter().collect();
    changes.push(pod("shop", "cart-0", "cart", "10.0.0.1"));
    world.say(changes).await;
    drop(until_synced(&world).await);
    world
}

impl World {
    fn other_proxy(&self) -> String {
        self.token("istio-system:ztunnel", "ztunnel-b")
    }

    /// The proxy of another node gets its push, its changes and its certificates as ever.
    async fn serves_others(&self) {
        let (_requests, mut responses) = soon(self.discover(&self.other_proxy())).await.unwrap();
        let all = soon(responses.message()).await.unwrap().unwrap();
        assert!(names(&all).contains(&CART));
        let address = if all.resources.len() % 2 == 0 { "10.0.1.1" } else { "10.0.1.2" };
        self.say(vec![pod("shop", "fresh", "fresh", address)]).await;
        let fresh = soon(responses.message()).await.unwrap().unwrap();
        assert_eq!(names(&fresh), ["Kubernetes//Pod/shop/fresh"]);
        self.say(vec![Change::Delete(Key::new(Kind::Pod, "shop", "fresh"))]).await;
        soon(responses.message()).await.unwrap().unwrap();
        let cart = "spiffe://cluster.local/ns/shop/sa/cart";
        soon(certify(self.channel(None).await, Some(&self.node_proxy()), Some(cart))).await.unwrap();
    }
}

#[tokio::test]
async fn strangers_of_one_address_get_few_connections_and_take_nobodys_place() {
    let world = small().await;
    let mut strangers = Vec::new();
    for _ in 0..300 {
        strangers.push(connect_from(STRANGE, world.address).await.unwrap());
    }
    // All that are too many are closed without a word.
    for stranger in &mut strangers[64..] {
        assert_eq!(soon(stranger.read(&mut [0; 1])).await.unwrap_or(0), 0);
    }
    world.serves_others().await;
    // A place that is given back can be had again.
    drop(strangers);
    let again = async || {
        let late = connect_from(STRANGE, world.address).await.unwrap();
        tokio::time::timeout(Duration::from_millis(100), late.readable()).await.is_err()
    };
    soon(async { while !again().await {} }).await;
    world.end().await;
}

#[tokio::test]
async fn calls_that_prove_nothing_are_refused_and_take_nobodys_place() {
    let world = small().await;
    let mut channel = world.channel_from(STRANGE, None).await;
    let mut refused = 0;
    while refused < 200 {
        let token = ["Bearer nonsense", "Basic eA==", "Bearer a.b.c", ""][refused % 4];
        let certificate = soon(certify(channel.clone(), Some(token), None)).await.unwrap_err();
        let stream = soon(world.discover_over(channel.clone(), token)).await.unwrap_err();
        if [certificate.code(), stream.code()] == [Code::Unauthenticated; 2] {
            refused += 1;
        } else {
            // A slow machine: the time to prove who it is was over.
            channel = world.channel_from(STRANGE, None).await;
        }
    }
    world.serves_others().await;
    world.end().await;
}

#[tokio::test]
async fn a_caller_with_too_many_streams_is_refused_more_and_nobody_else_is() {
    let world = small().await;
    let mut streams = Vec::new();
    let refused = loop {
        match soon(world.discover(&world.node_proxy())).await {
            Ok(stream) => streams.push(stream),
            Err(refused) => break refused,
        }
        assert!(streams.len() < 100, "no end of them");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("8 are open already"), "{refused}");
    world.serves_others().await;
    streams.truncate(4);
    soon(async { while world.discover(&world.node_proxy()).await.is_err() {} }).await;
    world.end().await;
}

#[tokio::test]
async fn a_caller_with_too_many_connections_is_refused_more_and_nobody_else_is() {
    let world = small().await;
    let mut channels = Vec::new();
    let refused = loop {
        let channel = world.channel(None).await;
        match soon(certify(channel.clone(), Some(&world.token("shop:cart", "cart-0")), None)).await {
            Ok(_) => channels.push(channel),
            Err(refused) => break refused,
        }
        assert!(channels.len() < 200, "no end of them");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    // On what it has it goes on.
    soon(certify(channels[0].clone(), Some(&world.token("shop:cart", "cart-0")), None)).await.unwrap();
    world.serves_others().await;
    world.end().await;
}

#[tokio::test]
async fn clients_that_never_read_hold_up_nobody() {
    let world = small().await;
    let many = (0..3000).map(|n| pod("many", &format!("pod-{n}"), "many", &format!("10.1.{}.{}", n / 250, n % 250)));
    world.say(many.collect()).await;
    let mut deaf = Vec::new();
    for _ in 0..6 {
        let (requests, responses) = soon(world.discover(&world.node_proxy())).await.unwrap();
        // Nothing is read of the answers, to these either.
        for _ in 0..8 {
            requests.send(first(type_url::AUTHORIZATION)).await.unwrap();
        }
        deaf.push((requests, responses));
    }
    world.serves_others().await;
    world.end().await;
}

#[tokio::test]
async fn a_storm_of_refusals_and_stale_nonces_changes_nothing() {
    let world = small().await;
    let (requests, mut responses) = soon(world.discover(&world.node_proxy())).await.unwrap();
    let all = soon(responses.message()).await.unwrap().unwrap();
    let nack = |nonce: &str| DeltaDiscoveryRequest {
        type_url: type_url::ADDRESS.to_owned(),
        response_nonce: nonce.to_owned(),
        error_detail: Some(Detail { message: "no\n".repeat(1000), ..Default::default() }),
        ..Default::default()
    };
    for number in 0..5000 {
        let nonce = if number % 2 == 0 { all.nonce.as_str() } else { "never given" };
        soon(requests.send(nack(nonce))).await.unwrap();
    }
    world.serves_others().await;
    // It is still told of changes, and of nothing else.
    let fresh = soon(responses.message()).await.unwrap().unwrap();
    assert_eq!(names(&fresh), ["Kubernetes//Pod/shop/fresh"]);
    world.end().await;
}

#[tokio::test]
async fn absurd_names_and_types_are_answered_as_missing() {
    let world = small().await;
    let mut ask = first(type_url::ADDRESS);
    ask.resource_names_subscribe = vec!["x".repeat(30 << 20), "\u{0}\n//".into(), String::new(), CART.into()];
    let (requests, mut responses) = soon(world.discover_with(&world.node_proxy(), ask)).await.unwrap();
    let answer = soon(responses.message()).await.unwrap().unwrap();
    assert_eq!((names(&answer), answer.removed_resources.len()), (vec![CART], 3));
    let mut ask = first("type.googleapis.com/no.such.Type");
    ask.resource_names_subscribe = (0..10_000).map(|number| format!("{number}")).collect();
    requests.send(ask).await.unwrap();
    let answer = soon(responses.message()).await.unwrap().unwrap();
    assert_eq!(answer.removed_resources.len(), 10_000);
    // One that cannot be read at all ends its stream, and only that.
    let mut endless = first(type_url::ADDRESS);
    endless.resource_names_subscribe = vec!["x".repeat(70 << 20)];
    requests.send(endless).await.unwrap();
    soon(async { while let Ok(Some(_)) = responses.message().await {} }).await;
    world.serves_others().await;
    world.end().await;
}

#[tokio::test]
async fn requests_for_certificates_that_are_garbage_or_huge_are_refused_with_a_reason() {
    let world = small().await;
    let channel = world.channel(None).await;
    let token = world.token("shop:cart", "cart-0");
    let ask = async |csr: String| {
        let mut request = Request::new(IstioCertificateRequest { csr, validity_duration: i64::MAX, metadata: None });
        request.metadata_mut().insert(grpc::AUTHORIZATION, token.parse().unwrap());
        let mut client = IstioCertificateServiceClient::new(channel.clone());
        soon(client.create_certificate(request)).await.unwrap_err()
    };
    let pem = |body: &str| format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
    for garbage in ["", "x", "\u{0}", &pem(""), &pem("AAAA"), &pem("MIIB"), &pem(&"A".repeat(60_000))] {
        let refused = ask(garbage.to_owned()).await;
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("signing request"), "{refused}");
    }
    for size in [65 << 10, 1 << 20] {
        let refused = ask(pem(&"A".repeat(size))).await;
        assert!(matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted), "{refused}");
    }
    world.serves_others().await;
    world.end().await;
}
