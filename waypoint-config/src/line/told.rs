// SPDX-License-Identifier: Apache-2.0
//! What the author of an object is told, put together from all who have something to say: the view, the routes' resolution, the waypoints, the clients that
//! refuse, and the source that could not read it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Line, said};
use crate::{
    ambient::ztunnel_accepted,
    api::{Key, Kind, ParentRef},
    fleet::route,
    line::Refusal,
    source::Fault,
    view::{
        routes::RouteStatus,
        status::{Condition, ParentStatus, Status, is_waypoint},
    },
};

impl Line {
    /// What the author of an object is to be told.
    pub fn status(&self, key: &Key) -> Status {
        let mut status = Status::of(&self.store, self.view.snapshot(), key);
        if key.kind == Kind::AuthorizationPolicy && self.store.object(key).is_some() {
            let notice = self.resources().notice(&format!("{}/{}", key.namespace, key.name));
            status.conditions.extend(ztunnel_accepted(notice));
        }
        if key.kind.is_route() {
            status.parents = self.parents(key);
        }
        status.conditions.extend(said::conditions(&self.fleet, key));
        status.conditions.extend(self.refused.get(key).and_then(|refusals| refusals.first()).map(Refusal::condition));
        if let Some(fault) = self.faults.get(key) {
            refuse(&mut status, fault, key.kind);
        }
        status
    }

    /// Everything of which the authors are told something else than when this was asked last; generously.
    pub fn retold(&mut self) -> Vec<(Key, Status)> {
        let keys = std::mem::take(&mut self.judged);
        keys.into_iter().map(|key| (key.clone(), self.status(&key))).collect()
    }

    /// What the source could not take in, now.
    pub fn fault(&mut self, faults: &[Fault]) {
        let mut now = BTreeMap::new();
        for fault in faults.iter().filter(|fault| !fault.observed) {
            if let Some(key) = &fault.object {
                now.entry(key.clone()).or_insert_with(|| fault.clone());
            }
        }
        let old = std::mem::replace(&mut self.faults, now);
        let differs = |key: &&Key| old.get(*key) != self.faults.get(*key);
        self.judged.extend(old.keys().chain(self.faults.keys()).filter(differs).cloned());
    }

    fn parents(&self, key: &Key) -> Vec<ParentStatus> {
        let mut all: Vec<ParentStatus> = Vec::new();
        for said in self.fleet.rules().statuses(key) {
            merge(&mut all, said);
        }
        let Some(route) = self.store.object(key).and_then(route) else { return all };
        let told: BTreeSet<ParentRef> = all.iter().map(|one| one.parent.clone()).collect();
        for orphan in route.orphaned(&|_, _| false).iter().filter(|orphan| !told.contains(&orphan.parent)) {
            merge(&mut all, orphan);
        }
        let gateways = route.gateways().into_iter().filter(|(_, name)| is_waypoint(&self.store, name));
        all.extend(gateways.map(|(parent, name)| {
            let message = format!("{name} is a waypoint: routes are not attached to it, but to the services behind it");
            ParentStatus {
                parent,
                conditions: vec![Condition::new("Accepted", false, "NotAllowedByListeners", message)],
            }
        }));
        all.sort_by(|a, b| a.parent.cmp(&b.parent));
        all
    }
}

/// A ServiceEntry is one parent and a service for each of its hosts; of each condition the worse one is told.
fn merge(all: &mut Vec<ParentStatus>, said: &RouteStatus) {
    let at = match all.iter().position(|one| one.parent == said.parent) {
        Some(at) => at,
        None => {
            all.push(ParentStatus { parent: said.parent.clone(), conditions: Vec::new() });
            all.len() - 1
        }
    };
    for one in &said.conditions {
        let new = Condition::new(one.kind.word(), one.is_true, one.reason.word(), one.message.clone());
        let conditions = &mut all[at].conditions;
        match conditions.iter_mut().find(|known| known.kind == new.kind) {
            Some(known) if known.is_bad() || !new.is_bad() => {}
            Some(known) => *known = new,
            None => conditions.push(new),
        }
    }
}

/// This version of the object is not in force, whatever is said of the one before.
fn refuse(status: &mut Status, fault: &Fault, kind: Kind) {
    let place = if fault.path.is_empty() { String::new() } else { format!("{}: ", fault.path) };
    let rest = if fault.stands { "; the last version that could be taken in stays in force" } else { "" };
    let reason = if kind.is_route() { "UnsupportedValue" } else { "Invalid" };
    let condition = Condition::new("Accepted", false, reason, shortened(&format!("{place}{}{rest}", fault.reason)));
    let parents = match fault.parents.is_empty() {
        true => status.parents.iter().map(|one| one.parent.clone()).collect(),
        false => fault.parents.clone(),
    };
    if parents.is_empty() {
        status.conditions.retain(|one| one.kind != condition.kind);
        status.conditions.insert(0, condition);
        return;
    }
    status.parents =
        parents.into_iter().map(|parent| ParentStatus { parent, conditions: vec![condition.clone()] }).collect();
}

/// Messages of conditions are bounded by the API server.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 4096;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_owned(),
    }
}
