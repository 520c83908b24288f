// SPDX-License-Identifier: Apache-2.0
//! The data threads: they own connections, and nobody else does.
//!
//! Each thread is a bare epoll loop. The control side starts them with [`Engine::start`], publishes snapshots and credentials through
//! [`Shared`], and steers through [`Handle`]; the threads ask back with [`Demand`]s. No lock, no channel per stream, no task per
//! connection, and nothing here waits for the control side.

pub mod account;
mod buffers;
mod command;
mod early;
mod ending;
mod failure;
mod flow;
mod handle;
mod inbound;
mod listen;
mod opening;
mod options;
mod outbound;
mod passthrough;
mod poll;
mod pool;
mod proxy_header;
mod relay;
mod shares;
mod site;
mod start;
mod table;
mod thread;
mod timers;
mod tunnel;
mod young;

pub use command::{CloseHow, Credentials, Demand, ListenAt, Pod, Role, Shared};
pub use handle::{Gauges, Handle, OpenError, Usage};
pub use options::{Deadlines, Limits, Options};
pub use shares::Kind;
pub use start::{Engine, StartError};

#[cfg(test)]
mod tests;
