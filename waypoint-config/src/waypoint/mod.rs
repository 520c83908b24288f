// SPDX-License-Identifier: Apache-2.0
//! The launcher beside Envoy in a waypoint's pod: it makes the key in place, gets and renews the certificate, writes Envoy's bootstrap, starts Envoy,
//! drains it when asked to end, and ends as Envoy ended. It carries no traffic.
//!
//! The key leaves the process only into a file of a private folder, from which Envoy reads it; the control plane tells Envoy those paths again, because
//! the node says them in its metadata ([`node_metadata::CERTIFICATE_FILE`](mesh_proto::contract::node_metadata::CERTIFICATE_FILE)).

mod admin;
pub mod app;
pub mod bootstrap;
pub mod certificate;
pub mod config;
mod control_plane;
pub mod drain;
mod envoy;
mod keeper;
mod schedule;
pub mod secrets;
