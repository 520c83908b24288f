// SPDX-License-Identifier: Apache-2.0
//! Bytes that go out with the request for a connection: once, in order, and never to two.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::thread;

use hbone::request::ConnectAnswer;
use hbone::{ErrorCode, StreamId};

use super::peer::{Peer, Told};
use super::peers::{played, serve};
use super::world::*;
use crate::tls::test_ca::credential;

/// On one thread all connections to a peer go through one tunnel.
fn one_thread(early_data: bool) -> World {
    World::start_with("", |options| {
        options.threads = NonZeroUsize::MIN;
        options.listeners_per_pod = NonZeroUsize::MIN;
        options.early_data = early_data;
    })
}

/// A peer of which something has just been heard, its port, and the door that leads to it: one connection has gone through.
fn warm(world: &World) -> (Peer, TcpListener, SocketAddr) {
    let (listener, target) = played(world);
    let door = world.door_to(target);
    let mut first = dial(door);
    let asked = thread::spawn(move || ask(&mut first, b"warm"));
    let mut peer = Peer::accept(&credential(&world.ca, &identity("played")), &listener);
    serve(&mut peer);
    assert_eq!(asked.join().unwrap(), b"WARM");
    (peer, listener, door)
}

fn requested(peer: &mut Peer) -> StreamId {
    let Told::Request(stream) = peer.wait(|told| matches!(told, Told::Request(_))) else { unreachable!() };
    stream
}

/// What comes on a stream until so much is there.
fn heard(peer: &mut Peer, wanted: StreamId, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        let is_wanted = |told: &Told| matches!(told, Told::Data(stream, _) if *stream == wanted);
        if let Told::Data(_, bytes) = peer.wait(is_wanted) {
            all.extend(bytes);
        }
    }
    all
}

#[test]
fn what_an_application_says_at_once_is_there_before_the_answer_and_comes_once() {
    let world = one_thread(true);
    let (mut peer, _listener, door) = warm(&world);
    let mut app = dial(door);
    app.write_all(b"at once").unwrap();
    let stream = requested(&mut peer);
    assert_eq!(heard(&mut peer, stream, 7), b"at once");
    // More that comes before the answer waits for it.
    app.write_all(b", and later").unwrap();
    peer.answer(stream);
    assert_eq!(heard(&mut peer, stream, 11), b", and later");
    app.shutdown(Shutdown::Write).unwrap();
    assert_eq!(peer.wait(|told| matches!(told, Told::Data(..) | Told::End(_))), Told::End(stream));
}

#[test]
fn more_than_goes_out_early_follows_the_answer() {
    let world = one_thread(true);
    let (mut peer, _listener, door) = warm(&world);
    let much: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    let mut app = dial(door);
    let sent = much.clone();
    let writer = thread::spawn(move || app.write_all(&sent).map(|()| app).unwrap());
    let stream = requested(&mut peer);
    let mut got = heard(&mut peer, stream, 1);
    assert!(got.len() <= 4096, "{} bytes came before the answer", got.len());
    peer.answer(stream);
    got.extend(heard(&mut peer, stream, much.len() - got.len()));
    assert!(got == much, "the bytes have changed");
    drop(writer.join().unwrap());
}

#[test]
fn a_request_that_was_not_looked_at_is_made_again_with_the_same_bytes() {
    let world = one_thread(true);
    let (mut peer, listener, door) = warm(&world);
    let mut app = dial(door);
    app.write_all(b"elsewhere").unwrap();
    let stream = requested(&mut peer);
    assert_eq!(heard(&mut peer, stream, 9), b"elsewhere");
    peer.core.reset(stream, ErrorCode::REFUSED_STREAM);
    peer.flush();
    let mut second = Peer::accept(&credential(&world.ca, &identity("played")), &listener);
    let stream = requested(&mut second);
    second.answer(stream);
    assert_eq!(heard(&mut second, stream, 9), b"elsewhere");
}

#[test]
fn bytes_that_may_have_arrived_are_not_sent_again() {
    let world = one_thread(true);
    let (mut peer, listener, door) = warm(&world);
    let mut app = dial(door);
    app.write_all(b"pay once").unwrap();
    let stream = requested(&mut peer);
    assert_eq!(heard(&mut peer, stream, 8), b"pay once");
    drop(peer);
    expect_reset(&mut app);
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "it was tried again");
}

#[test]
fn an_application_that_has_said_nothing_is_tried_on_another_tunnel() {
    let world = one_thread(true);
    let (mut peer, listener, door) = warm(&world);
    let mut app = dial(door);
    requested(&mut peer);
    drop(peer);
    let mut second = Peer::accept(&credential(&world.ca, &identity("played")), &listener);
    app.write_all(b"hello").unwrap();
    serve(&mut second);
    let mut answer = [0; 5];
    app.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HELLO");
}

#[test]
fn nothing_goes_out_early_where_that_is_off() {
    let world = one_thread(false);
    let (mut peer, listener, door) = warm(&world);
    let mut app = dial(door);
    app.write_all(b"later").unwrap();
    requested(&mut peer);
    // Nothing has been sent, so the loss of this tunnel costs nothing.
    drop(peer);
    let mut second = Peer::accept(&credential(&world.ca, &identity("played")), &listener);
    let stream = requested(&mut second);
    second.answer(stream);
    assert_eq!(heard(&mut second, stream, 5), b"later");
}

#[test]
fn an_answer_whose_stream_is_reset_behind_its_end_is_read_to_its_end() {
    let world = one_thread(true);
    let (mut peer, _listener, door) = warm(&world);
    // More than the application's buffer takes, in one record.
    let much = [b'a'; 12_000];
    // An application that takes little at a time.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&door.into()).unwrap();
    let mut app = TcpStream::from(socket);
    app.write_all(b"question").unwrap();
    let stream = requested(&mut peer);
    assert_eq!(heard(&mut peer, stream, 8), b"question");
    // All at once: that the connection stands, the bytes, their end, and that nothing more is wanted.
    peer.core.answer(stream, &ConnectAnswer::accepted(None));
    let mut frames = Vec::new();
    peer.core.write_control(&mut frames);
    frames.extend(peer.core.data_header(stream, much.len(), true).unwrap());
    frames.extend(much);
    peer.core.reset(stream, ErrorCode::NO_ERROR);
    peer.core.write_control(&mut frames);
    peer.send(&frames);
    // The proxy has seen the end when it answers what comes behind it.
    let mut next = dial(door);
    next.write_all(b"next").unwrap();
    requested(&mut peer);
    let mut all = Vec::new();
    app.read_to_end(&mut all).unwrap();
    assert!(all == much, "{} bytes", all.len());
}
