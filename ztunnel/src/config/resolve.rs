// SPDX-License-Identifier: Apache-2.0
//! Gives meaning to what was said. Every mistake is reported, and they are reported together.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_common::telemetry;
use mesh_proto::contract;
use mesh_proto::spiffe::Identity;

use super::args::{Args, Command};
use super::environment::Environment;
use super::mistakes::{ConfigError, Mistakes};
use super::planes::{CA_NAMES, Planes, Said, XDS_NAMES};
use super::proxy_config::ProxyConfig;
use super::threads::{Threads, Wanted};
use super::{limits, value};
use crate::net::socket::{Keepalive, SocketOptions, Transparent};
use crate::xds::{LocalConfig, NodeOptions};
use crate::{certs, engine, xds, zds};

/// What is known besides the arguments. Main reads it once.
pub struct World<'a> {
    /// Variables with open names.
    pub environment: Environment,
    /// The mesh configuration file, if there is one.
    pub mesh_config: Option<String>,
    /// Is there such a file?
    pub exists: &'a dyn Fn(&Path) -> bool,
}

/// Everything the program is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The words of the command line, for `config_dump`.
    pub words: String,
    /// Logs.
    pub telemetry: telemetry::Options,
    /// Port of the admin server.
    pub admin_port: u16,
    /// Port of the metrics server.
    pub stats_port: u16,
    /// Listen on IPv6 too.
    pub ipv6: bool,
    /// The network this node is in.
    pub network: String,
    /// This node.
    pub node_name: Option<String>,
    /// This cluster.
    pub cluster_id: String,
    /// The suffix of Kubernetes names.
    pub cluster_domain: String,
    /// This ztunnel's own pod, if it is one.
    pub own_pod: Option<OwnPod>,
    /// Workload discovery.
    pub xds: Option<xds::Options>,
    /// The static configuration.
    pub local: Option<LocalConfig>,
    /// The certificate authority.
    pub certificates: certs::Options,
    /// The node agent.
    pub zds: zds::Options,
    /// Data threads.
    pub threads: Threads,
    /// Sockets in pods.
    pub sockets: SocketOptions,
    /// Whether applications see the client's address.
    pub original_source: Transparent,
    /// HBONE.
    pub hbone: Hbone,
    /// What data threads hold at most.
    pub limits: engine::Limits,
    /// What they wait for at most.
    pub deadlines: engine::Deadlines,
    /// How long a drain may take.
    pub drain_deadline: Duration,
    /// What `istio_build` says.
    pub istio_version: String,
    /// Whether somebody counts on a DNS proxy, which this version does not have.
    pub expects_dns: bool,
}

/// The knobs of HBONE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hbone {
    /// Streams in one tunnel.
    pub max_streams: u16,
    /// When an unused tunnel is closed.
    pub unused_release: Duration,
    /// Largest window of a stream.
    pub stream_window: u32,
    /// Window of a tunnel.
    pub connection_window: u32,
    /// Largest frame.
    pub frame_size: u32,
    /// Baggage in answers.
    pub response_baggage: bool,
    /// Application tunnels end on loopback.
    pub loopback_app_tunnel: bool,
    /// `LATEEN_EARLY_DATA`
    pub early_data: bool,
}

/// The pod this program runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPod {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub identity: Identity,
}

impl Args {
    /// What to do. Anything unknown is a mistake of its own: nothing else is looked at then.
    pub fn wanted(&self) -> Result<Command, ConfigError> {
        match self.command.as_deref() {
            None | Some("proxy") => Ok(Command::Proxy),
            Some("version") => Ok(Command::Version),
            Some("help") => Ok(Command::Help),
            Some(other) => {
                let reason = format!("{other:?} is none of proxy, version and help");
                Err(ConfigError { mistakes: vec![("command", reason)] })
            }
        }
    }
}

