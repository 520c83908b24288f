// SPDX-License-Identifier: Apache-2.0
//! The listeners that are there before discovery: statistics for scrapers, readiness for the kubelet. Each shows one page of the admin port, which is
//! itself for this pod only. They count against no limit, or an overloaded waypoint could not say so.

use std::net::Ipv4Addr;

use mesh_proto::contract::{path, port};
use serde_json::{Value, json};

use super::input::Node;

/// Where the admin port is.
pub(in crate::waypoint) const ADMIN: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, port::PROXY_ADMIN);
/// The listeners by the names they have in statistics.
const OWN_LISTENERS: [&str; 2] = ["stats", "readiness"];

/// The admin port.
pub(super) fn admin() -> Value {
    json!({ "address": socket(&ADMIN.0.to_string(), ADMIN.1), "ignore_global_conn_limit": true })
}

/// The cluster behind both listeners.
pub(super) fn cluster() -> Value {
    json!({
        "name": CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": { "cluster_name": CLUSTER, "endpoints": [{ "lb_endpoints": [{
            "endpoint": { "address": socket(&ADMIN.0.to_string(), ADMIN.1) },
        }] }] },
    })
}

/// Both listeners. Readiness is Envoy's own: it is ready once it was told its listeners and clusters and its workers run, and no more once it drains.
pub(super) fn listeners(node: &Node) -> Value {
    let [stats, readiness] = OWN_LISTENERS;
    json!([
        listener(node, stats, port::WAYPOINT_METRICS, (path::PROMETHEUS, path::PROMETHEUS), Some(renaming())),
        listener(node, readiness, port::READINESS, (path::READY, "/ready"), None),
    ])
}

/// Takes away what Envoy writes before the names of Istio's metrics, by which dashboards know them. Piece by piece, for a page of a thousand services has
/// some 12 MB; what a piece begins of a line is kept for the next, and a page ends with its last line.
fn renaming() -> Value {
    let code = r#"function envoy_on_response(handle)
  handle:headers():remove("content-length")
  local rest = ""
  for chunk in handle:bodyChunks() do
    local text = rest .. chunk:getBytes(0, chunk:length())
    local last = string.match(text, ".*\n()") or 1
    rest = string.sub(text, last)
    chunk:setBytes((string.gsub(string.sub(text, 1, last - 1), "envoy_istio_", "istio_")))
  end
end
"#;
    json!({
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": { "inline_string": code },
        },
    })
}

fn listener(node: &Node, name: &str, port: u16, (shown, page): (&str, &str), filter: Option<Value>) -> Value {
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
    });
    let filters: Vec<Value> = filter.into_iter().chain([router]).collect();
    let route = json!({
        "match": { "path": shown },
        "route": { "cluster": CLUSTER, "prefix_rewrite": page, "timeout": "10s" },
    });
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "common_http_protocol_options": { "idle_timeout": "60s" },
        "request_headers_timeout": "5s",
        "http_filters": filters,
        "route_config": { "virtual_hosts": [{ "name": name, "domains": ["*"], "routes": [route] }] },
    });
    let v6 = node.addresses.iter().any(std::net::IpAddr::is_ipv6);
    let mut address = socket(if v6 { "::" } else { "0.0.0.0" }, port);
    if v6 {
        address["socket_address"]["ipv4_compat"] = true.into();
    }
    json!({
        "name": name,
        "stat_prefix": name,
        "address": address,
        "ignore_global_conn_limit": true,
        "filter_chains": [{
            "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }],
        }],
    })
}

fn socket(address: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": address, "port_value": port } })
}

const CLUSTER: &str = "admin";
