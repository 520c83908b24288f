// SPDX-License-Identifier: Apache-2.0
//! The clusters every waypoint has: the ways between its own listeners, and the tunnel to the node proxies. Called by `render`.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::{
    cluster::v3::{
        Cluster,
        cluster::{DiscoveryType, LbConfig, LbPolicy, OriginalDstLbConfig},
    },
    core::v3::Metadata,
};
use mesh_proto::contract::port;

use super::{
    part::{Spoken, alike, cluster, endpoint, inside, internal, options},
    tls,
};
use crate::{
    envoy::{
        Profile,
        encode::{duration, number, seconds, structure, text},
        input::{Serving, identity},
        listener::{IDENTITY, trust_domains},
    },
    view::Tunnel,
};

/// The listener, and the cluster that leads to it, where connections meet the rules of their service.
pub(in crate::envoy) const MAIN: &str = "main_internal";
/// The same for connections whose protocol must be found out.
pub(in crate::envoy) const SNIFF: &str = "sniff_internal";
/// The listener that wraps connections in HBONE, and the cluster it uses.
pub(in crate::envoy) const CONNECT_ORIGINATE: &str = "connect_originate";
/// The cluster that leads to the address the client asked for, as it is.
pub(in crate::envoy) const PASSTHROUGH: &str = "passthrough";

/// The clusters every waypoint has.
pub(in crate::envoy) fn fixed(serving: &Serving, profile: &Profile) -> Vec<Cluster> {
    vec![way_to(MAIN), way_to(SNIFF), passthrough(serving), originate(serving, profile)]
}

fn way_to(listener: &str) -> Cluster {
    Cluster {
        load_assignment: Some(alike(listener, vec![endpoint(inside(listener, String::new()))])),
        transport_socket: Some(internal(&[])),
        ..cluster(listener, DiscoveryType::Static)
    }
}

fn passthrough(serving: &Serving) -> Cluster {
    Cluster {
        lb_policy: LbPolicy::ClusterProvided.into(),
        connect_timeout: duration(serving.settings.connect_timeout),
        cleanup_interval: seconds(60),
        typed_extension_protocol_options: options(Spoken::LikeClient, Some(300)),
        ..cluster(PASSTHROUGH, DiscoveryType::OriginalDst)
    }
}

fn originate(serving: &Serving, profile: &Profile) -> Cluster {
    let port = OriginalDstLbConfig { upstream_port_override: number(port::INBOUND_HBONE.into()), ..Default::default() };
    Cluster {
        lb_policy: LbPolicy::ClusterProvided.into(),
        lb_config: Some(LbConfig::OriginalDstLbConfig(port)),
        connect_timeout: duration(serving.settings.connect_timeout),
        cleanup_interval: seconds(60),
        transport_socket: Some(tls::upstream(&profile.secrets, &trust_domains(serving))),
        typed_extension_protocol_options: options(Spoken::Hbone, Some(3600)),
        ..cluster(CONNECT_ORIGINATE, DiscoveryType::OriginalDst)
    }
}

/// The cluster that leads through a tunnel to the workload address the client asked for, which must prove to be this identity.
pub(in crate::envoy) fn encap_name(identity: &str) -> String {
    format!("encap|{identity}")
}

/// One such cluster per identity of the waypoint's workloads.
pub(in crate::envoy) fn encaps(serving: &Serving) -> Vec<Cluster> {
    let workloads = serving.workloads.iter().filter(|workload| workload.tunnel != Tunnel::Plain);
    let identities: BTreeSet<String> = workloads.map(|workload| identity(&serving.mesh, workload)).collect();
    identities.iter().map(|identity| encap(identity)).collect()
}

fn encap(identity: &str) -> Cluster {
    let name = encap_name(identity);
    let mut end = endpoint(inside(CONNECT_ORIGINATE, String::new()));
    end.metadata = Some(Metadata {
        filter_metadata: [(IDENTITY.filter.to_owned(), structure([(IDENTITY.key, text(identity))]))].into(),
        ..Default::default()
    });
    Cluster {
        load_assignment: Some(alike(&name, vec![end])),
        transport_socket: Some(internal(&[IDENTITY.filter])),
        typed_extension_protocol_options: options(Spoken::LikeClient, Some(300)),
        ..cluster(name, DiscoveryType::Static)
    }
}
