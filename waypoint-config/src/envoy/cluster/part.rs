// SPDX-License-Identifier: Apache-2.0
//! What all clusters have in common. Called by `fixed` and `service`.

use std::collections::HashMap;

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{
            CircuitBreakers, Cluster,
            circuit_breakers::Thresholds,
            cluster::{ClusterDiscoveryType, DiscoveryType},
        },
        core::v3::{
            Address, EnvoyInternalAddress, Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions,
            KeepaliveSettings, SocketAddress, TransportSocket, address, envoy_internal_address, socket_address,
            transport_socket,
        },
        endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint},
    },
    extensions::{
        transport_sockets::{
            internal_upstream::v3::{InternalUpstreamTransport, internal_upstream_transport::MetadataValueSource},
            raw_buffer::v3::RawBuffer,
        },
        upstreams::http::v3::{
            HttpProtocolOptions as UpstreamOptions,
            http_protocol_options::{
                ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
                explicit_http_config::ProtocolConfig,
            },
        },
    },
    r#type::metadata::v3::{MetadataKind, metadata_kind},
};

use crate::envoy::encode::{number, pack, seconds};

/// What is spoken to the endpoints of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// Bytes, or HTTP/1.1.
    Default,
    /// HTTP/2.
    Http2,
    /// Whatever the client speaks.
    LikeClient,
    /// HTTP/2 with CONNECT: HBONE.
    Hbone,
}

/// A cluster with its limits open: a waypoint must not be the narrowest place.
pub(super) fn cluster(name: impl Into<String>, discovery: DiscoveryType) -> Cluster {
    let all = number(u32::MAX);
    let thresholds = Thresholds {
        max_connections: all,
        max_pending_requests: all,
        max_requests: all,
        max_retries: all,
        track_remaining: true,
        ..Default::default()
    };
    Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery.into())),
        circuit_breakers: Some(CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }),
        ..Default::default()
    }
}

/// The options for a protocol, as a cluster carries them.
pub(super) fn options(spoken: Spoken, idle: Option<u64>) -> HashMap<String, mesh_proto::discovery::Any> {
    let explicit =
        |config| UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) });
    let protocol = match spoken {
        Spoken::Default => explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())),
        Spoken::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())),
        Spoken::Hbone => explicit(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions {
            allow_connect: true,
            connection_keepalive: Some(keepalive()),
            ..Default::default()
        })),
        Spoken::LikeClient => UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(Http1ProtocolOptions::default()),
            http2_protocol_options: Some(Http2ProtocolOptions::default()),
            ..Default::default()
        }),
    };
    let common = idle.map(|idle| HttpProtocolOptions { idle_timeout: seconds(idle), ..Default::default() });
    let options = UpstreamOptions {
        common_http_protocol_options: common,
        upstream_protocol_options: Some(protocol),
        ..Default::default()
    };
    HashMap::from([("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), pack(&options))])
}

/// A dead peer is noticed within half a minute.
pub(in crate::envoy) fn keepalive() -> KeepaliveSettings {
    KeepaliveSettings { interval: seconds(10), timeout: seconds(20), ..Default::default() }
}

/// A socket that can reach a listener inside this Envoy and hands over what the endpoint's metadata says under these names. To other addresses it is a
/// plain one.
pub(super) fn internal(names: &[&str]) -> TransportSocket {
    let host = || MetadataKind { kind: Some(metadata_kind::Kind::Host(metadata_kind::Host {})) };
    let source = |name: &&str| MetadataValueSource { kind: Some(host()), name: (*name).to_owned() };
    let transport = InternalUpstreamTransport {
        passthrough_metadata: names.iter().map(source).collect(),
        transport_socket: Some(transport_socket("raw_buffer", pack(&RawBuffer::default()))),
    };
    transport_socket("internal_upstream", pack(&transport))
}

pub(super) fn transport_socket(name: &str, config: mesh_proto::discovery::Any) -> TransportSocket {
    TransportSocket { name: name.to_owned(), config_type: Some(transport_socket::ConfigType::TypedConfig(config)) }
}

/// A listener inside this Envoy; the id tells endpoints behind it apart.
pub(super) fn inside(listener: &str, id: String) -> Address {
    let specifier = envoy_internal_address::AddressNameSpecifier::ServerListenerName(listener.to_owned());
    let address = EnvoyInternalAddress { endpoint_id: id, address_name_specifier: Some(specifier) };
    Address { address: Some(address::Address::EnvoyInternalAddress(address)) }
}

/// An address of the network, or a name to look up.
pub(in crate::envoy) fn outside(host: impl Into<String>, port: u16) -> Address {
    let address = SocketAddress {
        address: host.into(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
        ..Default::default()
    };
    Address { address: Some(address::Address::SocketAddress(address)) }
}

pub(super) fn endpoint(address: Address) -> LbEndpoint {
    let endpoint = Endpoint { address: Some(address), ..Default::default() };
    LbEndpoint { host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)), ..Default::default() }
}

/// Endpoints that are all alike.
pub(super) fn alike(name: &str, lb_endpoints: Vec<LbEndpoint>) -> ClusterLoadAssignment {
    let group = LocalityLbEndpoints { lb_endpoints, ..Default::default() };
    ClusterLoadAssignment { cluster_name: name.to_owned(), endpoints: vec![group], ..Default::default() }
}
