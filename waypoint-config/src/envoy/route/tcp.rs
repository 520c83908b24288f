// SPDX-License-Identifier: Apache-2.0
//! Where connections go.

use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};

use super::action::{ClusterOf, Protocol, cluster, nobody, scaled};
use crate::{
    envoy::names::inbound_tcp,
    view::rule::{Backend, PortRules},
};

/// The clusters of the TCP proxy of `hostname`'s `port`: without a rule its own; with one that gives nobody a share, none that exists, so that
/// connections are closed.
pub fn tcp_clusters(hostname: &str, port: u16, rules: &PortRules, cluster_of: &ClusterOf<'_>) -> ClusterSpecifier {
    let Some(rule) = &rules.tcp else {
        return ClusterSpecifier::Cluster(inbound_tcp(hostname, port));
    };
    let named = |backend: &Backend| cluster(&backend.target, Protocol::Tcp, cluster_of).unwrap_or_else(nobody);
    let sharing: Vec<&Backend> = rule.backends.iter().filter(|backend| backend.weight > 0).collect();
    match sharing.as_slice() {
        [] => ClusterSpecifier::Cluster(nobody()),
        [only] => ClusterSpecifier::Cluster(named(only)),
        several => {
            let weights = scaled(several);
            let clusters = several.iter().zip(weights).map(|(backend, weight)| ClusterWeight {
                name: named(backend),
                weight,
                metadata_match: None,
            });
            ClusterSpecifier::WeightedClusters(WeightedCluster { clusters: clusters.collect() })
        }
    }
}
