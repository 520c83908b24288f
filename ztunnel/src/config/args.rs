// SPDX-License-Identifier: Apache-2.0
//! What can be said on the command line and in the environment, as text. `resolve` gives it meaning.

use clap::Parser;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the proxy.
    Proxy,
    /// Print the version line.
    Version,
    /// Print the help.
    Help,
}

/// The node proxy of an Istio-compatible ambient mesh.
///
/// Every option has a variable of the environment with the names of Istio's ztunnel. Besides those listed:
/// XDS_HEADER_* and CA_HEADER_* (more gRPC metadata), ISTIO_META_* and ISTIO_METAJSON_* (more node
/// metadata). The optional file ./etc/istio/config/mesh is read first.
#[derive(Clone, Debug, Parser)]
#[command(name = "ztunnel", disable_help_subcommand = true, version)]
pub struct Args {
    /// proxy (run; the default), version or help.
    #[arg(value_name = "COMMAND")]
    pub(super) command: Option<String>,
    /// Further words are ignored, but shown in config_dump.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(super) rest: Vec<String>,

    /// shared: one process for all enrolled pods of the node. (dedicated is not supported by this version.)
    #[arg(long, env = "PROXY_MODE", default_value = "shared", help_heading = "General")]
    pub(super) proxy_mode: String,
    /// Listen on IPv6 too.
    #[arg(long, env = "IPV6_ENABLED", default_value = "true", help_heading = "General")]
    pub(super) ipv6_enabled: String,
    /// Id of the network this node is in.
    #[arg(long, env = "NETWORK", default_value = "", help_heading = "General")]
    pub(super) network: String,
    /// This node: decides whose certificates are fetched before they are needed.
    #[arg(long, env = "NODE_NAME", help_heading = "General")]
    pub(super) node_name: Option<String>,
    /// This cluster; ISTIO_META_CLUSTER_ID wins.
    #[arg(long, env = "CLUSTER_ID", default_value = "Kubernetes", help_heading = "General")]
    pub(super) cluster_id: String,
    /// The suffix of Kubernetes names.
    #[arg(long, env = "CLUSTER_DOMAIN", default_value = "cluster.local", help_heading = "General")]
    pub(super) cluster_domain: String,
    /// Defaults as YAML or JSON: discoveryAddress, proxyAdminPort, statsPort, concurrency, proxyMetadata.
    #[arg(long, env = "PROXY_CONFIG", help_heading = "General")]
    pub(super) proxy_config: Option<String>,

    /// Name of this ztunnel's own pod. With the next two, mesh clients reach its metrics over HBONE.
    #[arg(long, env = "POD_NAME", help_heading = "This pod")]
    pub(super) pod_name: Option<String>,
    /// Namespace of this ztunnel's own pod.
    #[arg(long, env = "POD_NAMESPACE", help_heading = "This pod")]
    pub(super) pod_namespace: Option<String>,
    /// Service account of this ztunnel's own pod.
    #[arg(long, env = "SERVICE_ACCOUNT", help_heading = "This pod")]
    pub(super) service_account: Option<String>,
    /// Trust domain of this ztunnel's own identity.
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local", help_heading = "This pod")]
    pub(super) trust_domain: String,
    /// Address of this ztunnel's own pod.
    #[arg(long, env = "INSTANCE_IP", default_value = "1.1.1.1", help_heading = "This pod")]
    pub(super) instance_ip: String,
    /// Set by Kubernetes; its presence chooses the default address of the control plane.
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", hide = true)]
    pub(super) kubernetes_service_host: Option<String>,

