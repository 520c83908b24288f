// SPDX-License-Identifier: Apache-2.0
//! Keeps the resources in step with the snapshot: makes anew what the view touched, and only that. Called by `line`.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    authorization, encode, peer,
    resources::{Resources, Type, Update},
    service, workload,
};
use crate::{
    api::{Key, Kind, Object},
    store::Store,
    view::{Name, Policy, Snapshot, Touched},
};

/// The resources and the way to the next generation.
#[derive(Clone, Debug, Default)]
pub struct Renderer {
    resources: Resources,
}

impl Renderer {
    /// The resources as they are.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Makes a new generation of what was touched; none if no byte differs.
    pub fn refresh(&mut self, store: &Store, snapshot: &Snapshot, touched: &Touched) -> bool {
        let mesh = &snapshot.mesh;
        // Where a waypoint is found stands in whoever goes through it.
        let waypoints = || touched.waypoints.iter();
        let through = waypoints().flat_map(|waypoint| snapshot.workloads_through(waypoint));
        let ids: BTreeSet<_> = touched.workloads.iter().chain(through).collect();
        let through = waypoints().flat_map(|waypoint| snapshot.services_through(waypoint));
        let names: BTreeSet<_> = touched.services.iter().chain(through).collect();
        let workloads = ids.into_iter().map(|id| match snapshot.workloads.get(id) {
            Some(workload) => Update::Put(Arc::new(workload::resource(snapshot, workload))),
            None => Update::Remove(Type::Address, workload::uid(mesh, id).into()),
        });
        let services = names.into_iter().map(|name| match snapshot.services.get(name) {
            Some(service) => Update::Put(Arc::new(service::resource(snapshot, service))),
            None => Update::Remove(Type::Address, mesh.service_id(name)),
        });
        let policies = touched.policies.iter().map(|name| match snapshot.policies.get(name) {
            Some(policy) => Update::Put(Arc::new(policy_resource(name, policy))),
            None => Update::Remove(Type::Authorization, name.to_string().into()),
        });
        let notices = touched.objects.iter().map(|name| notice(store, snapshot, name));
        let updates: Vec<_> = workloads.chain(services).chain(policies).chain(notices).collect();
        match self.resources.next(&updates) {
            Some(next) => {
                self.resources = next;
                true
            }
            None => false,
        }
    }
}

fn policy_resource(name: &Name, policy: &Policy) -> super::Resource {
    let message = match policy {
        Policy::Authorization { scope, object } => authorization::translate(*scope, object).0,
        Policy::StaticStrict => peer::static_strict(name),
        Policy::PortLevel(level) => peer::port_level(name, level),
    };
    encode::resource(Type::Authorization, name.to_string(), &message)
}

fn notice(store: &Store, snapshot: &Snapshot, name: &Name) -> Update {
    let key =
        Key { kind: Kind::AuthorizationPolicy, namespace: Arc::clone(&name.namespace), name: Arc::clone(&name.name) };
    let notice = match (snapshot.policies.get(name).map(|policy| &**policy), store.object(&key)) {
        (Some(Policy::Authorization { scope, object }), _) => authorization::translate(*scope, object).1,
        (_, Some(Object::AuthorizationPolicy(object))) => authorization::refusal(object),
        _ => None,
    };
    Update::Notice(name.to_string().into(), notice)
}
