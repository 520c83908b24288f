// SPDX-License-Identifier: Apache-2.0
//! Bytes through the mesh.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc;
use std::thread;

use super::account::Reporter;
use super::world::*;

#[test]
fn a_question_is_answered_and_both_ends_log_who_talked_to_whom() {
    let world = World::start("");
    let app = world.application(echo);
    let mut stream = world.connect(app);
    assert_eq!(ask(&mut stream, b"hello"), b"HELLO");
    drop(stream);

    let hbone = format!("\"dst.addr\":\"{}:15008\",\"dst.hbone_addr\":\"{app}\"", world.host(3));
    let (client, server) = (identity("client"), identity("server"));
    let src = format!("\"src.workload\":\"client\",\"src.namespace\":\"default\",\"src.identity\":\"{client}\"");
    let dst = format!("\"dst.workload\":\"server\",\"dst.namespace\":\"default\",\"dst.identity\":\"{server}\"");
    let end = "\"bytes_sent\":5,\"bytes_recv\":5,\"duration\"";
    world.client.logged(&["\"level\":\"info\"", &src, &hbone, &dst, "\"direction\":\"outbound\"", end]);
    // The server's node has no record of the address it is called from, only what baggage and certificate say.
    let src = format!("\"src.workload\":\"client\",\"src.namespace\":\"default\",\"src.identity\":\"{client}\"");
    world.server.logged(&["\"level\":\"info\"", &src, &hbone, &dst, "\"direction\":\"inbound\"", end]);
    for (node, reporter) in [(&world.client, Reporter::Source), (&world.server, Reporter::Destination)] {
        let totals = node.totals(reporter);
        assert_eq!((totals.opened, totals.closed, totals.failed), (1, 1, 0));
        assert_eq!((totals.received, totals.sent), (5, 5));
    }
}

#[test]
fn many_connections_at_once_share_few_tunnels() {
    let world = World::start("");
    let app = world.application(echo);
    let door = world.door_to(app);
    let streams: Vec<_> = (0..150u32).map(|number| (number, dial(door))).collect();
    let questions = |number: u32| format!("question {number} ").repeat(number as usize % 50 + 1);
    let ended: Vec<_> = streams
        .into_iter()
        .map(|(number, mut stream)| {
            thread::spawn(move || {
                let question = questions(number);
                for _ in 0..3 {
                    assert_eq!(ask(&mut stream, question.as_bytes()), question.to_uppercase().as_bytes());
                }
                stream
            })
        })
        .collect();
    let open: Vec<_> = ended.into_iter().map(|thread| thread.join().unwrap()).collect();
    // A pod outside of a namespace of its own has one thread; that needs two tunnels for 150 streams.
    let tunnels = world.server.shared.accounts.sockets_open(Reporter::Destination);
    assert!((1..=2).contains(&tunnels), "{tunnels} tunnels");
    drop(open);
    wait_for("150 ends", || world.server.totals(Reporter::Destination).closed == 150, || world.server.log());
    assert_eq!(world.client.totals(Reporter::Source).failed, 0);
}

#[test]
fn a_big_transfer_arrives_whole_in_both_directions() {
    const SIZE: usize = 48 << 20;
    let world = World::start("");
    let (sender, digests) = mpsc::channel();
    let app = world.application(move |mut stream| {
        sender.send(digest(&mut stream)).unwrap();
        send_pattern(&mut stream, SIZE, 11);
    });
    let mut stream = world.connect(app);
    send_pattern(&mut stream, SIZE, 7);
    assert_eq!(digests.recv_timeout(PATIENCE).unwrap(), digest_of_pattern(SIZE, 7), "client to server");
    assert_eq!(digest(&mut stream), digest_of_pattern(SIZE, 11), "server to client");
    drop(stream);
    let both = format!("\"bytes_sent\":{SIZE},\"bytes_recv\":{SIZE}");
    let line = world.client.logged(&[&both]);
    assert!(!line.contains("error"), "{line}");
}

