// SPDX-License-Identifier: Apache-2.0
//! The one writer of what the node knows of the mesh: turns updates into changes, publishes the next snapshot, and tells
//! what changed. Used by the client and by the static file, never by both at once for the same resource.

use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_proto::discovery::Any;
use tokio::sync::mpsc;

use super::delta::{Kind, Rejected, Update};
use crate::mesh::{self, Change, Changed, Snapshot, Store};

/// Holds the store.
pub struct Publisher {
    store: Store,
    shared: Arc<ArcSwap<Snapshot>>,
    news: mpsc::UnboundedSender<Changed>,
}

impl Publisher {
    /// Publishes to `shared`, then tells `news` what changed. `node` is this node's name.
    pub fn new(node: &str, shared: Arc<ArcSwap<Snapshot>>, news: mpsc::UnboundedSender<Changed>) -> Self {
        Self { store: Store::new(node), shared, news }
    }

    /// Apply one update: everything in it that is understood. Gives what is not.
    pub fn update(&mut self, update: Update) -> Vec<Rejected> {
        let Update { kind, resources, removed } = update;
        let changes = resources.iter().map(|(name, body)| change(kind, name, body.as_ref()));
        let removals = removed.iter().map(|name| match kind {
            Kind::Address => Change::RemoveAddress(name.as_str().into()),
            Kind::Authorization => Change::RemovePolicy(name.as_str().into()),
        });
        // The first response to a wildcard holds everything there is.
        let received = match kind {
            Kind::Address => Change::Received(mesh::Kind::Addresses),
            Kind::Authorization => Change::Received(mesh::Kind::Policies),
        };
        self.apply(changes.chain(removals).chain([received]))
    }

    /// Apply changes as they are.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Vec<Rejected> {
        let applied = self.store.apply(changes);
        for name in &applied.not_there {
            tracing::debug!(%name, "the control plane removed a resource that was not there");
        }
        if applied.changed.anything() {
            self.shared.store(applied.snapshot);
            // Nobody listens only while the process ends.
            let _ = self.news.send(applied.changed);
        }
        let text = |rejected: &mesh::Rejected| Rejected {
            name: rejected.name.as_str().to_owned(),
            reason: rejected.reason.as_str().to_owned(),
        };
        applied.rejected.iter().map(text).collect()
    }
}

fn change(kind: Kind, name: &str, body: Option<&Any>) -> Change {
    // Bytes of another type, or none, are no message of this type: they are refused like any that cannot be decoded.
    let bytes = match body {
        Some(any) if any.type_url == kind.type_url() => any.value.as_slice(),
        Some(_) | None => UNDECODABLE,
    };
    match kind {
        Kind::Address => Change::address(name, bytes),
        Kind::Authorization => Change::authorization(name, bytes),
    }
}

/// Field number 0 is in no message.
const UNDECODABLE: &[u8] = &[0];

#[cfg(test)]
mod tests {
    use mesh_proto::discovery::pack;
    use mesh_proto::workload;

    use super::*;

    fn publisher() -> (Publisher, Arc<ArcSwap<Snapshot>>, mpsc::UnboundedReceiver<Changed>) {
        let shared = Arc::<ArcSwap<Snapshot>>::default();
        let (news, heard) = mpsc::unbounded_channel();
        (Publisher::new("n1", Arc::clone(&shared), news), shared, heard)
    }

    fn address(uid: &str) -> (String, Option<Any>) {
        let workload =
            workload::Workload { uid: uid.into(), name: "a".into(), namespace: "demo".into(), ..Default::default() };
        let address = workload::Address { r#type: Some(workload::address::Type::Workload(workload)) };
        (uid.to_owned(), Some(pack(&address)))
    }

    fn update(resources: Vec<(String, Option<Any>)>, removed: &[&str]) -> Update {
        let removed = removed.iter().map(|name| (*name).to_owned()).collect();
        Update { kind: Kind::Address, resources, removed }
    }

    #[test]
    fn the_good_resources_of_an_update_are_published_and_the_bad_ones_named() {
        let (mut publisher, shared, mut heard) = publisher();
        let other_type = Any { type_url: "type.googleapis.com/x".into(), value: Vec::new() };
        let resources =
            vec![("none".to_owned(), None), ("other".to_owned(), Some(other_type)), address("c//Pod/demo/a")];
        let rejected = publisher.update(update(resources, &[]));
        let names: Vec<_> = rejected.iter().map(|rejected| rejected.name.as_str()).collect();
        assert_eq!(names, ["none", "other"]);
        assert!(shared.load().workload("c//Pod/demo/a").is_some());
        assert!(shared.load().has_received(mesh::Kind::Addresses));
        assert!(!shared.load().has_received(mesh::Kind::Policies));
        assert!(heard.try_recv().unwrap().workloads);

        assert!(publisher.update(update(Vec::new(), &["c//Pod/demo/a", "unknown"])).is_empty());
        assert!(shared.load().workload("c//Pod/demo/a").is_none());
    }
}
