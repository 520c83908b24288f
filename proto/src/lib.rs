// SPDX-License-Identifier: Apache-2.0
//! The contract: what two parties of the mesh must agree on.
//!
//! Everything here is Istio's wire, down to numbers and spelling, so that any program of this project can stand in for its counterpart of Istio and
//! the reverse. Nothing here decides or does anything; the rooms that do are in the three programs.

#![warn(missing_docs)]

pub mod contract;
pub mod discovery;
mod generated;
pub mod spiffe;
pub mod zds;

pub use generated::{ca, security, workload};
