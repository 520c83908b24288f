// SPDX-License-Identifier: Apache-2.0
//! What `config_dump` shows of a snapshot, with the names `istioctl ztunnel-config` reads.

use std::collections::BTreeMap;

use serde::Serialize;

use super::endpoints::{Endpoint, Endpoints};
use super::policy::Policy;
use super::ports::PortMap;
use super::refused::{PolicyEntry, RefusedPolicy};
use super::service::Service;
use super::snapshot::Snapshot;
use super::text::Text;
use super::workload::{Health, Workload};

/// A snapshot as `config_dump` shows it: the lists in the order of uid, host name and policy name.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dump<'a> {
    workloads: Vec<&'a Workload>,
    services: Vec<ServiceDump<'a>>,
    policies: Vec<&'a Policy>,
    /// Endpoints whose service is not known.
    staged_services: BTreeMap<&'a str, ByUid<'a>>,
    /// Not in Istio's: what was sent but not understood, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<RefusedDump<'a>>,
}

type ByUid<'a> = BTreeMap<&'a str, EndpointDump<'a>>;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceDump<'a> {
    #[serde(flatten)]
    service: &'a Service,
    endpoints: ByUid<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointDump<'a> {
    workload_uid: &'a str,
    port: &'a PortMap,
    status: Health,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RefusedDump<'a> {
    name: &'a str,
    reason: &'a str,
}

impl Snapshot {
    /// What `config_dump` shows of it.
    pub fn dump(&self) -> Dump<'_> {
        let mut workloads: Vec<&Workload> = self.workloads().map(|workload| &**workload).collect();
        workloads.sort_by_key(|workload| &workload.uid);
        let mut services: Vec<&Service> = self.services().map(|service| &**service).collect();
        services.sort_by_key(|service| (&service.hostname, &service.namespace));
        let mut policies: Vec<(&Text, &Policy)> = Vec::new();
        let mut refused_policies: Vec<&RefusedPolicy> = Vec::new();
        for (name, entry) in self.policies() {
            match entry {
                PolicyEntry::Known { policy, .. } => policies.push((name, policy)),
                PolicyEntry::Refused(refused) => refused_policies.push(refused),
            }
        }
        policies.sort_by_key(|&(name, _)| name);
        let refused = self.refused_addresses().map(|refused| (&refused.name, &refused.reason));
        let refused = refused.chain(refused_policies.iter().map(|refused| (&refused.name, &refused.reason)));
        let mut refused: Vec<_> = refused.map(|(name, reason)| RefusedDump { name, reason }).collect();
        refused.sort_by_key(|refused| refused.name);
        let services = services
            .into_iter()
            .map(|service| ServiceDump { service, endpoints: endpoints(self.endpoints(service.key())) })
            .collect();
        Dump {
            workloads,
            services,
            policies: policies.into_iter().map(|(_, policy)| policy).collect(),
            staged_services: self.staged().map(|(key, staged)| (key.as_str(), endpoints(staged))).collect(),
            refused,
        }
    }
}

fn endpoints(endpoints: Endpoints<'_>) -> ByUid<'_> {
    endpoints.iter().map(|endpoint| (endpoint.workload.uid.as_str(), EndpointDump::of(endpoint))).collect()
}

impl<'a> EndpointDump<'a> {
    fn of(endpoint: &'a Endpoint) -> Self {
        let workload = &endpoint.workload;
        Self { workload_uid: &workload.uid, port: &endpoint.ports, status: workload.status }
    }
}
