// SPDX-License-Identifier: Apache-2.0
//! The one configuration of the launcher: flags, each with its environment variable, named as Istio's agent names it where it has one. Read once, by
//! `main`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use mesh_common::telemetry::Format;
use mesh_proto::contract::{default, path, port};
use thiserror::Error;

/// The launcher of a Lateen waypoint: keeps its certificate, starts Envoy and drains it.
#[derive(Debug, Clone, Parser)]
#[command(name = "lateen-waypoint", version, max_term_width = 120)]
pub struct Config {
    /// The Gateway this pod is a waypoint of.
    #[arg(long, env = "GATEWAY_NAME", value_name = "NAME", help_heading = "This pod")]
    pub gateway: String,

    /// This pod's name.
    #[arg(long, env = "POD_NAME", value_name = "NAME", help_heading = "This pod")]
    pub pod_name: String,

    /// Its namespace.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE", help_heading = "This pod")]
    pub namespace: String,

    /// Its service account, the one its token is for.
    #[arg(long, env = "SERVICE_ACCOUNT", value_name = "NAME", help_heading = "This pod")]
    pub service_account: String,

    /// Its addresses, the first one first.
    #[arg(
        long,
        env = "INSTANCE_IP",
        value_name = "ADDRESS,...",
        value_delimiter = ',',
        required = true,
        help_heading = "This pod"
    )]
    pub address: Vec<IpAddr>,

    /// Its node.
    #[arg(long, env = "NODE_NAME", value_name = "NAME", default_value = "", help_heading = "This pod")]
    pub node: String,

    /// Its labels, as Kubernetes writes them into a volume (key="value" by lines); a file that is not there says nothing.
    #[arg(
        long,
        env = "LATEEN_LABELS_FILE",
        value_name = "FILE",
        default_value = "./etc/istio/pod/labels",
        help_heading = "This pod"
    )]
    pub labels_file: PathBuf,

    /// Its network.
    #[arg(long, env = "ISTIO_META_NETWORK", value_name = "NAME", default_value = "", help_heading = "This pod")]
    pub network: String,

    /// Its cluster.
    #[arg(long, env = "ISTIO_META_CLUSTER_ID", value_name = "ID", default_value = default::CLUSTER_ID, help_heading = "This pod")]
    pub cluster_id: String,

    /// The trust domain of its identity.
    #[arg(long, env = "TRUST_DOMAIN", value_name = "DOMAIN", default_value = default::TRUST_DOMAIN, help_heading = "This pod")]
    pub trust_domain: String,

    /// The DNS suffix of the cluster.
    #[arg(long, env = "CLUSTER_DOMAIN", value_name = "DOMAIN", default_value = default::CLUSTER_DOMAIN, help_heading = "This pod")]
    pub cluster_domain: String,

    /// Where discovery is served, over TLS only.
    #[arg(
        long,
        env = "XDS_ADDRESS",
        value_name = "HOST:PORT",
        default_value = default::CONTROL_PLANE,
        help_heading = "Control plane"
    )]
    pub xds_address: Place,

    /// Where certificates are issued [default: where discovery is served].
    #[arg(long, env = "CA_ADDRESS", value_name = "HOST:PORT", help_heading = "Control plane")]
    pub ca_address: Option<Place>,

    /// The roots discovery is verified with, PEM; read again when they change.
    #[arg(long, env = "XDS_ROOT_CA", value_name = "FILE", default_value = path::ROOT_CERT, help_heading = "Control plane")]
    pub xds_root: PathBuf,

    /// The roots the certificate authority's server is verified with, PEM; read again for every call [default: those of
    /// discovery].
    #[arg(long, env = "CA_ROOT_CA", value_name = "FILE", help_heading = "Control plane")]
    pub ca_root: Option<PathBuf>,

    /// The token that proves who this pod is; read again for every call.
    #[arg(long, env = "AUTH_TOKEN", value_name = "FILE", default_value = path::TOKEN, help_heading = "Control plane")]
    pub token: PathBuf,

    /// How long certificates are asked for.
    #[arg(long, env = "SECRET_TTL", value_name = "TIME", default_value = "24h", value_parser = time, help_heading = "Control plane")]
    pub lifetime: Duration,

    /// Envoy's program.
    #[arg(long, env = "ENVOY_BIN", value_name = "FILE", default_value = "envoy", help_heading = "Envoy")]
    pub envoy: PathBuf,

    /// Where the bootstrap and, in a private folder, key and certificates are written; best a volume in memory.
    #[arg(
        long,
        env = "LATEEN_RUN_DIR",
        value_name = "PATH",
        default_value = "./etc/istio/proxy",
        help_heading = "Envoy"
    )]
    pub run_dir: PathBuf,

    /// Threads; 0: as many as there are processors.
    #[arg(long, env = "ENVOY_CONCURRENCY", value_name = "COUNT", default_value = "2", help_heading = "Envoy")]
    pub concurrency: u16,

    /// What Envoy logs: trace, debug, info, warning, error, critical or off.
    #[arg(long, env = "ENVOY_LOG_LEVEL", value_name = "LEVEL", default_value = "warning", help_heading = "Envoy")]
    pub envoy_log: EnvoyLog,

    /// The heap above which Envoy refuses requests, in bytes; 0: nine tenths of the container's memory limit, or no limit where it has none.
    #[arg(long, env = "LATEEN_MAX_HEAP", value_name = "BYTES", default_value = "0", help_heading = "Envoy")]
    pub max_heap: u64,

    /// The connections above which Envoy takes no more.
    #[arg(
        long,
        env = "LATEEN_MAX_CONNECTIONS",
        value_name = "COUNT",
        default_value = "100000",
        value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64),
        help_heading = "Envoy"
    )]
    pub max_connections: u64,

    /// How long, at least, connections are still taken after a signal to end: until everybody knows.
    #[arg(long, env = "MINIMUM_DRAIN_DURATION", value_name = "TIME", default_value = "5s", value_parser = time, help_heading = "End")]
    pub minimum_drain: Duration,

    /// How long connections may go on after a signal to end; what is left then is cut off.
    #[arg(
        long,
        env = "TERMINATION_DRAIN_DURATION_SECONDS",
        value_name = "TIME",
        default_value = "25",
        value_parser = time,
        help_heading = "End"
    )]
    pub drain: Duration,

    /// What the launcher logs: `level` or `target=level`, separated by commas.
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "", help_heading = "Log")]
    pub log: String,

    /// What its log lines look like.
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "plain", help_heading = "Log")]
    pub log_format: LogFormat,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A DNS name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What Envoy logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "they are Envoy's words")]
