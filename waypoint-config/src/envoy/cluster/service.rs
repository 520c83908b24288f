// SPDX-License-Identifier: Apache-2.0
//! Clusters of services: those the waypoint serves, those its routes speak of, and the servers of the mesh's operator. Called by `render`.

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{
            Cluster,
            cluster::{
                ClusterDiscoveryType, CommonLbConfig, CustomClusterType, DiscoveryType, EdsClusterConfig, LbPolicy,
            },
        },
        core::v3::Metadata,
    },
    extensions::clusters::{common::dns::v3::DnsLookupFamily, dns::v3::DnsCluster},
    r#type::v3::Percent,
};

use super::part::{Spoken, alike, cluster, endpoint, internal, options, outside};
use crate::{
    envoy::{
        encode::{duration, list, nested, pack, seconds, structure, text},
        input::{Destination, Endpoints, NamedEndpoint, Serving, Speech, Upstream},
        listener::{IDENTITY, ORIGINAL_DST, ads},
        names,
    },
    view::{AppProtocol, Service, ServicePort},
};

/// The clusters of one port of a service the waypoint serves.
pub(in crate::envoy) fn inbound(serving: &Serving, destination: &Destination, port: ServicePort) -> Vec<Cluster> {
    let service = &destination.service;
    let speech = Speech::of(port.protocol);
    let http = speech
        .has_http()
        .then(|| of_port(serving, destination, port, names::inbound_http(&service.hostname, port.port), "http"));
    let tcp = speech
        .has_tcp()
        .then(|| of_port(serving, destination, port, names::inbound_tcp(&service.hostname, port.port), "tcp"));
    http.into_iter().chain(tcp).collect()
}

/// The cluster of one port of another service.
pub(in crate::envoy) fn outbound(serving: &Serving, destination: &Destination, port: ServicePort) -> Cluster {
    of_port(serving, destination, port, names::outbound(&destination.service.hostname, port.port), "outbound")
}

fn of_port(serving: &Serving, destination: &Destination, port: ServicePort, name: String, kind: &str) -> Cluster {
    let service = &destination.service;
    let spoken = match (port.protocol, kind) {
        (_, "tcp") => Spoken::Default,
        (AppProtocol::Http2 | AppProtocol::Grpc, _) => Spoken::Http2,
        (AppProtocol::Unknown, _) => Spoken::LikeClient,
        _ => Spoken::Default,
    };
    let discovery = match &destination.endpoints {
        Endpoints::Workloads(_) => Cluster {
            eds_cluster_config: Some(EdsClusterConfig {
                eds_config: Some(ads()),
                service_name: names::endpoints(&service.hostname, port.port),
            }),
            ..cluster(name, DiscoveryType::Eds)
        },
        Endpoints::Names(hosts) => by_name(&name, hosts, port.port),
    };
    Cluster {
        alt_stat_name: format!("{}/{kind}", stat_name(service, port.port)),
        connect_timeout: duration(serving.settings.connect_timeout),
        lb_policy: LbPolicy::LeastRequest.into(),
        common_lb_config: Some(CommonLbConfig {
            // Never to endpoints that are known to be down.
            healthy_panic_threshold: Some(Percent { value: 0.0 }),
            ..Default::default()
        }),
        transport_socket: Some(internal(&[ORIGINAL_DST, IDENTITY.filter, ISTIO])),
        typed_extension_protocol_options: options(spoken, None),
        metadata: Some(described(service)),
        ..discovery
    }
}

fn by_name(name: &str, hosts: &[NamedEndpoint], port: u16) -> Cluster {
    let ends = hosts
        .iter()
        .map(|host| endpoint(outside(&*host.host, host.ports.get(&port).copied().unwrap_or(port))))
        .collect();
    // Every address of every name is an endpoint, as with STRICT_DNS.
    let dns = DnsCluster {
        dns_lookup_family: DnsLookupFamily::V4Preferred.into(),
        dns_refresh_rate: seconds(60),
        respect_dns_ttl: true,
        ..Default::default()
    };
    let discovery = CustomClusterType { name: "envoy.clusters.dns".into(), typed_config: Some(pack(&dns)) };
    Cluster {
        load_assignment: Some(alike(name, ends)),
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(discovery)),
        ..cluster(name, DiscoveryType::Static)
    }
}

/// Without dots: Envoy ends the label at the first one.
pub(in crate::envoy) fn stat_name(service: &Service, port: u16) -> String {
    format!("{}/{}/{port}", service.namespace, service.name).replace('.', "_")
}

fn described(service: &Service) -> Metadata {
    let described = nested([
        ("host", text(&*service.hostname)),
        ("name", text(&*service.name)),
        ("namespace", text(&*service.namespace)),
    ]);
    let fields = structure([("services", list(vec![described]))]);
    Metadata { filter_metadata: [(ISTIO.to_owned(), fields)].into(), ..Default::default() }
}

/// The name of the cluster that leads to a server of the mesh's operator.
pub(in crate::envoy) fn upstream_name(upstream: &Upstream) -> String {
    format!("provider|{}|{}", upstream.port, upstream.host)
}

/// The cluster that leads to a server of the mesh's operator.
pub(in crate::envoy) fn upstream(serving: &Serving, upstream: &Upstream, http2: bool) -> Cluster {
    let name = upstream_name(upstream);
    let spoken = if http2 { Spoken::Http2 } else { Spoken::Default };
    match known(serving, upstream) {
        Some(destination) => {
            let protocol = if http2 { AppProtocol::Grpc } else { AppProtocol::Http11 };
            let port = ServicePort { port: upstream.port, target: None, protocol };
            of_port(serving, destination, port, name, "provider")
        }
        None => {
            let host = NamedEndpoint { host: upstream.host.as_str().into(), ports: Default::default() };
            Cluster {
                alt_stat_name: format!("provider/{}/{}", upstream.host, upstream.port).replace('.', "_"),
                connect_timeout: duration(serving.settings.connect_timeout),
                typed_extension_protocol_options: options(spoken, None),
                ..by_name(&name, &[host], upstream.port)
            }
        }
    }
}

fn known<'a>(serving: &'a Serving, upstream: &Upstream) -> Option<&'a Destination> {
    let destination = serving.by_host(&upstream.host)?;
    destination.service.ports.iter().any(|port| port.port == upstream.port).then_some(destination)
}

/// Under this name Istio's filters look for who an endpoint is.
pub(super) const ISTIO: &str = "istio";
