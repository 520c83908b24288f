// SPDX-License-Identifier: Apache-2.0
//! The static file that may stand in for discovery, as types. Reading it is `xds::files`' business.
//!
//! Same names as Istio's ztunnel takes, with two differences: what is left out of a workload gets the defaults it has
//! in discovery (Istio's leaves trust domain and service account empty, which makes no identity), and `uid` and
//! `services` may be left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::address::AddressError;
use super::change::Change;
use super::policy::{Policy, PolicyError};
use super::service::{Service, ServiceError};
use super::text::Text;
use super::workload::{Workload, WorkloadError};

/// A static file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct StaticConfig {
    /// Workloads.
    pub workloads: Vec<Workload>,
    /// Policies.
    pub policies: Vec<Policy>,
    /// Services.
    pub services: Vec<Service>,
}

/// Why a static file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StaticError {
    /// A workload is wrong.
    #[error("workload {name:?}: {error}")]
    Workload {
        /// Its uid or name.
        name: Text,
        /// What is wrong.
        #[source]
        error: WorkloadError,
    },
    /// A service is wrong.
    #[error("service {name:?}: {error}")]
    Service {
        /// Its name.
        name: Text,
        /// What is wrong.
        #[source]
        error: ServiceError,
    },
    /// A policy is wrong.
    #[error("policy {name:?}: {error}")]
    Policy {
        /// Its name.
        name: Text,
        /// What is wrong.
        #[source]
        error: PolicyError,
    },
    /// A service has an endpoint that is no workload of the file.
    #[error("service {service:?} has the endpoint {uid:?}, but the file has no workload with this uid")]
    NoSuchWorkload {
        /// Name of the service.
        service: Text,
        /// The endpoint.
        uid: Text,
    },
    /// Two workloads have the same uid.
    #[error("two workloads have the uid {0:?}; give them different ones")]
    SameUid(Text),
    /// An address or name in it.
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl StaticConfig {
    /// The file as changes. All mistakes are reported together, and then nothing is changed.
    pub fn into_changes(self) -> Result<Vec<Change>, Vec<StaticError>> {
        let mut errors = Vec::new();
        let mut workloads = BTreeMap::new();
        for workload in self.workloads {
            let name = if workload.uid.is_empty() { workload.name.clone() } else { workload.uid.clone() };
            match workload.complete() {
                Ok(workload) => {
                    if let Some(other) = workloads.insert(workload.uid.clone(), workload) {
                        errors.push(StaticError::SameUid(other.uid));
                    }
                }
                Err(error) => errors.push(StaticError::Workload { name, error }),
            }
        }
        let mut services = Vec::new();
        for service in self.services {
            let name = service.name.clone();
            match service.complete() {
                Ok(service) => services.push(service),
                Err(error) => errors.push(StaticError::Service { name, error }),
            }
        }
        for service in &mut services {
            move_endpoints(service, &mut workloads, &mut errors);
        }
        let mut policies = Vec::new();
        for policy in self.policies {
            let name = policy.key();
            match policy.complete() {
                Ok(policy) => policies.push(Change::from(policy)),
                Err(error) => errors.push(StaticError::Policy { name, error }),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let addresses = workloads.into_values().map(Change::from).chain(services.into_iter().map(Change::from));
        Ok(addresses.chain(policies).collect())
    }
}

/// Endpoints belong to workloads here; those written into a service are moved there.
fn move_endpoints(service: &mut Service, workloads: &mut BTreeMap<Text, Workload>, errors: &mut Vec<StaticError>) {
    let key = service.key().clone();
    for endpoint in std::mem::take(&mut service.endpoints).into_values() {
        match workloads.get_mut(&endpoint.workload_uid) {
            Some(workload) => {
                workload.services.add(key.clone(), endpoint.port);
                if endpoint.status == super::workload::Health::Unhealthy {
                    workload.status = endpoint.status;
                }
            }
            None => {
                errors.push(StaticError::NoSuchWorkload { service: service.name.clone(), uid: endpoint.workload_uid })
            }
        }
    }
}
