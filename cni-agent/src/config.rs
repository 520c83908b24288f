// SPDX-License-Identifier: Apache-2.0
//! The one configuration of the program: flags, each with its environment variable, under Istio's names where Istio has one (cni-agent.md §1.3).
//! Read once, by `main`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, ValueEnum};
use mesh_common::telemetry::Format;
use mesh_proto::contract::{default, path, probe};

use crate::agent::Timing;
use crate::enrol::Policy;
use crate::rules;

/// The node agent of a Lateen mesh: enrols the node's pods and keeps them enrolled.
#[derive(Clone, Debug, Parser)]
#[command(name = "cni-agent", version, max_term_width = 120)]
pub struct Config {
    /// Where pods and namespaces come from: `dir:PATH`, a directory of YAML files that is watched.
    #[arg(long, env = "LATEEN_SOURCE", value_name = "dir:PATH")]
    pub source: Source,

    /// Where programs write what they observed of pods, this agent among them [default: `status` in the directory of
    /// --source].
    #[arg(long, env = "LATEEN_STATUS_DIR", value_name = "PATH")]
    pub status_dir: Option<PathBuf>,

    /// The node whose pods are enrolled.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: String,

    /// The socket node proxies connect to.
    #[arg(long, env = "ZTUNNEL_UDS_ADDRESS", value_name = "PATH", default_value = path::ZDS_SOCKET)]
    pub ztunnel_socket: PathBuf,

    /// The plugin's socket and snapshot, and what survives a restart. Must be the same path for the plugin on the node.
    #[arg(long, env = "CNI_AGENT_RUN_DIR", value_name = "PATH", default_value = path::AGENT_RUN_DIR)]
    pub run_dir: PathBuf,

    /// Namespaces whose pods are never enrolled.
    #[arg(long, env = "EXCLUDE_NAMESPACES", value_name = "NAME,...", default_value = "kube-system")]
    pub exclude_namespaces: String,

    /// The mesh's own namespace.
    #[arg(long, env = "SYSTEM_NAMESPACE", value_name = "NAME", default_value = default::SYSTEM_NAMESPACE)]
    pub system_namespace: String,

    /// Capture IPv6 as well. Without it IPv6 traffic of pods stays outside the mesh.
    #[arg(long, env = "AMBIENT_IPV6", value_name = "true|false", default_value = "true", action = ArgAction::Set)]
    pub ipv6: bool,

    /// Send pods' name queries to the node proxy. Has no effect yet: the node proxy does not answer them.
    #[arg(long, env = "AMBIENT_DNS_CAPTURE", value_name = "true|false", default_value = "false", action = ArgAction::Set)]
    pub dns_capture: bool,

    /// The source address of the kubelet's IPv4 probes, which pass by the node proxy.
    #[arg(long, env = "HOST_PROBE_SNAT_IP", value_name = "ADDRESS", default_value_t = probe::SOURCE_V4)]
    pub probe_source: Ipv4Addr,

    /// The source address of the kubelet's IPv6 probes.
    #[arg(long, env = "HOST_PROBE_SNAT_IPV6", value_name = "ADDRESS", default_value_t = probe::SOURCE_V6)]
    pub probe_source_v6: Ipv6Addr,

    /// How long open connections may keep a pod from leaving the mesh, in seconds.
    #[arg(long, env = "LATEEN_RELEASE_DEADLINE", value_name = "SECONDS", default_value = "3600", value_parser = seconds)]
    pub release_deadline: Duration,

    /// How often every enrolled pod is looked at, in seconds.
    #[arg(long, env = "LATEEN_CHECK_INTERVAL", value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub check_interval: Duration,

    /// The node's processes, as the agent sees them.
    #[arg(long, env = "LATEEN_HOST_PROC", value_name = "PATH", default_value = "/proc")]
    pub host_proc: PathBuf,

    /// Health: /healthz, /readyz.
    #[arg(long, env = "LATEEN_HEALTH", value_name = "ADDRESS:PORT", default_value = "[::]:8000")]
    pub health: SocketAddr,

    /// Metrics.
    #[arg(long, env = "LATEEN_MONITORING", value_name = "ADDRESS:PORT", default_value = "[::]:15014")]
    pub monitoring: SocketAddr,

    /// For the operator on this machine: /debug/pods, /logging.
    #[arg(long, env = "LATEEN_ADMIN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9876")]
    pub admin: SocketAddr,

    /// What to log: `level` or `target=level`, separated by commas.
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "")]
    pub log: String,

    /// What log lines look like.
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "plain")]
    pub log_format: LogFormat,
}

impl Config {
    /// The directory of objects.
    #[must_use]
    pub const fn directory(&self) -> &PathBuf {
        let Source::Directory(path) = &self.source;
        path
    }

    /// The directory of observations.
    #[must_use]
    pub fn status_directory(&self) -> PathBuf {
        self.status_dir.clone().unwrap_or_else(|| self.directory().join("status"))
    }

    /// This agent's own folder of observations. It sorts behind the kubelet's.
    #[must_use]
    pub fn own_status(&self) -> PathBuf {
        self.status_directory().join(format!("b-agent-{}", self.node_name))
    }

    /// Who is enrolled.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let names = self.exclude_namespaces.split(',').map(str::trim).filter(|name| !name.is_empty());
        Policy {
            excluded_namespaces: names.map(str::to_owned).collect(),
            system_namespace: self.system_namespace.clone(),
        }
    }

    /// How long things take.
    #[must_use]
    pub fn timing(&self) -> Timing {
        Timing { check: self.check_interval, release: self.release_deadline, ..Timing::default() }
    }

    /// What rules look like.
    #[must_use]
    pub fn rules(&self) -> rules::Options {
        rules::Options {
            ipv6: self.ipv6,
            // Whatever is asked for: name queries sent to a port where nobody listens are worse than none captured.
            dns_capture: false,
            probe_source: self.probe_source,
            probe_source_v6: self.probe_source_v6,
            ..rules::Options::default()
        }
    }
}

/// Where pods and namespaces come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory of YAML files.
    Directory(PathBuf),
}

/// Not a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write it as dir:PATH, where PATH is a directory of YAML files")]
pub struct NotASource;

impl std::str::FromStr for Source {
    type Err = NotASource;

    fn from_str(text: &str) -> Result<Self, NotASource> {
        let path = text.strip_prefix("dir:").filter(|path| !path.is_empty()).ok_or(NotASource)?;
        Ok(Self::Directory(path.into()))
    }
}

/// What log lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
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

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
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
    fn what_is_not_said_follows_from_the_source_and_the_node() {
        let flags = ["cni-agent", "--source", "dir:/mesh", "--node-name", "n1", "--exclude-namespaces", "a, b,"];
        let config = Config::try_parse_from(flags).unwrap();
        assert_eq!(config.own_status(), PathBuf::from("/mesh/status/b-agent-n1"));
        assert_eq!(config.policy().excluded_namespaces, ["a".to_owned(), "b".to_owned()].into());
        for bad in ["", "/mesh", "dir:"] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }
}
