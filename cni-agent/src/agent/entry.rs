// SPDX-License-Identifier: Apache-2.0
//! One pod: what is wanted, what was observed, and the one step that comes next.
//!
//! Enrolling: the proxy listens in the pod before any rule sends it a connection, the rules stand before anybody is told to use HBONE. Releasing goes
//! the other way and breaks no open connection: nobody is told any more, new connections are no longer redirected, the open ones are waited for, the
//! proxy leaves, and then everything that carried them is removed (cni-agent.md §4.7 X-2).

use std::fmt;
use std::time::{Duration, Instant};

use crate::enrol::{Enrolment, Pod, Reason};

/// A step that the shell carries out, and answers with what it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Step {
    /// Find the network namespace among the node's processes.
    FindNetns,
    /// Give the pod to the node proxies' list, without waiting for any of them.
    Hold,
    /// Have the newest node proxy listen in the pod, and wait for its word.
    Listen,
    /// Bring rules and routes to the plan.
    ApplyRules,
    /// Look at what stands in the pod.
    Observe,
    /// Tell the mesh that the pod takes HBONE.
    WriteStatus,
    /// Tell nobody any more.
    WithdrawStatus,
    /// Let new connections past the proxy.
    ReleaseRedirects,
    /// Count the connections that still go through the proxy.
    CountProxied,
    /// Have all node proxies leave the pod.
    StopListening,
    /// Remove rules and routes.
    RemoveRules,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FindNetns => "find the network namespace",
            Self::Hold => "hand the pod to the node proxies' list",
            Self::Listen => "have the node proxy listen in the pod",
            Self::ApplyRules => "write the rules",
            Self::Observe => "read the rules back",
            Self::WriteStatus => "write the status",
            Self::WithdrawStatus => "withdraw the status",
            Self::ReleaseRedirects => "release the redirects",
            Self::CountProxied => "count proxied connections",
            Self::StopListening => "have the node proxies leave",
            Self::RemoveRules => "remove the rules",
        })
    }
}

/// What a step that succeeded saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen<N> {
    /// It was done.
    Done,
    /// The namespace.
    Netns(N),
    /// The rules, after looking.
    Rules(Rules),
    /// So many connections.
    Proxied(usize),
}

/// What stands in a pod, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Rules {
    /// Not looked yet.
    #[default]
    Unknown,
    /// Nothing.
    Absent,
    /// Not what it should be: to be written again, and to be removed at the end.
    Wrong,
    /// The whole plan.
    InPlace,
    /// The plan without redirects.
    Released,
}

/// What the mesh was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Status {
    /// Whatever a former life of the agent told.
    #[default]
    Unknown,
    /// Nothing.
    Withdrawn,
    /// That the pod takes HBONE.
    Enabled,
}

/// How long things take and last.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How often a settled pod is looked at again.
    pub check: Duration,
    /// The first wait after a failure; doubles up to `retry_most`.
    pub retry: Duration,
    /// The longest wait after failures.
    pub retry_most: Duration,
    /// How often proxied connections are counted during a release.
    pub count: Duration,
    /// How long the proxy stays at least during a release, for peers to hear of it.
    pub grace: Duration,
    /// How long open connections keep a release waiting at most.
    pub release: Duration,
    /// How long a CNI request may wait for its pod.
    pub request: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            check: Duration::from_secs(5),
            retry: Duration::from_millis(100),
            retry_most: Duration::from_secs(5),
            count: Duration::from_millis(250),
            grace: Duration::from_secs(2),
            release: Duration::from_secs(3600),
            request: Duration::from_secs(8),
        }
    }
}

/// How a pod stands, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// In the mesh, and seen to be.
    Enrolled,
    /// On its way in, or in need of repair.
    Pending,
    /// On its way out.
    Releasing,
    /// Not in the mesh.
    Out,
}

