// SPDX-License-Identifier: Apache-2.0
//! The listener that wraps connections to workloads into HBONE. Called by `render`.
//!
//! The endpoint's metadata arrives as the connection's: its address becomes the destination of the CONNECT, its identity what the other end must prove.

use envoy_types::pb::envoy::{
    config::{
        core::v3::TrafficDirection,
        listener::v3::{FilterChain, Listener},
    },
    extensions::filters::network::tcp_proxy::v3::{
        TcpProxy,
        tcp_proxy::{ClusterSpecifier, TunnelingConfig},
    },
};

use super::{
    log,
    part::{internal_listener, network_filter},
    state,
};
use crate::envoy::{cluster::CONNECT_ORIGINATE, encode::pack, input::Serving};

/// The listener.
pub(in crate::envoy) fn originate(serving: &Serving) -> Listener {
    let tunneling = TunnelingConfig { hostname: "%DOWNSTREAM_LOCAL_ADDRESS%".into(), ..Default::default() };
    let proxy = TcpProxy {
        stat_prefix: CONNECT_ORIGINATE.into(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(CONNECT_ORIGINATE.into())),
        tunneling_config: Some(tunneling),
        access_log: log::of_tunnels(&serving.settings),
        ..Default::default()
    };
    let chain = FilterChain {
        name: "default".into(),
        filters: vec![state::expected_identity(), network_filter("envoy.filters.network.tcp_proxy", pack(&proxy))],
        ..Default::default()
    };
    Listener {
        filter_chains: vec![chain],
        traffic_direction: TrafficDirection::Outbound.into(),
        ..internal_listener(CONNECT_ORIGINATE)
    }
}
