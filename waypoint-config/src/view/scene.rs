// SPDX-License-Identifier: Apache-2.0
//! What resolving one object looks at: the objects beside it and the waypoints there are. Made by `build`, handed to every file that resolves a kind.

use std::sync::Arc;

use mesh_proto::contract::label;
use rpds::RedBlackTreeMapSync;

use super::{
    model::{Mesh, Name},
    waypoint::{Asker, Asking, Binding, Waypoint},
};
use crate::{api::Labels, store::Store};

/// The surroundings of an object.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) store: &'a Store,
    pub(super) waypoints: &'a RedBlackTreeMapSync<Name, Arc<Waypoint>>,
    /// The cluster's own.
    pub(super) network: &'a Arc<str>,
}

impl<'a> Scene<'a> {
    /// Through which waypoint an object with these labels goes.
    pub(super) fn bind(&self, asker: Asker, namespace: &str, own: &Labels) -> Binding {
        let none = Labels::new();
        let of_namespace = self.store.namespace_labels(namespace).unwrap_or(&none);
        Asking { asker, namespace, own, of_namespace }.bind(|name| self.waypoints.get(name).map(|found| &**found))
    }

    /// The waypoint of which a pod with these labels is an instance.
    pub(super) fn instance_of(&self, namespace: &str, labels: &Labels) -> Option<&'a Arc<Waypoint>> {
        let gateway = labels.get(label::GATEWAY_NAME)?;
        self.waypoints.get(&Name::new(namespace, gateway.as_str()))
    }
}

/// The cluster's network, as the label of the system namespace tells.
pub(super) fn network(store: &Store, mesh: &Mesh) -> Arc<str> {
    let labels = store.namespace_labels(&mesh.root_namespace);
    labels.and_then(|labels| labels.get(label::NETWORK)).map_or("", String::as_str).into()
}
