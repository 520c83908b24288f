// SPDX-License-Identifier: Apache-2.0
//! Where requests and connections go: clusters and their endpoints (control-plane.md §5.2, §5.3). `tls` is shared with the listeners.

mod endpoint;
mod fixed;
mod part;
mod service;
pub(super) mod tls;

pub(super) use endpoint::assignment;
pub(super) use fixed::{CONNECT_ORIGINATE, MAIN, PASSTHROUGH, SNIFF, encap_name, encaps, fixed};
pub(super) use part::{keepalive, outside};
pub(super) use service::{inbound, outbound, stat_name, upstream, upstream_name};
