// SPDX-License-Identifier: Apache-2.0
//! The discovery server: one pure session per stream, in the variant the client speaks, and the server that carries it.

mod catalog;
pub mod delta;
mod metrics;
mod names;
mod node;
mod order;
mod outstanding;
mod scope;
mod server;
pub mod sotw;
mod stream;
mod taken;
mod waypoint;

pub use metrics::XdsMetrics;
pub use server::DiscoveryService;
