// SPDX-License-Identifier: Apache-2.0
//! Peers that are slow, silent, wrong or gone, on both sides.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use hbone::ErrorCode;
use hbone::request::{Authority, Baggage, ConnectRequest};

use super::account::{Reason, Reporter};
use super::peer::{Peer, Told};
use super::world::*;
use super::{CloseHow, ListenAt, Options};
use crate::net::Buffer;
use crate::tls::test_ca::credential;
use crate::tls::{Credential, Handshake, Progress};

/// A pod of another node, played by the test: its HBONE port, and an address behind it.
pub(super) fn played(world: &World) -> (TcpListener, SocketAddr) {
    let host = world.host(5);
    let yaml = format!(
        "workloads:\n- {{uid: played, name: played, namespace: default, serviceAccount: played, workloadIps: [{host}], protocol: HBONE}}\n"
    );
    world.client.publish(&yaml);
    (TcpListener::bind((host, 15008)).unwrap(), SocketAddr::new(host, 80))
}

/// Serves one stream: its answer, then what comes in capitals.
pub(super) fn serve(peer: &mut Peer) {
    let Told::Request(stream) = peer.wait(|told| matches!(told, Told::Request(_))) else { unreachable!() };
    peer.answer(stream);
    if let Told::Data(_, bytes) = peer.wait(|told| matches!(told, Told::Data(..))) {
        peer.put(stream, &bytes.to_ascii_uppercase());
    }
}

/// Refuses what it is asked first.
fn refuse(credential: &Credential, listener: &TcpListener) -> Peer {
    let mut peer = Peer::accept(credential, listener);
    let Told::Request(stream) = peer.wait(|told| matches!(told, Told::Request(_))) else { unreachable!() };
    peer.core.reset(stream, ErrorCode::REFUSED_STREAM);
    peer.flush();
    peer
}

#[test]
fn a_refused_stream_is_tried_once_more_on_another_tunnel() {
    let world = World::start("");
    let (listener, target) = played(&world);
    let ours = credential(&world.ca, &identity("played"));
    let (end, ended) = mpsc::channel::<()>();
    let server = thread::spawn(move || {
        let _first = refuse(&ours, &listener);
        let mut second = Peer::accept(&ours, &listener);
        serve(&mut second);
        let _ = ended.recv();
    });
    let mut stream = world.connect(target);
    assert_eq!(ask(&mut stream, b"elsewhere"), b"ELSEWHERE");
    drop(end);
    server.join().unwrap();
}

#[test]
fn a_stream_that_is_refused_everywhere_fails_with_that() {
    let world = World::start("");
    let (listener, target) = played(&world);
    let ours = credential(&world.ca, &identity("played"));
    let (end, ended) = mpsc::channel::<()>();
    let server = thread::spawn(move || {
        let _refused = [refuse(&ours, &listener), refuse(&ours, &listener)];
        let _ = ended.recv();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "twice is enough");
    });
    let mut stream = world.connect(target);
    expect_reset(&mut stream);
    world.client.logged(&["\"error\":\"h2 failed: stream reset by the peer: REFUSED_STREAM\""]);
    drop(end);
    server.join().unwrap();
}

#[test]
fn a_peer_that_never_sends_its_settings_is_given_up() {
    let world = World::start_with("", |options| options.deadlines.handshake = Duration::from_secs(3));
    let (listener, target) = played(&world);
    let ours = credential(&world.ca, &identity("played"));
    let silent = thread::spawn(move || {
        // TLS, and then nothing of HTTP/2.
        let (stream, _) = listener.accept().unwrap();
        let mut handshake = ours.accept().unwrap();
        shake_hands_only(&stream, &mut handshake);
        stream
    });
    let mut stream = world.connect(target);
    expect_reset(&mut stream);
    world.client.logged(&["h2 failed: ", "its SETTINGS"]);
    drop(silent.join());
}

fn shake_hands_only(mut stream: &TcpStream, handshake: &mut Handshake) {
    let mut piece = [0; 16 * 1024];
    loop {
        let count = stream.read(&mut piece).unwrap();
        let mut out = Buffer::default();
        let progress = handshake.advance(&piece[..count], &mut out, &mut Buffer::default()).unwrap();
        stream.write_all(out.filled()).unwrap();
        if progress == Progress::Done {
            return;
        }
    }
}

#[test]
fn a_handshake_byte_by_byte_ends_at_its_deadline_all_the_same() {
    let world = World::start_with("", |options| options.deadlines.handshake = Duration::from_secs(1));
    let mut stream = dial(SocketAddr::new(world.host(3), 15008));
    // A record of 16 KiB with a ClientHello of nearly as much.
    stream.write_all(&[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc]).unwrap();
    wait_for("the end", || stream.write_all(&[0]).is_err(), || world.server.log());
    world.server.logged(&["connection failed", "the peer did not finish the TLS handshake within 1s"]);
    assert_eq!(world.server.handle.gauges().used(super::Kind::Handshakes), 0);
}

#[test]
fn a_peer_that_never_answers_is_not_asked_again() {
    let world = World::start_with("", |options| options.deadlines.answer = Duration::from_secs(2));
    let (listener, target) = played(&world);
    let door = world.door_to(target);
    let ours = credential(&world.ca, &identity("played"));
    let (end, ended) = mpsc::channel::<()>();
    let server = thread::spawn(move || {
        let mut mute = Peer::accept(&ours, &listener);
        mute.wait(|told| matches!(told, Told::Request(_)));
        // The stream is given up, and then the tunnel.
        mute.wait(|told| matches!(told, Told::Reset(_, ErrorCode::CANCEL)));
        let mut other = Peer::accept(&ours, &listener);
        serve(&mut other);
        let _ = ended.recv();
    });
    expect_reset(&mut dial(door));
    world.client.logged(&["\"error\":\"the peer did not answer the request within 2s\""]);
    assert_eq!(ask(&mut dial(door), b"another tunnel"), b"ANOTHER TUNNEL");
    drop(end);
    server.join().unwrap();
}