impl State {
    /// As metrics and people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::Pending => "pending",
            Self::Releasing => "releasing",
            Self::Out => "out",
        }
    }
}

/// How a pod stands, in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In a word.
    pub state: State,
    /// Why it is not in the mesh, or what stands in the way.
    pub reason: Option<String>,
}

/// A pod of this node.
#[derive(Debug)]
pub(super) struct Entry<N> {
    /// `None` when the object is gone.
    pub(super) pod: Option<Pod>,
    pub(super) enrolment: Enrolment,
    pub(super) netns: Option<N>,
    /// The newest node proxy said that it listens.
    pub(super) listening: bool,
    /// The pod is on the node proxies' list.
    pub(super) held: bool,
    /// It is there without its namespace, which is not found yet: a proxy that has it keeps it.
    pub(super) kept: bool,
    pub(super) rules: Rules,
    pub(super) status: Status,
    /// What was told is to be made sure of.
    status_due: bool,
    /// The step under way.
    pub(super) working: Option<Step>,
    /// Nothing is done before.
    pub(super) not_before: Option<Instant>,
    /// When it is looked at again though nothing happened.
    pub(super) check_at: Option<Instant>,
    /// Since when its redirects are released.
    pub(super) releasing_since: Option<Instant>,
    /// Since the redirects were released, the last proxied connection has ended.
    pub(super) drained: bool,
    pub(super) failures: u32,
    pub(super) trouble: Option<String>,
    /// How often it had to be repaired.
    pub(super) repairs: u64,
    /// Its first steps were taken or have failed: a node proxy may be told about it.
    pub(super) tried: bool,
}

/// What a pod needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Take this step.
    Do(Step),
    /// Wait until then, or until something happens.
    Wait(Instant),
    /// All is as wanted, for as long as nothing happens.
    Settled,
    /// Nothing is left of it.
    Forget,
}

impl<N: Clone + PartialEq> Entry<N> {
    pub(super) fn new(pod: Option<Pod>, enrolment: Enrolment) -> Self {
        Self {
            pod,
            enrolment,
            netns: None,
            listening: false,
            held: false,
            kept: false,
            rules: Rules::Unknown,
            status: Status::Unknown,
            status_due: false,
            working: None,
            not_before: None,
            check_at: None,
            releasing_since: None,
            drained: false,
            failures: 0,
            trouble: None,
            repairs: 0,
            tried: false,
        }
    }

    /// The step that brings the pod nearer to what is wanted.
    pub(super) fn next(&self, now: Instant, timing: &Timing) -> Next {
        if let Some(wait) = self.not_before.filter(|until| now < *until) {
            return Next::Wait(wait);
        }
        match self.direction() {
            Direction::In => self.next_in(now),
            Direction::Out => self.next_out(now, timing),
            Direction::Gone => self.next_gone(),
            Direction::Stay => self.next_stay(),
        }
    }

    fn direction(&self) -> Direction {
        match (&self.pod, self.enrolment) {
            (None, _) | (_, Enrolment::Leave(Reason::Ended)) => Direction::Gone,
            (_, Enrolment::Enrol) => Direction::In,
            // A namespace that is not known (yet, or any more) is no reason to break what stands, or may stand.
            (_, Enrolment::Leave(Reason::UnknownNamespace)) if self.is_touched() || self.rules == Rules::Unknown => {
                Direction::Stay
            }
            (_, Enrolment::Leave(_)) => Direction::Out,
        }
    }

    fn next_in(&self, now: Instant) -> Next {
        let Some(_) = self.netns else {
            return if self.held && !self.kept {
                Next::Do(Step::StopListening)
            } else if !self.kept && self.status == Status::Enabled {
                Next::Do(Step::WithdrawStatus)
            } else {
                Next::Do(Step::FindNetns)
            };
        };
        if !self.listening {
            return Next::Do(Step::Listen);
        }
        if self.rules != Rules::InPlace {
            return Next::Do(Step::ApplyRules);
        }
        if self.status != Status::Enabled || self.status_due {
            return Next::Do(Step::WriteStatus);
        }
        match self.check_at {
            Some(at) if now < at => Next::Wait(at),
            _ => Next::Do(Step::Observe),
        }
    }

