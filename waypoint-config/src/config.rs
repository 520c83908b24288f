// SPDX-License-Identifier: Apache-2.0
//! The one configuration of the program: flags, each with its environment variable. Read once, by `main`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use mesh_common::telemetry::Format;
use mesh_proto::contract::{default, grpc};
use thiserror::Error;

use crate::jwks::{Allowed, Fetcher};
use crate::source::files;

/// The control plane of a Lateen mesh: discovery and certificates for node proxies.
#[derive(Debug, Clone, Parser)]
#[command(name = "waypoint-config", version, max_term_width = 120)]
pub struct Config {
    /// Where objects come from: `dir:PATH`, a directory of YAML files that is watched.
    #[arg(long, env = "LATEEN_SOURCE", value_name = "dir:PATH")]
    pub source: Source,

    /// Where programs write what they observed of pods [default: `status` in the directory of --source].
    #[arg(long, env = "LATEEN_STATUS_DIR", value_name = "PATH")]
    pub status_dir: Option<PathBuf>,

    /// The certificate authority's keys (ca-cert.pem, ca-key.pem, root-cert.pem, cert-chain.pem). If there are none, a
    /// root is made there.
    #[arg(long, env = "LATEEN_CA_DIR", value_name = "PATH", default_value = "./etc/cacerts")]
    pub ca_dir: PathBuf,

    /// Discovery and certificates: gRPC over TLS.
    #[arg(long, env = "LATEEN_LISTEN", value_name = "ADDRESS:PORT", default_value = "[::]:15012")]
    pub listen: SocketAddr,

    /// Metrics and readiness (/metrics, /ready).
    #[arg(long, env = "LATEEN_MONITORING", value_name = "ADDRESS:PORT", default_value = "[::]:15014")]
    pub monitoring: SocketAddr,

    /// For the operator on this machine: /logging, /debug/resources, /debug/faults.
    #[arg(long, env = "LATEEN_ADMIN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub admin: SocketAddr,

    /// The trust domain of all identities.
    #[arg(long, env = "TRUST_DOMAIN", value_name = "DOMAIN", default_value = default::TRUST_DOMAIN)]
    pub trust_domain: String,

    /// This cluster's id.
    #[arg(long, env = "CLUSTER_ID", value_name = "ID", default_value = default::CLUSTER_ID)]
    pub cluster_id: String,

    /// The DNS suffix of services.
    #[arg(long, env = "CLUSTER_DOMAIN", value_name = "DOMAIN", default_value = default::CLUSTER_DOMAIN)]
    pub cluster_domain: String,

    /// The mesh's own namespace, whose policies hold everywhere.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE", default_value = default::SYSTEM_NAMESPACE)]
    pub system_namespace: String,

    /// The public keys that sign service account tokens, a JSON Web Key Set [default: `jwks.json` in the directory of
    /// --source].
    #[arg(long, env = "LATEEN_JWKS", value_name = "FILE")]
    pub jwks: Option<PathBuf>,

    /// What the mesh's operator decided for waypoints: a file in the words of Istio's MeshConfig (extensionProviders,
    /// accessLogFile, ...). Followed while the program runs; a bad one leaves the last good one in force [default: none].
    #[arg(long, env = "LATEEN_MESH_CONFIG", value_name = "FILE")]
    pub mesh_config: Option<PathBuf>,

    /// Hosts, addresses and ranges that keys of token issuers (RequestAuthentication) may be fetched from although they
    /// are loopback, link-local or the like.
    #[arg(long, env = "LATEEN_JWKS_ALLOW", value_name = "HOST|ADDRESS|RANGE,...", default_value = "")]
    pub jwks_allow: Allowed,

    /// The roots that servers of such keys are verified with, PEM [default: those of the system].
    #[arg(long, env = "LATEEN_JWKS_ROOTS", value_name = "FILE")]
    pub jwks_roots: Option<PathBuf>,

    /// Audiences a token may be for.
    #[arg(long, env = "TOKEN_AUDIENCES", value_name = "NAME", value_delimiter = ',', default_value = grpc::TOKEN_AUDIENCE)]
    pub token_audiences: Vec<String>,

    /// The issuer tokens must name [default: any whose key is in the key set].
    #[arg(long, env = "LATEEN_TOKEN_ISSUER", value_name = "ISSUER")]
    pub token_issuer: Option<String>,

