// SPDX-License-Identifier: Apache-2.0
//! The session with the node agent (ZDS): which pods of this node are ours to carry.
//!
//! `message` narrows packets, `session` decides (pure), `client` owns the socket and obeys. Orders to start and stop
//! pods leave through a channel; `pods` above answers them.

mod client;
mod message;
mod netns;
mod session;

pub use client::{Client, Options, Order, Outlets, Report, Standing};
pub use message::{Message, PodInfo, ReadError};
pub use netns::Held;
pub use session::{Action, Attempt, Netns, Session, Stop};