    fn next_out(&self, now: Instant, timing: &Timing) -> Next {
        if self.status != Status::Withdrawn {
            return Next::Do(Step::WithdrawStatus);
        }
        if self.netns.is_none() {
            return if self.held { Next::Do(Step::StopListening) } else { Next::Settled };
        }
        match self.rules {
            Rules::Unknown => Next::Do(Step::Observe),
            // Found from a former life of the agent: the proxies must not forget it before its connections are done.
            Rules::InPlace | Rules::Released | Rules::Wrong if !self.held && self.releasing_since.is_none() => {
                Next::Do(Step::Hold)
            }
            Rules::InPlace | Rules::Wrong => Next::Do(Step::ReleaseRedirects),
            Rules::Released if self.held => {
                let since = self.releasing_since.unwrap_or(now);
                if self.drained || now >= since + timing.release {
                    Next::Do(Step::StopListening)
                } else {
                    Next::Do(Step::CountProxied)
                }
            }
            Rules::Released => Next::Do(Step::RemoveRules),
            Rules::Absent if self.held => Next::Do(Step::StopListening),
            Rules::Absent => Next::Settled,
        }
    }

    /// Nothing is changed; but what stands from a former life of the agent is not forgotten by the proxies.
    fn next_stay(&self) -> Next {
        match (&self.netns, self.rules) {
            (None, _) => Next::Do(Step::FindNetns),
            (Some(_), Rules::Unknown) => Next::Do(Step::Observe),
            (Some(_), Rules::InPlace | Rules::Released | Rules::Wrong) if !self.held => Next::Do(Step::Hold),
            (Some(_), _) => Next::Settled,
        }
    }

    fn next_gone(&self) -> Next {
        if self.held {
            return Next::Do(Step::StopListening);
        }
        if self.status != Status::Withdrawn {
            return Next::Do(Step::WithdrawStatus);
        }
        if self.pod.is_none() { Next::Forget } else { Next::Settled }
    }

    /// Takes in what a step saw.
    pub(super) fn saw(&mut self, now: Instant, step: Step, seen: Seen<N>, timing: &Timing) {
        self.failures = 0;
        self.trouble = None;
        self.not_before = None;
        match (step, seen) {
            (Step::FindNetns, Seen::Netns(netns)) => {
                self.netns = Some(netns);
                self.rules = Rules::Unknown;
                self.kept = false;
            }
            (Step::Hold, _) => self.held = true,
            (Step::Listen, _) => {
                self.held = true;
                self.heard();
            }
            (Step::ApplyRules, _) => {
                self.rules = Rules::InPlace;
                self.releasing_since = None;
                self.check_at = Some(now + timing.check);
            }
            (Step::Observe, Seen::Rules(rules)) => {
                if self.rules == Rules::InPlace && rules != Rules::InPlace {
                    self.repairs += 1;
                }
                self.rules = rules;
                self.check_at = Some(now + timing.check);
                self.status_due = true;
            }
            (Step::WriteStatus, _) => (self.status, self.status_due) = (Status::Enabled, false),
            (Step::WithdrawStatus, _) => self.status = Status::Withdrawn,
            (Step::ReleaseRedirects, _) => {
                self.rules = Rules::Released;
                self.releasing_since = Some(now);
                self.drained = false;
            }
            (Step::CountProxied, Seen::Proxied(count)) => self.counted(now, count, timing),
            (Step::StopListening, _) => (self.held, self.kept, self.listening) = (false, false, false),
            (Step::RemoveRules, _) => {
                self.rules = Rules::Absent;
                self.releasing_since = None;
            }
            (Step::FindNetns | Step::Observe | Step::CountProxied, _) => {
                self.failed(now, step, "the step answered something else than it was asked (a bug)".to_owned(), timing);
            }
        }
    }