    /// Workload discovery, as https://host:port; empty: none. Default: istiod in Kubernetes, localhost elsewhere.
    #[arg(long, env = "XDS_ADDRESS", help_heading = "Control plane")]
    pub(super) xds_address: Option<String>,
    /// The certificate authority; default as for discovery.
    #[arg(long, env = "CA_ADDRESS", help_heading = "Control plane")]
    pub(super) ca_address: Option<String>,
    /// Trust for discovery: a file, SYSTEM, or PEM text. Default: ./var/run/secrets/istio/root-cert.pem.
    #[arg(long, env = "XDS_ROOT_CA", help_heading = "Control plane")]
    pub(super) xds_root_ca: Option<String>,
    /// Trust for the authority, likewise.
    #[arg(long, env = "CA_ROOT_CA", help_heading = "Control plane")]
    pub(super) ca_root_ca: Option<String>,
    /// Another name the discovery server's certificate may carry.
    #[arg(long, env = "ALT_XDS_HOSTNAME", help_heading = "Control plane")]
    pub(super) alt_xds_hostname: Option<String>,
    /// Another name the authority's certificate may carry.
    #[arg(long, env = "ALT_CA_HOSTNAME", help_heading = "Control plane")]
    pub(super) alt_ca_hostname: Option<String>,
    /// Bearer token: a file, read again for every call, or the token. Default: ./var/run/secrets/tokens/istio-token
    /// if it exists.
    #[arg(long, env = "AUTH_TOKEN", hide_env_values = true, help_heading = "Control plane")]
    pub(super) auth_token: Option<String>,
    /// Ask for workloads one by one. (true is not supported by this version.)
    #[arg(long, env = "XDS_ON_DEMAND", default_value = "false", help_heading = "Control plane")]
    pub(super) xds_on_demand: String,
    /// Static workloads, services and policies: a YAML file.
    #[arg(long, env = "LOCAL_XDS_PATH", help_heading = "Control plane")]
    pub(super) local_xds_path: Option<String>,
    /// The same as text.
    #[arg(long, env = "LOCAL_XDS", help_heading = "Control plane")]
    pub(super) local_xds: Option<String>,

    /// Validity asked for certificates.
    #[arg(long, env = "SECRET_TTL", default_value = "24h", help_heading = "Certificates")]
    pub(super) secret_ttl: String,
    /// Certificates without an authority. (true is not supported.)
    #[arg(long, env = "FAKE_CA", default_value = "false", hide = true)]
    pub(super) fake_ca: String,
    /// Revocation list. (Not supported by this version; setting it is an error.)
    #[arg(long, env = "CRL_PATH", help_heading = "Certificates")]
    pub(super) crl_path: Option<String>,
    /// pqc: only post-quantum key exchange. (Not supported by this version; setting it is an error.)
    #[arg(long, env = "COMPLIANCE_POLICY", help_heading = "Certificates")]
    pub(super) compliance_policy: Option<String>,
    /// true: also TLS 1.2 towards the control plane. Between proxies it is TLS 1.3 always.
    #[arg(long, env = "TLS12_ENABLED", help_heading = "Certificates")]
    pub(super) tls12_enabled: Option<String>,

    /// Data threads: a number, a percentage of the cores, or 0 for all cores. Default: a quarter of the cores and at least two, but no more than half of them.
    #[arg(long, env = "ZTUNNEL_WORKER_THREADS", help_heading = "Threads")]
    pub(super) ztunnel_worker_threads: Option<String>,
    /// CPU limit as a Kubernetes quantity: the default number of data threads, and what "all cores" means.
    #[arg(long, env = "ZTUNNEL_RESOURCE_CPU_LIMIT", help_heading = "Threads")]
    pub(super) ztunnel_resource_cpu_limit: Option<String>,
    /// CPU request as a Kubernetes quantity: a floor for the default number of data threads.
    #[arg(long, env = "ZTUNNEL_RESOURCE_CPU_REQUEST", help_heading = "Threads")]
    pub(super) ztunnel_resource_cpu_request: Option<String>,
    /// Cores to count with; default: those of the machine.
    #[arg(long, env = "ZTUNNEL_CPU_LIMIT", help_heading = "Threads")]
    pub(super) ztunnel_cpu_limit: Option<String>,

