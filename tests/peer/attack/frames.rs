// SPDX-License-Identifier: Apache-2.0
//! Frames that should not be, or not that many of them, from a client with a good certificate.
//!
//! Each returns how it ended, and for floods how many frames were looked at until then: between the frames go numbered PINGs, and as frames are
//! taken in order, their echoes count exactly, however fast either side is.

use std::time::Instant;

use anyhow::{Result, bail, ensure};

use super::tunnel::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PREFACE, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, Tunnel, WINDOW_UPDATE, connect, field, frame, head, string,
};

/// The attacks of this file that end with one message.
pub(crate) fn fault(tunnel: &mut Tunnel, name: &str, target: &str) -> Result<String> {
    let block = connect(target);
    let open = |flags: u8, stream: u32| frame(HEADERS, END_HEADERS | flags, stream, &block);
    let raise = |stream: u32, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let setting = |id: u16, value: u32| frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    let bytes = match name {
        // Frames of a size their kind does not have.
        "frame-over-the-limit" => head((1 << 20) + 1, DATA, 0, 1),
        "short-ping" => frame(PING, 0, 0, b"1234567"),
        "long-reset" => [open(0, 1), frame(RST_STREAM, 0, 1, b"12345")].concat(),
        "short-window-update" => frame(WINDOW_UPDATE, 0, 0, b"123"),
        "odd-settings" => frame(SETTINGS, 0, 0, b"12345"),
        "settings-ack-with-content" => frame(SETTINGS, ACK, 0, b"123456"),
        "short-priority" => [open(0, 1), frame(PRIORITY, 0, 1, b"1234")].concat(),
        "padding-longer-than-the-frame" => [open(0, 1), frame(DATA, PADDED, 1, b"\x05abc")].concat(),
        // Frames where they have no place.
        "data-on-the-connection" => frame(DATA, 0, 0, b"x"),
        "headers-on-the-connection" => open(0, 0),
        "settings-on-a-stream" => frame(SETTINGS, 0, 1, &[]),
        "ping-on-a-stream" => frame(PING, 0, 1, b"12345678"),
        "goaway-on-a-stream" => frame(GOAWAY, 0, 1, &[0; 8]),
        "push-promise" => frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]),
        "continuation-of-nothing" => frame(CONTINUATION, END_HEADERS, 1, &block),
        "ping-amid-headers" => [frame(HEADERS, 0, 1, &block), frame(PING, 0, 0, b"12345678")].concat(),
        "even-stream" => open(0, 2),
        "stream-out-of-order" => [open(0, 5), open(0, 3)].concat(),
        "stream-again" => [open(END_STREAM, 1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), open(0, 1)].concat(),
        "data-on-an-idle-stream" => frame(DATA, 0, 7, b"x"),
        "reset-of-an-idle-stream" => frame(RST_STREAM, 0, 7, &[0, 0, 0, 8]),
        "window-update-of-an-idle-stream" => raise(7, 1),
        "data-behind-the-end" => [open(END_STREAM, 1), frame(DATA, 0, 1, b"x")].concat(),
        "second-header-list" => [open(0, 1), open(0, 1)].concat(),
        // Windows.
        "window-update-of-nothing" => raise(0, 0),
        "window-update-of-nothing-on-a-stream" => [open(0, 1), raise(1, 0)].concat(),
        "window-of-the-connection-too-large" => [raise(0, 0x7fff_ffff), raise(0, 0x7fff_ffff)].concat(),
        "window-of-a-stream-too-large" => [open(0, 1), raise(1, 0x7fff_ffff)].concat(),
        "first-window-too-large" => setting(4, 0x8000_0000),
        "first-window-raised-too-far" => [open(0, 1), raise(1, 0x7fff_0000), setting(4, 0x7fff_ffff)].concat(),
        "frame-size-too-small" => setting(5, 100),
        "frame-size-too-large" => setting(5, 1 << 24),
        "push-neither-on-nor-off" => setting(2, 2),
        // Header blocks.
        "headers-without-sense" => frame(HEADERS, END_HEADERS, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        "headers-cut-off" => frame(HEADERS, END_HEADERS, 1, &block[..block.len() - 3]),
        "index-of-nothing" => frame(HEADERS, END_HEADERS, 1, &[0xbe + 40]),
        "table-larger-than-allowed" => {
            frame(HEADERS, END_HEADERS, 1, &[&[0x3f, 0xff, 0xff, 0x7f], &block[..]].concat())
        }
        "huffman-of-nothing" => frame(HEADERS, END_HEADERS, 1, &[0x40, 0x84, 0xff, 0xff, 0xff, 0xff, 0x01, b'x']),
        other => bail!("no such fault: {other}"),
    };
    tunnel.send(&bytes)?;
    tunnel.settle()?;
    Ok(tunnel.fate(1))
}

/// The attacks that begin before the connection is what it should be: instead of a preface.
pub(crate) fn preface(tunnel: &mut Tunnel, name: &str) -> Result<String> {
    let bytes = match name {
        "no-preface" => b"GET / HTTP/1.1\r\nhost: server\r\n\r\n".to_vec(),
        "preface-with-a-typo" => PREFACE.iter().map(|byte| byte.to_ascii_lowercase()).collect(),
        "ping-before-settings" => [PREFACE, &frame(PING, 0, 0, b"12345678")].concat(),
        "headers-before-settings" => [PREFACE, &frame(HEADERS, END_HEADERS, 1, &connect("10.0.0.1:80"))].concat(),
        other => bail!("no such preface: {other}"),
    };
    tunnel.send(&bytes)?;
    tunnel.until(|heard| heard.goaway.is_some())?;
    Ok(tunnel.fate(1))
}

