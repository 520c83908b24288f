// SPDX-License-Identifier: Apache-2.0
//! The listener where HBONE ends: mutual TLS on port 15008, one CONNECT per connection, each handed on to `main_internal`. Called by `render`.

use envoy_types::pb::envoy::{
    config::{
        core::v3::{Http2ProtocolOptions, TrafficDirection},
        listener::v3::{
            AdditionalAddress, FilterChain, Listener,
            listener::{
                ConnectionBalanceConfig,
                connection_balance_config::{BalanceType, ExactBalance},
            },
        },
        route::v3::{
            Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
            route::Action,
            route_action::{ClusterSpecifier, UpgradeConfig as RouteUpgrade, upgrade_config::ConnectConfig},
            route_match::{ConnectMatcher, PathSpecifier},
        },
    },
    extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager,
        http_connection_manager::{RouteSpecifier, UpgradeConfig},
    },
};
use mesh_proto::contract::port;

use super::{
    http::{peer_metadata, router},
    log,
    part::network_filter,
    state,
};
use crate::envoy::{
    Profile,
    cluster::{MAIN, keepalive, outside, tls},
    encode::{flag, number, pack, seconds},
    input::Serving,
};

/// The listener.
pub(in crate::envoy) fn terminate(serving: &Serving, profile: &Profile) -> Listener {
    let port = port::INBOUND_HBONE;
    let also = AdditionalAddress { address: Some(outside("::", port)), ..Default::default() };
    let balance = ConnectionBalanceConfig { balance_type: Some(BalanceType::ExactBalance(ExactBalance {})) };
    Listener {
        name: NAME.into(),
        address: Some(outside("0.0.0.0", port)),
        additional_addresses: if profile.ipv6 { vec![also] } else { Vec::new() },
        traffic_direction: TrafficDirection::Inbound.into(),
        filter_chains: vec![FilterChain {
            name: "default".into(),
            filters: vec![network_filter(
                "envoy.filters.network.http_connection_manager",
                pack(&manager(serving, profile)),
            )],
            transport_socket: Some(tls::downstream(&profile.secrets, &trust_domains(serving))),
            ..Default::default()
        }],
        // One tunnel carries many connections: threads must get equal numbers of tunnels.
        connection_balance_config: Some(balance),
        ..Default::default()
    }
}

/// The mesh's own trust domain, and those that count as such.
pub(in crate::envoy) fn trust_domains(serving: &Serving) -> Vec<String> {
    let mut domains = vec![serving.mesh.trust_domain.clone()];
    for alias in serving.settings.trust_domain_aliases.iter().filter(|alias| !alias.is_empty()) {
        if !domains.contains(alias) {
            domains.push(alias.clone());
        }
    }
    domains
}

fn manager(serving: &Serving, profile: &Profile) -> HttpConnectionManager {
    let peer = peer_metadata(profile.flavour, "waypoint_downstream_peer_metadata", "downstream_discovery");
    HttpConnectionManager {
        stat_prefix: NAME.into(),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes())),
        http_filters: peer.into_iter().chain([state::of_tunnel(profile.flavour), router()]).collect(),
        http2_protocol_options: Some(Http2ProtocolOptions {
            allow_connect: true,
            max_concurrent_streams: number(MAX_STREAMS),
            connection_keepalive: Some(keepalive()),
            ..Default::default()
        }),
        server_name: SERVER.into(),
        use_remote_address: flag(false),
        upgrade_configs: vec![UpgradeConfig { upgrade_type: CONNECT.into(), ..Default::default() }],
        // A connection may be silent for as long as it likes.
        stream_idle_timeout: seconds(0),
        access_log: log::of_tunnels(&serving.settings),
        ..Default::default()
    }
}

fn routes() -> RouteConfiguration {
    let upgrade = RouteUpgrade {
        upgrade_type: CONNECT.into(),
        connect_config: Some(ConnectConfig::default()),
        ..Default::default()
    };
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(MAIN.into())),
        upgrade_configs: vec![upgrade],
        timeout: seconds(0),
        ..Default::default()
    };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::ConnectMatcher(ConnectMatcher {})),
            ..Default::default()
        }),
        action: Some(Action::Route(action)),
        ..Default::default()
    };
    let host =
        VirtualHost { name: "default".into(), domains: vec!["*".into()], routes: vec![route], ..Default::default() };
    RouteConfiguration { name: "default".into(), virtual_hosts: vec![host], ..Default::default() }
}

/// Its name.
const NAME: &str = "connect_terminate";
const CONNECT: &str = "CONNECT";
/// What Istio's Envoys call themselves in the `server` header.
pub(super) const SERVER: &str = "istio-envoy";
/// Per tunnel; node proxies open another tunnel beyond that.
const MAX_STREAMS: u32 = 100;