    /// Streams in one HBONE tunnel.
    #[arg(long, env = "POOL_MAX_STREAMS_PER_CONNECTION", default_value = "100", help_heading = "HBONE")]
    pub(super) pool_max_streams_per_connection: String,
    /// Close a tunnel nobody asked for this long.
    #[arg(long, env = "POOL_UNUSED_RELEASE_TIMEOUT", default_value = "5m", help_heading = "HBONE")]
    pub(super) pool_unused_release_timeout: String,
    /// Largest window of a stream, in bytes.
    #[arg(long, env = "HTTP2_STREAM_WINDOW_SIZE", default_value = "4194304", help_heading = "HBONE")]
    pub(super) http2_stream_window_size: String,
    /// Window of a tunnel, in bytes.
    #[arg(long, env = "HTTP2_CONNECTION_WINDOW_SIZE", default_value = "16777216", help_heading = "HBONE")]
    pub(super) http2_connection_window_size: String,
    /// Largest frame accepted, in bytes.
    #[arg(long, env = "HTTP2_FRAME_SIZE", default_value = "1048576", help_heading = "HBONE")]
    pub(super) http2_frame_size: String,
    /// Say who answers, and believe who asks, by baggage.
    #[arg(long, env = "ENABLE_RESPONSE_BAGGAGE", default_value = "true", help_heading = "HBONE")]
    pub(super) enable_response_baggage: String,
    /// Deliver PROXY-protocol tunnels to the application on loopback.
    #[arg(long, env = "LOCALHOST_APP_TUNNEL", default_value = "true", help_heading = "HBONE")]
    pub(super) localhost_app_tunnel: String,
    /// Send what an application says at once along with the request for its connection.
    #[arg(long, env = "LATEEN_EARLY_DATA", default_value = "true", help_heading = "HBONE")]
    pub(super) lateen_early_data: String,

    /// Sockets of all connections together. Default: the limit on open files less a tenth (64 to 1024), which the rest of
    /// the program needs. A pod gets no more of these, of dials and of handshakes than is still free.
    #[arg(long, env = "LATEEN_MAX_SOCKETS", help_heading = "Limits")]
    pub(super) max_sockets: Option<String>,
    /// Connections being opened at once. Default: half of the sockets.
    #[arg(long, env = "LATEEN_MAX_DIALS", help_heading = "Limits")]
    pub(super) max_dials: Option<String>,
    /// TLS handshakes of peers under way. Default: a quarter of the sockets, 4096 at most.
    #[arg(long, env = "LATEEN_MAX_HANDSHAKES", help_heading = "Limits")]
    pub(super) max_handshakes: Option<String>,
    /// The same for one pod; addresses that are in no workload's record get half of them together.
    #[arg(long, env = "LATEEN_MAX_HANDSHAKES_PER_POD", default_value = "1024", help_heading = "Limits")]
    pub(super) max_handshakes_per_pod: String,
    /// The same for one address that connects to one pod.
    #[arg(long, env = "LATEEN_MAX_HANDSHAKES_PER_SOURCE", default_value = "128", help_heading = "Limits")]
    pub(super) max_handshakes_per_source: String,
    /// Log lines per second about failed connections from one address, on each data thread; 0: all of them.
    #[arg(long, env = "LATEEN_DENIED_LOG_LINES", default_value = "10", help_heading = "Limits")]
    pub(super) denied_log_lines: String,
    /// Bytes that may wait for slow readers, in one tunnel.
    #[arg(long, env = "LATEEN_TUNNEL_BYTES", default_value = "67108864", help_heading = "Limits")]
    pub(super) tunnel_bytes: String,
    /// The same for one pod.
    #[arg(long, env = "LATEEN_POD_BYTES", default_value = "134217728", help_heading = "Limits")]
    pub(super) pod_bytes: String,
    /// The same for all pods.
    #[arg(long, env = "LATEEN_NODE_BYTES", default_value = "536870912", help_heading = "Limits")]
    pub(super) node_bytes: String,
    /// How long a TCP connection may take to stand.
    #[arg(long, env = "LATEEN_CONNECT_TIMEOUT", default_value = "10s", help_heading = "Limits")]
    pub(super) connect_timeout: String,
    /// How long a TLS handshake may take, and then the first HTTP/2 SETTINGS.
    #[arg(long, env = "LATEEN_HANDSHAKE_TIMEOUT", default_value = "10s", help_heading = "Limits")]
    pub(super) handshake_timeout: String,
    /// How long a peer may take to answer a CONNECT request. More than its own connect timeout.
    #[arg(long, env = "LATEEN_ANSWER_TIMEOUT", default_value = "20s", help_heading = "Limits")]
    pub(super) answer_timeout: String,

