// SPDX-License-Identifier: Apache-2.0
//! Writes frames. Lengths and values are the caller's to have checked.

use super::{HEADER, flag, kind};

fn header(length: usize, kind: u8, flags: u8, stream: u32) -> [u8; HEADER] {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [d, e, f, g] = stream.to_be_bytes();
    [a, b, c, kind, flags, d, e, f, g]
}

/// The header that goes before `length` bytes of payload.
pub(crate) fn data_header(stream: u32, length: usize, end: bool) -> [u8; HEADER] {
    header(length, kind::DATA, if end { flag::END_STREAM } else { 0 }, stream)
}

/// A whole SETTINGS frame.
pub(crate) fn settings(out: &mut Vec<u8>, entries: &[(u16, u32)]) {
    out.extend_from_slice(&header(entries.len() * 6, kind::SETTINGS, 0, 0));
    for &(id, value) in entries {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(crate) fn settings_ack(out: &mut Vec<u8>) {
    out.extend_from_slice(&header(0, kind::SETTINGS, flag::ACK, 0));
}

pub(crate) fn ping(out: &mut Vec<u8>, ack: bool, payload: [u8; 8]) {
    out.extend_from_slice(&header(8, kind::PING, if ack { flag::ACK } else { 0 }, 0));
    out.extend_from_slice(&payload);
}

pub(crate) fn go_away(out: &mut Vec<u8>, last: u32, code: u32) {
    out.extend_from_slice(&header(8, kind::GOAWAY, 0, 0));
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.to_be_bytes());
}

pub(crate) fn reset(out: &mut Vec<u8>, stream: u32, code: u32) {
    out.extend_from_slice(&header(4, kind::RST_STREAM, 0, stream));
    out.extend_from_slice(&code.to_be_bytes());
}

pub(crate) fn window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    out.extend_from_slice(&header(4, kind::WINDOW_UPDATE, 0, stream));
    out.extend_from_slice(&increment.to_be_bytes());
}

/// Leaves room for a HEADERS frame's header; the block follows, then [`end_headers`] with what this returned.
pub(crate) fn start_headers(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[0; HEADER]);
    out.len()
}

/// Fills in the header of the HEADERS frame whose block began at `start`. The block must fit one frame.
pub(crate) fn end_headers(out: &mut [u8], start: usize, stream: u32, end_stream: bool) {
    let flags = flag::END_HEADERS | if end_stream { flag::END_STREAM } else { 0 };
    let length = out.len() - start;
    out[start - HEADER..start].copy_from_slice(&header(length, kind::HEADERS, flags, stream));
}
