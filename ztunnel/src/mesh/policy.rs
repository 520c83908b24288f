// SPDX-License-Identifier: Apache-2.0
//! An authorization policy: who may connect to what. Evaluated by `decide::authz`.
//!
//! A policy is understood whole or refused whole. Dropping a criterion would widen an ALLOW and switch off a DENY, so
//! an unknown enum value, a string match of no known kind, an address that is none, an extension or an unknown field
//! makes the policy an error. What a refused policy then does to traffic is told in `refused`.

use ipnet::IpNet;
use mesh_proto::security as proto;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::address::{self, AddressError};
use super::text::{Text, is_default};

/// Who may connect to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// Name of the Kubernetes object.
    pub name: Text,
    /// Its namespace.
    pub namespace: Text,
    /// Whom it protects.
    pub scope: Scope,
    /// What it says about connections that match.
    pub action: Action,
    /// It matches when any rule does; so never without rules.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Only report what it would have done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Whom a policy protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Every workload of the mesh.
    Global,
    /// Every workload of the policy's namespace.
    Namespace,
    /// The workloads that list it.
    WorkloadSelector,
}

/// What a policy says about connections that match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// They may pass; and what no such policy matches may not.
    Allow,
    /// They may not.
    Deny,
}

/// Matches when all of its clauses do; without clauses always.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rule(pub Vec<Clause>);

/// Matches when any of its matches does; without matches always.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Clause(pub Vec<Match>);

/// Matches when every field that says something does; never if none says anything.
/// A field matches when any of its values does, a `not_` field when none does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Match {
    /// Namespace of the source identity.
    #[serde(skip_serializing_if = "is_default")]
    pub namespaces: Vec<StringMatch>,
    /// None of these.
    #[serde(skip_serializing_if = "is_default")]
    pub not_namespaces: Vec<StringMatch>,
    /// Source identity without `spiffe://`.
    #[serde(skip_serializing_if = "is_default")]
    pub principals: Vec<StringMatch>,
    /// None of these.
    #[serde(skip_serializing_if = "is_default")]
    pub not_principals: Vec<StringMatch>,
    /// Address the connection came from.
    #[serde(skip_serializing_if = "is_default")]
    pub source_ips: Vec<IpNet>,
    /// None of these.
    #[serde(skip_serializing_if = "is_default")]
    pub not_source_ips: Vec<IpNet>,
    /// Address of the application.
    #[serde(skip_serializing_if = "is_default")]
    pub destination_ips: Vec<IpNet>,
    /// None of these.
    #[serde(skip_serializing_if = "is_default")]
    pub not_destination_ips: Vec<IpNet>,
    /// Port of the application.
    #[serde(skip_serializing_if = "is_default")]
    pub destination_ports: Vec<u16>,
    /// None of these.
    #[serde(skip_serializing_if = "is_default")]
    pub not_destination_ports: Vec<u16>,
    /// Namespace and service account of the source identity, in any trust domain.
    #[serde(skip_serializing_if = "is_default")]
    pub service_accounts: Vec<ServiceAccount>,
    /// None of these.
    #[serde(skip_serializing_if = "is_default")]
    pub not_service_accounts: Vec<ServiceAccount>,
}

/// What a text must look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StringMatch {
    /// This text.
    Exact(Text),
    /// A text that begins so.
    Prefix(Text),
    /// A text that ends so.
    Suffix(Text),
    /// Any text but the empty one.
    Presence(),
}

/// One service account in any trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: Text,
    /// Its name.
    pub service_account: Text,
}

/// Why a policy cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// The bytes are no such message.
    #[error("the message cannot be decoded: {0}")]
    Bytes(String),
    /// A field this program does not know.
    #[error("{message} has the field number {number}, which this version does not know")]
    UnknownField {
        /// The kind of message it is in.
        message: &'static str,
        /// Its number on the wire.
        number: u32,
    },
    /// An enum value this program does not know.
    #[error("{field} has the value {value}, which this version does not support")]
    Unsupported {
        /// The field of the message.
        field: &'static str,
        /// Its number on the wire.
        value: i32,
    },
    /// An extension, which might be a criterion.
    #[error("extension {0:?} is not supported")]
    Extension(String),
    /// A string match without a kind.
    #[error("{0} holds a string match that is none of exact, prefix, suffix and presence")]
    StringMatch(&'static str),
    /// An address range that is none.
    #[error("{field}: {error}")]
    Address {
        /// The field of the message.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        error: AddressError,
    },
    /// A number that is no port.
    #[error("{field} holds {number}, which is not a port")]
    Port {
        /// The field of the message.
        field: &'static str,
        /// The number.
        number: u32,
    },
    /// A service account that is half empty.
    #[error("{0} holds a service account without name or namespace")]
    ServiceAccount(&'static str),
    /// It protects a namespace but does not say which.
    #[error("a policy for a namespace has no namespace")]
    NoNamespace,
}

impl Policy {
    /// `namespace/name`.
    pub fn key(&self) -> Text {
        format!("{}/{}", self.namespace, self.name).into()
    }

    fn check(self) -> Result<Self, PolicyError> {
        match self.scope {
            Scope::Namespace if self.namespace.is_empty() => Err(PolicyError::NoNamespace),
            Scope::Namespace | Scope::Global | Scope::WorkloadSelector => Ok(self),
        }
    }

    /// Checks a policy that was made from text.
    pub fn complete(self) -> Result<Self, PolicyError> {
        let accounts = self.rules.iter().flat_map(|rule| &rule.0).flat_map(|clause| &clause.0);
        for account in accounts.flat_map(|one| one.service_accounts.iter().chain(&one.not_service_accounts)) {
            if account.namespace.is_empty() || account.service_account.is_empty() {
                return Err(PolicyError::ServiceAccount("serviceAccounts"));
            }
        }
        self.check()
    }
}

impl StringMatch {
    /// Whether a text looks like that.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact.as_str(),
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Self::Presence() => !text.is_empty(),
        }
    }
}