pub enum EnvoyLog {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
    Critical,
    Off,
}

impl EnvoyLog {
    /// Envoy's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Off => "off",
        }
    }
}

/// What log lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Tab-separated text.
    Plain,
    /// One JSON object a line.
    Json,
}

impl From<LogFormat> for Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Plain => Self::Plain,
            LogFormat::Json => Self::Json,
        }
    }
}

/// A flag's value that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ValueError {
    /// Not a server.
    #[error(
        "write it as HOST:PORT, with or without https:// before it; the port may be left out and is {} then",
        port::DISCOVERY
    )]
    Place,
    /// It asks for plaintext.
    #[error("tokens and configuration travel over TLS only; write it without http://")]
    Plaintext,
    /// Not a time.
    #[error("write it as seconds, or with units, for example 90s, 15m, 24h or 1h30m")]
    Time,
}

impl FromStr for Place {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.starts_with("http://") {
            return Err(ValueError::Plaintext);
        }
        let text = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
        let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']').ok_or(ValueError::Place)) {
            Some(bracketed) => {
                let (host, rest) = bracketed?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| ValueError::Place)?;
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(ValueError::Place)?) })
            }
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(port::DISCOVERY), |port| port.parse().map_err(|_| ValueError::Place))?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
        if port == 0 || host.is_empty() || !host.bytes().all(allowed) {
            return Err(ValueError::Place);
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// `30`, `30s`, `15m`, `24h`, `1h30m`.
fn time(text: &str) -> Result<Duration, ValueError> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let (mut total, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| ValueError::Time)?;
        let unit = match rest.as_bytes().get(digits) {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3600,
            _ => return Err(ValueError::Time),
        };
        total = number.checked_mul(unit).and_then(|more| total.checked_add(more)).ok_or(ValueError::Time)?;
        rest = &rest[digits + 1..];
    }
    if text.is_empty() { Err(ValueError::Time) } else { Ok(Duration::from_secs(total)) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_are_consistent_and_each_has_a_variable_and_a_meaning() {
        let command = Config::command();
        command.clone().debug_assert();
        for flag in command.get_arguments().filter(|flag| !["help", "version"].contains(&flag.get_id().as_str())) {
            assert!(flag.get_env().is_some(), "{} has no variable", flag.get_id());
            assert!(flag.get_help().is_some(), "{} has no help", flag.get_id());
        }
    }

    #[test]
    fn a_place_is_a_host_with_a_port_and_never_plaintext() {
        let place = |text: &str| text.parse::<Place>().map(|place| place.to_string());
        assert_eq!(place("istiod.istio-system.svc:15012").unwrap(), "istiod.istio-system.svc:15012");
        assert_eq!(place("https://istiod.istio-system.svc:443").unwrap(), "istiod.istio-system.svc:443");
        assert_eq!(place("10.0.0.1").unwrap(), "10.0.0.1:15012");
        assert_eq!(place("[fd00::1]:1").unwrap(), "[fd00::1]:1");
        assert_eq!(place("http://a:1"), Err(ValueError::Plaintext));
        for bad in ["", ":1", "a:", "a:0", "a:70000", "a b:1", "[x]:1", "[fd00::1", "[fd00::1]1", "a/b:1"] {
            assert_eq!(place(bad), Err(ValueError::Place), "{bad}");
        }
    }

    #[test]
    fn a_time_is_seconds_or_has_units() {
        for (text, seconds) in [("30", 30), ("5s", 5), ("15m", 900), ("24h", 86400), ("1h30m", 5400)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "h", "1d", "1h30", "-1", "99999999999999999999h", "9999999999999999999h", "1ä"] {
            assert_eq!(time(bad), Err(ValueError::Time), "{bad}");
        }
    }
}
