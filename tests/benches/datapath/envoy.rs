// SPDX-License-Identifier: Apache-2.0
//! Envoy as the same pair: one in each pod's own network namespace (it needs not enter it for every socket), on two workers, with the windows, marks, rules and
//! certificates of the others. What goes to the other pod is tunnelled by CONNECT over HTTP/2, what goes elsewhere is passed on as it is. No access log.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use harness::{
    Pod, World,
    baseline::identity,
    certificates::Authority,
    pod::listens,
    process::{Program, tail},
    tools, wait,
};
use serde_json::{Value, json};

/// The pair.
pub(crate) struct Envoys(Vec<Program>);

impl Envoys {
    /// Starts both; the pods must have their rules already.
    pub(crate) fn start(world: &World, authority: &Authority, pods: [&Pod; 2]) -> Result<Self> {
        let program = tools::ENVOY.find()?;
        let mut programs = Vec::new();
        for (pod, other) in [(pods[0], pods[1]), (pods[1], pods[0])] {
            let name = format!("envoy-{}", pod.name);
            let credential = authority.issue(world.state(), &name, &identity(pod))?;
            let file = credential.join("envoy.json");
            fs::write(&file, serde_json::to_string_pretty(&bootstrap(&credential, other))?)?;
            let mut command = pod.netns.command(&program);
            command.arg("--config-path").arg(&file);
            command.args(["--concurrency", "2", "--disable-hot-restart", "--log-level", "warning"]);
            let log = world.logs().join(format!("{name}.log"));
            let mut program = Program::start(&name, command, &log)?;
            wait::until(&format!("{name} to listen"), wait::PATIENCE, || -> Result<Result<()>> {
                if let Err(ended) = program.check() {
                    return Ok(Err(ended));
                }
                ensure!(listens(&pod.netns, 15001)? && listens(&pod.netns, 15008)?, "not yet");
                Ok(Ok(()))
            })?
            .with_context(|| tail(&log, 5))?;
            programs.push(program);
        }
        Ok(Self(programs))
    }

    /// Both.
    pub(crate) fn programs(&self) -> &[Program] {
        &self.0
    }
}

fn bootstrap(credential: &Path, other: &Pod) -> Value {
    let tls = tls(credential, &identity(other));
    let bind = json!({
        "source_address": { "address": "0.0.0.0", "port_value": 0 },
        // SOL_SOCKET, SO_MARK
        "socket_options": [{ "level": 1, "name": 36, "int_value": 1337, "state": "STATE_PREBIND" }],
    });
    let cluster = |name: &str, original: Value| {
        json!({
            "name": name,
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "5s",
            "original_dst_lb_config": original,
            "upstream_bind_config": bind,
            "circuit_breakers": { "thresholds": [{
                "max_connections": MANY, "max_pending_requests": MANY, "max_requests": MANY, "max_retries": MANY,
            }] },
        })
    };
    let mut tunnels = cluster("tunnels", json!({ "upstream_port_override": 15008 }));
    tunnels["transport_socket"] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": { "@type": format!("{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext"), "common_tls_context": tls },
    });
    tunnels["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": { "http2_protocol_options": windows() },
        },
    });
    json!({ "static_resources": {
        "listeners": [outbound(other), inbound(&tls)],
        "clusters": [
            tunnels,
            cluster("passthrough", json!({})),
            cluster("application", json!({ "use_http_header": true, "http_header_name": ":authority" })),
        ],
    } })
}

fn outbound(other: &Pod) -> Value {
    let proxy = |cluster: &str, tunneling: Value| {
        let mut config = json!({
            "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": cluster,
            "cluster": cluster,
        });
        if !tunneling.is_null() {
            config["tunneling_config"] = tunneling;
        }
        json!([{ "name": "envoy.filters.network.tcp_proxy", "typed_config": config }])
    };
    json!({
        "name": "outbound",
        "address": address(15001),
        "listener_filters": [{
            "name": "envoy.filters.listener.original_dst",
            "typed_config": { "@type": format!("{TYPES}.filters.listener.original_dst.v3.OriginalDst") },
        }],
        "filter_chains": [{
            "filter_chain_match": { "prefix_ranges": [{ "address_prefix": other.v4, "prefix_len": 32 }] },
            "filters": proxy("tunnels", json!({ "hostname": "%DOWNSTREAM_LOCAL_ADDRESS%" })),
        }],
        "default_filter_chain": { "filters": proxy("passthrough", Value::Null) },
    })
}

fn inbound(tls: &Value) -> Value {
    let http = json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "inbound",
        "codec_type": "HTTP2",
        "http2_protocol_options": windows(),
        "stream_idle_timeout": "0s",
        "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": format!("{TYPES}.filters.http.router.v3.Router") },
        }],
        "route_config": { "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{
                "match": { "connect_matcher": {} },
                "route": {
                    "cluster": "application",
                    "timeout": "0s",
                    "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }],
                },
            }],
        }] },
    });
    json!({
        "name": "inbound",
        "address": address(15008),
        // The application sees the client's address.
        "listener_filters": [{
            "name": "envoy.filters.listener.original_src",
            "typed_config": { "@type": format!("{TYPES}.filters.listener.original_src.v3.OriginalSrc"), "mark": 1337 },
        }],
        "filter_chains": [{
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
                    "common_tls_context": tls,
                    "require_client_certificate": true,
                },
            },
            "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": http }],
        }],
    })
}

fn tls(credential: &Path, peer: &str) -> Value {
    let file = |name: &str| json!({ "filename": credential.join(name) });
    json!({
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
        "alpn_protocols": ["h2"],
        "tls_certificates": [{ "certificate_chain": file("cert.pem"), "private_key": file("key.pem") }],
        "validation_context": {
            "trusted_ca": file("root.pem"),
            "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": peer } }],
        },
    })
}

fn windows() -> Value {
    json!({
        "allow_connect": true,
        "max_concurrent_streams": 100,
        "initial_stream_window_size": 4 << 20,
        "initial_connection_window_size": 16 << 20,
    })
}

fn address(port: u16) -> Value {
    json!({ "socket_address": { "address": "0.0.0.0", "port_value": port } })
}

const TYPES: &str = "type.googleapis.com/envoy.extensions";
const MANY: u32 = 1_000_000;
