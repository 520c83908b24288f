// SPDX-License-Identifier: Apache-2.0
//! One HBONE connection: settings, streams, both levels of flow control, ping, going away. See the crate's documentation for how
//! a caller drives it.

mod event;
mod keepalive;
mod life;
mod receive;
mod receive_headers;
mod recent;
mod send;
mod state;
mod streams;
#[cfg(test)]
mod tests;
mod turns;
mod window;

pub use event::{Event, ResetReason, StreamId};
pub use state::Connection;
