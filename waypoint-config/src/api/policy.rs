// SPDX-License-Identifier: Apache-2.0
//! Istio's security kinds, field by field as in `security.istio.io/v1`. `object` reads them, `ambient` translates them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::selector::{WorkloadSelector, narrowing};

/// Who may connect to which workloads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationPolicy {
    /// `security.istio.io/v1` or `v1beta1`.
    pub api_version: String,
    /// `AuthorizationPolicy`.
    pub kind: String,
    /// Name, namespace, annotations.
    pub metadata: ObjectMeta,
    /// What it asks for. A file must say `spec: {}` for a policy that allows nothing; half a file must not.
    pub spec: AuthorizationPolicySpec,
    /// What controllers reported; never read.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub status: Value,
}

/// The wish of an [`AuthorizationPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationPolicySpec {
    /// The workloads it is for; all of the namespace when absent.
    pub selector: Option<WorkloadSelector>,
    /// The waypoint, gateway or service it is for (older, single form).
    pub target_ref: Option<TargetReference>,
    /// The waypoints, gateways or services it is for.
    pub target_refs: Vec<TargetReference>,
    /// It matches when any of these does.
    pub rules: Vec<Rule>,
    /// What a match means.
    pub action: Action,
    /// Who decides, for [`Action::Custom`].
    pub provider: Option<Provider>,
}

impl AuthorizationPolicySpec {
    /// The selector, if it narrows anything.
    pub fn narrowing_selector(&self) -> Option<&WorkloadSelector> {
        narrowing(self.selector.as_ref())
    }

    /// Whether it is for waypoints and gateways only, never for a node proxy.
    pub fn is_for_gateways(&self) -> bool {
        self.targets().next().is_some()
    }

    /// What it is attached to.
    pub fn targets(&self) -> impl Iterator<Item = &TargetReference> {
        self.target_ref.iter().chain(&self.target_refs)
    }
}

/// What a match of an [`AuthorizationPolicy`] means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// Let it pass; whatever no ALLOW policy matches is refused.
    #[default]
    Allow,
    /// Refuse it.
    Deny,
    /// Write it down.
    Audit,
    /// Ask a provider.
    Custom,
}

/// Name of an external authorizer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Provider {
    /// As in the mesh configuration.
    pub name: String,
}

/// An object a policy is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetReference {
    /// API group; empty is the core group.
    pub group: String,
    /// Kind, e.g. `Gateway`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; that of the policy when empty.
    pub namespace: String,
    /// Part of the target.
    pub section_name: String,
}

/// One way to match: every present part must.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Who; any of these.
    pub from: Vec<FromEntry>,
    /// What; any of these.
    pub to: Vec<ToEntry>,
    /// Further conditions; all of these.
    pub when: Vec<Condition>,
}

/// Wrapper of a [`Source`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FromEntry {
    /// The source.
    pub source: Source,
}

/// Who calls. Lists are ORed inside, fields are ANDed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// Peer identities, `trust.domain/ns/x/sa/y`.
    pub principals: Vec<String>,
    /// None of these.
    pub not_principals: Vec<String>,
    /// Identities from a JWT (HTTP).
    pub request_principals: Vec<String>,
    /// None of these (HTTP).
    pub not_request_principals: Vec<String>,
    /// Namespaces of the peer identity.
    pub namespaces: Vec<String>,
    /// None of these.
    pub not_namespaces: Vec<String>,
    /// Service accounts, `ns/sa`, or `sa` in the policy's namespace.
    pub service_accounts: Vec<String>,
    /// None of these.
    pub not_service_accounts: Vec<String>,
    /// Addresses or ranges of the connection's other end.
    pub ip_blocks: Vec<String>,
    /// None of these.
    pub not_ip_blocks: Vec<String>,
    /// Addresses or ranges of the original client as told by headers (HTTP).
    pub remote_ip_blocks: Vec<String>,
    /// None of these (HTTP).
    pub not_remote_ip_blocks: Vec<String>,
    /// Trust domains of the peer identity.
    pub trust_domains: Vec<String>,
    /// None of these.
    pub not_trust_domains: Vec<String>,
}

/// Wrapper of an [`Operation`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ToEntry {
    /// The operation.
    pub operation: Operation,
}

/// What is called. Only ports mean something without HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    /// Host names (HTTP).
    pub hosts: Vec<String>,
    /// None of these (HTTP).
    pub not_hosts: Vec<String>,
    /// Ports of the workload.
    pub ports: Vec<String>,
    /// None of these.
    pub not_ports: Vec<String>,
    /// Methods (HTTP).
    pub methods: Vec<String>,
    /// None of these (HTTP).
    pub not_methods: Vec<String>,
    /// Paths (HTTP).
    pub paths: Vec<String>,
    /// None of these (HTTP).
    pub not_paths: Vec<String>,
}

/// A condition on one attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Attribute, e.g. `source.namespace`.
    pub key: String,
    /// Any of these.
    pub values: Vec<String>,
    /// None of these.
    pub not_values: Vec<String>,
}

/// Whether workloads insist on mutual TLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerAuthentication {
    /// `security.istio.io/v1` or `v1beta1`.
    pub api_version: String,
    /// `PeerAuthentication`.
    pub kind: String,
    /// Name, namespace.
    pub metadata: ObjectMeta,
    /// What it asks for.
    pub spec: PeerAuthenticationSpec,
    /// What controllers reported; never read.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub status: Value,
}

/// The wish of a [`PeerAuthentication`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerAuthenticationSpec {
    /// The workloads it is for; all of the namespace (of the mesh, in the root namespace) when absent.
    pub selector: Option<WorkloadSelector>,
    /// For all ports.
    pub mtls: Option<MutualTls>,
    /// For single ports of the workload.
    pub port_level_mtls: BTreeMap<u16, MutualTls>,
}

impl PeerAuthenticationSpec {
    /// The selector, if it narrows anything.
    pub fn narrowing_selector(&self) -> Option<&WorkloadSelector> {
        narrowing(self.selector.as_ref())
    }

    /// The mode for all ports.
    pub fn mode(&self) -> Mode {
        self.mtls.map_or(Mode::Unset, |mtls| mtls.mode)
    }
}

/// Wrapper of a [`Mode`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MutualTls {
    /// The mode.
    pub mode: Mode,
}

/// How a workload treats plaintext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    /// As the namespace or the mesh says.
    #[default]
    Unset,
    /// Takes both; does not ask for mutual TLS.
    Disable,
    /// Takes both.
    Permissive,
    /// Takes mutual TLS only.
    Strict,
}
