// SPDX-License-Identifier: Apache-2.0
//! HBONE, the tunnel between the node proxies of an ambient mesh, as a state machine without I/O.
//!
//! HBONE carries TCP connections as HTTP/2 CONNECT streams (RFC 9113 §8.5) inside mutual TLS 1.3 on port 15008. This crate is the part
//! between the TLS record layer and the application's sockets: decrypted bytes in, [`Event`]s out, frames to send. It has no sockets, no
//! clock and no threads; time is an argument. One [`Connection`] belongs to one thread.
//!
//! What goes over the wire, with every header, code, limit and number, is written down in [`protocol`], well enough to implement it
//! without this code. Both ends over plain TCP are in `examples/echo.rs`: `cargo run -p hbone --example echo -- serve 127.0.0.1:15008`.
//!
//! # How a caller drives it
//!
//! 1. **In.** Feed received bytes, cut anywhere, to [`Connection::next_event`] until it answers `None`, acting on each event. Payload comes as
//!    slices of that same input ([`Event::Data`]), never gathered. Give bytes to the application, then report them with
//!    [`Connection::consumed`]; what the application does not take is copied by the caller and declared with [`Connection::hold`].
//! 2. **Out.** Per stream that has bytes to send: ask [`Connection::send_capacity`], read no more than that from the application, and put
//!    [`Connection::data_header`] before what was read. Where the capacity was 0, stop reading that application until
//!    [`Event::Writable`] names the stream. Let [`Connection::write_control`] append to the same buffer before each such header and at
//!    the end of the turn: then everything leaves in the order of the calls, and HEADERS, data, END_STREAM and RST_STREAM of
//!    one stream cannot overtake each other.
//! 3. **Time.** Sleep until [`Connection::next_deadline`] at most; then call [`Connection::handle_timeout`] and write what it queued.
//! 4. **End.** After any [`ConnectionError`] the GOAWAY is already queued: write, close, end the streams' applications. Otherwise close when
//!    [`Connection::is_drained`].
//!
//! A FIN of the application is [`Connection::finish`] (or the `end` of its last data header) and arrives as [`Event::End`]; a reset is
//! [`Connection::reset`] with [`ErrorCode::CANCEL`] and arrives as [`Event::Reset`]. A stream is forgotten when both sides have ended it and all
//! bytes were consumed, or at once by a reset from either side. Calls for a forgotten stream do nothing, so the order in
//! which the caller learns of things does not matter.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Instant;
//!
//! use hbone::request::{Authority, ConnectAnswer, ConnectRequest};
//! use hbone::{Budget, Connection, ConnectionError, Event, Options};
//!
//! /// A server that accepts every tunnel and sends back what it gets, in capitals. One turn: bytes in, bytes out.
//! fn serve(server: &mut Connection, now: Instant, mut input: &[u8]) -> Result<Vec<u8>, ConnectionError> {
//!     let mut replies = Vec::new();
//!     let mut out = Vec::new();
//!     while let Some(event) = server.next_event(now, &mut input)? {
//!         match event {
//!             Event::Request { stream, request } => {
//!                 assert_eq!(request.authority.to_string(), "10.0.0.2:8080");
//!                 server.answer(stream, &ConnectAnswer::accepted(None));
//!             }
//!             Event::BadRequest { stream, status, .. } => server.reject(stream, status),
//!             Event::Data { stream, bytes } => {
//!                 replies.push((stream, bytes.to_ascii_uppercase()));
//!                 server.consumed(now, stream, bytes.len());
//!             }
//!             Event::End { stream } => replies.push((stream, Vec::new())),
//!             _ => {}
//!         }
//!     }
//!     server.write_control(&mut out);
//!     for (stream, reply) in replies {
//!         // Here the windows are known to be wide enough; a proxy reads from its application no more than `send_capacity`.
//!         if let Some(header) = server.data_header(stream, reply.len(), reply.is_empty()) {
//!             out.extend_from_slice(&header);
//!             out.extend_from_slice(&reply);
//!         }
//!     }
//!     Ok(out)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = Instant::now();
//! let pod = Budget::node(512 << 20).pod(128 << 20);
//! let mut server = Connection::server(Arc::new(Options::server(pod.clone())), now);
//! let mut client = Connection::client(Arc::new(Options::client(pod)), now);
//!
//! let stream = client.request(now, &ConnectRequest::new("10.0.0.2:8080".parse::<Authority>()?))?;
//! let mut wire = Vec::new();
//! let mut answered = String::new();
//! client.write_control(&mut wire);
//! loop {
//!     let back = serve(&mut server, now, &wire)?;
//!     wire.clear();
//!     let mut input = &back[..];
//!     let mut ended = false;
//!     while let Some(event) = client.next_event(now, &mut input)? {
//!         match event {
//!             Event::Answer { stream, answer } => {
//!                 assert!(answer.is_success());
//!                 if let Some(header) = client.data_header(stream, 5, false) {
//!                     wire.extend_from_slice(&header);
//!                     wire.extend_from_slice(b"hello");
//!                 }
//!                 client.finish(stream);
//!             }
//!             Event::Data { stream, bytes } => {
//!                 answered.push_str(std::str::from_utf8(bytes)?);
//!                 client.consumed(now, stream, bytes.len());
//!             }
//!             Event::End { .. } => ended = true,
//!             _ => {}
//!         }
//!     }
//!     if ended {
//!         break;
//!     }
//!     client.write_control(&mut wire);
//! }
//! assert_eq!(answered, "HELLO");
//! assert!(!client.is_open(stream));
//! # Ok(())
//! # }
//! ```

// Bottom to top: budget, flood, request, header, error, frame, options, connection. Each uses only what stands before it.
mod budget;
mod connection;
mod error;
mod flood;
mod frame;
mod header;
mod options;
pub mod request;

#[doc = include_str!("../PROTOCOL.md")]
pub mod protocol {}

pub use budget::{Budget, OverBudget, Scope};
pub use connection::{Connection, Event, ResetReason, StreamId};
pub use error::{ConnectionError, ErrorCode, NoStream};
pub use flood::Kind as FloodKind;
pub use header::HeaderError;
pub use options::Options;
