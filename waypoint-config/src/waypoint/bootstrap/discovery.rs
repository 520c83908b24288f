// SPDX-License-Identifier: Apache-2.0
//! How Envoy reaches discovery: one stream of deltas over mutual TLS, with the certificate that is renewed beside it.

use std::net::IpAddr;
use std::path::Path;

use mesh_proto::contract::secret;
use serde_json::{Value, json};

use super::input::Bootstrap;
use crate::waypoint::{config::Place, secrets::DISCOVERY_ROOTS};

/// Where its listeners and clusters come from.
pub(super) fn dynamic_resources() -> Value {
    // Without a deadline: Envoy is not ready before it was told what to do.
    let ads = json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" });
    json!({
        "lds_config": ads,
        "cds_config": ads,
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            "grpc_services": [{ "envoy_grpc": { "cluster_name": CLUSTER } }],
        },
    })
}

/// The cluster of discovery.
pub(super) fn cluster(of: &Bootstrap) -> Value {
    let Place { host, port } = &of.discovery;
    let address = host.parse::<IpAddr>().is_ok();
    let http = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {
            // A control plane that is gone without a word is found out.
            "connection_keepalive": { "interval": "30s", "timeout": "10s" },
        } },
    });
    json!({
        "name": CLUSTER,
        "type": if address { "STATIC" } else { "STRICT_DNS" },
        "connect_timeout": "5s",
        "load_assignment": { "cluster_name": CLUSTER, "endpoints": [{ "lb_endpoints": [{
            "endpoint": { "address": { "socket_address": { "address": host, "port_value": port } } },
        }] }] },
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http },
        "upstream_connection_options": {
            "tcp_keepalive": { "keepalive_time": 300, "keepalive_interval": 75, "keepalive_probes": 9 },
        },
        "circuit_breakers": { "thresholds": [{
            "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
        }] },
        "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": tls(of, address) },
    })
}

fn tls(of: &Bootstrap, address: bool) -> Value {
    let host = &of.discovery.host;
    let name = json!({ "san_type": if address { "IP_ADDRESS" } else { "DNS" }, "matcher": { "exact": host } });
    let mut context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [file(secret::CERTIFICATE, &of.certificate)],
            "combined_validation_context": {
                "default_validation_context": { "match_typed_subject_alt_names": [name] },
                "validation_context_sds_secret_config": file(DISCOVERY_ROOTS, &of.discovery_roots),
            },
        },
    });
    // A name only: addresses are not allowed there.
    if !address {
        context["sni"] = host.as_str().into();
    }
    context
}

fn file(name: &str, path: &Path) -> Value {
    json!({
        "name": name,
        "sds_config": {
            "resource_api_version": "V3",
            "path_config_source": { "path": path, "watched_directory": { "path": path.parent() } },
        },
    })
}

/// Its name, which is Istio's.
const CLUSTER: &str = "xds-grpc";
