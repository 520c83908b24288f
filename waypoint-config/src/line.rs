// SPDX-License-Identifier: Apache-2.0
//! The one writer: takes batches from a source, moves store, view and resources on, and publishes the result. A line, never a loop: nothing that
//! reads what is published here writes back. `main` starts [`run`]; the discovery server and the CA read the watch.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use tracing::{info, warn};

use crate::{
    ambient::{Notice, Renderer, Resources},
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
    view::{Mesh, Snapshot, Touched, View, status::WAYPOINT_ACCEPTED},
};

mod demand;
mod ends;
mod handover;
mod progress;
mod refusals;
mod said;
mod statuses;
mod told;

pub use demand::{Demand, Wish};
use ends::configured;
pub use ends::{Inputs, Outputs};
pub use handover::{Bound, Handover, OPEN, PATIENCE, Turn, UNDER_WAY};
pub use progress::{Heard, Progress, Reader};
pub use refusals::{Complaints, Refusal, Refusals};
pub use statuses::{Statuses, Told};

/// What comes back from clients. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Feedback {
    /// What they ask for.
    pub demand: Demand,
    /// What they refuse.
    pub refusals: Refusals,
    /// How far they are.
    pub progress: Progress,
}

/// One moment of the mesh. A clone is cheap and never changes.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Counts up with everything that is published.
    pub number: u64,
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
    handover: Handover,
    number: u64,
    touched: Touched,
    refused: BTreeMap<Key, Vec<Refusal>>,
    faults: BTreeMap<Key, Fault>,
    /// Whose authors may be told something else than last time.
    judged: BTreeSet<Key>,
}

impl Line {
    /// An empty mesh.
    pub fn new(mesh: Mesh) -> Self {
        Self {
            store: Store::default(),
            view: View::new(mesh),
            renderer: Renderer::default(),
            fleet: Fleet::default(),
            handover: Handover::default(),
            number: 0,
            touched: Touched::default(),
            refused: BTreeMap::new(),
            faults: BTreeMap::new(),
            judged: BTreeSet::new(),
        }
    }

