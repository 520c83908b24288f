// SPDX-License-Identifier: Apache-2.0
//! From start to end of a process: tasks that are tracked and awaited, gates of readiness, a wish to stop, and a drain in two steps.
//!
//! A main uses them like this:
//!
//! ```no_run
//! use std::time::Duration;
//! use mesh_common::lifecycle::{Readiness, Shutdown, Tasks, drain};
//!
//! # async fn main_of_a_program() -> std::io::Result<()> {
//! let tasks = Tasks::new();
//! let readiness = Readiness::new();
//! let (drainer, draining) = drain();
//! let shutdown = Shutdown::listen(&tasks)?;
//!
//! let synced = readiness.gate("state manager");
//! let part = draining.clone();
//! tasks.spawn("some part", async move {
//!     let _hold = part.hold("some part");
//!     synced.open();
//!     part.started().await; // stop taking new work, finish what is under way
//! });
//!
//! let reason = shutdown.requested().await;
//! tracing::info!(%reason, "shutting down");
//! drainer.drain(Duration::from_secs(5)).await;
//! tasks.finished().await;
//! # Ok(())
//! # }
//! ```

mod drain;
mod readiness;
mod shutdown;
mod tasks;

pub use drain::{Drain, DrainEnd, Drainer, Hold, Phase, drain};
pub use readiness::{Gate, Readiness};
pub use shutdown::Shutdown;
pub use tasks::{Task, TaskLost, Tasks};

#[cfg(test)]
mod tests;
