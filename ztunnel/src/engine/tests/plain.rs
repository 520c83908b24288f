// SPDX-License-Identifier: Apache-2.0
//! Plain connections that carry much, through pipes of the kernel: nothing is lost at their ends, and what waits in them is counted.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use super::account::Reporter;
use super::world::{PATIENCE, World, abort, ask, echo, expect_reset, serve_at, wait_for};

const MUCH: usize = 3 << 20;

#[test]
fn what_a_plain_connection_carried_is_counted_to_the_byte_and_its_end_comes_behind_it() {
    let world = World::start("");
    let outside = serve_at(world.host(200), echo);
    let mut stream = world.connect(outside);
    let mut back = stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        back.read_to_end(&mut all).unwrap();
        all
    });
    stream.write_all(&vec![b'a'; MUCH]).unwrap();
    stream.write_all(b"the end").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let all = reader.join().unwrap();
    assert_eq!(all.len(), MUCH + 7);
    assert!(all.ends_with(b"AATHE END"));
    let carried = MUCH + 7;
    world.client.logged(&[&format!("\"bytes_sent\":{carried},\"bytes_recv\":{carried}")]);
    let totals = world.client.totals(Reporter::Source);
    assert_eq!((totals.received, totals.sent), (carried as u64, carried as u64));
}

#[test]
fn what_waits_for_a_plain_reader_that_stands_still_is_charged_until_it_ends() {
    let world = World::start("");
    let (sender, accepted) = mpsc::channel();
    let outside = serve_at(world.host(200), move |stream| sender.send(stream).unwrap());
    let stuck = fill(world.connect(outside));
    let charged = || world.client.handle.gauges().buffered();
    wait_for("charge", || charged() > 0, || charged().to_string());
    assert!(charged() <= 512 * 1024, "one pipe and one read at most: {}", charged());
    // Others go on.
    let other = serve_at(world.host(201), echo);
    assert_eq!(ask(&mut world.connect(other), b"hello"), b"HELLO");
    // Everything is still there for a reader that goes on.
    let mut reader = accepted.recv_timeout(PATIENCE).unwrap();
    reader.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut first = vec![0; MUCH];
    reader.read_exact(&mut first).unwrap();
    assert!(first.iter().all(|byte| *byte == 1));
    abort(stuck);
    wait_for("refund", || charged() == 0, || charged().to_string());
}

#[test]
fn a_reset_behind_much_waiting_reaches_the_other_end() {
    let world = World::start("");
    let (sender, accepted) = mpsc::channel();
    let outside = serve_at(world.host(200), move |stream| sender.send(stream).unwrap());
    let mut client = fill(world.connect(outside));
    abort(accepted.recv_timeout(PATIENCE).unwrap());
    wait_for("reset", || client.write(b"hello?").is_err(), || world.client.log());

    let client = fill(world.connect(outside));
    let mut server = accepted.recv_timeout(PATIENCE).unwrap();
    abort(client);
    expect_reset(&mut server);
}

/// Writes until nothing is taken any more.
fn fill(mut stream: TcpStream) -> TcpStream {
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let piece = vec![1; 256 * 1024];
    for _ in 0..256 {
        if stream.write(&piece).is_err() {
            return stream;
        }
    }
    panic!("64 MiB were taken by a reader that does not read");
}