    /// Takes changes in; one generation however many they are. Everybody is told everything at once. Returns whether what node proxies are sent differs.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> bool {
        let (dirty, _) = self.take(changes);
        self.handover = Handover::default();
        self.render(&dirty, BTreeSet::new())
    }

    /// The same for clients that are there: nobody is told to send where nobody would take it yet, or any more; the rest follows with
    /// [`Self::handle_progress`].
    pub fn apply_at(&mut self, changes: impl IntoIterator<Item = Change>, now: Instant) -> bool {
        let (dirty, before) = self.take(changes);
        let turn = Turn { before: &before, after: self.view.snapshot(), publication: self.number, now };
        let moved = self.handover.handle_change(turn, &self.touched);
        self.render(&dirty, moved)
    }

    /// Tells more of what had to wait for others. Returns whether there was something to tell.
    pub fn handle_progress(&mut self, heard: &Heard, now: Instant) -> bool {
        let moved = self.handover.handle_progress(heard, self.number + 1, now);
        if moved.is_empty() {
            return false;
        }
        self.number += 1;
        self.touched = Touched::default();
        self.render(&Dirty::new(), moved);
        true
    }

    /// When to call that whatever was heard.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.handover.next_deadline()
    }

    /// The number of what is to be published next.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Store and view move on.
    fn take(&mut self, changes: impl IntoIterator<Item = Change>) -> (Dirty, Snapshot) {
        let mut dirty = Dirty::new();
        for change in changes {
            self.store.apply(change, &mut dirty);
        }
        let before = self.view.snapshot().clone();
        self.number += 1;
        self.touched = self.view.refresh(&self.store, &dirty);
        (dirty, before)
    }

    /// Resources follow.
    fn render(&mut self, dirty: &Dirty, moved: BTreeSet<Bound>) -> bool {
        let mut touched = self.touched.clone();
        for bound in moved {
            match bound {
                Bound::Service(key) => _ = touched.services.insert(key),
                Bound::Workload(id) => _ = touched.workloads.insert(id),
            }
        }
        let snapshot = self.view.snapshot();
        self.fleet.keep(self.handover.kept());
        self.fleet.refresh(&self.store, snapshot, dirty, &touched);
        self.judged.extend(touched.judged.iter().chain(self.fleet.retold()).cloned());
        self.renderer.refresh(&self.store, &self.handover.told(snapshot), &touched)
    }

    /// What the mesh's operator decided, and the keys of token issuers, from now on.
    pub fn configure(&mut self, settings: Arc<Settings>, keys: Arc<KeySets>) {
        self.fleet.configure(settings, keys);
        self.touched = Touched::default();
        self.number += 1;
        self.fleet.refresh(&self.store, self.view.snapshot(), &Dirty::new(), &self.touched);
        self.judged.extend(self.fleet.retold().cloned());
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
        let differs = self.fleet.want(self.view.snapshot(), wanted);
        self.number += u64::from(differs);
        self.judged.extend(self.fleet.retold().cloned());
        differs
    }

    /// What clients refuse now; [`Self::status`] tells it to the authors of the objects behind that.
    pub fn hear(&mut self, refusals: Vec<Refusal>) {
        let old = std::mem::take(&mut self.refused);
        for refusal in refusals {
            let Some(waypoint) = &refusal.waypoint else { continue };
            for key in self.fleet.made_from(waypoint, &refusal.resource) {
                self.refused.entry(key).or_default().push(refusal.clone());
            }
        }
        let differs = |key: &&Key| old.get(*key) != self.refused.get(*key);
        self.judged.extend(old.keys().chain(self.refused.keys()).filter(differs).cloned());
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

    fn publish(&self, published: &mut Published) {
        published.number = self.number;
        published.resources = self.resources().clone();
        published.waypoints = self.fleet.waypoints().clone();
        published.snapshot = self.snapshot().clone();
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
pub async fn run(mesh: Mesh, mut inputs: Inputs, feedback: Feedback, outputs: Outputs) {
    let Outputs { publish, wanted, statuses } = outputs;
    let Feedback { demand, refusals, progress } = feedback;
    let mut line = Line::new(mesh);
    let mut unattached = BTreeMap::new();
    let mut of_source: Arc<[Fault]> = Arc::default();
    let Loaded { settings, fault } = inputs.settings();
    let mut of_settings = fault;
    line.configure(settings, inputs.keys());
    let now = || tokio::time::Instant::now().into_std();
    loop {
        // Whatever else there is to do, nobody is kept waiting beyond the deadline.
        if line.next_deadline().is_some_and(|deadline| deadline <= now())
            && line.handle_progress(&progress.heard(), now())
        {
            publish.send_modify(|published| line.publish(published));
            statuses.say(line.retold(), false);
        }
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
                    line.publish(published);
                    published.faults = faults;
                });
                statuses.say(line.retold(), false);
                continue;
            }
            () = demand.changed() => {
                if line.want(demand.wanted()) {
                    said::report(&said, &line.fleet);
                    publish.send_modify(|published| line.publish(published));
                    statuses.say(line.retold(), false);
                }
                continue;
            }
            () = refusals.changed() => {
                line.hear(refusals.all());
                statuses.say(line.retold(), false);
                continue;
            }
            () = progress_or(&progress, line.next_deadline()) => {
                if line.handle_progress(&progress.heard(), now()) {
                    publish.send_modify(|published| line.publish(published));
                    statuses.say(line.retold(), false);
                }
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
        line.apply_at(changes, now());
        let faults = together(&of_source, of_settings.as_ref());
        line.fault(&faults);
        report(&publish.borrow().faults, &faults);
        report_notices(&before, line.resources());
        report_unattached(&line, &mut unattached);
        said::report(&said, &line.fleet);
        if !line.touched.access.is_empty() {
            wanted.send_replace(Arc::new(line.wanted_keys()));
        }
        publish.send_modify(|published| {
            line.publish(published);
            (published.faults, published.synced) = (faults, synced);
        });
        statuses.say(line.retold(), synced);
    }
}

fn together(of_source: &Arc<[Fault]>, of_settings: Option<&Fault>) -> Arc<[Fault]> {
    match of_settings {
        None => Arc::clone(of_source),
        Some(fault) => [fault].into_iter().chain(of_source.iter()).cloned().collect(),
    }
}

/// Waits for news of clients, where anything depends on it, but not for ever.
async fn progress_or(progress: &Progress, deadline: Option<Instant>) {
    let Some(deadline) = deadline else { return std::future::pending().await };
    tokio::select! {
        () = progress.changed() => {}
        () = tokio::time::sleep_until(deadline.into()) => {}
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
        // What is for waypoints is theirs to enforce; whether one does, its condition says.
        if *notice != Notice::ForGateways && before.notice(policy) != Some(notice) {
            warn!("AuthorizationPolicy {policy}: {notice}");
        }
    }
}

/// Policies with targets that nobody enforces or that only some do, once when that becomes so.
fn report_unattached(line: &Line, known: &mut BTreeMap<Key, String>) {
    for key in line.touched().judged.iter().filter(|key| key.kind == Kind::AuthorizationPolicy) {
        let status = line.status(key);
        let refused = status.conditions.iter().find(|one| one.kind == WAYPOINT_ACCEPTED && !one.holds);
        match refused {
            Some(condition) => {
                let old = known.insert(key.clone(), condition.message.clone());
                if old.as_ref() != Some(&condition.message) {
                    let (namespace, name) = (&key.namespace, &key.name);
                    warn!(
                        "AuthorizationPolicy {namespace}/{name} is not enforced as it is written: {}",
                        condition.message
                    );
                }
            }
            None => _ = known.remove(key),
        }
    }
}