    /// Accounts that may ask for certificates of pods on their node; empty for none.
    #[arg(
        long,
        env = "CA_TRUSTED_NODE_ACCOUNTS",
        value_name = "NAMESPACE/NAME,...",
        default_value = "istio-system/ztunnel"
    )]
    pub trusted_node_accounts: Accounts,

    /// Names and addresses, beside those of a service `istiod` in the mesh's own namespace, that the serving certificate
    /// is for.
    #[arg(long, env = "ISTIOD_CUSTOM_HOST", value_name = "NAME|ADDRESS", value_delimiter = ',')]
    pub serving_name: Vec<String>,

    /// How long running calls may go on after a signal to end.
    #[arg(long, env = "LATEEN_DRAIN", value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub drain: Duration,

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

    /// What of the directory is the source.
    #[must_use]
    pub fn source_options(&self) -> files::Options {
        files::Options {
            status: Some(self.status_directory()),
            ignored: [self.key_set()].into_iter().chain(self.mesh_config.clone()).collect(),
            ..files::Options::new(self.directory())
        }
    }

    /// How keys of token issuers are fetched.
    #[must_use]
    pub fn fetcher(&self) -> Fetcher {
        Fetcher { allowed: self.jwks_allow.clone(), roots: self.jwks_roots.clone() }
    }

    /// The key set's file.
    #[must_use]
    pub fn key_set(&self) -> PathBuf {
        self.jwks.clone().unwrap_or_else(|| self.directory().join("jwks.json"))
    }

    /// What an operator should know of what these values allow. Told once, at the start.
    #[must_use]
    pub fn cautions(&self) -> Vec<&'static str> {
        let any_issuer = "--token-issuer is not set: tokens of any issuer whose key is in the key set are accepted";
        self.token_issuer.is_none().then_some(any_issuer).into_iter().collect()
    }

    /// What the serving certificate is for: DNS names and addresses.
    #[must_use]
    pub fn serving_names(&self) -> (Vec<String>, Vec<IpAddr>) {
        let mut names = vec![format!("istiod.{}.svc", self.system_namespace), "localhost".to_owned()];
        let mut addresses = vec![IpAddr::from([127, 0, 0, 1])];
        for name in &self.serving_name {
            match name.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => names.push(name.clone()),
            }
        }
        (names, addresses)
    }
}

/// Where objects come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory of YAML files.
    Directory(PathBuf),
}

/// Service accounts, as (namespace, name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounts(pub Vec<(String, String)>);

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
#[derive(Debug, Error)]
pub enum ValueError {
    /// Not a source.
    #[error("write it as dir:PATH, where PATH is a directory of YAML files")]
    Source,
    /// Not a service account.
    #[error("write each as NAMESPACE/NAME")]
    Account,
}

impl std::str::FromStr for Source {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let path = text.strip_prefix("dir:").filter(|path| !path.is_empty()).ok_or(ValueError::Source)?;
        Ok(Self::Directory(path.into()))
    }
}

impl std::str::FromStr for Accounts {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let account = |text: &str| match text.trim().split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok((namespace.to_owned(), name.to_owned()))
            }
            _ => Err(ValueError::Account),
        };
        text.split(',').filter(|text| !text.trim().is_empty()).map(account).collect::<Result<_, _>>().map(Self)
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
    fn a_source_is_a_directory() {
        assert_eq!("dir:/a".parse::<Source>().unwrap(), Source::Directory("/a".into()));
        for bad in ["", "/a", "dir:", "kube"] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }

    #[test]
    fn accounts_are_namespace_and_name_and_may_be_none() {
        assert_eq!("".parse::<Accounts>().unwrap(), Accounts(Vec::new()));
        assert_eq!("a/b, c/d".parse::<Accounts>().unwrap().0.len(), 2);
        for bad in ["a", "a/", "/b", "a/b/c"] {
            assert!(bad.parse::<Accounts>().is_err(), "{bad}");
        }
    }

    #[test]
    fn accepting_any_issuer_is_cautioned_against() {
        let flags = ["waypoint-config", "--source", "dir:/mesh"];
        let cautions = Config::try_parse_from(flags).unwrap().cautions();
        assert!(matches!(&cautions[..], [caution] if caution.contains("--token-issuer")), "{cautions:?}");
        let told = flags.into_iter().chain(["--token-issuer", "https://kubernetes.default.svc"]);
        assert!(Config::try_parse_from(told).unwrap().cautions().is_empty());
    }

    #[test]
    fn what_is_not_said_follows_from_the_source() {
        let config =
            Config::try_parse_from(["waypoint-config", "--source", "dir:/mesh", "--serving-name", "a,10.0.0.1"])
                .unwrap();
        assert_eq!(config.key_set(), PathBuf::from("/mesh/jwks.json"));
        assert_eq!(config.status_directory(), PathBuf::from("/mesh/status"));
        let (names, addresses) = config.serving_names();
        assert!(names.contains(&"istiod.istio-system.svc".to_owned()) && names.contains(&"a".to_owned()));
        assert!(addresses.contains(&"10.0.0.1".parse().unwrap()));
    }
}
