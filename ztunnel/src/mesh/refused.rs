// SPDX-License-Identifier: Apache-2.0
//! What could not be understood, and what follows from it until it is. Nothing refused is ever simply forgotten:
//! what is not known about it is taken at its worst, so a refusal never leaves anybody less protected.
//!
//! **A refused policy** takes the place of the version before it (that one says something the operator no longer wants).
//! * Understood to be a dry run: it has no effect, as if it had been understood.
//! * Understood to be an ALLOW: it counts as an ALLOW that admits nobody. Other ALLOW policies still admit.
//! * Otherwise it denies everything it may apply to, with a reason of its own.
//!
//! It applies to the workloads that list it; with scope NAMESPACE to that namespace; with scope GLOBAL, or one that
//! could not be understood, to everybody.
//!
//! **A policy that a workload lists and nobody has sent** denies as well, but that reason is *provisional*: discovery
//! sends workloads before policies, so it mostly vanishes within milliseconds (see `decide::authz::Denied`).
//!
//! **A refused workload or service** loses the record before it. Its addresses are remembered: nothing is sent to them
//! in plaintext, because it may now be in the mesh. Of a message that cannot even be decoded only the name is known;
//! then the addresses of the record before it count.

use ipnet::IpNet;
use mesh_proto::{security, workload};

use super::address::{self, ServiceKey};
use super::policy::{self, Action, Policy, PolicyError, Scope};
use super::text::Text;

/// A policy that could not be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedPolicy {
    /// Its discovery name, `namespace/name`.
    pub name: Text,
    /// To whom it may apply.
    pub reach: Reach,
    /// What it does there.
    pub effect: Effect,
    /// What was not understood.
    pub reason: Text,
}

/// To whom a refused policy may apply, besides the workloads that list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// To nobody else.
    Listed,
    /// To every workload of this namespace.
    Namespace(Text),
    /// To everybody.
    Everybody,
}

/// What a refused policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it was a dry run.
    Nothing,
    /// It is an ALLOW that admits nobody.
    AdmitsNobody,
    /// It denies everything.
    DeniesAll,
}

/// A workload or service that could not be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedAddress {
    /// Its discovery name: a uid, or `namespace/hostname`.
    pub name: Text,
    /// The addresses it claims, with their network.
    pub addresses: Vec<(Text, IpNet)>,
    /// What was not understood.
    pub reason: Text,
}

impl RefusedPolicy {
    /// A policy message of which something was not understood.
    pub fn of(name: &str, message: &security::Authorization, error: &PolicyError) -> Self {
        let reach = match policy::scope(message.scope) {
            Ok(Scope::WorkloadSelector) => Reach::Listed,
            Ok(Scope::Namespace) if !message.namespace.is_empty() => {
                Reach::Namespace(message.namespace.as_str().into())
            }
            Ok(Scope::Namespace | Scope::Global) | Err(_) => Reach::Everybody,
        };
        let effect = match policy::action(message.action) {
            _ if message.dry_run => Effect::Nothing,
            Ok(Action::Allow) => Effect::AdmitsNobody,
            Ok(Action::Deny) | Err(_) => Effect::DeniesAll,
        };
        Self { name: name.into(), reach, effect, reason: error.to_string().into() }
    }

    /// Bytes that are no policy message at all.
    pub fn undecodable(name: &str, error: &PolicyError) -> Self {
        Self { name: name.into(), reach: Reach::Everybody, effect: Effect::DeniesAll, reason: error.to_string().into() }
    }
}

impl RefusedAddress {
    /// Bytes that are no address message at all.
    pub fn undecodable(name: &str, error: &prost::DecodeError) -> Self {
        Self { name: name.into(), addresses: Vec::new(), reason: format!("cannot be decoded: {error}").into() }
    }

    /// A workload of which something was not understood.
    pub fn workload(name: &str, message: &workload::Workload, reason: String) -> Self {
        let host_network = message.network_mode == i32::from(workload::NetworkMode::HostNetwork);
        // The addresses of the node say nothing about the workload.
        let listed = if host_network { &[] } else { message.addresses.as_slice() };
        let addresses = listed.iter().filter_map(|bytes| address::ip(bytes).ok());
        let network = Text::from(message.network.as_str());
        let addresses = addresses.map(|address| (network.clone(), address.into())).collect();
        Self { name: name.into(), addresses, reason: reason.into() }
    }

    /// A service of which something was not understood.
    pub fn service(name: &str, message: &workload::Service, reason: String) -> Self {
        let addresses = message.addresses.iter().filter_map(|listed| {
            let whole = if listed.address.len() == 4 { 32 } else { 128 };
            let range = address::cidr(&listed.address, listed.length.unwrap_or(whole)).ok()?;
            Some((listed.network.as_str().into(), range))
        });
        Self { name: name.into(), addresses: addresses.collect(), reason: reason.into() }
    }

    /// Its key, if it may be a service.
    pub(super) fn service_key(&self) -> Option<ServiceKey> {
        self.name.parse().ok()
    }
}

/// A policy as the tables hold it.
#[derive(Debug, Clone, PartialEq)]
pub enum PolicyEntry {
    /// It was understood.
    Known {
        /// Its discovery name, by which workloads list it.
        name: Text,
        /// What it says.
        policy: Policy,
    },
    /// It was not.
    Refused(RefusedPolicy),
}

impl PolicyEntry {
    /// Its discovery name.
    pub fn name(&self) -> &Text {
        match self {
            Self::Known { name, .. } => name,
            Self::Refused(refused) => &refused.name,
        }
    }

    /// To whom it applies besides the workloads that list it.
    pub fn reach(&self) -> Reach {
        match self {
            Self::Known { policy, .. } => match policy.scope {
                Scope::Global => Reach::Everybody,
                Scope::Namespace => Reach::Namespace(policy.namespace.clone()),
                Scope::WorkloadSelector => Reach::Listed,
            },
            Self::Refused(refused) => refused.reach.clone(),
        }
    }
}
