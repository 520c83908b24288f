// SPDX-License-Identifier: Apache-2.0
//! The discovery server: one pure session per stream, and the server that carries it.

mod catalog;
pub mod delta;
mod metrics;
mod node;
mod server;

pub use metrics::XdsMetrics;
pub use server::DiscoveryService;
