// SPDX-License-Identifier: Apache-2.0
//! The one writer: takes batches from a source, moves store, view and resources on, and publishes the result. A line, never a loop: nothing that
//! reads what is published here writes back. `main` starts [`run`]; the discovery server and the CA read the watch.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    ambient::{Renderer, Resources, ztunnel_accepted},
    api::{Key, Kind},
    envoy::{
        Said,
        input::{KeySets, Settings},
    },
    fleet::{self, Fleet, Waypoints},
    jwks,
    settings::Loaded,
    source::Fault,
    store::{Change, Dirty, Store},
    view::{Mesh, Snapshot, Touched, View, status::Status},
};

mod demand;
mod inputs;
mod refusals;
mod said;

pub use demand::{Demand, Wish};
pub use inputs::Inputs;
use inputs::configured;
pub use refusals::{Complaints, Refusal, Refusals};

/// What comes back from clients. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Feedback {
    /// What they ask for.
    pub demand: Demand,
    /// What they refuse.
    pub refusals: Refusals,
}

/// One moment of the mesh. A clone is cheap and never changes.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// What node proxies are sent.
    pub resources: Resources,
    /// What waypoints are sent.
    pub waypoints: Waypoints,
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
    fleet: Fleet,
    touched: Touched,
    refused: BTreeMap<Key, Vec<Refusal>>,
}

impl Line {
    /// An empty mesh.
    pub fn new(mesh: Mesh) -> Self {
        Self {
            store: Store::default(),
            view: View::new(mesh),
            renderer: Renderer::default(),
            fleet: Fleet::default(),
            touched: Touched::default(),
            refused: BTreeMap::new(),
        }
    }

    /// Takes changes in; one generation however many they are. Returns whether the resources differ.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> bool {
        let mut dirty = Dirty::new();
        for change in changes {
            self.store.apply(change, &mut dirty);
        }
        self.touched = self.view.refresh(&self.store, &dirty);
        self.fleet.refresh(&self.store, self.view.snapshot(), &dirty, &self.touched);
        self.renderer.refresh(&self.store, self.view.snapshot(), &self.touched)
    }

    /// What the mesh's operator decided, and the keys of token issuers, from now on.
    pub fn configure(&mut self, settings: Arc<Settings>, keys: Arc<KeySets>) {
        self.fleet.configure(settings, keys);
        self.touched = Touched::default();
        self.fleet.refresh(&self.store, self.view.snapshot(), &Dirty::new(), &self.touched);
    }

    /// Which keys of token issuers policies need that are attached to something, and how long a fetch of each may take.
    pub fn wanted_keys(&self) -> jwks::Wanted {
        let access = self.view.snapshot().access.values().flat_map(|access| &access.authentication);
        let mut wanted = jwks::Wanted::new();
        for rule in access.flat_map(|object| &object.spec.jwt_rules) {
            if let Some(source) = rule.key_source() {
                let patience = wanted.entry(source).or_default();
                *patience = rule.patience().max(*patience);
            }
        }
        wanted
    }

    /// Which waypoints are asked for from now on, and for which kinds of Envoy. Returns whether that is news.
    pub fn want(&mut self, wanted: BTreeSet<fleet::Key>) -> bool {
        self.fleet.want(self.view.snapshot(), wanted)
    }

    /// What clients refuse now; [`Self::status`] tells it to the authors of the objects behind that.
    pub fn hear(&mut self, refusals: Vec<Refusal>) {
        self.refused.clear();
        for refusal in refusals {
            let Some(waypoint) = &refusal.waypoint else { continue };
            for key in self.fleet.made_from(waypoint, &refusal.resource) {
                self.refused.entry(key).or_default().push(refusal.clone());
            }
        }
    }

    /// The objects behind what clients refuse now, and what they say.
    pub fn refused(&self) -> &BTreeMap<Key, Vec<Refusal>> {
        &self.refused
    }

    /// What waypoints are sent.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
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
        status.conditions.extend(said::conditions(&self.fleet, key));
        status.conditions.extend(self.refused.get(key).and_then(|refusals| refusals.first()).map(Refusal::condition));
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

/// Runs until the source ends. `wanted` is told which keys are needed.
pub async fn run(
    mesh: Mesh,
    mut inputs: Inputs,
    feedback: Feedback,
    publish: watch::Sender<Published>,
    wanted: watch::Sender<Arc<jwks::Wanted>>,
) {
    let Feedback { demand, refusals } = feedback;
    let mut line = Line::new(mesh);
    let mut of_source: Arc<[Fault]> = Arc::default();
    let Loaded { settings, fault } = inputs.settings();
    let mut of_settings = fault;
    line.configure(settings, inputs.keys());
    loop {
        let said: BTreeSet<Said> = line.fleet.said().into_iter().cloned().collect();
        let batch = tokio::select! {
            biased;
            batch = inputs.batches.recv() => match batch {
                Some(batch) => batch,
                None => return,
            },
            () = configured(&mut inputs.settings, &mut inputs.keys) => {
                let Loaded { settings, fault } = inputs.settings();
                of_settings = fault;
                line.configure(settings, inputs.keys());
                said::report(&said, &line.fleet);
                let faults = together(&of_source, of_settings.as_ref());
                report(&publish.borrow().faults, &faults);
                publish.send_modify(|published| {
                    published.waypoints = line.fleet.waypoints().clone();
                    published.faults = faults;
                });
                continue;
            }
            () = demand.changed() => {
                if line.want(demand.wanted()) {
                    said::report(&said, &line.fleet);
                    publish.send_modify(|published| published.waypoints = line.fleet.waypoints().clone());
                }
                continue;
            }
            () = refusals.changed() => {
                line.hear(refusals.all());
                continue;
            }
        };
        let mut changes = batch.changes;
        let mut synced = batch.synced;
        of_source = batch.faults;
        // What has queued up meanwhile becomes one generation.
        while let Ok(next) = inputs.batches.try_recv() {
            changes.extend(next.changes);
            (of_source, synced) = (next.faults, next.synced);
        }
        let before = line.resources().clone();
        line.apply(changes);
        let faults = together(&of_source, of_settings.as_ref());
        report(&publish.borrow().faults, &faults);
        report_notices(&before, line.resources());
        said::report(&said, &line.fleet);
        if !line.touched.access.is_empty() {
            wanted.send_replace(Arc::new(line.wanted_keys()));
        }
        publish.send_replace(Published {
            resources: line.resources().clone(),
            waypoints: line.fleet.waypoints().clone(),
            snapshot: line.snapshot().clone(),
            faults,
            synced,
        });
    }
}

fn together(of_source: &Arc<[Fault]>, of_settings: Option<&Fault>) -> Arc<[Fault]> {
    match of_settings {
        None => Arc::clone(of_source),
        Some(fault) => [fault].into_iter().chain(of_source.iter()).cloned().collect(),
    }
}

/// Each fault once when it appears, and once when it is mended.
fn report(before: &[Fault], now: &[Fault]) {
    for fault in now.iter().filter(|fault| !before.contains(fault)) {
        warn!("{fault}");
    }
    if now.is_empty() && !before.is_empty() {
        info!("everything is taken in again");
    }
}

fn report_notices(before: &Resources, now: &Resources) {
    for (policy, notice) in now.notices() {
        if before.notice(policy) != Some(notice) {
            warn!("AuthorizationPolicy {policy}: {notice}");
        }
    }
}