    fn counted(&mut self, now: Instant, count: usize, timing: &Timing) {
        let since = *self.releasing_since.get_or_insert(now);
        if count == 0 && now >= since + timing.grace {
            self.drained = true;
            return;
        }
        self.trouble = Some(match count {
            0 => "waiting for peers to hear of the release".to_owned(),
            count => format!("waiting for {count} sockets of open connections through the proxy"),
        });
        self.not_before = Some(now + timing.count);
    }

    /// Takes in that a step failed.
    pub(super) fn failed(&mut self, now: Instant, step: Step, reason: String, timing: &Timing) {
        let wait = timing.retry.saturating_mul(1 << self.failures.min(10)).min(timing.retry_most);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + wait);
        self.trouble = Some(format!("cannot {step}: {reason}"));
        match step {
            // The list has it, and a proxy may have it or not.
            Step::Listen => self.held = true,
            // What is told must be so at that moment: looked at again before the next try.
            Step::ApplyRules | Step::RemoveRules | Step::ReleaseRedirects | Step::WriteStatus => {
                self.rules = Rules::Wrong
            }
            _ => {}
        }
    }

    /// A node proxy listens. What stands in the pod is looked at anew: it may be long since somebody did.
    pub(super) fn heard(&mut self) {
        self.listening = true;
        if self.rules == Rules::InPlace {
            self.rules = Rules::Wrong;
        }
    }

    /// Another namespace, or none: nothing that was known of the old one counts.
    pub(super) fn moved(&mut self, netns: Option<N>) {
        if self.netns != netns {
            self.netns = netns;
            self.rules = Rules::Unknown;
            self.listening = false;
            self.releasing_since = None;
            self.drained = false;
            self.check_at = None;
            self.kept = false;
        }
        self.woken();
    }

    /// Something happened: waiting for a retry is over.
    pub(super) fn woken(&mut self) {
        self.not_before = None;
        self.failures = 0;
    }

    fn is_touched(&self) -> bool {
        self.held || matches!(self.rules, Rules::InPlace | Rules::Released | Rules::Wrong)
    }

    /// Whether the node proxies may be told their list as far as this pod goes.
    pub(super) fn is_ready_for_list(&self) -> bool {
        match self.direction() {
            Direction::In => self.tried,
            Direction::Out => self.netns.is_none() || self.rules != Rules::Unknown || self.failures > 0,
            Direction::Stay => self.held || self.failures > 0,
            Direction::Gone => true,
        }
    }

    /// Its namespace is not found, and a proxy may serve it from before: it is to stay on the list by name.
    pub(super) fn keep_by_name(&mut self) -> bool {
        let unsure = self.netns.is_none() && matches!(self.direction(), Direction::In | Direction::Stay);
        if unsure {
            (self.held, self.kept) = (true, true);
        }
        unsure
    }

    pub(super) fn report(&self) -> Report {
        let settled = self.listening && self.rules == Rules::InPlace && self.status == Status::Enabled;
        let state = match self.direction() {
            Direction::In if settled => State::Enrolled,
            Direction::In => State::Pending,
            Direction::Out if self.is_touched() => State::Releasing,
            Direction::Gone if self.held => State::Releasing,
            Direction::Stay if self.listening && self.rules == Rules::InPlace => State::Enrolled,
            Direction::Stay => State::Pending,
            Direction::Out | Direction::Gone => State::Out,
        };
        let why_out = match self.enrolment {
            Enrolment::Leave(reason) => Some(reason.to_string()),
            Enrolment::Enrol => None,
        };
        Report { state, reason: self.trouble.clone().or(why_out) }
    }
}

/// Where a pod is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    In,
    Out,
    Gone,
    Stay,
}
