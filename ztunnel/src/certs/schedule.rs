// SPDX-License-Identifier: Apache-2.0
//! Which identity gets a certificate when: no calls, clock or randomness of its own. `keeper` is its shell.
//!
//! An identity is kept as long as something wants it; one that only a connection asked for is not renewed, and not tried
//! again without another connection that asks. It is asked for with the highest priority anybody needs it with, at
//! most 8 calls at once, renewed at about half of its validity, and tried again with growing delays when the
//! call fails. A certificate that has not expired stays in force whatever happens to its renewal.
//!
//! Differences from the peer implementation, on purpose: renewals are spread (W-12), and a connection that needs a
//! certificate now brings a failed identity's next try forward instead of waiting out 150 s (W-11). An expired
//! certificate is withdrawn when it expires, not when the next renewal fails.
//!
//! Data threads judge a certificate by the wall clock, this schedule by a clock that stands still in suspend. So a
//! connection may need a certificate that is in force here and over there; its next call is brought forward too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_proto::spiffe::Identity;
use rand::Rng;

use crate::backoff::{Backoff, spread};

/// How urgently a certificate is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A renewal.
    Background,
    /// A workload of this node will need it.
    Warmup,
    /// A connection waits.
    RealTime,
}

/// How long a new certificate is good for, seen from the moment it was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From not_before to not_after.
    pub total: Duration,
    /// From now to not_after.
    pub left: Duration,
}

/// What the shell has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Call the CA and report with [`Schedule::handle_issued`] or [`Schedule::handle_failed`].
    Request(Identity),
    /// Tell whoever waits that there is none now, and why.
    Refuse(Identity, Arc<str>),
    /// The certificate has expired, or nobody wants it any more: take it out of use.
    Withdraw(Identity),
}

/// What is known about an identity's certificate; the words are `config_dump`'s (M-13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Asked for, none yet.
    Initializing,
    /// In force.
    Available,
    /// The last call failed, and there is none in force.
    Unavailable(Arc<str>),
}

/// The schedule; see the module's text.
#[derive(Debug, Default)]
pub struct Schedule {
    entries: BTreeMap<Identity, Entry>,
    in_flight: usize,
}

#[derive(Debug)]
struct Entry {
    priority: Priority,
    next: Next,
    /// Something wants it for as long as it is there.
    kept: bool,
    /// A connection has asked for it since the last call.
    demanded: bool,
    /// When the certificate in force ends.
    expires: Option<Instant>,
    /// When the last call ended, well or not.
    ended: Option<Instant>,
    /// Why the last call failed.
    failed: Option<Arc<str>>,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    At(Instant),
    InFlight,
    /// In flight, and nobody wants the result.
    Abandoned,
}

/// How a call's result is awaited at its end.
struct Ended {
    /// Nobody wants it.
    abandoned: bool,
    /// A connection waits for it.
    demanded: bool,
}

impl Schedule {
    /// Somebody wants this identity's certificate, or wants it more urgently.
    pub fn handle_wanted(&mut self, now: Instant, identity: &Identity, priority: Priority) -> Vec<Action> {
        let entry = self.entries.entry(identity.clone()).or_insert_with(|| Entry::new(now, priority));
        entry.kept |= priority != Priority::RealTime;
        entry.demanded |= priority == Priority::RealTime;
        let mut actions = Vec::new();
        match &mut entry.next {
            next @ Next::Abandoned => *next = Next::InFlight,
            Next::InFlight => {}
            Next::At(at) if priority == Priority::RealTime => {
                entry.priority = priority;
                if let Some(ended) = entry.ended {
                    *at = (*at).min(ended + URGENT_RETRY);
                }
                // The reason a renewal failed may be old: while a certificate is in force here, a call that can
                // start now answers better.
                let answer = entry.failed.as_ref().filter(|_| entry.expires.is_none() || *at > now);
                actions.extend(answer.map(|reason| Action::Refuse(identity.clone(), Arc::clone(reason))));
            }
            Next::At(_) if entry.expires.is_none() => entry.priority = entry.priority.max(priority),
            Next::At(_) => {}
        }
        actions.extend(self.admit(now));
        actions
    }

    /// Nobody wants it any more, but connections may wait for it still.
    pub fn handle_unwanted(&mut self, identity: &Identity) -> Vec<Action> {
        let Some(entry) = self.entries.get_mut(identity) else { return Vec::new() };
        entry.kept = false;
        let withdraw = entry.expires.take().map(|_| Action::Withdraw(identity.clone()));
        match entry.next {
            // Who waits is answered by the end of the call. A withdrawal answers too: they ask again.
            Next::At(_) | Next::InFlight if entry.demanded && withdraw.is_none() => {}
            Next::At(_) => {
                self.entries.remove(identity);
            }
            Next::InFlight | Next::Abandoned => entry.next = Next::Abandoned,
        }
        withdraw.into_iter().collect()
    }