impl Config {
    /// What these arguments mean in this world.
    pub fn resolve(args: &Args, world: &World<'_>) -> Result<Self, ConfigError> {
        let mut mistakes = Mistakes::default();
        refuse_unsupported(args, &mut mistakes);
        let proxy_config = proxy_config(args, world, &mut mistakes);
        let mut metadata = proxy_config.metadata();
        metadata.extend(world.environment.metadata.clone());
        let cluster_id = metadata.get("CLUSTER_ID").unwrap_or(&args.cluster_id).clone();
        let planes = Planes { args, world, cluster_id: &cluster_id };
        let xds_address = args.xds_address.clone().or_else(|| proxy_config.discovery_address.clone());
        let node = node(args, world, metadata.clone(), &mut mistakes);
        let xds = match xds_address.as_deref() {
            Some("") => None,
            address => {
                let said = Said {
                    names: XDS_NAMES,
                    address,
                    roots: &args.xds_root_ca,
                    alternative: &args.alt_xds_hostname,
                    headers: &world.environment.xds_headers,
                };
                Some(xds::Options { control_plane: planes.options(&said, &mut mistakes), node })
            }
        };
        let said = Said {
            names: CA_NAMES,
            address: args.ca_address.as_deref().filter(|address| !address.is_empty()),
            roots: &args.ca_root_ca,
            alternative: &args.alt_ca_hostname,
            headers: &world.environment.ca_headers,
        };
        let certificates = certs::Options {
            control_plane: planes.options(&said, &mut mistakes),
            ttl: mistakes.read("SECRET_TTL", &args.secret_ttl, value::duration),
        };
        let config = Self {
            words: args.command.iter().chain(&args.rest).cloned().collect::<Vec<_>>().join(" "),
            telemetry: telemetry_options(args, &mut mistakes),
            admin_port: proxy_config.proxy_admin_port.unwrap_or(contract::port::PROXY_ADMIN),
            stats_port: proxy_config.stats_port.unwrap_or(contract::port::PROXY_METRICS),
            ipv6: mistakes.read("IPV6_ENABLED", &args.ipv6_enabled, value::boolean),
            network: args.network.clone(),
            node_name: args.node_name.clone().filter(|name| !name.is_empty()),
            cluster_id: cluster_id.clone(),
            cluster_domain: args.cluster_domain.clone(),
            own_pod: own_pod(args, &mut mistakes),
            xds,
            local: local(args, &mut mistakes),
            certificates,
            zds: zds::Options { socket: PathBuf::from(&args.inpod_uds) },
            threads: threads(args, &proxy_config, &mut mistakes),
            sockets: sockets(args, &mut mistakes),
            original_source: match mistakes.read_some("ENABLE_ORIG_SRC", &args.enable_orig_src, value::boolean) {
                Some(true) => Transparent::Required,
                Some(false) => Transparent::Never,
                None => Transparent::Auto,
            },
            hbone: hbone(args, &mut mistakes),
            limits: limits::limits(args, &mut mistakes),
            deadlines: limits::deadlines(args, &mut mistakes),
            drain_deadline: drain_deadline(args, &mut mistakes),
            istio_version: metadata.get("ISTIO_VERSION").cloned().unwrap_or_else(|| "unknown".to_owned()),
            expects_dns: metadata.get("DNS_CAPTURE").is_none_or(|text| text.eq_ignore_ascii_case("true")),
        };
        mistakes.none().map(|()| config)
    }

    /// The data threads' options.
    pub fn engine(&self, machine_cores: usize, access_log: engine::account::AccessLog) -> engine::Options {
        engine::Options {
            socket: self.sockets.clone(),
            original_source: self.original_source,
            listen: engine::ListenAt::in_pods(self.ipv6),
            pool_max_streams: self.hbone.max_streams,
            pool_unused_release: self.hbone.unused_release,
            stream_window: self.hbone.stream_window,
            connection_window: self.hbone.connection_window,
            frame_size: self.hbone.frame_size,
            response_baggage: self.hbone.response_baggage,
            loopback_app_tunnel: self.hbone.loopback_app_tunnel,
            early_data: self.hbone.early_data,
            limits: self.limits,
            deadlines: self.deadlines,
            ..engine::Options::new(self.threads.count(machine_cores), access_log)
        }
    }
}

/// What would make the mesh less safe, or plainly different, if it were ignored.
fn refuse_unsupported(args: &Args, mistakes: &mut Mistakes) {
    let mut refuse = |name, said: bool| {
        if said {
            mistakes.add(name, "is not supported by this version; leave it out");
        }
    };
    refuse("PROXY_MODE", args.proxy_mode != "shared");
    refuse("XDS_ON_DEMAND", args.xds_on_demand == "true");
    refuse("FAKE_CA", args.fake_ca == "true");
    refuse("CRL_PATH", is_said(&args.crl_path));
    refuse("COMPLIANCE_POLICY", is_said(&args.compliance_policy));
    refuse("UNSTABLE_ENABLE_SOCKS5", args.unstable_enable_socks5 == "true");
}