impl TryFrom<&proto::Authorization> for Policy {
    type Error = PolicyError;

    fn try_from(message: &proto::Authorization) -> Result<Self, PolicyError> {
        no_extensions(&message.extensions)?;
        Self {
            name: message.name.as_str().into(),
            namespace: message.namespace.as_str().into(),
            scope: scope(message.scope)?,
            action: action(message.action)?,
            rules: message.rules.iter().map(rule).collect::<Result<_, _>>()?,
            dry_run: message.dry_run,
        }
        .check()
    }
}

/// The scope, where it is one this program knows.
pub(super) fn scope(value: i32) -> Result<Scope, PolicyError> {
    match proto::Scope::try_from(value) {
        Ok(proto::Scope::Global) => Ok(Scope::Global),
        Ok(proto::Scope::Namespace) => Ok(Scope::Namespace),
        Ok(proto::Scope::WorkloadSelector) => Ok(Scope::WorkloadSelector),
        Err(_) => Err(PolicyError::Unsupported { field: "scope", value }),
    }
}

/// The action, where it is one this program knows.
pub(super) fn action(value: i32) -> Result<Action, PolicyError> {
    match proto::Action::try_from(value) {
        Ok(proto::Action::Allow) => Ok(Action::Allow),
        Ok(proto::Action::Deny) => Ok(Action::Deny),
        Err(_) => Err(PolicyError::Unsupported { field: "action", value }),
    }
}

fn rule(message: &proto::Rule) -> Result<Rule, PolicyError> {
    message.clauses.iter().map(clause).collect::<Result<_, _>>().map(Rule)
}

fn clause(message: &proto::Clause) -> Result<Clause, PolicyError> {
    message.matches.iter().map(one_match).collect::<Result<_, _>>().map(Clause)
}

fn one_match(message: &proto::Match) -> Result<Match, PolicyError> {
    no_extensions(&message.extensions)?;
    Ok(Match {
        namespaces: strings("namespaces", &message.namespaces)?,
        not_namespaces: strings("not_namespaces", &message.not_namespaces)?,
        principals: strings("principals", &message.principals)?,
        not_principals: strings("not_principals", &message.not_principals)?,
        source_ips: ranges("source_ips", &message.source_ips)?,
        not_source_ips: ranges("not_source_ips", &message.not_source_ips)?,
        destination_ips: ranges("destination_ips", &message.destination_ips)?,
        not_destination_ips: ranges("not_destination_ips", &message.not_destination_ips)?,
        destination_ports: ports("destination_ports", &message.destination_ports)?,
        not_destination_ports: ports("not_destination_ports", &message.not_destination_ports)?,
        service_accounts: accounts("service_accounts", &message.service_accounts)?,
        not_service_accounts: accounts("not_service_accounts", &message.not_service_accounts)?,
    })
}

fn no_extensions(extensions: &[mesh_proto::workload::Extension]) -> Result<(), PolicyError> {
    extensions.first().map_or(Ok(()), |extension| Err(PolicyError::Extension(extension.name.clone())))
}

fn strings(field: &'static str, list: &[proto::StringMatch]) -> Result<Vec<StringMatch>, PolicyError> {
    use proto::string_match::MatchType;
    list.iter()
        .map(|message| match message.match_type.as_ref().ok_or(PolicyError::StringMatch(field))? {
            MatchType::Exact(text) => Ok(StringMatch::Exact(text.as_str().into())),
            MatchType::Prefix(text) => Ok(StringMatch::Prefix(text.as_str().into())),
            MatchType::Suffix(text) => Ok(StringMatch::Suffix(text.as_str().into())),
            MatchType::Presence(()) => Ok(StringMatch::Presence()),
        })
        .collect()
}

fn ranges(field: &'static str, list: &[proto::Address]) -> Result<Vec<IpNet>, PolicyError> {
    list.iter()
        .map(|message| address::cidr(&message.address, message.length))
        .collect::<Result<_, _>>()
        .map_err(|error| PolicyError::Address { field, error })
}

fn ports(field: &'static str, list: &[u32]) -> Result<Vec<u16>, PolicyError> {
    list.iter().map(|&number| u16::try_from(number).map_err(|_| PolicyError::Port { field, number })).collect()
}

fn accounts(field: &'static str, list: &[proto::ServiceAccountMatch]) -> Result<Vec<ServiceAccount>, PolicyError> {
    list.iter()
        .map(|message| {
            if message.namespace.is_empty() || message.service_account.is_empty() {
                return Err(PolicyError::ServiceAccount(field));
            }
            Ok(ServiceAccount {
                namespace: message.namespace.as_str().into(),
                service_account: message.service_account.as_str().into(),
            })
        })
        .collect()
}
