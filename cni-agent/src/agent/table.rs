// SPDX-License-Identifier: Apache-2.0
//! All pods of the node, and what is asked about them. Inputs in, actions out; time is an argument.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::enrol::{Enrolment, Namespace, Pod, Policy, Reason, decide};
use crate::plugin::Answer;

use super::entry::{Entry, Next, Report, Rules, Seen, Status, Step, Timing};

/// A CNI request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RequestId(pub u64);

/// What happened. `N` is a network namespace.
#[derive(Clone, Debug)]
pub(super) enum Input<N> {
    /// A pod of this node is now this.
    Pod(Pod),
    /// The pod's object is gone.
    PodGone {
        /// Its uid.
        uid: String,
    },
    /// A namespace is now this.
    Namespace(Namespace),
    /// The namespace's object is gone.
    NamespaceGone {
        /// Its name.
        name: String,
    },
    /// The source has told everything it had at the start.
    Synced,
    /// The container runtime made a network namespace for a pod, and waits.
    SandboxAdded {
        /// Whom to answer; `None` for one that is remembered from before.
        request: Option<RequestId>,
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
        /// The pod's uid, if the runtime told it.
        uid: Option<String>,
        /// The network namespace.
        netns: N,
    },
    /// The container runtime takes a network namespace away.
    SandboxGone {
        /// The network namespace.
        netns: N,
    },
    /// The newest node proxy said, when it was given the list, that it listens in the pod.
    Listening {
        /// The pod's uid.
        uid: String,
    },
    /// There is a new newest node proxy, or none: what the last one said counts no more.
    ProxyChanged,
    /// A step has ended.
    Ended {
        /// The pod's uid.
        uid: String,
        /// Which.
        step: Step,
        /// What it saw, or why it failed.
        outcome: Result<Seen<N>, String>,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action<N> {
    /// Carry out a step and answer with [`Input::Ended`].
    Take {
        /// The pod, with the namespace it has now.
        pod: Pod,
        /// Its network namespace.
        netns: Option<N>,
        /// The step.
        step: Step,
    },
    /// Answer a request.
    Reply {
        /// Which.
        request: RequestId,
        /// With this.
        answer: Answer,
    },
    /// From now on node proxies may connect: the list they are given is whole.
    AcceptProxies {
        /// Pods whose network namespace is not found yet, which a proxy that has them must keep.
        keep: Vec<String>,
    },
}

/// The table.
#[derive(Debug)]
pub(super) struct Table<N> {
    policy: Policy,
    timing: Timing,
    entries: BTreeMap<String, Entry<N>>,
    /// The last pod of an entry whose object is gone, for the steps that are still to be taken.
    last: BTreeMap<String, Pod>,
    namespaces: BTreeMap<String, Namespace>,
    requests: Vec<Waiting<N>>,
    synced_at: Option<Instant>,
    accepting: bool,
}

#[derive(Debug)]
struct Waiting<N> {
    request: Option<RequestId>,
    namespace: String,
    name: String,
    uid: Option<String>,
    netns: N,
    deadline: Instant,
    /// The sandbox was given to its entry.
    placed: bool,
}

impl<N: Clone + PartialEq> Table<N> {
    /// An empty table.
    #[must_use]
    pub(super) fn new(policy: Policy, timing: Timing) -> Self {
        Self {
            policy,
            timing,
            entries: BTreeMap::new(),
            last: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            requests: Vec::new(),
            synced_at: None,
            accepting: false,
        }
    }

    /// Takes an input in; gives what is to be done now.
    pub(super) fn handle(&mut self, now: Instant, input: Input<N>) -> Vec<Action<N>> {
        match input {
            Input::Pod(pod) => self.pod(pod),
            Input::PodGone { uid } => {
                if let Some(entry) = self.entries.get_mut(&uid) {
                    entry.pod = None;
                    entry.woken();
                }
            }
            Input::Namespace(namespace) => {
                let name = namespace.name.clone();
                self.namespaces.insert(name.clone(), namespace);
                self.decide_in(&name);
            }
            Input::NamespaceGone { name } => {
                self.namespaces.remove(&name);
                self.decide_in(&name);
            }
            Input::Synced => _ = self.synced_at.get_or_insert(now),
            Input::SandboxAdded { request, namespace, name, uid, netns } => {
                // A newer sandbox of the same pod takes the place of one that still waits for its pod.
                self.requests.retain(|waiting| {
                    waiting.request.is_some() || waiting.namespace != namespace || waiting.name != name
                });
                let deadline = now + self.timing.request;
                self.requests.push(Waiting { request, namespace, name, uid, netns, deadline, placed: false });
            }
            Input::SandboxGone { netns } => {
                let gone = self.requests.extract_if(.., |waiting| waiting.netns == netns);
                let reason = "the sandbox was deleted before its pod was enrolled";
                let replies: Vec<_> = gone
                    .filter_map(|waiting| waiting.request)
                    .map(|request| Action::Reply { request, answer: Answer::Refused { reason: reason.to_owned() } })
                    .collect();
                let inside = |entry: &&mut Entry<N>| entry.netns.as_ref() == Some(&netns);
                self.entries.values_mut().filter(inside).for_each(|entry| entry.moved(None));
                return replies.into_iter().chain(self.advance(now)).collect();
            }
            Input::Listening { uid } => {
                if let Some(entry) = self.entries.get_mut(&uid).filter(|entry| entry.held) {
                    entry.heard();
                    entry.woken();
                }
            }
            Input::ProxyChanged => {
                for entry in self.entries.values_mut() {
                    entry.listening = false;
                    entry.woken();
                }
            }
            Input::Ended { uid, step, outcome } => self.ended(now, &uid, step, outcome),
        }
        self.advance(now)
    }

    /// Looks what the time has made due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<Action<N>> {
        self.advance(now)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let idle = self.entries.values().filter(|entry| entry.working.is_none());
        let entries = idle.filter_map(|entry| match entry.next(now, &self.timing) {
            Next::Wait(until) => Some(until),
            Next::Settled => None,
            Next::Do(_) | Next::Forget => Some(now),
        });
        let requests = self.requests.iter().filter(|waiting| waiting.request.is_some()).map(|waiting| waiting.deadline);
        let accept = self.synced_at.filter(|_| !self.accepting).map(|at| at + self.timing.request);
        entries.chain(requests).chain(accept).min()
    }

    /// How every pod stands, by uid.
    pub(super) fn reports(&self) -> impl Iterator<Item = (&str, &Pod, Report)> {
        self.entries.iter().filter_map(|(uid, entry)| {
            let pod = entry.pod.as_ref().or_else(|| self.last.get(uid))?;
            Some((uid.as_str(), pod, entry.report()))
        })
    }

    /// How often rules were found changed by somebody else, and put back.
    #[must_use]
    pub(super) fn repairs(&self) -> u64 {
        self.entries.values().map(|entry| entry.repairs).sum()
    }

    /// How the pod of that name stands.
    #[must_use]
    pub(super) fn report(&self, namespace: &str, name: &str) -> Option<Report> {
        self.reports().find(|(_, pod, _)| pod.namespace == namespace && pod.name == name).map(|(_, _, report)| report)
    }

    /// The namespaces, for the plugin's own decisions while the agent is away.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.values()
    }

