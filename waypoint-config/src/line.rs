// SPDX-License-Identifier: Apache-2.0
//! The one writer: takes batches from a source, moves store, view and resources on, and publishes the result. A line, never a loop: nothing that
//! reads what is published here writes back. `main` starts [`run`]; the discovery server and the CA read the watch.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::{
    ambient::{Renderer, Resources, ztunnel_accepted},
    api::{Key, Kind},
    source::{Batch, Fault},
    store::{Change, Dirty, Store},
    view::{Mesh, Snapshot, Touched, View, status::Status},
};

/// One moment of the mesh. A clone is cheap and never changes.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// What node proxies are sent.
    pub resources: Resources,
    /// Who is there.
    pub snapshot: Snapshot,
    /// What the source could not take in.
    pub faults: Arc<[Fault]>,
    /// Whether the source has told everything it had at the start. Until then nobody may be answered: half a mesh looks like deletions.
    pub synced: bool,
}

/// Store, view and resources in step.
#[derive(Debug)]
pub struct Line {
    store: Store,
    view: View,
    renderer: Renderer,
    touched: Touched,
}

impl Line {
    /// An empty mesh.
    pub fn new(mesh: Mesh) -> Self {
        Self {
            store: Store::default(),
            view: View::new(mesh),
            renderer: Renderer::default(),
            touched: Touched::default(),
        }
    }

    /// Takes changes in; one generation however many they are. Returns whether the resources differ.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> bool {
        let mut dirty = Dirty::new();
        for change in changes {
            self.store.apply(change, &mut dirty);
        }
        self.touched = self.view.refresh(&self.store, &dirty);
        self.renderer.refresh(&self.store, self.view.snapshot(), &self.touched)
    }

    /// What the last changes touched.
    pub fn touched(&self) -> &Touched {
        &self.touched
    }

    /// What the author of an object is to be told. The conditions of routes ([`Status::parents`]) are left to whoever resolves routes.
    pub fn status(&self, key: &Key) -> Status {
        let mut status = Status::of(&self.store, self.view.snapshot(), key);
        if key.kind == Kind::AuthorizationPolicy && self.store.object(key).is_some() {
            let notice = self.resources().notice(&format!("{}/{}", key.namespace, key.name));
            status.conditions.extend(ztunnel_accepted(notice));
        }
        status
    }

    /// All objects.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What node proxies are sent.
    pub fn resources(&self) -> &Resources {
        self.renderer.resources()
    }

    /// Who is there.
    pub fn snapshot(&self) -> &Snapshot {
        self.view.snapshot()
    }
}

/// Runs until the source ends.
pub async fn run(mesh: Mesh, mut batches: mpsc::Receiver<Batch>, publish: watch::Sender<Published>) {
    let mut line = Line::new(mesh);
    while let Some(batch) = batches.recv().await {
        let mut changes = batch.changes;
        let (mut faults, mut synced) = (batch.faults, batch.synced);
        // What has queued up meanwhile becomes one generation.
        while let Ok(next) = batches.try_recv() {
            changes.extend(next.changes);
            (faults, synced) = (next.faults, next.synced);
        }
        let before = line.resources().clone();
        line.apply(changes);
        report(&publish.borrow().faults, &faults);
        report_notices(&before, line.resources());
        publish.send_replace(Published {
            resources: line.resources().clone(),
            snapshot: line.snapshot().clone(),
            faults,
            synced,
        });
    }
}

/// Each fault once when it appears, and once when it is mended.
fn report(before: &[Fault], now: &[Fault]) {
    for fault in now.iter().filter(|fault| !before.contains(fault)) {
        warn!("{fault}");
    }
    if now.is_empty() && !before.is_empty() {
        info!("every object of the source is taken in again");
    }
}

fn report_notices(before: &Resources, now: &Resources) {
    for (policy, notice) in now.notices() {
        if before.notice(policy) != Some(notice) {
            warn!("AuthorizationPolicy {policy}: {notice}");
        }
    }
}
