// SPDX-License-Identifier: Apache-2.0
//! What an idle connection and an idle stream cost, counted by the allocator. One test, for the count is of the whole process.
#![allow(clippy::unwrap_used)]
// The allocator trait is unsafe by nature; this one only counts and passes on.
#![allow(unsafe_code)]

mod shell;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hbone::{Connection, Options};
use shell::{PREFACE, budget, frame};

struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A server that has greeted a client and accepted so many streams, all of which have carried something and are idle now.
fn idle(options: &Arc<Options>, streams: u32) -> Connection {
    let now = Instant::now();
    let mut conn = Connection::server(options.clone(), now);
    let mut input = [PREFACE, &frame(4, 0, 0, &[]), &frame(4, 1, 0, &[])].concat();
    for n in 0..streams {
        let block = b"\0\x07:method\x07CONNECT\0\x0a:authority\x0b10.0.0.2:80\0\x07baggage\x03a=b";
        input.extend(frame(1, 4, 2 * n + 1, block));
        input.extend(frame(0, 0, 2 * n + 1, b"hello"));
    }
    // As from a socket: in pieces that end anywhere.
    for mut piece in input.chunks(1000) {
        while let Some(event) = conn.next_event(now, &mut piece).unwrap() {
            match event {
                hbone::Event::Request { stream, .. } => {
                    conn.answer(stream, &hbone::request::ConnectAnswer::accepted(None))
                }
                hbone::Event::Data { stream, bytes } => conn.consumed(now, stream, bytes.len()),
                _ => {}
            }
        }
        conn.write_control(&mut Vec::new());
    }
    assert_eq!(conn.open_streams(), streams as usize);
    conn
}

#[test]
fn idle_connections_and_streams_are_small() {
    const CONNECTIONS: usize = 100;
    let options = Arc::new(Options::server(budget()));
    let cost = |streams: u32| {
        let mut kept = Vec::with_capacity(CONNECTIONS);
        let before = IN_USE.load(Ordering::Relaxed);
        for _ in 0..CONNECTIONS {
            kept.push(idle(&options, streams));
        }
        size_of::<Connection>() + (IN_USE.load(Ordering::Relaxed) - before) / CONNECTIONS
    };
    let (empty, one, full) = (cost(0), cost(1), cost(200));
    let per_stream = (full - empty) / 200;
    println!(
        "Connection {} B, idle {empty} B, with one stream {one} B, per stream {per_stream} B",
        size_of::<Connection>()
    );
    assert!(empty <= 768, "{empty} bytes for an idle connection");
    assert!(one <= 1024, "{one} bytes for a connection with one idle stream");
    assert!(per_stream <= 96, "{per_stream} bytes for an idle stream");
    streams_that_waited_leave_nothing_behind(&options);
}

/// The peer keeps the connection's window shut, so that whoever wants to send has to wait, and resets each stream.
fn streams_that_waited_leave_nothing_behind(options: &Arc<Options>) {
    let now = Instant::now();
    let mut conn = idle(options, 1);
    let block = b"\0\x07:method\x07CONNECT\0\x0a:authority\x0b10.0.0.2:80";
    let mut out = Vec::new();
    let mut cycle = |conn: &mut Connection, number: u32| {
        let input = frame(1, 4, number, block);
        let mut input = &input[..];
        while let Some(event) = conn.next_event(now, &mut input).unwrap() {
            let hbone::Event::Request { stream, .. } = event else { continue };
            conn.answer(stream, &hbone::request::ConnectAnswer::accepted(None));
            // The first uses up the window, 65,535 bytes, and all that follow wait.
            while let room @ 1.. = conn.send_capacity(stream) {
                conn.data_header(stream, room, false).unwrap();
            }
        }
        // The peer has seen the answer: its reset is none in a hurry.
        conn.write_control(&mut out);
        let reset = frame(3, 0, number, &[0, 0, 0, 8]);
        assert!(matches!(conn.next_event(now, &mut &reset[..]), Ok(Some(hbone::Event::Reset { .. }))));
        conn.write_control(&mut out);
        out.clear();
    };
    (1..50).for_each(|n| cycle(&mut conn, 2 * n + 1));
    let before = IN_USE.load(Ordering::Relaxed);
    (50..5000).for_each(|n| cycle(&mut conn, 2 * n + 1));
    let grown = IN_USE.load(Ordering::Relaxed).saturating_sub(before);
    assert!(grown < 1024, "{grown} bytes kept of streams that are gone");
}
