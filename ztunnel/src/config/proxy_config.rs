// SPDX-License-Identifier: Apache-2.0
//! Istio's ProxyConfig, as far as a ztunnel heeds it: from the mesh configuration file and from `PROXY_CONFIG`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::environment::METADATA_PREFIX;

/// The fields that are heeded; others are none of our business.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    /// Where discovery is.
    pub discovery_address: Option<String>,
    /// Port of the admin server.
    pub proxy_admin_port: Option<u16>,
    /// Port of the metrics server.
    pub stats_port: Option<u16>,
    /// Data threads; 0 for all cores.
    pub concurrency: Option<u16>,
    /// More node metadata.
    pub proxy_metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MeshConfig {
    #[serde(default)]
    default_config: ProxyConfig,
}

impl ProxyConfig {
    /// From `PROXY_CONFIG`.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    /// From the mesh configuration file.
    pub fn parse_mesh_config(text: &str) -> Result<Self, String> {
        let mesh: MeshConfig = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        Ok(mesh.default_config)
    }

    /// This one, with what `other` says on top.
    pub fn overlaid(self, other: Self) -> Self {
        let mut proxy_metadata = self.proxy_metadata;
        proxy_metadata.extend(other.proxy_metadata);
        Self {
            discovery_address: other.discovery_address.or(self.discovery_address),
            proxy_admin_port: other.proxy_admin_port.or(self.proxy_admin_port),
            stats_port: other.stats_port.or(self.stats_port),
            concurrency: other.concurrency.or(self.concurrency),
            proxy_metadata,
        }
    }

    /// The metadata without the prefix some write.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let key = |key: &String| key.strip_prefix(METADATA_PREFIX).unwrap_or(key).to_owned();
        self.proxy_metadata.iter().map(|(name, value)| (key(name), value.clone())).collect()
    }
}

/// Where the mesh configuration file is, if there is one.
pub const MESH_CONFIG_PATH: &str = "./etc/istio/config/mesh";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_lies_on_top_of_the_file() {
        let file = "ingressClass: istio\ndefaultConfig:\n  discoveryAddress: a:1\n  statsPort: 1\n  proxyMetadata: {ISTIO_META_A: '1', B: '1'}\n";
        let variable = r#"{"statsPort": 2, "proxyMetadata": {"B": "2"}, "holdApplicationUntilProxyStarts": true}"#;
        let both = ProxyConfig::parse_mesh_config(file).unwrap().overlaid(ProxyConfig::parse(variable).unwrap());
        assert_eq!(both.discovery_address.as_deref(), Some("a:1"));
        assert_eq!(both.stats_port, Some(2));
        assert_eq!(both.metadata(), BTreeMap::from([("A".into(), "1".into()), ("B".into(), "2".into())]));
    }
}
