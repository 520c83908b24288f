// SPDX-License-Identifier: Apache-2.0
//! The configuration as `config_dump` shows it (M-15): Istio's names, durations as seconds and nanoseconds, no token, no
//! key material.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_proto::contract::port;
use serde_json::{Value, json};

use super::resolve::Config;
use crate::control_plane::{self, Roots};
use crate::net::socket::Transparent;

impl Config {
    /// As `config_dump` shows it; `threads` is how many there are.
    pub fn shown(&self, threads: usize) -> Value {
        let mut shown = serde_json::Map::new();
        for part in [self.shown_places(), self.shown_control_plane(), self.shown_knobs(threads)] {
            if let Value::Object(fields) = part {
                shown.extend(fields);
            }
        }
        Value::Object(shown)
    }

    fn shown_places(&self) -> Value {
        let any = if self.ipv6 { "[::]" } else { "0.0.0.0" };
        let at = |port: u16| format!("{any}:{port}");
        json!({
            "adminAddr": {"Localhost": [self.ipv6, self.admin_port]},
            "clusterDomain": self.cluster_domain,
            "clusterId": self.cluster_id,
            "illegalPorts": [port::OUTBOUND, port::INBOUND_PLAINTEXT, port::INBOUND_HBONE],
            "inboundAddr": at(port::INBOUND_HBONE),
            "inboundPlaintextAddr": at(port::INBOUND_PLAINTEXT),
            "inpodPortReuse": self.sockets.reuse_port,
            "inpodUds": self.zds.socket,
            "ipv6Enabled": self.ipv6,
            "localNode": self.node_name,
            "network": self.network,
            "outboundAddr": at(port::OUTBOUND),
            "proxyArgs": self.words,
            "proxyMode": "Shared",
            "proxyWorkloadInformation": null,
            "readinessAddr": {"SocketAddr": at(port::READINESS)},
            "socks5Addr": null,
            "statsAddr": {"SocketAddr": at(self.stats_port)},
            "ztunnelIdentity": self.own_pod.as_ref().map(|own| own.identity.as_uri()),
            "ztunnelWorkload": self.own_pod.as_ref().map(|own| json!({
                "name": own.name,
                "namespace": own.identity.namespace(),
                "serviceAccount": own.identity.service_account(),
            })),
        })
    }

    fn shown_control_plane(&self) -> Value {
        let xds = self.xds.as_ref().map(|xds| &xds.control_plane);
        let ca = &self.certificates.control_plane;
        let metadata = self.xds.iter().flat_map(|xds| xds.node.metadata.iter().cloned());
        json!({
            "altCaHostname": alternative(ca),
            "altXdsHostname": xds.and_then(alternative),
            "caAddress": text(&ca.address),
            "caHeaders": ca.headers,
            "caRootCert": roots(&ca.roots),
            "crlPath": null,
            "fakeCa": false,
            "proxyMetadata": metadata.collect::<BTreeMap<_, _>>(),
            "secretTtl": duration(self.certificates.ttl),
            "xdsAddress": xds.map(|xds| text(&xds.address)),
            "xdsHeaders": xds.map_or(&[][..], |xds| &xds.headers),
            "xdsOnDemand": false,
            "xdsRootCert": xds.map(|xds| roots(&xds.roots)),
        })
    }

    fn shown_knobs(&self, threads: usize) -> Value {
        let keepalive = self.sockets.keepalive;
        json!({
            "connectionWindowSize": self.hbone.connection_window,
            "dnsProxy": false,
            "enableEnhancedBaggage": self.hbone.response_baggage,
            "frameSize": self.hbone.frame_size,
            "localhostAppTunnel": self.hbone.loopback_app_tunnel,
            "numWorkerThreads": threads,
            "packetMark": self.sockets.mark,
            "poolMaxStreamsPerConn": self.hbone.max_streams,
            "poolUnusedReleaseTimeout": duration(self.hbone.unused_release),
            "proxy": true,
            "requireOriginalSource": match self.original_source {
                Transparent::Auto => None,
                Transparent::Required => Some(true),
                Transparent::Never => Some(false),
            },
            "selfTerminationDeadline": duration(self.drain_deadline),
            "socketConfig": {
                "keepaliveEnabled": keepalive.is_some(),
                "keepaliveInterval": keepalive.map(|keepalive| duration(keepalive.interval)),
                "keepaliveRetries": keepalive.map(|keepalive| keepalive.retries),
                "keepaliveTime": keepalive.map(|keepalive| duration(keepalive.time)),
                "userTimeoutEnabled": self.sockets.user_timeout,
            },
            "windowSize": self.hbone.stream_window,
        })
    }
}

fn alternative(plane: &control_plane::Options) -> Option<String> {
    plane.alternative_name.as_ref().map(|name| name.to_str().into_owned())
}

/// Without the slash that stands for an empty path.
fn text(address: &tonic::transport::Uri) -> String {
    address.to_string().trim_end_matches('/').to_owned()
}

fn roots(roots: &Roots) -> Value {
    match roots {
        Roots::File(path) => json!({"File": path}),
        Roots::System => json!("System"),
        Roots::Pem(_) => json!("Static"),
    }
}

fn duration(duration: Duration) -> Value {
    json!({"secs": duration.as_secs(), "nanos": duration.subsec_nanos()})
}