#[test]
fn big_transfers_in_both_directions_at_once_arrive_whole() {
    const SIZE: usize = 16 << 20;
    let world = World::start("");
    let (sender, digests) = mpsc::channel();
    let app = world.application(move |mut stream| {
        let mut reading = stream.try_clone().unwrap();
        let sender = sender.clone();
        thread::spawn(move || sender.send(digest(&mut reading)).unwrap());
        send_pattern(&mut stream, SIZE, 5);
    });
    let mut stream = world.connect(app);
    let mut writing = stream.try_clone().unwrap();
    let writer = thread::spawn(move || send_pattern(&mut writing, SIZE, 3));
    assert_eq!(digest(&mut stream), digest_of_pattern(SIZE, 5));
    writer.join().unwrap();
    assert_eq!(digests.recv_timeout(PATIENCE).unwrap(), digest_of_pattern(SIZE, 3));
}

#[test]
fn a_half_closed_connection_goes_on_in_the_other_direction() {
    let world = World::start("");
    let app = world.application(|mut stream| {
        let mut question = String::new();
        stream.read_to_string(&mut question).unwrap();
        stream.write_all(format!("you said {question}").as_bytes()).unwrap();
    });
    let mut stream = world.connect(app);
    stream.write_all(b"goodbye").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "you said goodbye");
    let line = world.client.logged(&["connection complete"]);
    assert!(!line.contains("error"), "{line}");
}

#[test]
fn a_server_that_finishes_first_still_hears_the_client() {
    let world = World::start("");
    let (sender, heard) = mpsc::channel();
    let app = world.application(move |mut stream| {
        stream.write_all(b"speak").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut question = String::new();
        stream.read_to_string(&mut question).unwrap();
        sender.send(question).unwrap();
    });
    let mut stream = world.connect(app);
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).unwrap();
    assert_eq!(greeting, "speak");
    stream.write_all(b"spoken").unwrap();
    drop(stream);
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "spoken");
}

#[test]
fn a_server_that_closes_outright_loses_no_byte_of_its_answer() {
    const SIZE: usize = 3 << 20;
    let world = World::start("");
    let app = world.application(|mut stream| stream.write_all(&vec![7; SIZE]).unwrap());
    let mut stream = world.connect(app);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), SIZE);
}

#[test]
fn who_talks_to_a_server_that_has_gone_is_reset() {
    let world = World::start("");
    let app = world.application(|mut stream| stream.write_all(b"bye").unwrap());
    let mut stream = world.connect(app);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "bye");
    wait_for("reset", || stream.write(b"hello?").is_err(), || world.client.log());
}

