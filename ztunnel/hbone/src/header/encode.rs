// SPDX-License-Identifier: Apache-2.0
//! Writes header blocks as literals that are never indexed and never Huffman-coded: a request is some 250 bytes once per tunnelled
//! connection, and neither side has to keep or compute anything for it.

use std::fmt::{Display, Write};
use std::net::{SocketAddr, SocketAddrV4};

use crate::request::{Authority, Baggage, ConnectAnswer, ConnectRequest, Forwarded};

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
    let start = begin_string(out);
    authority(out, &request.authority);
    end_string(out, start);
    baggage(out, request.baggage.as_ref());
    if let Some(forwarded) = request.forwarded.as_ref().filter(|forwarded| !forwarded.is_empty()) {
        name(out, b"forwarded");
        let start = begin_string(out);
        forwarded_value(out, forwarded);
        end_string(out, start);
    }
    if let Some(trace) = &request.traceparent {
        name(out, b"traceparent");
        string(out, &trace.to_bytes());
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
            let start = begin_string(out);
            decimal(out, status);
            end_string(out, start);
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

/// The same text as `Display` gives, without the machinery of formatting: this is done for every tunnelled connection, and nearly
/// always with an IPv4 address.
fn authority(out: &mut Vec<u8>, authority: &Authority) {
    match authority {
        Authority::Ip(SocketAddr::V4(to)) => address(out, *to),
        Authority::Ip(SocketAddr::V6(_)) => formatted(out, authority),
        Authority::Name { host, port } => {
            out.extend_from_slice(host.as_bytes());
            out.push(b':');
            decimal(out, *port);
        }
    }
}

/// Likewise.
fn forwarded_value(out: &mut Vec<u8>, forwarded: &Forwarded) {
    let Forwarded { client: Some(SocketAddr::V4(client)), host } = forwarded else {
        return formatted(out, forwarded);
    };
    out.extend_from_slice(b"for=\"");
    address(out, *client);
    out.push(b'"');
    if let Some(host) = host {
        out.extend_from_slice(b";host=");
        out.extend_from_slice(host.as_bytes());
    }
}

fn address(out: &mut Vec<u8>, address: SocketAddrV4) {
    for (n, octet) in address.ip().octets().into_iter().enumerate() {
        if n > 0 {
            out.push(b'.');
        }
        decimal(out, u16::from(octet));
    }
    out.push(b':');
    decimal(out, address.port());
}

fn decimal(out: &mut Vec<u8>, mut value: u16) {
    let mut digits = [0; 5];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

fn formatted(out: &mut Vec<u8>, value: &impl Display) {
    struct Text<'a>(&'a mut Vec<u8>);
    impl Write for Text<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    // A vector takes everything, so this cannot fail.
    let _ = write!(Text(out), "{value}");
}

/// A string of a length that is known only when it has been written: what follows is its text, up to [`end_string`].
pub(super) fn begin_string(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len()
}

/// Makes a string literal of the bytes from `start`, which [`begin_string`] gave, to the end.
pub(super) fn end_string(out: &mut Vec<u8>, start: usize) {
    let size = out.len() - start;
    if size < LENGTH_PREFIX {
        out[start - 1] = size as u8;
        return;
    }
    // Longer than nearly all: its length needs more room than was left for it.
    let end = out.len();
    length(out, size);
    let added = out.len() - end;
    out[start - 1..].rotate_right(added);
    out.remove(start - 1 + added);
}

/// A length with a prefix of seven bits (RFC 7541 §5.1), the eighth being 0: no Huffman code.
fn length(out: &mut Vec<u8>, length: usize) {
    if length < LENGTH_PREFIX {
        out.push(length as u8);
        return;
    }
    out.push(LENGTH_PREFIX as u8);
    let mut rest = length - LENGTH_PREFIX;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The first length that does not fit the seven bits.
const LENGTH_PREFIX: usize = 0x7f;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_written_by_hand_is_what_is_displayed() {
        for value in (0..=u16::MAX).step_by(7).chain([9, 10, 99, 100, 999, 1000, 9999, 10_000, u16::MAX]) {
            assert_eq!(text(|out| decimal(out, value)), value.to_string());
        }
        for value in ["10.0.0.1:80", "0.0.0.0:1", "255.255.255.255:65535", "[2001:db8::1]:15008", "web.default:8080"] {
            let value: Authority = value.parse().unwrap();
            assert_eq!(text(|out| authority(out, &value)), value.to_string());
        }
        for client in [None, Some("10.77.1.2:50694"), Some("[::1]:1")] {
            for host in [None, Some("web.default.svc.cluster.local")] {
                let value =
                    Forwarded { client: client.map(|client| client.parse().unwrap()), host: host.map(Into::into) };
                assert_eq!(text(|out| forwarded_value(out, &value)), value.to_string());
            }
        }
    }

    /// RFC 7541 §5.1 and C.1, with a prefix of seven bits.
    #[test]
    fn lengths_have_the_form_of_the_standard() {
        for (size, expected) in [
            (0, &[0][..]),
            (126, &[126]),
            (127, &[127, 0]),
            (128, &[127, 1]),
            (254, &[127, 127]),
            (255, &[127, 0x80, 1]),
            (1337, &[127, 0xba, 9]),
            (16_510, &[127, 0xff, 0x7f]),
            (16_511, &[127, 0x80, 0x80, 1]),
        ] {
            let mut out = Vec::new();
            length(&mut out, size);
            assert_eq!(out, expected, "{size}");
        }
    }

    #[test]
    fn a_string_has_the_same_form_whether_its_length_is_known_before_or_behind_it() {
        for size in [0, 1, 126, 127, 128, 254, 255, 256, 16_510, 16_511, 20_000] {
            let bytes: Vec<u8> = (0..size).map(|n| (n % 255 + 1) as u8).collect();
            let (mut before, mut behind) = (b"x".to_vec(), b"x".to_vec());
            string(&mut before, &bytes);
            let start = begin_string(&mut behind);
            behind.extend_from_slice(&bytes);
            end_string(&mut behind, start);
            assert_eq!(before, behind, "{size}");
        }
    }
}