    /// How long connections may go on after a request to stop. Default: from the grace period, else 5s.
    #[arg(long, env = "CONNECTION_TERMINATION_DEADLINE", help_heading = "Shutdown")]
    pub(super) connection_termination_deadline: Option<String>,
    /// Seconds Kubernetes waits; the deadline is 5 less (1 less if it is at most 10).
    #[arg(long, env = "TERMINATION_GRACE_PERIOD_SECONDS", help_heading = "Shutdown")]
    pub(super) termination_grace_period_seconds: Option<String>,

    /// Socket of the node agent.
    #[arg(long, env = "INPOD_UDS", default_value = "/var/run/ztunnel/ztunnel.sock", help_heading = "Sockets")]
    pub(super) inpod_uds: String,
    /// Share the ports in pods with another ztunnel.
    #[arg(long, env = "INPOD_PORT_REUSE", default_value = "true", help_heading = "Sockets")]
    pub(super) inpod_port_reuse: String,
    /// Mark of packets that the rules in pods leave alone.
    #[arg(long, env = "PACKET_MARK", default_value = "1337", help_heading = "Sockets")]
    pub(super) packet_mark: String,
    /// Keep the client's address towards the application: true (it must work), false, or unset (if it works).
    #[arg(long, env = "ENABLE_ORIG_SRC", help_heading = "Sockets")]
    pub(super) enable_orig_src: Option<String>,
    /// TCP keepalive.
    #[arg(long, env = "KEEPALIVE_ENABLED", default_value = "true", help_heading = "Sockets")]
    pub(super) keepalive_enabled: String,
    /// Idle time before the first probe.
    #[arg(long, env = "KEEPALIVE_TIME", default_value = "180s", help_heading = "Sockets")]
    pub(super) keepalive_time: String,
    /// Time between probes.
    #[arg(long, env = "KEEPALIVE_INTERVAL", default_value = "180s", help_heading = "Sockets")]
    pub(super) keepalive_interval: String,
    /// Unanswered probes that end a connection.
    #[arg(long, env = "KEEPALIVE_RETRIES", default_value = "9", help_heading = "Sockets")]
    pub(super) keepalive_retries: String,
    /// Set TCP_USER_TIMEOUT to what the probes add up to.
    #[arg(long, env = "USER_TIMEOUT_ENABLED", default_value = "false", help_heading = "Sockets")]
    pub(super) user_timeout_enabled: String,
    /// SOCKS5 on 15080. (true is not supported by this version.)
    #[arg(long, env = "UNSTABLE_ENABLE_SOCKS5", default_value = "false", hide = true)]
    pub(super) unstable_enable_socks5: String,

    /// Log filter: a level, and target=level clauses.
    #[arg(long, env = "RUST_LOG", default_value = "info", help_heading = "Telemetry")]
    pub(super) rust_log: String,
    /// Log lines: plain or json.
    #[arg(long, env = "LOG_FORMAT", default_value = "plain", help_heading = "Telemetry")]
    pub(super) log_format: String,
}