#[test]
fn a_reset_of_the_client_is_a_reset_for_the_server() {
    let world = World::start("");
    let (sender, outcome) = mpsc::channel();
    let app = world.application(move |mut stream| {
        let mut buffer = [0; 5];
        stream.read_exact(&mut buffer).unwrap();
        stream.write_all(&buffer).unwrap();
        sender.send(stream.read(&mut buffer).map_err(|error| error.kind())).unwrap();
    });
    let mut stream = world.connect(app);
    assert_eq!(ask(&mut stream, b"hello"), b"hello");
    abort(stream);
    assert_eq!(outcome.recv_timeout(PATIENCE).unwrap(), Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn a_reset_of_the_server_is_a_reset_for_the_client() {
    let world = World::start("");
    let app = world.application(|mut stream| {
        let mut buffer = [0; 5];
        stream.read_exact(&mut buffer).unwrap();
        abort(stream);
    });
    let mut stream = world.connect(app);
    stream.write_all(b"hello").unwrap();
    expect_reset(&mut stream);
}

#[test]
fn a_reader_that_stalls_does_not_stall_its_neighbours() {
    let world = World::start("");
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let stalled = world.application(move |stream| {
        // Reads nothing until the test ends.
        let _ = held.lock().unwrap().recv();
        drop(stream);
    });
    let quick = world.application(echo);
    // All through the same thread's tunnel or tunnels: several stalled ones fill every window they have.
    let door = world.door_to(stalled);
    let blocked: Vec<_> = (0..8).map(|_| fill(dial(door))).collect();
    for _ in 0..4 {
        let mut stream = world.connect(quick);
        assert_eq!(ask(&mut stream, b"still there?"), b"STILL THERE?");
    }
    drop(blocked);
    drop(release);
}

#[test]
fn a_reset_is_carried_although_nobody_reads() {
    let world = World::start("");
    let (_held, hold) = mpsc::channel::<()>();
    let hold = std::sync::Mutex::new(hold);
    let stalled = world.application(move |stream| {
        let _ = hold.lock().unwrap().recv();
        drop(stream);
    });
    abort(fill(world.connect(stalled)));
    let closed = || world.server.totals(Reporter::Destination).closed;
    wait_for(
        "end on both nodes",
        || closed() == 1 && world.client.totals(Reporter::Source).closed == 1,
        || world.client.log(),
    );
}

#[test]
fn what_is_not_in_the_mesh_is_reached_in_plaintext() {
    let world = World::start("");
    let outside = serve_at(world.host(200), echo);
    let mut stream = world.connect(outside);
    assert_eq!(ask(&mut stream, b"hello"), b"HELLO");
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    let line = world.client.logged(&[&format!("\"dst.addr\":\"{outside}\""), "\"bytes_sent\":5,\"bytes_recv\":5"]);
    assert!(!line.contains("identity") && !line.contains("error"), "{line}");
}

#[test]
fn a_big_transfer_in_plaintext_arrives_whole() {
    const SIZE: usize = 32 << 20;
    let world = World::start("");
    let (sender, digests) = mpsc::channel();
    let outside = serve_at(world.host(200), move |mut stream| {
        sender.send(digest(&mut stream)).unwrap();
        send_pattern(&mut stream, SIZE, 13);
    });
    let mut stream = world.connect(outside);
    send_pattern(&mut stream, SIZE, 9);
    assert_eq!(digests.recv_timeout(PATIENCE).unwrap(), digest_of_pattern(SIZE, 9));
    assert_eq!(digest(&mut stream), digest_of_pattern(SIZE, 13));
}

/// Writes until nothing is taken any more.
fn fill(stream: std::net::TcpStream) -> std::net::TcpStream {
    let mut stream = stream;
    stream.set_write_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    let piece = vec![1; 256 * 1024];
    for _ in 0..256 {
        if stream.write(&piece).is_err() {
            return stream;
        }
    }
    panic!("64 MiB were taken by a reader that does not read");
}

fn byte(at: usize, seed: u8) -> u8 {
    (at as u8).wrapping_mul(seed) ^ (at >> 8) as u8 ^ (at >> 16) as u8
}

fn send_pattern(stream: &mut std::net::TcpStream, size: usize, seed: u8) {
    let mut sent = 0;
    // An odd size, so that nothing is aligned to anything.
    let mut piece = vec![0; 99_991];
    while sent < size {
        let count = piece.len().min(size - sent);
        for (offset, slot) in piece[..count].iter_mut().enumerate() {
            *slot = byte(sent + offset, seed);
        }
        stream.write_all(&piece[..count]).unwrap();
        sent += count;
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Length and a hash of everything up to the FIN.
fn digest(stream: &mut std::net::TcpStream) -> (usize, u64) {
    let mut buffer = vec![0; 128 * 1024];
    let (mut length, mut hash) = (0, SEED);
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return (length, hash),
            count => {
                hash = buffer[..count].iter().fold(hash, mix);
                length += count;
            }
        }
    }
}

fn digest_of_pattern(size: usize, seed: u8) -> (usize, u64) {
    (size, (0..size).fold(SEED, |hash, at| mix(hash, &byte(at, seed))))
}

fn mix(hash: u64, byte: &u8) -> u64 {
    (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
}

const SEED: u64 = 0xcbf2_9ce4_8422_2325;
