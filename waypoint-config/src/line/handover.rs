// SPDX-License-Identifier: Apache-2.0
//! Who is told first when something is bound to a waypoint or leaves it, so that nobody sends where nobody takes: make before break across programs. Pure;
//! driven by the line.
//!
//! Bound: first the Envoys of the waypoint are told, and node proxies when all of those have taken it. Unbound: first the node proxies are told; the Envoys
//! serve on until all of those have taken it, a little longer for connections that are on their way, and longer still for those that are open. One waypoint
//! after another is both, in this order. Nobody is waited for without end: a waypoint that is not there has its services after [`PATIENCE`] all the same,
//! which then fail until it is there, as Istio has it, and whose policies nobody gets round.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::progress::Heard;
use crate::{
    fleet::{Keep, Kept},
    view::{Name, Snapshot, Touched, WorkloadId},
};

/// How long clients may take to hear of a change.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may be under way to a waypoint after every node proxy has heard that it should go elsewhere: as long as connecting may take.
pub const UNDER_WAY: Duration = Duration::from_secs(10);
/// How long what open connections need stays; an Envoy of ours has ended them by then (`lateen-waypoint` lets it drain for 25 s, Istio for 45 s).
pub const OPEN: Duration = Duration::from_secs(60);

/// What is on its way from one waypoint to another, or to none, or from none.
#[derive(Clone, Debug, Default)]
pub struct Handover {
    moves: BTreeMap<Bound, Move>,
}

/// What can be bound to a waypoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// A service, by its key.
    Service(Name),
    /// A workload's own addresses.
    Workload(WorkloadId),
}

#[derive(Clone, Debug)]
struct Move {
    /// What node proxies were told last.
    told: Option<Name>,
    wanted: Option<Name>,
    /// When the waypoint's Envoys have taken this, node proxies are told what is wanted.
    due: Option<Wait>,
    /// Others that node proxies may still send to.
    left: BTreeMap<Name, Stage>,
}

/// For clients to take a publication.
#[derive(Clone, Copy, Debug)]
struct Wait {
    publication: u64,
    deadline: Instant,
}

/// How far a waypoint is left.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Not every node proxy knows.
    Unheard(Wait),
    /// All know; what they sent before may be under way.
    UnderWay(Instant),
    /// Nothing comes any more; connections may be open.
    Open(Instant),
}

/// The world before and after a change, which will be told in a publication of this number.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// Before.
    pub before: &'a Snapshot,
    /// After.
    pub after: &'a Snapshot,
    /// The number.
    pub publication: u64,
    /// When.
    pub now: Instant,
}

impl Handover {
    /// Takes in what a change touched; gives what node proxies must be told of beside that.
    pub fn handle_change(&mut self, turn: Turn<'_>, touched: &Touched) -> BTreeSet<Bound> {
        let mut moved = BTreeSet::new();
        for key in &touched.services {
            let waypoint = |of: &Snapshot| of.services.get(key).map(|service| service.waypoint.clone());
            self.bind(turn, Bound::Service(key.clone()), waypoint(turn.before), waypoint(turn.after));
        }
        for id in &touched.workloads {
            let waypoint = |of: &Snapshot| of.workloads.get(id).map(|workload| workload.waypoint.clone());
            self.bind(turn, Bound::Workload(id.clone()), waypoint(turn.before), waypoint(turn.after));
        }
        for name in &touched.waypoints {
            // Nobody may be sent past a waypoint because the one before it is gone.
            if !turn.after.waypoints.contains_key(name) {
                for (bound, one) in self.moves.iter_mut().filter(|(_, one)| one.told.as_ref() == Some(name)) {
                    one.tell(turn.publication, turn.now);
                    moved.insert(bound.clone());
                }
            }
        }
        moved
    }

    /// Goes on as far as what was heard, or the time, allows; gives what others must be told of now.
    pub fn handle_progress(&mut self, heard: &Heard, publication: u64, now: Instant) -> BTreeSet<Bound> {
        let mut moved = BTreeSet::new();
        self.moves.retain(|bound, one| {
            if one.advance(heard, publication, now) {
                moved.insert(bound.clone());
            }
            !one.is_over()
        });
        moved
    }

