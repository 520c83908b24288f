// SPDX-License-Identifier: Apache-2.0
//! Which policies are attached to a waypoint or a service (control-plane.md §5.5). Called by `build`.

use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use super::{
    model::{Name, Service},
    policy::seniority,
    scene::Scene,
    waypoint::{Access, Subject},
};
use crate::api::{Kind, Object};

/// The policies of a subject that is there, if it has any.
pub(super) fn resolve(
    scene: &Scene<'_>,
    services: &RedBlackTreeMapSync<Name, Arc<Service>>,
    subject: &Subject,
) -> Option<Access> {
    let mut access = Access::default();
    match subject {
        Subject::Waypoint(name) => {
            let waypoint = scene.waypoints.get(name)?;
            let own = scene.store.policies_for(Kind::Gateway, &name.namespace, &name.name);
            let root = scene.mesh.root_namespace.as_str();
            let of_class = scene.store.policies_for(Kind::GatewayClass, "", &waypoint.class);
            let of_class = of_class.filter(|object| object.metadata().namespace.as_deref() == Some(root));
            own.chain(of_class).for_each(|object| add(&mut access, object));
        }
        Subject::Service(key) => {
            let service = services.get(key)?;
            let kind = kind_of(service);
            scene
                .store
                .policies_for(kind, &service.namespace, &service.name)
                .for_each(|object| add(&mut access, object));
        }
    }
    access.authorization.sort_by(|a, b| seniority(&a.metadata).cmp(&seniority(&b.metadata)));
    access.authentication.sort_by(|a, b| seniority(&a.metadata).cmp(&seniority(&b.metadata)));
    (access != Access::default()).then_some(access)
}

/// The kind of the object a service was made from.
pub(super) fn kind_of(service: &Service) -> Kind {
    match service.resolution {
        None => Kind::Service,
        Some(_) => Kind::ServiceEntry,
    }
}

fn add(access: &mut Access, object: &Object) {
    match object {
        Object::AuthorizationPolicy(policy) => access.authorization.push(Arc::clone(policy)),
        Object::RequestAuthentication(policy) => access.authentication.push(Arc::clone(policy)),
        _ => {}
    }
}
