// SPDX-License-Identifier: Apache-2.0
//! One change to what the node knows of the mesh. Discovery and the static file make changes out of messages here, off
//! the data path; `store` applies them.

use mesh_proto::{security, workload};
use prost::Message;

use super::policy::{Policy, PolicyError};
use super::refused::{RefusedAddress, RefusedPolicy};
use super::service::Service;
use super::text::Text;
use super::unknown;
use super::workload::Workload;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A workload is new or different.
    Workload(Box<Workload>),
    /// A service is new or different.
    Service(Box<Service>),
    /// A policy is new or different.
    Policy {
        /// Its discovery name, by which workloads list it.
        name: Text,
        /// What it says.
        policy: Box<Policy>,
    },
    /// A workload or service was not understood.
    RefusedAddress(RefusedAddress),
    /// A policy was not understood.
    RefusedPolicy(RefusedPolicy),
    /// The workload or service of this name is gone.
    RemoveAddress(Text),
    /// The policy of this name is gone.
    RemovePolicy(Text),
    /// Everything there is of that kind has been sent at least once. Comes after the changes of the first full
    /// answer, also if some of them were refused, and once for each kind. Until then `decide` passes nothing past
    /// the mesh and admits nobody: what is not there yet may forbid it.
    Received(Kind),
}

/// The kinds of resource that are discovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Workloads and services.
    Addresses,
    /// Policies.
    Policies,
}

impl Change {
    /// What an `istio.workload.Address` resource changes.
    pub fn address(name: &str, bytes: &[u8]) -> Self {
        match workload::Address::decode(bytes) {
            Ok(message) => Self::from_address(name, message),
            Err(error) => Self::RefusedAddress(RefusedAddress::undecodable(name, &error)),
        }
    }

    /// What an `istio.security.Authorization` resource changes.
    pub fn authorization(name: &str, bytes: &[u8]) -> Self {
        let message = match security::Authorization::decode(bytes) {
            Ok(message) => message,
            Err(error) => {
                let error = PolicyError::Bytes(error.to_string());
                return Self::RefusedPolicy(RefusedPolicy::undecodable(name, &error));
            }
        };
        match unknown::check(bytes).and_then(|()| Policy::try_from(&message)) {
            Ok(policy) => Self::Policy { name: name.into(), policy: Box::new(policy) },
            Err(error) => Self::RefusedPolicy(RefusedPolicy::of(name, &message, &error)),
        }
    }

    /// A resource that did not even hold a message of its type, for a reason the sender of changes found out.
    pub fn refused(kind: Kind, name: &str, reason: &str) -> Self {
        match kind {
            Kind::Addresses => {
                Self::RefusedAddress(RefusedAddress { name: name.into(), addresses: Vec::new(), reason: reason.into() })
            }
            Kind::Policies => {
                let error = PolicyError::Bytes(reason.to_owned());
                Self::RefusedPolicy(RefusedPolicy::undecodable(name, &error))
            }
        }
    }

    fn from_address(name: &str, message: workload::Address) -> Self {
        use workload::address::Type;
        match message.r#type {
            Some(Type::Workload(message)) => match Workload::try_from(message.clone()) {
                Ok(workload) => Self::Workload(Box::new(workload)),
                Err(error) => Self::RefusedAddress(RefusedAddress::workload(name, &message, explain(&error))),
            },
            Some(Type::Service(message)) => match Service::try_from(message.clone()) {
                Ok(service) => Self::Service(Box::new(service)),
                Err(error) => Self::RefusedAddress(RefusedAddress::service(name, &message, explain(&error))),
            },
            None => Self::refused(Kind::Addresses, name, NEITHER),
        }
    }
}

impl From<Service> for Change {
    fn from(service: Service) -> Self {
        Self::Service(Box::new(service))
    }
}

impl From<Workload> for Change {
    fn from(workload: Workload) -> Self {
        Self::Workload(Box::new(workload))
    }
}

impl From<Policy> for Change {
    fn from(policy: Policy) -> Self {
        Self::Policy { name: policy.key(), policy: Box::new(policy) }
    }
}

/// An error with its causes, in one line.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

const NEITHER: &str = "the message holds neither a workload nor a service";