fn is_said(text: &Option<String>) -> bool {
    text.as_deref().is_some_and(|text| !text.is_empty())
}

fn proxy_config(args: &Args, world: &World<'_>, mistakes: &mut Mistakes) -> ProxyConfig {
    let file = match world.mesh_config.as_deref().map(ProxyConfig::parse_mesh_config) {
        Some(Ok(config)) => config,
        Some(Err(reason)) => {
            mistakes.add("mesh configuration file", reason);
            ProxyConfig::default()
        }
        None => ProxyConfig::default(),
    };
    let variable = mistakes.read_some("PROXY_CONFIG", &args.proxy_config, ProxyConfig::parse);
    file.overlaid(variable.unwrap_or_default())
}

fn node(args: &Args, world: &World<'_>, metadata: BTreeMap<String, String>, mistakes: &mut Mistakes) -> NodeOptions {
    let mut json_metadata = Vec::new();
    for (key, text) in &world.environment.json_metadata {
        match serde_json::from_str(text) {
            Ok(json) => json_metadata.push((key.clone(), json)),
            Err(error) => mistakes.add("ISTIO_METAJSON_*", format!("the value of {key} is no JSON: {error}")),
        }
    }
    let ip = |text: &str| text.parse().map_err(|_| format!("{text:?} is no IP address"));
    NodeOptions {
        name: args.pod_name.clone().unwrap_or_default(),
        namespace: args.pod_namespace.clone().unwrap_or_default(),
        ip: mistakes.read("INSTANCE_IP", &args.instance_ip, |text| ip(text).map(Ip)).0,
        node_name: args.node_name.clone().unwrap_or_default(),
        metadata: metadata.into_iter().collect(),
        json_metadata,
    }
}

/// An address with a default, for [`Mistakes::read`].
struct Ip(IpAddr);

impl Default for Ip {
    fn default() -> Self {
        Self(IpAddr::from([0, 0, 0, 0]))
    }
}

fn own_pod(args: &Args, mistakes: &mut Mistakes) -> Option<OwnPod> {
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let name = said(&args.pod_name)?;
    let (namespace, service_account) = (said(&args.pod_namespace)?, said(&args.service_account)?);
    match Identity::new(&args.trust_domain, &namespace, &service_account) {
        Ok(identity) => Some(OwnPod { name, identity }),
        Err(error) => {
            mistakes.add("TRUST_DOMAIN, POD_NAMESPACE, SERVICE_ACCOUNT", error.to_string());
            None
        }
    }
}

fn local(args: &Args, mistakes: &mut Mistakes) -> Option<LocalConfig> {
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    match (said(&args.local_xds_path), said(&args.local_xds)) {
        (Some(_), Some(_)) => {
            mistakes.add("LOCAL_XDS", "LOCAL_XDS_PATH is set as well; only one of them can be");
            None
        }
        (Some(path), None) => Some(LocalConfig::File(PathBuf::from(path))),
        (None, Some(text)) => Some(LocalConfig::Inline(text)),
        (None, None) => None,
    }
}

fn threads(args: &Args, proxy_config: &ProxyConfig, mistakes: &mut Mistakes) -> Threads {
    let concurrency = proxy_config.concurrency.map(|number| Wanted::Number(usize::from(number)));
    let wanted = mistakes.read_some("ZTUNNEL_WORKER_THREADS", &args.ztunnel_worker_threads, value::threads);
    Threads {
        wanted: wanted.or(concurrency),
        limit: mistakes.read_some("ZTUNNEL_RESOURCE_CPU_LIMIT", &args.ztunnel_resource_cpu_limit, value::cpus),
        request: mistakes.read_some("ZTUNNEL_RESOURCE_CPU_REQUEST", &args.ztunnel_resource_cpu_request, value::cpus),
        cores: mistakes.read_some("ZTUNNEL_CPU_LIMIT", &args.ztunnel_cpu_limit, value::number),
    }
}