    /// The call succeeded and the certificate was checked. False: nobody wants it any more, do not put it in force.
    pub fn handle_issued(
        &mut self,
        now: Instant,
        identity: &Identity,
        validity: Validity,
        rng: &mut impl Rng,
    ) -> (bool, Vec<Action>) {
        let Some(ended) = self.end(now, identity) else { return (false, Vec::new()) };
        if ended.abandoned {
            self.entries.remove(identity);
            return (false, self.admit(now));
        }
        if let Some(entry) = self.entries.get_mut(identity) {
            // A certificate that came old, or is renewed late, is renewed at once but never in a tight loop.
            let half = validity.left.saturating_sub(validity.total / 2);
            entry.next = Next::At(now + spread(half, REFRESH_SPREAD, rng).max(SHORTEST_REFRESH));
            entry.priority = Priority::Background;
            entry.expires = Some(now + validity.left);
            entry.failed = None;
            entry.backoff.reset();
        }
        (true, self.admit(now))
    }

    /// The call failed, or its answer did not pass the checks.
    pub fn handle_failed(
        &mut self,
        now: Instant,
        identity: &Identity,
        reason: &str,
        rng: &mut impl Rng,
    ) -> Vec<Action> {
        let Some(ended) = self.end(now, identity) else { return Vec::new() };
        let mut actions = Vec::new();
        if ended.abandoned {
            self.entries.remove(identity);
        } else if let Some(entry) = self.entries.get_mut(identity) {
            let reason: Arc<str> = reason.into();
            let again = now + entry.backoff.delay(rng);
            entry.failed = Some(Arc::clone(&reason));
            match entry.expires.filter(|expires| *expires > now) {
                Some(expires) => {
                    entry.next = Next::At(again.min(expires));
                    // For whoever waits the one in force is over.
                    actions.extend(ended.demanded.then(|| Action::Refuse(identity.clone(), reason)));
                }
                None => {
                    entry.next = Next::At(again);
                    if entry.expires.take().is_some() {
                        actions.push(Action::Withdraw(identity.clone()));
                    }
                    actions.push(Action::Refuse(identity.clone(), reason));
                }
            }
        }
        actions.extend(self.admit(now));
        actions
    }

    /// A deadline of [`Self::next_deadline`] may have passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        for (identity, entry) in &mut self.entries {
            if entry.expires.is_some_and(|expires| expires <= now) {
                entry.expires = None;
                actions.push(Action::Withdraw(identity.clone()));
                if let Some(reason) = &entry.failed {
                    actions.push(Action::Refuse(identity.clone(), Arc::clone(reason)));
                }
            }
        }
        actions.extend(self.admit(now));
        actions
    }

    /// When [`Self::handle_timeout`] has to be called at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let has_room = self.in_flight < CONCURRENCY;
        let due = |entry: &Entry| match entry.next {
            Next::At(at) if has_room => Some(at),
            Next::At(_) | Next::InFlight | Next::Abandoned => None,
        };
        self.entries.values().flat_map(|entry| due(entry).into_iter().chain(entry.expires)).min()
    }

    /// Every wanted identity and what is known about it, in order.
    pub fn states(&self) -> impl Iterator<Item = (&Identity, State)> {
        self.entries.iter().filter(|(_, entry)| entry.next != Next::Abandoned).map(|(identity, entry)| {
            let state = match (&entry.expires, &entry.failed) {
                (Some(_), _) => State::Available,
                (None, Some(reason)) => State::Unavailable(Arc::clone(reason)),
                (None, None) => State::Initializing,
            };
            (identity, state)
        })
    }

    /// A call has ended, if one was under way.
    fn end(&mut self, now: Instant, identity: &Identity) -> Option<Ended> {
        let entry = self.entries.get_mut(identity)?;
        let abandoned = match entry.next {
            Next::InFlight => false,
            Next::Abandoned => true,
            Next::At(_) => return None,
        };
        entry.ended = Some(now);
        self.in_flight -= 1;
        Some(Ended { abandoned, demanded: std::mem::take(&mut entry.demanded) })
    }

    /// Start what is due, most urgent first, then earliest first.
    fn admit(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let forgotten = |_: &Identity, entry: &mut Entry| {
            !entry.kept && !entry.demanded && matches!(entry.next, Next::At(at) if at <= now)
        };
        for (identity, entry) in self.entries.extract_if(.., forgotten) {
            actions.extend(entry.expires.map(|_| Action::Withdraw(identity)));
        }
        while self.in_flight < CONCURRENCY {
            let due = self.entries.iter_mut().filter_map(|(identity, entry)| match entry.next {
                Next::At(at) if at <= now => Some((std::cmp::Reverse(entry.priority), at, identity, entry)),
                Next::At(_) | Next::InFlight | Next::Abandoned => None,
            });
            let Some((_, _, identity, entry)) = due.min_by_key(|(priority, at, ..)| (*priority, *at)) else { break };
            entry.next = Next::InFlight;
            actions.push(Action::Request(identity.clone()));
            self.in_flight += 1;
        }
        actions
    }
}

impl Entry {
    fn new(now: Instant, priority: Priority) -> Self {
        let backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        let (kept, demanded, expires, ended, failed) = (false, false, None, None, None);
        Self { priority, next: Next::At(now), kept, demanded, expires, ended, failed, backoff }
    }
}

/// Calls to the CA at once.
const CONCURRENCY: usize = 8;
/// First delay after a failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest delay after a failure.
const LONGEST_RETRY: Duration = Duration::from_secs(150);
/// An identity that a connection needs is tried again this soon after its last call.
const URGENT_RETRY: Duration = Duration::from_secs(5);
/// Renewals are spread by a tenth of their time to either side.
const REFRESH_SPREAD: f64 = 0.1;
/// Never renew more often than this, however short the CA makes its certificates.
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