    fn pod(&mut self, pod: Pod) {
        let enrolment = decide(&pod, self.namespaces.get(&pod.namespace), &self.policy);
        let uid = pod.uid.clone();
        self.last.insert(uid.clone(), pod.clone());
        let entry = self.entries.entry(uid).or_insert_with(|| Entry::new(None, enrolment));
        if entry.pod.as_ref() != Some(&pod) || entry.enrolment != enrolment {
            entry.woken();
            // A changed annotation may have changed the plan.
            if entry.pod.as_ref().is_some_and(|old| old.annotations != pod.annotations) && entry.rules == Rules::InPlace
            {
                entry.rules = Rules::Wrong;
            }
        }
        (entry.pod, entry.enrolment) = (Some(pod), enrolment);
    }

    fn decide_in(&mut self, namespace: &str) {
        let known = self.namespaces.get(namespace);
        for entry in self.entries.values_mut() {
            let Some(pod) = entry.pod.as_ref().filter(|pod| pod.namespace == namespace) else { continue };
            let enrolment = decide(pod, known, &self.policy);
            if enrolment != entry.enrolment {
                entry.enrolment = enrolment;
                entry.woken();
            }
        }
    }

    fn ended(&mut self, now: Instant, uid: &str, step: Step, outcome: Result<Seen<N>, String>) {
        let Some(entry) = self.entries.get_mut(uid).filter(|entry| entry.working == Some(step)) else { return };
        entry.working = None;
        entry.tried |= matches!(step, Step::Listen | Step::FindNetns);
        match outcome {
            Ok(seen) => entry.saw(now, step, seen, &self.timing),
            Err(reason) => entry.failed(now, step, reason, &self.timing),
        }
    }

