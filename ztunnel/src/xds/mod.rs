// SPDX-License-Identifier: Apache-2.0
//! Workload discovery: what the mesh consists of, from the control plane or from a file.
//!
//! `delta` is the protocol (pure), `client` its shell over gRPC, `files` the static configuration. Both sources give
//! changes to the one store; `mesh` below says what they mean.

mod client;
mod delta;
mod files;
mod node;
mod publish;

pub use client::{Client, Options, Synced};
pub use delta::{Action, Delta, Ended, Kind, Receipt, Rejected, Update};
pub use files::{LocalConfig, LocalError};
pub use node::NodeOptions;
pub use publish::Publisher;
