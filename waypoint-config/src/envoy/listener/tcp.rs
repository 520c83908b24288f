// SPDX-License-Identifier: Apache-2.0
//! A chain that carries bytes. Called by `chain` and `internal`.

use envoy_types::pb::envoy::{
    config::{
        accesslog::v3::AccessLog,
        listener::v3::{Filter, FilterChain},
    },
    extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
};

use super::{log, part::network_filter};
use crate::{
    envoy::{
        access::{self, Refused, Said},
        encode::{pack, seconds},
        input::Serving,
    },
    view::waypoint::Access,
};

/// What tells one such chain from another.
pub(super) struct TcpChain<'a> {
    /// Its name.
    pub(super) name: String,
    /// What its statistics are called.
    pub(super) stat_prefix: String,
    /// Where connections go.
    pub(super) to: ClusterSpecifier,
    /// The policies that hold for it.
    pub(super) access: &'a [&'a Access],
    /// What stands before the rest.
    pub(super) before: Vec<Filter>,
}

/// The chain, what must be said about its policies, and which connections must not even reach it.
pub(super) fn chain(serving: &Serving, of: TcpChain<'_>) -> (FilterChain, Vec<Said>, Refused) {
    let guards = access::of_connections(serving, of.access);
    let proxy = TcpProxy {
        stat_prefix: of.stat_prefix,
        cluster_specifier: Some(of.to),
        access_log: log::of_services(&serving.settings, guards.is_audited),
        ..Default::default()
    };
    let proxy = network_filter("envoy.filters.network.tcp_proxy", pack(&proxy));
    let filters = of.before.into_iter().chain(guards.filters).chain([proxy]).collect();
    (FilterChain { name: of.name, filters, ..Default::default() }, guards.said, guards.refused)
}

/// A chain that only hands on, for as long as it takes.
pub(super) fn hop(name: &str, cluster: &str, before: Vec<Filter>, access_log: Vec<AccessLog>) -> FilterChain {
    let proxy = TcpProxy {
        stat_prefix: name.to_owned(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        idle_timeout: seconds(0),
        access_log,
        ..Default::default()
    };
    let proxy = network_filter("envoy.filters.network.tcp_proxy", pack(&proxy));
    FilterChain { name: name.to_owned(), filters: before.into_iter().chain([proxy]).collect(), ..Default::default() }
}
