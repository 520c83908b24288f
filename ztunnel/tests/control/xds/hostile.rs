// SPDX-License-Identifier: Apache-2.0
//! A control plane that is broken or means no good: what was learnt stays in force, and what is refused is named.

use std::sync::atomic::Ordering;

use mesh_proto::discovery::Any;
use mesh_proto::security::{Action, Authorization, Scope};
use mesh_proto::workload::{GatewayAddress, NamespacedHostname, Service, gateway_address};
use ztunnel::mesh::{Kind, PolicyEntry};

use super::super::server::Conversation;
use super::*;

/// A resource of anything.
fn named(name: &str, version: &str, resource: Option<Any>) -> Resource {
    Resource { name: name.into(), version: version.into(), resource, ..Default::default() }
}

fn at(uid: &str, address: [u8; 4], change: impl FnOnce(&mut Workload)) -> Resource {
    let mut workload = Workload {
        uid: uid.into(),
        name: uid.into(),
        namespace: "demo".into(),
        addresses: vec![address.to_vec()],
        ..Default::default()
    };
    change(&mut workload);
    named(uid, "v1", Some(pack(&Address { r#type: Some(address::Type::Workload(workload)) })))
}

fn service(hostname: &str, waypoint: Option<&str>) -> Resource {
    let waypoint = waypoint.map(|to| GatewayAddress {
        destination: Some(gateway_address::Destination::Hostname(NamespacedHostname {
            namespace: "demo".into(),
            hostname: to.into(),
        })),
        hbone_mtls_port: 15008,
    });
    let service = Service {
        name: hostname.into(),
        namespace: "demo".into(),
        hostname: hostname.into(),
        waypoint,
        ..Default::default()
    };
    let name = format!("demo/{hostname}");
    named(&name, "v1", Some(pack(&Address { r#type: Some(address::Type::Service(service)) })))
}

fn policy(name: &str, action: i32) -> Resource {
    let policy = Authorization {
        name: name.into(),
        namespace: "demo".into(),
        scope: Scope::Namespace.into(),
        action,
        ..Default::default()
    };
    named(&format!("demo/{name}"), "v1", Some(pack(&policy)))
}

impl World {
    /// A stream on which the first push of both types was taken: one workload, one policy.
    async fn synced(&mut self) -> Conversation {
        let mut stream = self.asked().await;
        stream.respond(response(type_url::ADDRESS, "1", vec![workload("good", 0)]));
        assert_eq!(taken(&mut stream, "1").await, None);
        stream.respond(response(type_url::AUTHORIZATION, "2", vec![policy("allow", Action::Allow.into())]));
        assert_eq!(taken(&mut stream, "2").await, None);
        stream
    }

    /// The next stream, its first requests read.
    async fn asked(&mut self) -> Conversation {
        let mut stream = soon(self.server.conversations.recv()).await.unwrap();
        soon(stream.request()).await;
        soon(stream.request()).await;
        stream
    }

    fn has_the_good(&self) -> bool {
        let mesh = self.mesh.load();
        mesh.workload("good").is_some() && matches!(mesh.policy("demo/allow"), Some(PolicyEntry::Known { .. }))
    }
}

/// The answer to the response of this nonce: why it was refused, if it was.
async fn taken(stream: &mut Conversation, nonce: &str) -> Option<String> {
    let answer = tokio::time::timeout(Duration::from_secs(120), stream.request()).await.expect("too slow");
    assert_eq!(answer.response_nonce, nonce);
    answer.error_detail.map(|detail| detail.message)
}

#[tokio::test]
async fn what_is_not_understood_is_named_with_its_reason_and_its_neighbours_are_taken() {
    let mut world = World::new().await;
    let (_synced, _heard) = world.client(|_| {});
    let mut stream = world.synced().await;

    let garbage = Any { type_url: type_url::ADDRESS.into(), value: b"\xff\xff\xff\xff".to_vec() };
    let foreign = Any { type_url: "type.googleapis.com/no.such.Type".into(), value: Vec::new() };
    let resources = vec![
        at("neighbour", [10, 0, 0, 1], |_| {}),
        at("protocol", [10, 0, 0, 2], |workload| workload.tunnel_protocol = 99),
        at("mode", [10, 0, 0, 3], |workload| workload.network_mode = -7),
        at("address", [10, 0, 0, 4], |workload| workload.addresses.push(vec![1, 2, 3])),
        named("garbage", "v1", Some(garbage)),
        named("foreign", "v1", Some(foreign)),
        named("policy", "v1", policy("policy", 0).resource),
        named("nothing", "v1", None),
        at("last", [10, 0, 0, 5], |_| {}),
    ];
    stream.respond(response(type_url::ADDRESS, "3", resources));
    let refused = taken(&mut stream, "3").await.expect("a refusal");
    for bad in ["protocol: ", "mode: ", "address: ", "garbage: ", "foreign: ", "policy: ", "nothing: "] {
        assert!(refused.contains(bad), "{bad} in {refused}");
    }
    let mesh = world.mesh.load_full();
    assert!(mesh.workload("neighbour").is_some() && mesh.workload("last").is_some() && world.has_the_good());
    // Nothing is sent to where it may be, as if it were nobody's.
    assert!(mesh.refused_at("", [10, 0, 0, 2].into()).is_some());

    let mut strange = policy("strange", 77);
    strange.version = "v2".into();
    stream.respond(response(type_url::AUTHORIZATION, "4", vec![strange, policy("allow", 88)]));
    let refused = taken(&mut stream, "4").await.expect("a refusal");
    assert!(refused.contains("demo/strange: ") && refused.contains("demo/allow: "), "{refused}");
    let mesh = world.mesh.load_full();
    for name in ["demo/strange", "demo/allow"] {
        assert!(matches!(mesh.policy(name), Some(PolicyEntry::Refused(_))), "{name} is forgotten instead of feared");
    }
}

#[tokio::test]
async fn duplicates_cycles_and_changes_of_mind_in_one_push_are_taken_in_order() {
    let mut world = World::new().await;
    let (_synced, _heard) = world.client(|_| {});
    let mut stream = world.synced().await;
    let mut push = response(
        type_url::ADDRESS,
        "3",
        vec![
            at("twice", [10, 0, 0, 1], |_| {}),
            at("twice", [10, 0, 0, 2], |_| {}),
            // The same address for another, and for itself again.
            at("same", [10, 0, 0, 2], |workload| workload.addresses.push(vec![10, 0, 0, 2])),
            at("gone", [10, 0, 0, 3], |_| {}),
            service("itself", Some("itself")),
            service("there", Some("back")),
            service("back", Some("there")),
        ],
    );
    push.removed_resources = vec!["gone".into(), "gone".into(), "never".into(), String::new()];
    stream.respond(push);
    assert_eq!(taken(&mut stream, "3").await, None);
    let mesh = world.mesh.load_full();
    assert!(mesh.workload("gone").is_none() && mesh.service("demo/itself").is_some());
    assert!(mesh.workload_at("", [10, 0, 0, 1].into()).is_none(), "of the first of two");
    assert!(mesh.workload_at("", [10, 0, 0, 2].into()).is_some());

    // Nonces mean something to the server only: an old, an empty and an absurd one are answered as they came.
    for nonce in ["3", "", &"n".repeat(1 << 20)] {
        stream.respond(response(type_url::ADDRESS, nonce, Vec::new()));
        assert_eq!(taken(&mut stream, nonce).await, None);
    }
    for type_url in ["", "type.googleapis.com/envoy.config.cluster.v3.Cluster"] {
        stream.respond(response(type_url, "x", vec![workload("stray", 0)]));
        assert!(taken(&mut stream, "x").await.unwrap().contains("not asked for"));
    }
    let mut clear = response(type_url::ADDRESS, "4", Vec::new());
    clear.removed_resources = ["twice", "same", "demo/itself", "demo/there", "demo/back"].map(String::from).to_vec();
    stream.respond(clear);
    assert_eq!(taken(&mut stream, "4").await, None);
    let mesh = world.mesh.load_full();
    assert_eq!((mesh.workloads().count(), mesh.services().count()), (1, 0));
    assert!(mesh.workload_at("", [10, 0, 0, 2].into()).is_none() && mesh.workload("stray").is_none());
}

#[tokio::test]
async fn a_hundred_thousand_resources_and_one_of_many_megabytes_are_taken_and_given_back() {
    let mut world = World::new().await;
    let (_synced, _heard) = world.client(|_| {});
    let mut stream = world.synced().await;
    let name = |number: u32| format!("cluster//Pod/many/{number}");
    let many = |number: u32| at(&name(number), (0x0b00_0000 + number).to_be_bytes(), |_| {});
    stream.respond(response(type_url::ADDRESS, "3", (0..100_000).map(many).collect()));
    assert_eq!(taken(&mut stream, "3").await, None);
    assert_eq!(world.mesh.load().workloads().count(), 100_001);
    stream.respond(response(type_url::ADDRESS, "4", vec![workload("huge", 40 << 20)]));
    assert_eq!(taken(&mut stream, "4").await, None);

    let mut clear = response(type_url::ADDRESS, "5", Vec::new());
    clear.removed_resources = (0..100_000).map(name).chain(["huge".to_owned()]).collect();
    stream.respond(clear);
    assert_eq!(taken(&mut stream, "5").await, None);
    assert_eq!(world.mesh.load().workloads().count(), 1);

    // Refused to the last, it is still an answer a server can read.
    let bad = |number: u32| named(&name(number), "v1", None);
    stream.respond(response(type_url::ADDRESS, "6", (0..100_000).map(bad).collect()));
    let refused = taken(&mut stream, "6").await.unwrap();
    assert!(refused.len() < 16 << 10 && refused.contains(" more"), "{} bytes", refused.len());
    assert!(world.has_the_good());
}

#[tokio::test]
async fn a_server_that_never_reads_our_answers_is_left_once_it_goes() {
    let mut world = World::new().await;
    let (_synced, _heard) = world.client(|_| {});
    let stream = world.synced().await;
    for number in 0..20_000 {
        stream.respond(response(type_url::ADDRESS, &format!("{number}-{}", "n".repeat(100)), Vec::new()));
    }
    stream.respond(response(type_url::ADDRESS, "unread", vec![workload("unread", 0)]));
    drop(stream);
    let mut stream = world.synced().await;
    assert!(world.has_the_good());
    stream.respond(response(type_url::ADDRESS, "3", vec![workload("after", 0)]));
    assert_eq!(taken(&mut stream, "3").await, None);
    assert!(world.mesh.load().workload("after").is_some());
}

/// A gRPC message of these bytes.
fn message(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], bytes].concat()
}

#[tokio::test]
async fn bytes_that_are_no_stream_of_responses_cost_the_stream_and_nothing_that_was_learnt() {
    let mut world = World::new().await;
    let whole = message(&prost::Message::encode_to_vec(&response(type_url::ADDRESS, "1", vec![workload("good", 0)])));
    let policies = response(type_url::AUTHORIZATION, "2", vec![policy("allow", Action::Allow.into())]);
    let policies = message(&prost::Message::encode_to_vec(&policies));
    let answers: Vec<(Vec<u8>, bool)> = vec![
        ([whole.clone(), policies].concat(), false),
        // Half a message, and the end of the stream.
        (whole[..whole.len() / 2].to_vec(), false),
        // A whole one, and half of another.
        ([&whole[..], &whole[..7]].concat(), false),
        // 3 GiB are announced; compressed though nobody asked; bytes that are no message; no length.
        ([&[0, 0xc0, 0, 0, 0][..], &[0; 100]].concat(), true),
        ([&[1, 0, 0, 0, 4][..], b"\x1f\x8b\x08\x00"].concat(), true),
        (message(&[0xff; 64]), true),
        (vec![0, 0], false),
        (Vec::new(), false),
        (b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), true),
    ];
    let last = answers.len();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    world.server = Server::raw(&world.tasks, &world.authority, move |number| {
        counted.store(number, Ordering::Relaxed);
        answers.get(number).cloned().unwrap_or((Vec::new(), true))
    })
    .await;
    let (_synced, _heard) = world.client(|_| {});
    let all = async {
        while asked.load(Ordering::Relaxed) < last {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("it does not come back after one of them");
    assert!(world.has_the_good() && world.readiness.is_ready());
    assert!(world.mesh.load().has_received(Kind::Addresses));
}

#[tokio::test]
async fn a_server_that_is_none_is_tried_again_but_not_in_a_loop() {
    let mut world = World::new().await;
    // Ends every stream before it says anything.
    world.server = Server::raw(&world.tasks, &world.authority, |_| (Vec::new(), false)).await;
    let asked = Arc::clone(&world.server.connections);
    let (_synced, _heard) = world.client(|_| {});
    let start = std::time::Instant::now();
    let ten = async {
        while asked.load(Ordering::Relaxed) < 7 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ten).await.expect("it has given up");
    // 20 ms, doubled each time and a fifth less at least: 1.0 s before the seventh.
    assert!(start.elapsed() > Duration::from_millis(900), "{:?}", start.elapsed());
}
