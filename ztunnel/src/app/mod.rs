// SPDX-License-Identifier: Apache-2.0
//! Builds the program from its configuration, in the order others can observe (ztunnel.md §1.3), runs it, and takes it
//! down (§1.5).
//!
//! Nothing serves user traffic, and the node agent is not even called, before the first sync (P-09).

mod host;
mod measure;
mod start;

pub use start::{AppError, run};
