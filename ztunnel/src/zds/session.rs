// SPDX-License-Identifier: Apache-2.0
//! The proxy's side of ZDS as a state machine: no socket, clock or randomness of its own. `client` is its shell.
//!
//! Flow (ztunnel.md §3.2-3.4): connect, say hello, answer every request with exactly one response in order: a snapshot
//! of adds and keeps, the mark that it is complete, then adds and dels for ever.
//!
//! Guarantees. Pods outlive connections: what runs keeps running while the agent is away, and is reconciled against the
//! next complete snapshot. A start that failed is tried again every 5 s until it works or the agent takes it back. An
//! answer never takes longer than 4 s, below the agent's 5 s: a start that takes longer is refused, and
//! counts when it succeeds after all.
//!
//! Differences from the peer implementation, on purpose: a protocol error costs the connection and not the process
//! (W-17); failed pods are kept over a reconnect, so that a `Keep` still finds the namespace only we hold; an `Add` that
//! changes who the pod is restarts it (W-18); an agent that hangs up at once is met with a growing delay.
//!
//! `Del` closes a pod's connections at once. The agent sends it for a running pod only after it has taken the redirects
//! away and waited for the proxy's sockets to go (cni-agent.md §4.7 X-2), so a release breaks nothing here, and nothing
//! here keeps the namespace of a deleted pod alive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::Rng;

use super::message::{Message, PodInfo};
use crate::backoff::Backoff;

/// What holds a pod's network namespace open, and tells two of them apart.
pub trait Netns: Clone {
    /// Is it the same namespace? (Z-06: inode and device of the descriptor.)
    fn is_same(&self, other: &Self) -> bool;
}

/// One try at starting one pod; never used twice, so a late result cannot be taken for another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

/// Why a pod is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The agent sent `Del`.
    Removed,
    /// The agent's snapshot did not name it.
    Unnamed,
    /// The same pod was added with another namespace or as somebody else.
    Replaced,
}

/// What the shell has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<N> {
    /// Connect to the agent's socket.
    Connect,
    /// Send the hello.
    Hello,
    /// Answer the request: nothing for yes, the error's text for no.
    Reply(Result<(), String>),
    /// Bind the pod's listeners and report with [`Session::handle_started`].
    Start {
        /// The pod.
        uid: String,
        /// Names this try.
        attempt: Attempt,
        /// Who the pod is.
        info: PodInfo,
        /// Where its listeners go.
        netns: N,
    },
    /// Close what this try opened (or is opening).
    Stop {
        /// The pod.
        uid: String,
        /// The try that is up.
        attempt: Attempt,
        /// Why.
        why: Stop,
    },
    /// Close the connection; the next `Connect` comes by itself.
    HangUp,
}

/// The session; see the module's text.
#[derive(Debug)]
pub struct Session<N> {
    link: Link,
    pods: BTreeMap<String, Pod<N>>,
    attempts: u64,
    retry_at: Option<Instant>,
    backoff: Backoff,
}

#[derive(Debug)]
enum Link {
    Waiting { until: Instant },
    Connecting,
    Up { since: Instant, snapshot: Snapshot, unanswered: Option<Unanswered> },
}

#[derive(Debug)]
enum Snapshot {
    Receiving { named: BTreeSet<String> },
    Complete,
}

/// The request we owe an answer to: the add whose start has not ended.
#[derive(Debug)]
struct Unanswered {
    attempt: Attempt,
    until: Instant,
}

#[derive(Debug)]
struct Pod<N> {
    info: PodInfo,
    netns: N,
    attempt: Attempt,
    phase: Phase,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Up,
    Failed,
}

