// SPDX-License-Identifier: Apache-2.0
//! A request as a route sees it, and its answer.

use std::fmt::Display;
use std::net::SocketAddr;

use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode};

/// A request, whole.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Its path, as it came.
    pub path: String,
    /// The pairs of its query, decoded, in order. A key without `=` has an empty value.
    pub query: Vec<(String, String)>,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Who sent it.
    pub peer: Peer,
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over a Unix socket.
    Unix {
        /// The user it runs as, if the kernel tells.
        uid: Option<u32>,
    },
}

impl Request {
    /// The first value of `key` in the query.
    pub fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().find_map(|(name, value)| (name == key).then_some(value.as_str()))
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// What the body is; empty for an empty body.
    pub content_type: &'static str,
    /// Its body.
    pub body: Bytes,
}

impl Response {
    /// 200 with plain text.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    /// 200 with JSON.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self { content_type: "application/json", ..Self::text(body) }
    }

    /// 200 with HTML.
    pub fn html(body: impl Into<Bytes>) -> Self {
        Self { content_type: "text/html; charset=utf-8", ..Self::text(body) }
    }

    /// No body.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, content_type: "", body: Bytes::new() }
    }

    /// A status and what is to be said about it, as plain text with a line feed behind it.
    pub fn failed(status: StatusCode, reason: impl Display) -> Self {
        Self { status, ..Self::text(format!("{reason}\n")) }
    }
}

/// The pairs of a query, decoded.
pub(super) fn parse_query(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

/// Percent-decodes; what is not an encoded byte stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [b'%', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                bytes.push(hex_value(*high) * 16 + hex_value(*low));
                after
            }
            [b'+', after @ ..] => {
                bytes.push(b' ');
                after
            }
            [byte, after @ ..] => {
                bytes.push(*byte);
                after
            }
            [] => return String::from_utf8_lossy(&bytes).into_owned(),
        };
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.to_ascii_lowercase() - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_query_is_decoded_and_nothing_in_it_is_an_error() {
        let pairs = |text: &str| parse_query(text);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("level=info%2Caccess%3doff&reset"), [pair("level", "info,access=off"), pair("reset", "")]);
        assert_eq!(pairs("a=b=c&&x=1+2"), [pair("a", "b=c"), pair("x", "1 2")]);
        assert_eq!(pairs("%=%4&%zz=%c3%a9&%ff"), [pair("%", "%4"), pair("%zz", "é"), pair("\u{fffd}", "")]);
    }

    proptest! {
        #[test]
        fn an_encoded_value_comes_back(value in any::<String>()) {
            let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(parse_query(&format!("key={encoded}")), [("key".to_owned(), value)]);
        }

        #[test]
        fn any_query_is_read(query in any::<String>()) {
            parse_query(&query);
        }
    }
}