    fn advance(&mut self, now: Instant) -> Vec<Action<N>> {
        let mut actions = Vec::new();
        if self.synced_at.is_none() {
            return actions;
        }
        self.place();
        let mut forgotten = Vec::new();
        for (uid, entry) in &mut self.entries {
            if entry.working.is_some() {
                continue;
            }
            match entry.next(now, &self.timing) {
                Next::Do(step) => {
                    let Some(pod) = entry.pod.as_ref().or_else(|| self.last.get(uid)) else { continue };
                    entry.working = Some(step);
                    actions.push(Action::Take { pod: pod.clone(), netns: entry.netns.clone(), step });
                }
                Next::Forget => forgotten.push(uid.clone()),
                Next::Wait(_) | Next::Settled => {}
            }
        }
        for uid in forgotten {
            self.entries.remove(&uid);
            self.last.remove(&uid);
        }
        self.answer(now, &mut actions);
        self.accept(now, &mut actions);
        actions
    }

    /// Gives sandboxes to their pods, as soon as these are known.
    fn place(&mut self) {
        for waiting in self.requests.iter_mut().filter(|waiting| !waiting.placed) {
            let entry = self.entries.values_mut().find(|entry| {
                entry.pod.as_ref().is_some_and(|pod| {
                    pod.namespace == waiting.namespace
                        && pod.name == waiting.name
                        && waiting.uid.as_ref().is_none_or(|uid| *uid == pod.uid)
                })
            });
            if let Some(entry) = entry {
                entry.moved(Some(waiting.netns.clone()));
                waiting.placed = true;
            }
        }
        self.requests.retain(|waiting| waiting.request.is_some() || !waiting.placed);
    }

    fn answer(&mut self, now: Instant, actions: &mut Vec<Action<N>>) {
        let entries = &self.entries;
        self.requests.retain(|waiting| {
            let Some(request) = waiting.request else { return true };
            let entry = entries
                .values()
                .find(|entry| waiting.placed && entry.netns.as_ref() == Some(&waiting.netns) && entry.pod.is_some());
            let answer = match (entry, now >= waiting.deadline) {
                (Some(entry), late) => match (entry.enrolment, late) {
                    (Enrolment::Enrol, _) if entry.is_enrolled() => Some(Answer::Enrolled),
                    (Enrolment::Enrol, false) => None,
                    (Enrolment::Enrol, true) => Some(Answer::Refused { reason: entry.why_not() }),
                    (Enrolment::Leave(Reason::UnknownNamespace), false) => None,
                    (Enrolment::Leave(reason @ Reason::UnknownNamespace), true) => {
                        Some(Answer::Refused { reason: reason.to_string() })
                    }
                    (Enrolment::Leave(reason), _) => Some(Answer::Ignored { reason: reason.to_string() }),
                },
                (None, true) => Some(Answer::Refused { reason: NOT_KNOWN.to_owned() }),
                (None, false) => None,
            };
            let waits = answer.is_none();
            actions.extend(answer.map(|answer| Action::Reply { request, answer }));
            waits
        });
    }

    fn accept(&mut self, now: Instant, actions: &mut Vec<Action<N>>) {
        let Some(synced) = self.synced_at.filter(|_| !self.accepting) else { return };
        let all = self.entries.values().all(Entry::is_ready_for_list);
        if all || now >= synced + self.timing.request {
            self.accepting = true;
            let unsure = self.entries.iter_mut().filter_map(|(uid, entry)| entry.keep_by_name().then(|| uid.clone()));
            actions.push(Action::AcceptProxies { keep: unsure.collect() });
        }
    }
}

impl<N: Clone + PartialEq> Entry<N> {
    fn is_enrolled(&self) -> bool {
        self.listening && self.rules == Rules::InPlace && self.status == Status::Enabled
    }

    fn why_not(&self) -> String {
        self.trouble.clone().unwrap_or_else(|| match self.working {
            Some(step) => format!("still trying to {step}"),
            None => "not enrolled in time".to_owned(),
        })
    }
}

/// The source lags behind the container runtime, or does not have the pod at all.
const NOT_KNOWN: &str = "the agent does not know this pod as one of its node: check that the agent reaches the source of its objects, and that --node-name is the node's name";

#[cfg(test)]
#[path = "table/tests.rs"]
mod tests;
