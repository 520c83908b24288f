// SPDX-License-Identifier: Apache-2.0
//! The plugin's entry in the network configuration, which comes on standard input (cni-agent.md I-18), and what can be decided from it alone.
//!
//! Members nobody knows are ignored: other parts of Istio's entry, what the runtime adds, and what later versions of ours will have.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::environment::is_name;
use super::{CniError, Code, Pod, Version};

/// The configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The version to speak.
    pub version: Version,
    /// Where the agent's socket and snapshot are (`cni_agent_run_dir`).
    pub run_dir: PathBuf,
    /// Namespaces that are never in the mesh (`exclude_namespaces`).
    pub exclude_namespaces: BTreeSet<String>,
    /// The namespace of the agent (`pod_namespace`).
    pub pod_namespace: String,
    /// How the names of the agent's own pods begin (`agent_pod_prefix`).
    pub agent_pod_prefix: String,
    /// How old a snapshot of the agent may be (`snapshot_max_age_seconds`).
    pub snapshot_max_age: Duration,
    /// Whether `STATUS` fails while the agent cannot be reached (`status_follows_agent`).
    ///
    /// Must be off where the agent's own pod is not on the host's network: a runtime that believes `STATUS` would never start it.
    pub status_follows_agent: bool,
    /// `plugin_log_level`.
    pub log_level: tracing::Level,
    /// The result of the plugin before this one (`prevResult`).
    pub previous: Option<Map<String, Value>>,
}

/// As it is written.
#[derive(Deserialize)]
struct Written {
    #[serde(rename = "cniVersion", default)]
    version: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    cni_agent_run_dir: Option<PathBuf>,
    #[serde(default)]
    exclude_namespaces: Option<Vec<String>>,
    #[serde(default)]
    pod_namespace: Option<String>,
    #[serde(default)]
    agent_pod_prefix: Option<String>,
    #[serde(default)]
    snapshot_max_age_seconds: Option<u64>,
    #[serde(default)]
    status_follows_agent: Option<bool>,
    #[serde(default)]
    plugin_log_level: Option<String>,
    #[serde(rename = "prevResult", default)]
    previous: Option<Map<String, Value>>,
}

const RUN_DIR: &str = "/var/run/istio-cni";
const AGENT_POD_PREFIX: &str = "istio-cni-node-";
/// Long enough for a new image of the agent to arrive, short enough that what was labelled meanwhile is not missed for long.
const SNAPSHOT_MAX_AGE: Duration = Duration::from_secs(600);

/// What the plugin can tell by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The pod may start, for this reason.
    Start(&'static str),
    /// The agent has to be asked about this pod.
    Ask(Pod),
}

impl Config {
    /// The version a configuration claims, whatever else is in it, for the errors about it.
    pub fn claimed_version(input: &[u8]) -> String {
        // As an object, like [`Config::parse`]: of a member given twice both mean the last one.
        let object: Option<Map<String, Value>> = serde_json::from_slice(input).ok();
        let claimed = object.as_ref().and_then(|object| object.get("cniVersion")).and_then(Value::as_str);
        claimed.unwrap_or_default().to_owned()
    }

    /// Reads and checks it.
    pub fn parse(input: &[u8]) -> Result<Self, CniError> {
        let wrong_type = |error: serde_json::Error| {
            invalid("the network configuration has a member of the wrong type").because(error)
        };
        // By way of an object: a list could pass for the members in their order.
        let object: Map<String, Value> = serde_json::from_slice(input).map_err(|error: serde_json::Error| {
            if error.is_data() {
                return invalid("the network configuration on standard input is not an object").because(error);
            }
            CniError::new(Code::Decoding, "the network configuration on standard input is not JSON").because(error)
        })?;
        let written: Written = serde_json::from_value(Value::Object(object)).map_err(wrong_type)?;
        let claimed = written.version.unwrap_or_default();
        let version = Version::parse(&claimed).ok_or_else(|| {
            let known = Version::ALL.map(Version::as_str).join(", ");
            CniError::new(Code::IncompatibleVersion, format!("cniVersion {claimed:?} is not known"))
                .because(format!("this plugin speaks {known}"))
        })?;
        match written.name.as_deref() {
            None | Some("") => return Err(invalid("the network configuration has no name")),
            Some(name) if !is_name(name) => return Err(invalid(format!("{name:?} is not the name of a network"))),
            Some(_) => {}
        }
        let run_dir = filled(written.cni_agent_run_dir).unwrap_or_else(|| RUN_DIR.into());
        if !run_dir.is_absolute() {
            return Err(invalid(format!("cni_agent_run_dir is {}, which is not absolute", run_dir.display())));
        }
        let excluded = written.exclude_namespaces.unwrap_or_default();
        Ok(Self {
            version,
            run_dir,
            exclude_namespaces: excluded
                .iter()
                .map(|name| name.trim())
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            pod_namespace: written.pod_namespace.unwrap_or_default(),
            agent_pod_prefix: written
                .agent_pod_prefix
                .filter(|prefix| !prefix.is_empty())
                .unwrap_or_else(|| AGENT_POD_PREFIX.to_owned()),
            snapshot_max_age: written.snapshot_max_age_seconds.map_or(SNAPSHOT_MAX_AGE, Duration::from_secs),
            status_follows_agent: written.status_follows_agent.unwrap_or(true),
            log_level: log_level(written.plugin_log_level.as_deref().unwrap_or_default()),
            previous: written.previous,
        })
    }

    /// Whether the pod of an `ADD` or `CHECK` may pass without a question (cni-agent.md §1.9; K-08: everything else is for the agent to decide).
    pub fn admit(&self, pod: Option<Pod>) -> Admission {
        let Some(pod) = pod else { return Admission::Start("not a pod of Kubernetes") };
        // Lest the agent waits for itself (P-06).
        if pod.namespace == self.pod_namespace && pod.name.starts_with(&self.agent_pod_prefix) {
            return Admission::Start("a pod of the agent itself");
        }
        if self.exclude_namespaces.contains(&pod.namespace) {
            return Admission::Start("its namespace is excluded from the mesh");
        }
        Admission::Ask(pod)
    }
}

fn filled(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
}

/// Istio's levels (I-09); what is not known is taken for the default, for a log level is no reason to hold pods up.
fn log_level(text: &str) -> tracing::Level {
    match text {
        "debug" => tracing::Level::DEBUG,
        "warn" | "warning" => tracing::Level::WARN,
        "error" | "fatal" | "none" => tracing::Level::ERROR,
        _ => tracing::Level::INFO,
    }
}

fn invalid(message: impl Into<String>) -> CniError {
    CniError::new(Code::InvalidConfig, message)
}