    /// When to go on whatever is heard.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = |one: &Move| {
            let left: Vec<Instant> = one.left.values().map(Stage::deadline).collect();
            one.due.map(|due| due.deadline).into_iter().chain(left)
        };
        self.moves.values().flat_map(deadlines).min()
    }

    /// The mesh as node proxies are told of it.
    pub fn told(&self, snapshot: &Snapshot) -> Snapshot {
        let others = || self.moves.iter().filter(|(_, one)| one.told != one.wanted);
        let services = others().filter_map(|(bound, one)| match bound {
            Bound::Service(key) => Some((key, one.told.as_ref())),
            Bound::Workload(_) => None,
        });
        let workloads = others().filter_map(|(bound, one)| match bound {
            Bound::Workload(id) => Some((id, one.told.as_ref())),
            Bound::Service(_) => None,
        });
        snapshot.rebound(services, workloads)
    }

    /// Who is still served where it is no longer bound.
    pub fn kept(&self) -> Kept {
        let mut kept = Kept::default();
        for (bound, one) in &self.moves {
            let told = one.told.iter().map(|waypoint| (waypoint, Keep::Whole));
            let left = one.left.iter().map(|(waypoint, stage)| (waypoint, stage.keep()));
            for (waypoint, how) in left.chain(told).filter(|(waypoint, _)| one.wanted.as_ref() != Some(*waypoint)) {
                match bound {
                    Bound::Service(key) => kept.keep_service(waypoint, key, how),
                    Bound::Workload(id) => kept.keep_workload(waypoint, id, how),
                }
            }
        }
        kept
    }

    fn bind(&mut self, turn: Turn<'_>, bound: Bound, old: Option<Option<Name>>, new: Option<Option<Name>>) {
        let (Some(old), Some(new)) = (old, new) else {
            // What is new has no connections, and must not be reached past its policies; what is gone has nothing to be served.
            self.moves.remove(&bound);
            return;
        };
        if old == new {
            return;
        }
        let fresh = Move { told: old, wanted: None, due: None, left: BTreeMap::new() };
        let one = self.moves.entry(bound.clone()).or_insert(fresh);
        one.wanted = new;
        one.due = None;
        let is_there = |name: &Name| turn.after.waypoints.contains_key(name);
        let waits = one.wanted.as_ref().and_then(|name| turn.after.waypoints.get(name));
        let waits = waits.is_some_and(|waypoint| waypoint.is_ours) && one.told.as_ref().is_none_or(is_there);
        if waits && one.told != one.wanted {
            one.due = Some(Wait { publication: turn.publication, deadline: turn.now + PATIENCE });
        } else {
            one.tell(turn.publication, turn.now);
        }
        if one.is_over() {
            self.moves.remove(&bound);
        }
    }
}

impl Move {
    /// Node proxies are told what is wanted, in this publication.
    fn tell(&mut self, publication: u64, now: Instant) {
        self.due = None;
        if let Some(left) = std::mem::replace(&mut self.told, self.wanted.clone()) {
            let wait = Wait { publication, deadline: now + PATIENCE };
            self.left.insert(left, Stage::Unheard(wait));
        }
        if let Some(wanted) = &self.wanted {
            self.left.remove(wanted);
        }
    }

    /// Whether anything others must be told of has come of it.
    fn advance(&mut self, heard: &Heard, publication: u64, now: Instant) -> bool {
        let mut moved = false;
        let taken = self.wanted.as_ref().and_then(|waypoint| heard.waypoints.get(waypoint)).copied();
        if self.due.is_some_and(|due| due.is_over(taken, now)) {
            self.tell(publication, now);
            moved = true;
        }
        // What nobody is there to hear, everybody has heard.
        let taken = Some(heard.node_proxies.unwrap_or(u64::MAX));
        self.left.retain(|_, stage| {
            if let Stage::Unheard(wait) = *stage
                && wait.is_over(taken, now)
            {
                *stage = Stage::UnderWay(now + UNDER_WAY);
            }
            if let Stage::UnderWay(until) = *stage
                && until <= now
            {
                *stage = Stage::Open(now + OPEN);
                moved = true;
            }
            let is_over = matches!(*stage, Stage::Open(until) if until <= now);
            moved |= is_over;
            !is_over
        });
        moved
    }

    fn is_over(&self) -> bool {
        self.told == self.wanted && self.left.is_empty()
    }
}

impl Wait {
    fn is_over(&self, taken: Option<u64>, now: Instant) -> bool {
        taken.is_some_and(|taken| taken >= self.publication) || self.deadline <= now
    }
}

impl Stage {
    fn deadline(&self) -> Instant {
        match self {
            Self::Unheard(wait) => wait.deadline,
            Self::UnderWay(until) | Self::Open(until) => *until,
        }
    }

    fn keep(self) -> Keep {
        match self {
            Self::Unheard(_) | Self::UnderWay(_) => Keep::Whole,
            Self::Open(_) => Keep::Open,
        }
    }
}

#[cfg(test)]
#[path = "handover/tests.rs"]
mod tests;
