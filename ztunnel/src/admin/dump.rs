// SPDX-License-Identifier: Apache-2.0
//! `/config_dump` (§14.1): everything the program knows at one moment, with the names `istioctl ztunnel-config` reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;
use serde_json::Value;

use super::certificates::{self, IdentityDump};
use crate::mesh::{Dump, Snapshot, StaticConfig};
use crate::{certs, zds};

/// Where it comes from.
#[derive(Clone)]
pub struct Sources {
    /// The mesh.
    pub mesh: Arc<ArcSwap<Snapshot>>,
    /// The static configuration as read.
    pub static_config: Arc<StaticConfig>,
    /// The configuration as shown.
    pub config: Arc<Value>,
    /// What `version` says of Istio.
    pub istio_version: Arc<str>,
    /// Certificates in force.
    pub credentials: certs::Published,
    /// The state of each wanted identity.
    pub identities: certs::Standing,
    /// The pods.
    pub pods: zds::Standing,
}

/// The document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigDump<'a> {
    #[serde(flatten)]
    mesh: Dump<'a>,
    static_config: &'a StaticConfig,
    version: Version<'a>,
    config: &'a Value,
    certificates: Vec<IdentityDump>,
    workload_state: BTreeMap<String, PodDump>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Version<'a> {
    version: &'a str,
    git_revision: &'a str,
    rust_version: &'a str,
    build_profile: &'a str,
    build_status: &'a str,
    istio_version: &'a str,
    crypto_provider: &'a str,
}

#[derive(Debug, Serialize)]
struct PodDump {
    state: &'static str,
    connections: Connections,
    info: PodInfoDump,
}

/// Which connections are open is known to the data threads only, and they are not asked for it yet.
#[derive(Debug, Default, Serialize)]
struct Connections {
    inbound: [Value; 0],
    outbound: [Value; 0],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodInfoDump {
    name: String,
    namespace: String,
    service_account: String,
}

impl Sources {
    /// The document as it is now, for people and programs.
    pub fn dump(&self) -> serde_json::Result<String> {
        let mesh = self.mesh.load();
        let dump = ConfigDump {
            mesh: mesh.dump(),
            static_config: &self.static_config,
            version: version(&self.istio_version),
            config: &self.config,
            certificates: certificates::dump(&self.identities.load(), &self.credentials.load()),
            workload_state: self.pods.load().iter().map(pod).collect(),
        };
        // By way of a value, whose keys are in order.
        serde_json::to_string_pretty(&serde_json::to_value(dump)?)
    }
}

fn pod((uid, info, up): &(String, zds::PodInfo, bool)) -> (String, PodDump) {
    let info = PodInfoDump {
        name: info.name.clone(),
        namespace: info.namespace.clone(),
        service_account: info.service_account.clone(),
    };
    let state = if *up { "Up" } else { "Pending" };
    (uid.clone(), PodDump { state, connections: Connections::default(), info })
}

fn version(istio_version: &str) -> Version<'_> {
    Version {
        version: env!("CARGO_PKG_VERSION"),
        git_revision: option_env!("LATEEN_GIT_REVISION").unwrap_or("unknown"),
        rust_version: env!("CARGO_PKG_RUST_VERSION"),
        build_profile: if cfg!(debug_assertions) { "debug" } else { "release" },
        build_status: "unknown",
        istio_version,
        crypto_provider: "tls-aws-lc",
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::config::{Args, Config, Environment, World};

    fn sources() -> Sources {
        let exists = |_: &std::path::Path| false;
        let world = World { environment: Environment::default(), mesh_config: None, exists: &exists };
        let arguments = ["ztunnel", "--pod-name=z", "--pod-namespace=istio-system", "--service-account=ztunnel"];
        let config = Config::resolve(&Args::parse_from(arguments), &world).unwrap();
        let info =
            zds::PodInfo { name: "client".into(), namespace: "default".into(), service_account: "client".into() };
        Sources {
            mesh: Arc::default(),
            static_config: Arc::default(),
            config: Arc::new(config.shown(2)),
            istio_version: "unknown".into(),
            credentials: Arc::default(),
            identities: Arc::default(),
            pods: Arc::new(ArcSwap::from_pointee(vec![("client-uid".to_owned(), info, true)])),
        }
    }

    /// Every key of the recorded document must be in ours, of the same type. Lists have one shape: their first element's.
    fn covers(recorded: &Value, ours: &Value, path: &str, missing: &mut Vec<String>) {
        match (recorded, ours) {
            (Value::Object(recorded), Value::Object(ours)) => {
                for (key, value) in recorded {
                    match ours.get(key) {
                        Some(own) => covers(value, own, &format!("{path}.{key}"), missing),
                        None => missing.push(format!("{path}.{key}")),
                    }
                }
            }
            (Value::Null, _) | (_, Value::Null) => {}
            (a, b) if std::mem::discriminant(a) == std::mem::discriminant(b) => {}
            _ => missing.push(format!("{path} has another type")),
        }
    }

    #[test]
    fn the_document_has_the_shape_of_a_recorded_one() {
        let recorded: Value =
            serde_json::from_str(include_str!("../../tests/wire/whole-config-dump-ztunnel.json")).unwrap();
        let ours: Value = serde_json::from_str(&sources().dump().unwrap()).unwrap();
        let mut missing = Vec::new();
        covers(&recorded, &ours, "", &mut missing);
        // What belongs to the DNS proxy, which this version does not have.
        missing.retain(|path| !path.contains("dns") && !path.ends_with("preferedServiceNamespace"));
        // And a switch of its test builds.
        missing.retain(|path| !path.ends_with("fakeSelfInbound"));
        assert_eq!(missing, Vec::<String>::new());
    }
}