/// How a flood ended.
pub(crate) struct Flooded {
    pub(crate) fate: String,
    /// Frames of it that were certainly looked at; nothing if that cannot be told.
    pub(crate) taken: Option<Taken>,
}

/// Frames that were looked at, and whole seconds it took: what is allowed grows with these.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) frames: u64,
    pub(crate) seconds: u64,
}

/// The attacks that repeat themselves until the other end has had enough.
pub(crate) fn flood(tunnel: &mut Tunnel, name: &str, target: &str) -> Result<Flooded> {
    if matches!(name, "continuations" | "large-continuations" | "empty-continuations") {
        return continuations(tunnel, name, target);
    }
    let every = match name {
        "window-updates" | "window-updates-of-a-stream" => 64,
        "settings" | "settings-acks" | "faults" | "bad-requests" | "wrong-addresses" => 4,
        "pings" => 1,
        _ => 16,
    };
    if matches!(name, "empty-data" | "window-updates-of-a-stream" | "small-padded-data") {
        let stream = tunnel.ask(&connect(target))?;
        ensure!(tunnel.fate(stream) == "status 200", "no stream to flood: {}", tunnel.fate(stream));
    }
    let began = Instant::now();
    // A hundred batches are in flight at once, so that neither end ever waits.
    while tunnel.stands() && tunnel.pings() < MOST {
        let mut batch = Vec::new();
        for _ in 0..100 {
            for _ in 0..every {
                batch.extend(one_of(tunnel, name, target)?);
            }
            if name != "pings" {
                batch.extend(tunnel.ping());
            }
        }
        tunnel.send(&batch)?;
    }
    if !tunnel.stands() {
        // What was said before the end is still to be heard.
        tunnel.until(|_| false)?;
    }
    let frames = tunnel.heard.pongs.last().copied().unwrap_or_default() * every;
    let taken = Taken { frames, seconds: began.elapsed().as_secs() + 1 };
    // If the last words were lost, so were other ones before them.
    let taken = tunnel.heard.goaway.map(|_| taken);
    Ok(Flooded { fate: tunnel.fate(u32::MAX), taken })
}

fn one_of(tunnel: &mut Tunnel, name: &str, target: &str) -> Result<Vec<u8>> {
    let cancel = [0, 0, 0, 8];
    Ok(match name {
        "resets" => {
            let stream = tunnel.number();
            let open = frame(HEADERS, END_HEADERS, stream, &connect(target));
            [open, frame(RST_STREAM, 0, stream, &cancel)].concat()
        }
        "pings" => tunnel.ping(),
        "pongs" => frame(PING, ACK, 0, b"whatever"),
        "settings" => frame(SETTINGS, 0, 0, &[]),
        "settings-acks" => frame(SETTINGS, ACK, 0, &[]),
        "window-updates" => frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        "window-updates-of-a-stream" => frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        "empty-data" => frame(DATA, 0, 1, &[]),
        "priorities" => frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 7]),
        "unknown-frames" => frame(0x42, 0xff, 1, b"whatever"),
        "faults" => {
            let stream = tunnel.number();
            frame(HEADERS, END_HEADERS, stream, &field(b"Upper", b"case"))
        }
        "bad-requests" => {
            let stream = tunnel.number();
            let block = [field(b":method", b"GET"), field(b":scheme", b"http"), field(b":path", b"/")].concat();
            frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
        }
        "wrong-addresses" => {
            let stream = tunnel.number();
            frame(HEADERS, END_HEADERS | END_STREAM, stream, &connect("192.0.2.1:80"))
        }
        "header-bombs" => {
            let stream = tunnel.number();
            // One entry of nearly the whole table, and then that entry again and again, a byte each.
            let mut block = vec![0x40];
            string(&mut block, b"x-bomb");
            string(&mut block, &[b'b'; 4000]);
            block.resize(16_000, 0xbe);
            frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
        }
        other => bail!("no such flood: {other}"),
    })
}

/// A header list without an end. Nothing may come between, so nothing can be counted.
fn continuations(tunnel: &mut Tunnel, name: &str, target: &str) -> Result<Flooded> {
    let mut block = connect(target);
    let size = match name {
        "continuations" => 1,
        "large-continuations" => 16_000,
        _ => 0,
    };
    block.extend(&field(b"x-long", &vec![b'a'; 10_000_000])[..20]);
    tunnel.send(&frame(HEADERS, 0, 1, &block))?;
    let piece = frame(CONTINUATION, 0, 1, &vec![b'a'; size]);
    let mut sent = 0;
    while tunnel.send(&piece.repeat(16))? && sent < MOST {
        sent += 16;
    }
    tunnel.until(|heard| heard.goaway.is_some())?;
    Ok(Flooded { fate: tunnel.fate(1), taken: None })
}

/// An attacker that is not stopped stops here.
const MOST: u64 = 100_000;
