// SPDX-License-Identifier: Apache-2.0
//! Takes the fields of a header list one by one and makes a request or an answer of them. Unknown fields are passed over;
//! what RFC 9113 §8.1.1 calls malformed is said to be so.

use std::sync::Arc;

use crate::request::{Authority, AuthorityError, Baggage, ConnectAnswer, ConnectRequest, Forwarded, TraceParent};

/// A header list that no well-behaved peer sends; the stream is reset with PROTOCOL_ERROR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// What a client asked for.
#[derive(Debug)]
pub(crate) enum Requested {
    Connect(Box<ConnectRequest>),
    /// Well-formed, but nothing that can be tunnelled.
    Bad {
        status: u16,
        reason: &'static str,
    },
}

/// The fields of a request so far.
#[derive(Debug, Default)]
pub(crate) struct RequestFields {
    common: Common,
    is_connect: Option<bool>,
    authority: Option<Result<Authority, AuthorityError>>,
    scheme: bool,
    path: bool,
    baggage: Option<Baggage>,
    forwarded: Option<Forwarded>,
    traceparent: Option<TraceParent>,
    network: Option<Arc<str>>,
}

impl RequestFields {
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        if !self.common.admit(name, value) {
            return;
        }
        let repeated = match name {
            b":method" => self.is_connect.replace(value == b"CONNECT").is_some(),
            b":authority" => {
                let parsed = std::str::from_utf8(value).map_or(Err(AuthorityError::Host), str::parse);
                self.authority.replace(parsed).is_some()
            }
            b":scheme" => std::mem::replace(&mut self.scheme, true),
            b":path" => value.is_empty() || std::mem::replace(&mut self.path, true),
            [b':', ..] => true,
            b"baggage" => {
                self.baggage = more_baggage(self.baggage.take(), value);
                false
            }
            b"forwarded" => {
                if self.forwarded.is_none() {
                    self.forwarded = Some(Forwarded::parse(value)).filter(|forwarded| !forwarded.is_empty());
                }
                false
            }
            b"traceparent" => {
                self.traceparent = self.traceparent.or_else(|| TraceParent::parse(value));
                false
            }
            b"x-forwarded-network" => {
                if self.network.is_none() {
                    self.network = visible(value).map(Into::into);
                }
                false
            }
            _ => false,
        };
        if repeated {
            self.common.fault = Some("pseudo-header that is unknown, empty or repeated");
        }
    }

    pub(crate) fn finish(self) -> Result<Requested, Malformed> {
        if let Some(fault) = self.common.fault {
            return Err(Malformed(fault));
        }
        match self.is_connect {
            None => return Err(Malformed("request without :method")),
            Some(false) if self.scheme && self.path => {
                return Ok(Requested::Bad { status: 400, reason: "the method is not CONNECT" });
            }
            Some(false) => return Err(Malformed("request without :scheme or :path")),
            Some(true) if self.scheme || self.path => return Err(Malformed("CONNECT with :scheme or :path")),
            Some(true) => {}
        }
        let authority = match self.authority {
            None => return Err(Malformed("CONNECT without :authority")),
            Some(Err(AuthorityError::Port)) => {
                return Ok(Requested::Bad { status: 400, reason: "the authority has no port from 1 to 65535" });
            }
            Some(Err(AuthorityError::Host)) => {
                return Ok(Requested::Bad {
                    status: 400,
                    reason: "the authority is neither an address nor a host name",
                });
            }
            Some(Ok(authority)) => authority,
        };
        let Self { baggage, forwarded, traceparent, network, .. } = self;
        Ok(Requested::Connect(Box::new(ConnectRequest { authority, baggage, forwarded, traceparent, network })))
    }
}

/// The fields of an answer so far.
#[derive(Debug, Default)]
pub(crate) struct AnswerFields {
    common: Common,
    status: Option<u16>,
    baggage: Option<Baggage>,
}

impl AnswerFields {
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        if !self.common.admit(name, value) {
            return;
        }
        match name {
            b":status" => {
                let repeated = self.status.replace(status(value)).is_some();
                if repeated {
                    self.common.fault = Some("repeated :status");
                }
            }
            [b':', ..] => self.common.fault = Some("pseudo-header that no answer has"),
            b"baggage" => self.baggage = more_baggage(self.baggage.take(), value),
            _ => {}
        }
    }

    pub(crate) fn finish(self) -> Result<ConnectAnswer, Malformed> {
        if let Some(fault) = self.common.fault {
            return Err(Malformed(fault));
        }
        match self.status {
            None => Err(Malformed("answer without :status")),
            Some(0..100) => Err(Malformed("answer with a :status that is none")),
            Some(status) => Ok(ConnectAnswer { status, baggage: self.baggage }),
        }
    }
}

/// Rules for every header list.
#[derive(Debug, Default)]
struct Common {
    fault: Option<&'static str>,
    past_pseudo: bool,
}

impl Common {
    /// Whether the field is worth looking at.
    fn admit(&mut self, name: &[u8], value: &[u8]) -> bool {
        if self.fault.is_none() {
            self.fault = self.check(name, value);
        }
        self.fault.is_none()
    }

    fn check(&mut self, name: &[u8], value: &[u8]) -> Option<&'static str> {
        if let [b':', ..] = name {
            if self.past_pseudo {
                return Some("pseudo-header behind ordinary ones");
            }
        } else {
            self.past_pseudo = true;
            if name.is_empty() || !name.iter().copied().all(is_name_byte) {
                return Some("header name with upper case or forbidden characters");
            }
        }
        if value.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')) {
            return Some("header value with forbidden characters");
        }
        match name {
            b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => {
                Some("header about an HTTP/1 connection")
            }
            b"te" if value != b"trailers" => Some("te header other than trailers"),
            _ => None,
        }
    }
}

/// What a header name is made of in HTTP/2: visible, not upper case, no colon (RFC 9113 §8.2.1).
fn is_name_byte(b: u8) -> bool {
    b.is_ascii_graphic() && !b.is_ascii_uppercase() && b != b':'
}

/// Text of visible ASCII and spaces, not empty.
fn visible(value: &[u8]) -> Option<&str> {
    let plain = !value.is_empty() && value.iter().all(|b| (b' '..0x7f).contains(b));
    std::str::from_utf8(value).ok().filter(|_| plain)
}

/// Several `baggage` headers are one list.
fn more_baggage(so_far: Option<Baggage>, value: &[u8]) -> Option<Baggage> {
    match (so_far, visible(value)) {
        (so_far, None) => so_far,
        (None, Some(text)) => Baggage::new(text),
        (Some(first), Some(text)) => Baggage::new(format!("{},{text}", first.as_str())),
    }
}

/// Three digits; 0 for what is none.
fn status(value: &[u8]) -> u16 {
    match value {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => 0,
    }
}
