// SPDX-License-Identifier: Apache-2.0
//! [`rule::PortRules`](crate::view::rule::PortRules) -> Envoy's RouteConfiguration, and the clusters of a TCP proxy. Whatever `view::routes` resolves is
//! accepted by Envoy; `tests/envoy_routes.rs` asks it.

mod action;
mod config;
mod cors;
mod headers;
mod matches;
mod path;
mod redirect;
mod retry;
mod tcp;
mod values;

#[cfg(test)]
mod tests;

pub use action::{ClusterOf, Protocol};
pub use config::{MAX_DIRECT_BODY, route_configuration};
pub use tcp::tcp_clusters;