impl<N: Netns> Session<N> {
    /// No connection yet; the first deadline is `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            link: Link::Waiting { until: now },
            pods: BTreeMap::new(),
            attempts: 0,
            retry_at: None,
            backoff: Backoff::new(CONNECT_FIRST, CONNECT_CAP),
        }
    }

    /// The socket is connected.
    pub fn handle_connected(&mut self, now: Instant) -> Vec<Action<N>> {
        self.link = Link::Up { since: now, snapshot: Snapshot::Receiving { named: BTreeSet::new() }, unanswered: None };
        vec![Action::Hello]
    }

    /// The socket could not be connected. Gives the delay before the next try, for the log.
    pub fn handle_connect_failed(&mut self, now: Instant, rng: &mut impl Rng) -> Duration {
        self.wait(now, rng)
    }

    /// The agent closed the connection, or it broke. A session that was in order for a while is taken up again at once.
    pub fn handle_disconnected(&mut self, now: Instant, rng: &mut impl Rng) {
        if self.was_in_order(now) {
            self.backoff.reset();
            self.link = Link::Waiting { until: now };
        } else {
            self.wait(now, rng);
        }
    }

    /// A packet that is no message.
    pub fn handle_unreadable(&mut self, now: Instant, reason: &str, rng: &mut impl Rng) -> Vec<Action<N>> {
        self.refuse(now, format!("failure to read message : {reason}"), rng)
    }

    /// A message. The shell reads one only while [`Self::may_read`].
    pub fn handle_message(&mut self, now: Instant, message: Message<N>, rng: &mut impl Rng) -> Vec<Action<N>> {
        let Link::Up { snapshot, .. } = &mut self.link else { return Vec::new() };
        let receiving = match snapshot {
            Snapshot::Receiving { named } => Some(named),
            Snapshot::Complete => None,
        };
        match message {
            Message::Add { uid, info: None, .. } => {
                self.violation(now, &format!("add of pod {uid} has no workload_info"), rng)
            }
            Message::Add { uid, info: Some(info), netns } => {
                if let Some(named) = receiving {
                    named.insert(uid.clone());
                }
                self.add(now, uid, info, netns)
            }
            Message::Keep { uid } => match receiving {
                Some(named) => {
                    named.insert(uid);
                    vec![Action::Reply(Ok(()))]
                }
                None => self.violation(now, &format!("keep of pod {uid} after the snapshot was complete"), rng),
            },
            Message::Del { uid } => match receiving {
                Some(named) => {
                    named.remove(&uid);
                    if self.pods.get(&uid).is_some_and(|pod| pod.phase == Phase::Failed) {
                        self.pods.remove(&uid);
                    }
                    vec![Action::Reply(Ok(()))]
                }
                None => {
                    let mut actions = self.remove(&uid, Stop::Removed);
                    actions.push(Action::Reply(Ok(())));
                    actions
                }
            },
            Message::SnapshotSent => match receiving {
                Some(named) => {
                    let named = std::mem::take(named);
                    *snapshot = Snapshot::Complete;
                    let unnamed: Vec<String> = self.pods.keys().filter(|uid| !named.contains(*uid)).cloned().collect();
                    let mut actions: Vec<_> = unnamed.iter().flat_map(|uid| self.remove(uid, Stop::Unnamed)).collect();
                    actions.push(Action::Reply(Ok(())));
                    actions
                }
                None => self.violation(now, "a second snapshot_sent on one connection", rng),
            },
        }
    }

    /// The end of a start. Results of tries that were stopped meanwhile are nobody's and change nothing.
    pub fn handle_started(
        &mut self,
        now: Instant,
        uid: &str,
        attempt: Attempt,
        result: Result<(), String>,
    ) -> Vec<Action<N>> {
        if let Some(pod) = self.pods.get_mut(uid).filter(|pod| pod.attempt == attempt) {
            match &result {
                Ok(()) => pod.phase = Phase::Up,
                Err(_) => {
                    pod.phase = Phase::Failed;
                    self.retry_at.get_or_insert(now + RETRY);
                }
            }
        }
        match &mut self.link {
            Link::Up { unanswered, .. } if unanswered.as_ref().is_some_and(|u| u.attempt == attempt) => {
                *unanswered = None;
                vec![Action::Reply(result.map_err(|reason| start_failure(&reason)))]
            }
            _ => Vec::new(),
        }
    }

    /// A deadline of [`Self::next_deadline`] may have passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Action<N>> {
        let mut actions = Vec::new();
        match &mut self.link {
            Link::Waiting { until } if *until <= now => {
                self.link = Link::Connecting;
                actions.push(Action::Connect);
            }
            Link::Up { unanswered, .. } if unanswered.as_ref().is_some_and(|u| u.until <= now) => {
                *unanswered = None;
                actions.push(Action::Reply(Err(start_failure(&format!(
                    "listeners not bound within {} s; the start goes on",
                    ANSWER_LIMIT.as_secs()
                )))));
            }
            _ => {}
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            let failed: Vec<String> =
                self.pods.iter().filter(|(_, pod)| pod.phase == Phase::Failed).map(|(uid, _)| uid.clone()).collect();
            for uid in failed {
                actions.extend(self.start(&uid).1);
            }
        }
        actions
    }

    /// When [`Self::handle_timeout`] has to be called at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let link = match &self.link {
            Link::Waiting { until } => Some(*until),
            Link::Connecting => None,
            Link::Up { unanswered, .. } => unanswered.as_ref().map(|u| u.until),
        };
        link.into_iter().chain(self.retry_at).min()
    }

    /// Lock-step: no message is read while an answer is owed.
    pub fn may_read(&self) -> bool {
        matches!(self.link, Link::Up { unanswered: None, .. })
    }

    /// Is there a connection?
    pub fn is_connected(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    /// Snapshot complete and every pod up (P-11, Z-16).
    pub fn is_ready(&self) -> bool {
        matches!(self.link, Link::Up { snapshot: Snapshot::Complete, .. }) && self.pending() == 0
    }

    /// Pods whose listeners are bound.
    pub fn active(&self) -> usize {
        self.pods.values().filter(|pod| pod.phase == Phase::Up).count()
    }

    /// Pods that are starting or waiting to be tried again.
    pub fn pending(&self) -> usize {
        self.pods.len() - self.active()
    }

    /// Every pod with who it is and whether it is up, ordered by uid.
    pub fn pods(&self) -> impl Iterator<Item = (&str, &PodInfo, bool)> {
        self.pods.iter().map(|(uid, pod)| (uid.as_str(), &pod.info, pod.phase == Phase::Up))
    }

    fn add(&mut self, now: Instant, uid: String, info: PodInfo, netns: N) -> Vec<Action<N>> {
        let mut actions = Vec::new();
        let same = self.pods.get(&uid).filter(|pod| pod.netns.is_same(&netns) && pod.info == info);
        let attempt = match same.map(|pod| (&pod.phase, pod.attempt)) {
            Some((Phase::Up, _)) => return vec![Action::Reply(Ok(()))],
            // The start that an earlier connection asked for has not ended: its result answers this add too.
            Some((Phase::Starting, attempt)) => attempt,
            Some((Phase::Failed, _)) | None => {
                actions.extend(self.remove(&uid, Stop::Replaced));
                let pod = Pod { info, netns, attempt: Attempt(0), phase: Phase::Failed };
                self.pods.insert(uid.clone(), pod);
                let (attempt, start) = self.start(&uid);
                actions.extend(start);
                attempt
            }
        };
        if let Link::Up { unanswered, .. } = &mut self.link {
            *unanswered = Some(Unanswered { attempt, until: now + ANSWER_LIMIT });
        }
        actions
    }

    fn start(&mut self, uid: &str) -> (Attempt, Option<Action<N>>) {
        self.attempts += 1;
        let attempt = Attempt(self.attempts);
        let start = self.pods.get_mut(uid).map(|pod| {
            pod.attempt = attempt;
            pod.phase = Phase::Starting;
            Action::Start { uid: uid.to_owned(), attempt, info: pod.info.clone(), netns: pod.netns.clone() }
        });
        (attempt, start)
    }

    fn remove(&mut self, uid: &str, why: Stop) -> Vec<Action<N>> {
        match self.pods.remove(uid) {
            Some(Pod { phase: Phase::Up | Phase::Starting, attempt, .. }) => {
                vec![Action::Stop { uid: uid.to_owned(), attempt, why }]
            }
            Some(Pod { phase: Phase::Failed, .. }) | None => Vec::new(),
        }
    }

    fn violation(&mut self, now: Instant, what: &str, rng: &mut impl Rng) -> Vec<Action<N>> {
        self.refuse(now, format!("failure to process message : {what}"), rng)
    }

    fn refuse(&mut self, now: Instant, text: String, rng: &mut impl Rng) -> Vec<Action<N>> {
        if self.was_in_order(now) {
            self.backoff.reset();
        }
        self.wait(now, rng);
        vec![Action::Reply(Err(text)), Action::HangUp]
    }

    /// Whether the agent said all there is and then stayed: one that sends its list and goes, again and again, is as
    /// broken as one that says nothing.
    fn was_in_order(&self, now: Instant) -> bool {
        matches!(self.link, Link::Up { since, snapshot: Snapshot::Complete, .. } if now >= since + SETTLED)
    }

    fn wait(&mut self, now: Instant, rng: &mut impl Rng) -> Duration {
        let delay = self.backoff.delay(rng);
        self.link = Link::Waiting { until: now + delay };
        delay
    }
}

fn start_failure(reason: &str) -> String {
    format!("failure to start proxy : {reason}")
}

/// The agent waits 5 s for an answer (Z-09); ours is sent before that whatever happens.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);
/// Between two tries at a pod whose start failed (Z-20).
const RETRY: Duration = Duration::from_secs(5);
/// First delay after a connection that failed (Z-23).
const CONNECT_FIRST: Duration = Duration::from_millis(20);
/// A session that lasted this long does not count among the failures.
const SETTLED: Duration = Duration::from_secs(1);
/// Longest delay between two connections (Z-23).
const CONNECT_CAP: Duration = Duration::from_secs(15);

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
