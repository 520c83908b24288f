// SPDX-License-Identifier: Apache-2.0
//! The CONNECT request and its answer: what HBONE says about one tunnelled TCP connection.
//!
//! Everything is parsed once, here, and travels as these types. Telemetry headers (`baggage`, `forwarded`, `traceparent`,
//! `x-forwarded-network`) never make a request fail: a value that cannot be understood counts as absent.
//! The authority does: without one that is `address:port` or `name:port` there is nothing to connect to.

mod authority;
mod baggage;
mod connect;
mod forwarded;
mod trace;

pub use authority::{Authority, AuthorityError};
pub use baggage::{Baggage, BaggageFields};
pub use connect::{ConnectAnswer, ConnectRequest};
pub use forwarded::Forwarded;
pub use trace::TraceParent;
