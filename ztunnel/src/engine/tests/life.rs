// SPDX-License-Identifier: Apache-2.0
//! Pods and threads come and go.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::account::Reporter;
use super::world::*;
use super::{CloseHow, ListenAt, OpenError, Pod};

fn completes(receiver: &mut tokio::sync::oneshot::Receiver<()>) {
    wait_for("completion", || receiver.try_recv().is_ok(), String::new);
}

#[test]
fn a_released_pod_keeps_its_open_connections() {
    let world = World::start("");
    let app = world.application(echo);
    let door = world.door_to(app);
    let mut stream = dial(door);
    assert_eq!(ask(&mut stream, b"hello"), b"HELLO");
    let uid = format!("client-{}", door.ip().to_string().rsplit('.').next().unwrap());
    let mut client = world.client.handle.close(&uid, CloseHow::Drain);
    let mut server = world.server.handle.close("server", CloseHow::Drain);
    wait_for("closed listeners", || TcpStream::connect(door).is_err(), || world.client.log());
    assert!(client.try_recv().is_err() && server.try_recv().is_err());
    assert_eq!(ask(&mut stream, b"still there"), b"STILL THERE");
    drop(stream);
    completes(&mut client);
    completes(&mut server);
    let line = world.client.logged(&["connection complete"]);
    assert!(!line.contains("error"), "{line}");
}

#[test]
fn a_deleted_pod_takes_its_connections_along() {
    let world = World::start("");
    let app = world.application(echo);
    let mut stream = world.connect(app);
    assert_eq!(ask(&mut stream, b"hello"), b"HELLO");
    let mut done = world.server.handle.close("server", CloseHow::Immediate);
    completes(&mut done);
    expect_reset(&mut stream);
    world.server.logged(&["\"error\":\"connection closed due to connection drain\""]);
    assert!(TcpStream::connect(SocketAddr::new(world.host(3), 15008)).is_err());
}

#[test]
fn a_closed_pod_can_be_opened_again_and_an_open_one_cannot() {
    let world = World::start("");
    let inbound = Some(SocketAddr::new(world.host(3), 15008));
    let at = ListenAt { outbound: None, inbound, plaintext: None, target_without_redirect: None };
    let pod = Pod {
        uid: "server".into(),
        name: "server".into(),
        namespace: "default".into(),
        service_account: "server".into(),
    };
    let pod = std::sync::Arc::new(pod);
    let again = world.server.handle.open_at(pod.clone(), None, at.clone());
    assert!(matches!(again, Err(OpenError::Open(_))));
    completes(&mut world.server.handle.close("server", CloseHow::Immediate));
    world.server.handle.open_at(pod, None, at).unwrap();
    let app = world.application(echo);
    assert_eq!(ask(&mut world.connect(app), b"again"), b"AGAIN");
}

#[test]
fn an_occupied_port_is_an_error_that_leaves_nothing_behind() {
    let world = World::start("");
    let host = world.host(7);
    let taken = std::net::TcpListener::bind((host, 15006)).unwrap();
    let address = |port| Some(SocketAddr::new(host, port));
    let at = ListenAt {
        outbound: address(15001),
        inbound: address(15008),
        plaintext: address(15006),
        target_without_redirect: None,
    };
    let pod = Pod { uid: "new".into(), name: "new".into(), namespace: "default".into(), service_account: "new".into() };
    let error = world.server.handle.open_at(std::sync::Arc::new(pod.clone()), None, at.clone()).unwrap_err();
    assert!(error.to_string().contains("15006 (bind)"), "{error}");
    drop(taken);
    world.server.handle.open_at(std::sync::Arc::new(pod), None, at).unwrap();
}

#[test]
fn a_drain_waits_for_connections_until_its_deadline() {
    let world = World::start("");
    let app = world.application(echo);
    let mut stream = world.connect(app);
    assert_eq!(ask(&mut stream, b"hello"), b"HELLO");
    let mut done = world.server.handle.drain(Instant::now() + Duration::from_millis(600));
    assert_eq!(ask(&mut stream, b"during"), b"DURING");
    completes(&mut done);
    expect_reset(&mut stream);
    world.server.logged(&["connection closed due to connection drain"]);
}

#[test]
fn a_drain_without_connections_is_over_at_once() {
    let world = World::start("");
    let app = world.application(echo);
    drop(world.connect(app));
    let begun = Instant::now();
    completes(&mut world.server.handle.drain(begun + PATIENCE * 2));
    completes(&mut world.client.handle.drain(begun + PATIENCE * 2));
}

#[test]
fn a_tunnel_is_reused_and_released_when_nobody_asks_for_it() {
    let world = World::start_with("", |options| {
        options.threads = std::num::NonZeroUsize::MIN;
        options.pool_unused_release = Duration::from_millis(100);
    });
    let app = world.application(echo);
    let door = world.door_to(app);
    for _ in 0..5 {
        assert_eq!(ask(&mut dial(door), b"hello"), b"HELLO");
        assert_eq!(world.server.shared.accounts.sockets_open(Reporter::Destination), 1);
    }
    let tunnels = || world.server.shared.accounts.sockets_open(Reporter::Destination);
    wait_for("released tunnel", || tunnels() == 0, || world.server.log());
    assert_eq!(ask(&mut dial(door), b"hello"), b"HELLO");
}

#[test]
fn a_server_that_was_replaced_is_found_again() {
    let world = World::start("");
    let app = world.application(echo);
    let door = world.door_to(app);
    assert_eq!(ask(&mut dial(door), b"one"), b"ONE");
    completes(&mut world.server.handle.close("server", CloseHow::Immediate));
    let inbound = Some(SocketAddr::new(world.host(3), 15008));
    world.server.open("server", ListenAt { outbound: None, inbound, plaintext: None, target_without_redirect: None });
    assert_eq!(ask(&mut dial(door), b"two"), b"TWO");
    assert_eq!(ask(&mut dial(door), b"three"), b"THREE");
}