fn sockets(args: &Args, mistakes: &mut Mistakes) -> SocketOptions {
    let keepalive = Keepalive {
        time: mistakes.read("KEEPALIVE_TIME", &args.keepalive_time, value::duration),
        interval: mistakes.read("KEEPALIVE_INTERVAL", &args.keepalive_interval, value::duration),
        retries: mistakes.read("KEEPALIVE_RETRIES", &args.keepalive_retries, value::number),
    };
    let enabled = mistakes.read("KEEPALIVE_ENABLED", &args.keepalive_enabled, value::boolean);
    SocketOptions {
        mark: Some(mistakes.read("PACKET_MARK", &args.packet_mark, value::number)),
        reuse_port: mistakes.read("INPOD_PORT_REUSE", &args.inpod_port_reuse, value::boolean),
        keepalive: enabled.then_some(keepalive),
        user_timeout: mistakes.read("USER_TIMEOUT_ENABLED", &args.user_timeout_enabled, value::boolean),
    }
}

fn hbone(args: &Args, mistakes: &mut Mistakes) -> Hbone {
    let window = |text: &str| match value::number(text)? {
        0 => Err("a window of 0 bytes lets nothing through".to_owned()),
        size if size <= MAX_WINDOW => Ok(size),
        size => Err(format!("{size} is more than HTTP/2's largest window, {MAX_WINDOW}")),
    };
    let frame = |text: &str| match value::number(text)? {
        size if (MIN_FRAME..=MAX_FRAME).contains(&size) => Ok(size),
        size => Err(format!("{size} is not between HTTP/2's bounds for frames, {MIN_FRAME} and {MAX_FRAME}")),
    };
    let streams = |text: &str| match value::number(text)? {
        0 => Err("a tunnel without streams carries nothing".to_owned()),
        count => Ok(count),
    };
    let unused = &args.pool_unused_release_timeout;
    Hbone {
        max_streams: mistakes.read("POOL_MAX_STREAMS_PER_CONNECTION", &args.pool_max_streams_per_connection, streams),
        unused_release: mistakes.read("POOL_UNUSED_RELEASE_TIMEOUT", unused, value::duration),
        stream_window: mistakes.read("HTTP2_STREAM_WINDOW_SIZE", &args.http2_stream_window_size, window),
        connection_window: mistakes.read("HTTP2_CONNECTION_WINDOW_SIZE", &args.http2_connection_window_size, window),
        frame_size: mistakes.read("HTTP2_FRAME_SIZE", &args.http2_frame_size, frame),
        response_baggage: mistakes.read("ENABLE_RESPONSE_BAGGAGE", &args.enable_response_baggage, value::boolean),
        loopback_app_tunnel: mistakes.read("LOCALHOST_APP_TUNNEL", &args.localhost_app_tunnel, value::boolean),
        early_data: mistakes.read("LATEEN_EARLY_DATA", &args.lateen_early_data, value::boolean),
    }
}

fn drain_deadline(args: &Args, mistakes: &mut Mistakes) -> Duration {
    let (name, said) = ("CONNECTION_TERMINATION_DEADLINE", &args.connection_termination_deadline);
    let deadline = mistakes.read_some(name, said, value::duration);
    let (name, said) = ("TERMINATION_GRACE_PERIOD_SECONDS", &args.termination_grace_period_seconds);
    let grace = mistakes.read_some(name, said, value::number::<u64>).map(|seconds| {
        let less = if seconds > 10 { 5 } else { 1 };
        Duration::from_secs(seconds.saturating_sub(less).max(1))
    });
    deadline.or(grace).unwrap_or(DRAIN_DEADLINE)
}

fn telemetry_options(args: &Args, mistakes: &mut Mistakes) -> telemetry::Options {
    let format = |text: &str| match text {
        "plain" | "" => Ok(telemetry::Format::Plain),
        "json" => Ok(telemetry::Format::Json),
        other => Err(format!("{other:?} is neither plain nor json")),
    };
    telemetry::Options {
        format: mistakes.read("LOG_FORMAT", &args.log_format, format),
        filter: args.rust_log.clone(),
        quiet: "",
        program: "ztunnel",
    }
}

const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
const MAX_WINDOW: u32 = (1 << 31) - 1;
const MIN_FRAME: u32 = 1 << 14;
const MAX_FRAME: u32 = (1 << 24) - 1;

#[cfg(test)]
mod tests;
