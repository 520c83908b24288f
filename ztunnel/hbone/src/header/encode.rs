// SPDX-License-Identifier: Apache-2.0
//! Writes header blocks as literals that are never indexed and never Huffman-coded: a request is some 250 bytes once per tunnelled
//! connection, and neither side has to keep or compute anything for it.

use std::fmt::{Display, Write};

use crate::request::{Baggage, ConnectAnswer, ConnectRequest};

/// Static table entries used by name (RFC 7541, appendix A).
mod index {
    pub(super) const AUTHORITY: u8 = 1;
    pub(super) const METHOD: u8 = 2;
    pub(super) const STATUS: u8 = 8;
}

/// Appends the block of a CONNECT: `:method`, `:authority`, `baggage`, `forwarded`, `traceparent`, `x-forwarded-network`, in
/// ztunnel's order.
pub(crate) fn request(out: &mut Vec<u8>, request: &ConnectRequest) {
    out.push(index::METHOD);
    string(out, b"CONNECT");
    out.push(index::AUTHORITY);
    formatted(out, &request.authority);
    baggage(out, request.baggage.as_ref());
    if let Some(forwarded) = request.forwarded.as_ref().filter(|forwarded| !forwarded.is_empty()) {
        name(out, b"forwarded");
        formatted(out, forwarded);
    }
    if let Some(trace) = &request.traceparent {
        name(out, b"traceparent");
        formatted(out, trace);
    }
    if let Some(network) = &request.network {
        name(out, b"x-forwarded-network");
        string(out, network.as_bytes());
    }
}

/// Appends the block of an answer: `:status`, `baggage`.
pub(crate) fn answer(out: &mut Vec<u8>, answer: &ConnectAnswer) {
    const INDEXED: u8 = 0x80;
    match answer.status {
        200 => out.push(INDEXED | 8),
        400 => out.push(INDEXED | 12),
        status => {
            out.push(index::STATUS);
            formatted(out, &status);
        }
    }
    baggage(out, answer.baggage.as_ref());
}

/// Announces that our dynamic table has size 0, which a peer that lowers HEADER_TABLE_SIZE waits for (RFC 7541 §4.2).
pub(crate) fn no_table(out: &mut Vec<u8>) {
    out.push(0x20);
}

fn baggage(out: &mut Vec<u8>, baggage: Option<&Baggage>) {
    if let Some(baggage) = baggage {
        name(out, b"baggage");
        string(out, baggage.as_str().as_bytes());
    }
}

/// A literal without indexing with a new name; its value follows.
fn name(out: &mut Vec<u8>, name: &[u8]) {
    out.push(0);
    string(out, name);
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// A string of a length that is known only when it has been written.
fn formatted(out: &mut Vec<u8>, value: &impl Display) {
    struct Text<'a>(&'a mut Vec<u8>);
    impl Write for Text<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    let start = out.len();
    // A vector takes everything, so this cannot fail.
    let _ = write!(Text(out), "{value}");
    insert_length(out, start);
}

/// Makes a string literal of the bytes from `start` to the end.
pub(super) fn insert_length(out: &mut Vec<u8>, start: usize) {
    let end = out.len();
    length(out, end - start);
    out[start..].rotate_left(end - start);
}

/// A length with a prefix of seven bits (RFC 7541 §5.1), the eighth being 0: no Huffman code.
fn length(out: &mut Vec<u8>, length: usize) {
    const PREFIX: usize = 0x7f;
    if length < PREFIX {
        out.push(length as u8);
        return;
    }
    out.push(PREFIX as u8);
    let mut rest = length - PREFIX;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
