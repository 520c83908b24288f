// SPDX-License-Identifier: Apache-2.0
//! The data threads: they own connections, and nobody else does.
//!
//! Each thread is a bare epoll loop. The control side starts them with `Engine::start(Options, Shared) -> Result<Handle, NetError>`, publishes snapshots and credentials through
//! [`Shared`], and steers through [`Handle`]; the threads ask back with [`Demand`]s. No lock, no channel per stream, no task per
//! connection, and nothing here waits for the control side.

pub mod account;
mod command;
mod handle;
mod options;

pub use command::{CloseHow, Credentials, Demand, ListenAt, Pod, Role, Shared};
pub use handle::{Handle, OpenError};
pub use options::{Deadlines, Limits, Options};