#[test]
fn a_hundred_connections_to_a_silent_hop_are_one_dial_and_all_are_told() {
    // Long enough for a hundred connections to be accepted before it on a machine that is busy: whoever comes later would dial anew.
    let world = World::start_with("", |options| options.deadlines.handshake = PATIENCE / 2);
    let (listener, target) = played(&world);
    let dials = Arc::new(AtomicUsize::new(0));
    let counted = dials.clone();
    thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            silent.push(stream);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let door = world.door_to(target);
    let mut streams: Vec<_> = (0..100).map(|_| dial(door)).collect();
    wait_for("all accepted", || world.client.totals(Reporter::Source).opened == 100, || world.client.log());
    wait_for("a dial", || dials.load(Ordering::Relaxed) > 0, || world.client.log());
    streams.iter_mut().for_each(expect_reset);
    let told = || world.client.log().matches("the peer did not finish the TLS handshake within 10s").count();
    wait_for("100 lines", || told() == 100, || world.client.log());
    assert_eq!(dials.load(Ordering::Relaxed), 1);
}

#[test]
fn a_server_that_is_back_is_reachable_at_once() {
    let world = World::start("");
    let app = world.application(echo);
    let door = world.door_to(app);
    let inbound = Some(SocketAddr::new(world.host(3), 15008));
    for _ in 0..10 {
        let mut closed = world.server.handle.close("server", CloseHow::Immediate);
        wait_for("closed server", || closed.try_recv().is_ok(), || world.server.log());
        // It is down, and connections have just failed for that.
        wait_for("failures", || fails(door), || world.client.log());
        assert!(fails(door));
        let at = ListenAt { outbound: None, inbound, plaintext: None, target_without_redirect: None };
        world.server.open("server", at);
        assert_eq!(ask(&mut dial(door), b"at once"), b"AT ONCE");
    }
}

fn fails(door: SocketAddr) -> bool {
    let mut stream = dial(door);
    matches!(stream.write_all(b"x").and_then(|()| stream.read(&mut [0; 1])), Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn requests_for_somebody_elses_address_are_refused_and_in_number_end_the_tunnel() {
    let world = World::start_with("", |options: &mut Options| options.limits.denied_lines = 1);
    let app = world.application(echo);
    let client = credential(&world.ca, &identity("client"));
    let mut peer = Peer::dial(&client, SocketAddr::new(world.host(3), 15008), &identity("server"));
    let elsewhere = SocketAddr::new(world.host(7), app.port());
    let wrong = peer.request(elsewhere);
    assert_eq!(peer.wait(|told| matches!(told, Told::Answer(..))), Told::Answer(wrong, 400));
    let error = format!("ip mismatch: {} != {}", world.host(3), world.host(7));
    world.server.logged(&["connection failed", &error]);
    // The same tunnel serves what is right.
    let right = peer.request(app);
    assert_eq!(peer.wait(|told| matches!(told, Told::Answer(..))), Told::Answer(right, 200));
    assert_eq!(peer.put(right, b"fine"), 4);
    assert_eq!(peer.wait(|told| matches!(told, Told::Data(..))), Told::Data(right, b"FINE".to_vec()));
    // Whoever asks for nothing else is sent away.
    let sent_away = loop {
        if peer.core.may_request() {
            peer.request(elsewhere);
        }
        if let Some(end) = peer.hear().into_iter().find(|told| matches!(told, Told::GoAway(_) | Told::Over)) {
            break end;
        }
    };
    assert_eq!(sent_away, Told::GoAway(ErrorCode::ENHANCE_YOUR_CALM));
    let counted = world.server.shared.accounts.refusals(Reporter::Destination);
    let counted = counted.into_iter().find(|(reason, _)| *reason == Reason::Request).unwrap().1;
    assert!((129..200).contains(&counted), "{counted}");
    let lines = world.server.log().matches("ip mismatch").count();
    assert!(lines < 50, "{lines} of {counted} lines");
}

#[test]
fn what_a_peers_baggage_says_is_cut_to_the_length_of_a_name() {
    let world = World::start("");
    let app = world.application(echo);
    let client = credential(&world.ca, &identity("client"));
    let mut peer = Peer::dial(&client, SocketAddr::new(world.host(3), 15008), &identity("server"));
    let long = "x".repeat(2000);
    let baggage = Baggage::new(format!("k8s.namespace.name={long},k8s.deployment.name={long},service.name={long}"));
    let request = ConnectRequest { baggage, ..ConnectRequest::new(Authority::Ip(app)) };
    let stream = peer.core.request(std::time::Instant::now(), &request).unwrap();
    peer.flush();
    assert_eq!(peer.wait(|told| matches!(told, Told::Answer(..))), Told::Answer(stream, 200));
    let series = world.server.shared.accounts.series();
    let pairs = series[0].labels.pairs();
    for label in ["source_workload", "source_workload_namespace", "source_canonical_service"] {
        let (_, value) = pairs.iter().find(|(name, _)| *name == label).unwrap();
        assert_eq!(value.len(), 253, "{label}");
    }
}
