// SPDX-License-Identifier: Apache-2.0
//! The static configuration that stands beside or in place of the control plane (`LOCAL_XDS`, `LOCAL_XDS_PATH`; X-31).
//! Read once at start; a mistake in it ends the start.

use std::io;
use std::path::PathBuf;

use crate::mesh::{Change, StaticConfig, StaticError};

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalConfig {
    /// A file.
    File(PathBuf),
    /// YAML text.
    Inline(String),
}

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The file.
    #[error("cannot read the static configuration {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The YAML.
    #[error("the static configuration in {origin} is not understood: {reason}")]
    Parse {
        /// Which.
        origin: String,
        /// Where and why.
        reason: String,
    },
    /// What it says.
    #[error("the static configuration in {origin} is wrong: {}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Wrong {
        /// Which.
        origin: String,
        /// All that is wrong.
        errors: Vec<StaticError>,
    },
}

impl LocalConfig {
    /// What it says, for `config_dump`, and as changes.
    pub fn read(&self) -> Result<(StaticConfig, Vec<Change>), LocalError> {
        let (text, origin) = match self {
            Self::Inline(text) => (text.clone(), "LOCAL_XDS".to_owned()),
            Self::File(path) => {
                let read = std::fs::read_to_string(path);
                let text = read.map_err(|source| LocalError::Read { path: path.clone(), source })?;
                (text, path.display().to_string())
            }
        };
        let config: StaticConfig = serde_saphyr::from_str(&text)
            .map_err(|error| LocalError::Parse { origin: origin.clone(), reason: error.to_string() })?;
        let changes = config.clone().into_changes().map_err(|errors| LocalError::Wrong { origin, errors })?;
        Ok((config, changes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_changes() {
        let text = r#"
workloads:
- uid: w1
  name: a
  namespace: demo
  workloadIps: ["10.0.0.1"]
  protocol: HBONE
  services: {"demo/a.demo.svc.cluster.local": {"80": 8080}}
services:
- name: a
  namespace: demo
  hostname: a.demo.svc.cluster.local
  vips: ["/10.96.0.1"]
  ports: {"80": 8080}
policies:
- name: p
  namespace: demo
  scope: Namespace
  action: Allow
  rules: [[[{principals: [{Exact: cluster.local/ns/demo/sa/a}]}]]]
"#;
        let (config, changes) = LocalConfig::Inline(text.into()).read().unwrap();
        assert_eq!(changes.len(), 3);
        assert_eq!(config.workloads.len(), 1);
    }

    #[test]
    fn mistakes_name_where_they_are() {
        let unknown = LocalConfig::Inline("workload: []".into()).read().unwrap_err();
        assert!(unknown.to_string().contains("LOCAL_XDS"), "{unknown}");
        let missing = LocalConfig::File("/nowhere/x.yaml".into()).read().unwrap_err();
        assert!(missing.to_string().contains("/nowhere/x.yaml"));
    }
}
