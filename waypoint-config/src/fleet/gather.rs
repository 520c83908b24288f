// SPDX-License-Identifier: Apache-2.0
//! From the snapshot to the parts of what a waypoint serves. Called by `tended`.

use std::{collections::BTreeSet, sync::Arc};

use super::{kept::Kept, rules::Rules};
use crate::{
    envoy::input::{Destination, Endpoints, KeySets, NamedEndpoint, ServedService, Settings},
    view::{
        Name, Service, Snapshot, Workload,
        rule::{PortRules, Target},
        waypoint::{Access, Subject},
    },
};

/// What waypoints are made from.
#[derive(Clone, Copy)]
pub(super) struct World<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) rules: &'a Rules,
    pub(super) settings: &'a Arc<Settings>,
    pub(super) keys: &'a Arc<KeySets>,
    pub(super) kept: &'a Kept,
}

impl World<'_> {
    pub(super) fn served(&self, key: &Name, service: &Arc<Service>) -> ServedService {
        ServedService {
            destination: self.destination(key, service),
            rules: self.rules.of(key).cloned().unwrap_or_default(),
            access: self.access(&Subject::Service(key.clone())),
            is_leaving: false,
        }
    }

    pub(super) fn destination(&self, key: &Name, service: &Arc<Service>) -> Destination {
        Destination { service: Arc::clone(service), endpoints: self.endpoints(key, service) }
    }

    pub(super) fn endpoints(&self, key: &Name, service: &Service) -> Endpoints {
        let workloads = self.snapshot.endpoints(key);
        if service.resolution.is_some_and(|resolution| resolution.is_dns()) {
            let id = service.id();
            return Endpoints::Names(workloads.filter_map(|workload| named(&id, workload)).collect());
        }
        Endpoints::Workloads(workloads.cloned().collect())
    }

    pub(super) fn access(&self, subject: &Subject) -> Access {
        self.snapshot.access.get(subject).map(|access| (**access).clone()).unwrap_or_default()
    }

    /// The workloads whose own addresses are bound to a waypoint, or still are for those who have not heard otherwise.
    pub(super) fn workloads(&self, waypoint: &Name) -> Vec<Arc<Workload>> {
        let bound = self.snapshot.workloads_through(waypoint);
        let all: BTreeSet<_> = bound.chain(self.kept.workloads(waypoint)).collect();
        all.into_iter().filter_map(|id| self.snapshot.workloads.get(id).cloned()).collect()
    }

    /// The services that the operator's settings speak of.
    pub(super) fn of_settings(&self, waypoint: &Name) -> BTreeSet<Name> {
        let found = hosts(self.settings).into_iter().filter_map(|host| {
            let service = self.snapshot.service_of_host(&waypoint.namespace, host)?;
            Some(service.key(&self.snapshot.mesh))
        });
        found.collect()
    }
}

/// The host names of the operator's servers.
pub(super) fn hosts(settings: &Settings) -> BTreeSet<&str> {
    let authorizers = settings.authorizers.values().map(|one| one.upstream.host.as_str());
    authorizers.chain(settings.tracing.iter().map(|tracing| tracing.collector.host.as_str())).collect()
}

/// Whom the rules of a port send to.
pub(super) fn targets(rules: &PortRules) -> BTreeSet<&Name> {
    let http = rules.http.iter().map(|entry| &*entry.rule);
    let of_http = http.flat_map(|rule| {
        let backends = rule.backends.iter().map(|backend| &backend.target);
        backends.chain(rule.mirrors.iter().map(|mirror| &mirror.target))
    });
    let of_tcp = rules.tcp.iter().flat_map(|rule| rule.backends.iter().map(|backend| &backend.target));
    of_http.chain(of_tcp).filter_map(service).collect()
}

fn service(target: &Target) -> Option<&Name> {
    match target {
        Target::Service { service, .. } => Some(service),
        Target::Invalid { .. } => None,
    }
}

/// An endpoint by its name, or by its address, which resolves to itself.
fn named(id: &str, workload: &Workload) -> Option<NamedEndpoint> {
    let host = match workload.hostname.is_empty() {
        true => workload.addresses.first()?.to_string().into(),
        false => Arc::clone(&workload.hostname),
    };
    let mappings = workload.services.get(id).into_iter().flatten();
    Some(NamedEndpoint { host, ports: mappings.map(|one| (one.service_port, one.target_port)).collect() })
}
