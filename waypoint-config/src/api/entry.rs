// SPDX-License-Identifier: Apache-2.0
//! `networking.istio.io` ServiceEntry and WorkloadEntry, field by field: services and workloads that Kubernetes does not know. `object` reads them,
//! `view` resolves them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::selector::Labels;

/// Host names the mesh shall know, and what is behind them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceEntry {
    /// `networking.istio.io/v1`, `v1beta1` or `v1alpha3`.
    pub api_version: String,
    /// `ServiceEntry`.
    pub kind: String,
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// What it says.
    pub spec: ServiceEntrySpec,
    /// The addresses a controller allotted.
    #[serde(default)]
    pub status: ServiceEntryStatus,
}

/// The wish of a [`ServiceEntry`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntrySpec {
    /// Host names; `*.` may begin one.
    pub hosts: Vec<String>,
    /// Virtual addresses or ranges, for every host.
    pub addresses: Vec<String>,
    /// Ports.
    pub ports: Vec<EntryPort>,
    /// Whether the workloads belong to the mesh.
    pub location: Location,
    /// How the endpoints are found.
    pub resolution: Resolution,
    /// The endpoints.
    pub endpoints: Vec<WorkloadEntrySpec>,
    /// Pods and WorkloadEntries of the namespace that are endpoints.
    pub workload_selector: Option<EntrySelector>,
    /// Who may see it; not enforced in ambient.
    pub export_to: Vec<String>,
    /// Names the certificates of its servers may have.
    pub subject_alt_names: Vec<String>,
}

/// A port of a [`ServiceEntry`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EntryPort {
    /// The port.
    pub number: u32,
    /// What is spoken there: `HTTP`, `HTTPS`, `GRPC`, `HTTP2`, `MONGO`, `TCP`, `TLS`.
    pub protocol: String,
    /// Its name.
    pub name: String,
    /// The port of the endpoints; the same when 0.
    pub target_port: u32,
}

/// Whether workloads belong to the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    /// No.
    #[default]
    MeshExternal,
    /// Yes.
    MeshInternal,
}

/// How the endpoints of a [`ServiceEntry`] are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// Connections go where the client said.
    #[default]
    None,
    /// The addresses of the endpoints.
    Static,
    /// Their names, or the host, by DNS.
    Dns,
    /// The same, one address at a time.
    DnsRoundRobin,
    /// The name the client asked for, by DNS; for hosts with a wildcard.
    DynamicDns,
}

impl Resolution {
    /// Whether names are looked up.
    pub fn is_dns(self) -> bool {
        matches!(self, Self::Dns | Self::DnsRoundRobin | Self::DynamicDns)
    }
}

/// The `workloadSelector` of a [`ServiceEntry`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EntrySelector {
    /// What must match.
    pub labels: Labels,
}

/// What controllers reported of a [`ServiceEntry`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntryStatus {
    /// Allotted addresses.
    pub addresses: Vec<AllottedAddress>,
}

/// An address allotted to one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllottedAddress {
    /// The address.
    pub value: String,
    /// The host.
    pub host: String,
}

/// A workload outside Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadEntry {
    /// `networking.istio.io/v1`, `v1beta1` or `v1alpha3`.
    pub api_version: String,
    /// `WorkloadEntry`.
    pub kind: String,
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// What it says.
    pub spec: WorkloadEntrySpec,
    /// What probes found.
    #[serde(default)]
    pub status: WorkloadEntryStatus,
}

/// A [`WorkloadEntry`], and one endpoint of a [`ServiceEntry`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntrySpec {
    /// An address, or a name to be looked up.
    pub address: String,
    /// Ports by name.
    pub ports: BTreeMap<String, u32>,
    /// Labels.
    pub labels: Labels,
    /// The network the address is valid in.
    pub network: String,
    /// `region/zone/subzone`.
    pub locality: String,
    /// Its share of the traffic.
    pub weight: u32,
    /// As whom it runs.
    pub service_account: String,
}

/// What was found of a [`WorkloadEntry`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntryStatus {
    /// `Healthy`, where health is probed.
    pub conditions: Vec<Health>,
}

/// One thing that was found, as far as it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Health {
    /// What.
    pub r#type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}
