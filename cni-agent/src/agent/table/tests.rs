// SPDX-License-Identifier: Apache-2.0
//! The table against a node that exists only here, in virtual time.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::agent::State;

/// A node: what really is in the pods, as the steps see and change it. Checks the order of steps as it goes.
struct Node {
    now: Instant,
    table: Table<u32>,
    queue: Vec<Action<u32>>,
    answers: Vec<(RequestId, Answer)>,
    taken: Vec<(String, Step)>,
    proxy: bool,
    accepting: bool,
    keep: Vec<String>,
    listening: BTreeSet<(String, u32)>,
    rules: BTreeMap<u32, Rules>,
    told: BTreeSet<String>,
    proxied: usize,
    failing: BTreeSet<Step>,
    in_proc: BTreeMap<String, u32>,
}

impl Node {
    fn new() -> Self {
        let policy = Policy { system_namespace: "istio-system".into(), ..Policy::default() };
        Self {
            now: Instant::now(),
            table: Table::new(policy, Timing::default()),
            queue: Vec::new(),
            answers: Vec::new(),
            taken: Vec::new(),
            proxy: true,
            accepting: false,
            keep: Vec::new(),
            listening: BTreeSet::new(),
            rules: BTreeMap::new(),
            told: BTreeSet::new(),
            proxied: 0,
            failing: BTreeSet::new(),
            in_proc: BTreeMap::new(),
        }
    }

    fn input(&mut self, input: Input<u32>) {
        let actions = self.table.handle(self.now, input);
        self.queue.extend(actions);
        self.settle();
    }

    fn settle(&mut self) {
        while !self.queue.is_empty() {
            match self.queue.remove(0) {
                Action::Reply { request, answer } => self.answers.push((request, answer)),
                Action::AcceptProxies { keep } => {
                    self.accepting = true;
                    self.keep = keep;
                }
                Action::Take { pod, netns, step } => {
                    let outcome = self.take(&pod, netns, step);
                    let ended = Input::Ended { uid: pod.uid, step, outcome };
                    let actions = self.table.handle(self.now, ended);
                    self.queue.extend(actions);
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.table.next_deadline(self.now).filter(|due| *due <= end) {
            self.now = due.max(self.now + Duration::from_millis(1));
            let actions = self.table.handle_timeout(self.now);
            self.queue.extend(actions);
            self.settle();
        }
        self.now = end;
    }

    fn take(&mut self, pod: &Pod, netns: Option<u32>, step: Step) -> Result<Seen<u32>, String> {
        self.taken.push((pod.uid.clone(), step));
        if self.failing.contains(&step) {
            return Err("the node says no".to_owned());
        }
        let inside = || netns.ok_or_else(|| "a step in a pod without its namespace (a bug)".to_owned());
        let uid = pod.uid.clone();
        match step {
            Step::FindNetns => {
                return self.in_proc.get(&uid).map(|n| Seen::Netns(*n)).ok_or_else(|| "no process".to_owned());
            }
            Step::Hold => {}
            Step::Listen => {
                if !self.proxy {
                    return Err("no ztunnel connection".to_owned());
                }
                self.listening.insert((uid, inside()?));
            }
            Step::ApplyRules => {
                let netns = inside()?;
                assert!(self.listening.contains(&(uid, netns)) || !self.proxy, "redirected to a closed port");
                self.rules.insert(netns, Rules::InPlace);
            }
            Step::Observe => return Ok(Seen::Rules(self.rules.get(&inside()?).copied().unwrap_or(Rules::Absent))),
            Step::WriteStatus => {
                assert_eq!(self.rules.get(&inside()?), Some(&Rules::InPlace), "told before it was so");
                self.told.insert(uid);
            }
            Step::WithdrawStatus => _ = self.told.remove(&uid),
            Step::ReleaseRedirects => {
                assert!(!self.told.contains(&uid), "released while peers are told to use HBONE");
                self.rules.insert(inside()?, Rules::Released);
            }
            Step::CountProxied => return Ok(Seen::Proxied(self.proxied)),
            Step::StopListening => {
                // A pod that has ended has nobody in it who could be refused.
                if let Some(netns) = netns.filter(|_| !pod.ended) {
                    assert_ne!(self.rules.get(&netns), Some(&Rules::InPlace), "left behind redirects to a closed port");
                }
                self.listening.retain(|(listening, _)| *listening != uid);
            }
            Step::RemoveRules => {
                assert!(!self.listening.iter().any(|(listening, _)| *listening == uid));
                self.rules.insert(inside()?, Rules::Absent);
            }
        }
        Ok(Seen::Done)
    }

    fn state(&self, uid: &str) -> Option<Report> {
        self.table.reports().find(|(known, _, _)| *known == uid).map(|(_, _, report)| report)
    }

    fn steps(&self, uid: &str) -> Vec<Step> {
        self.taken.iter().filter(|(taken, _)| taken == uid).map(|(_, step)| *step).collect()
    }

    fn add(&mut self, request: u64, name: &str, netns: u32) {
        let (namespace, name) = ("shop".to_owned(), name.to_owned());
        let request = Some(RequestId(request));
        self.input(Input::SandboxAdded { request, namespace, name, uid: None, netns });
    }
}

fn namespace(ambient: bool) -> Input<u32> {
    let labels = ambient.then(|| ("istio.io/dataplane-mode".to_owned(), "ambient".to_owned()));
    Input::Namespace(Namespace { name: "shop".into(), labels: labels.into_iter().collect() })
}

fn pod(name: &str) -> Pod {
    Pod { uid: format!("uid-{name}"), namespace: "shop".into(), name: name.into(), ..Pod::default() }
}

fn running(ambient: bool) -> Node {
    let mut node = Node::new();
    node.input(namespace(ambient));
    node.input(Input::Pod(pod("a")));
    node.input(Input::Synced);
    node.add(1, "a", 7);
    node
}

#[test]
fn a_new_pod_is_enrolled_before_its_runtime_is_answered() {
    let node = running(true);
    assert_eq!(node.answers, [(RequestId(1), Answer::Enrolled)]);
    let steps = node.steps("uid-a");
    assert_eq!(steps[steps.len() - 3..], [Step::Listen, Step::ApplyRules, Step::WriteStatus]);
    assert_eq!(node.state("uid-a").unwrap().state, State::Enrolled);
    assert!(node.told.contains("uid-a"));
}

#[test]
fn a_pod_outside_the_mesh_starts_at_once_and_is_remembered() {
    let mut node = running(false);
    let reason = Reason::NotLabelled.to_string();
    assert_eq!(node.answers, [(RequestId(1), Answer::Ignored { reason })]);
    node.input(namespace(true));
    assert_eq!(node.state("uid-a").unwrap().state, State::Enrolled);
    assert!(node.listening.contains(&("uid-a".to_owned(), 7)));
}

#[test]
fn a_release_waits_for_open_connections_and_ends_with_nothing_left() {
    let mut node = running(true);
    node.proxied = 2;
    node.input(namespace(false));
    node.pass(Duration::from_secs(60));
    let report = node.state("uid-a").unwrap();
    assert_eq!(report.state, State::Releasing);
    assert!(report.reason.unwrap().contains("2 sockets"));
    assert_eq!(node.rules[&7], Rules::Released);
    assert!(node.listening.contains(&("uid-a".to_owned(), 7)));

    node.proxied = 0;
    node.pass(Duration::from_secs(5));
    assert_eq!(node.state("uid-a").unwrap().state, State::Out);
    assert_eq!(node.rules[&7], Rules::Absent);
    assert!(node.listening.is_empty() && node.told.is_empty());
}

#[test]
fn a_release_does_not_wait_for_ever() {
    let mut node = running(true);
    node.proxied = 1;
    node.input(namespace(false));
    node.pass(Timing::default().release + Duration::from_secs(5));
    assert_eq!(node.state("uid-a").unwrap().state, State::Out);
    assert_eq!(node.rules[&7], Rules::Absent);
}

#[test]
fn a_label_that_comes_back_during_a_release_puts_the_redirects_back() {
    let mut node = running(true);
    node.proxied = 1;
    node.input(namespace(false));
    node.pass(Duration::from_secs(10));
    node.input(namespace(true));
    assert_eq!(node.state("uid-a").unwrap().state, State::Enrolled);
    assert_eq!(node.rules[&7], Rules::InPlace);
}

#[test]
fn without_a_node_proxy_a_pod_is_refused_with_the_reason_and_enrolled_when_it_comes() {
    let mut node = Node::new();
    node.proxy = false;
    node.input(namespace(true));
    node.input(Input::Pod(pod("a")));
    node.input(Input::Synced);
    node.add(1, "a", 7);
    node.pass(Duration::from_secs(30));
    let [(_, Answer::Refused { reason })] = &node.answers[..] else { panic!("{:?}", node.answers) };
    assert!(reason.contains("no ztunnel connection"), "{reason}");
    assert!(!node.rules.contains_key(&7));
    node.proxy = true;
    node.input(Input::ProxyChanged);
    node.input(Input::Listening { uid: "uid-a".into() });
    assert_eq!(node.state("uid-a").unwrap().state, State::Enrolled);
}

#[test]
fn a_pod_the_source_does_not_know_is_waited_for_and_then_refused() {
    let mut node = running(true);
    node.add(2, "late", 8);
    assert_eq!(node.answers.len(), 1);
    node.input(Input::Pod(pod("late")));
    assert_eq!(node.answers.last(), Some(&(RequestId(2), Answer::Enrolled)));
    node.add(3, "never", 9);
    node.pass(Duration::from_secs(30));
    assert_eq!(node.answers.last(), Some(&(RequestId(3), Answer::Refused { reason: NOT_KNOWN.to_owned() })));
}

#[test]
fn rules_that_somebody_deletes_are_put_back() {
    let mut node = running(true);
    node.rules.insert(7, Rules::Absent);
    node.pass(Duration::from_secs(6));
    assert_eq!(node.rules[&7], Rules::InPlace);
    assert_eq!(node.table.repairs(), 1);
}

#[test]
fn an_agent_that_starts_again_takes_up_what_it_finds() {
    let mut node = Node::new();
    node.rules = [(7, Rules::InPlace), (8, Rules::InPlace)].into();
    node.told = ["uid-a".to_owned(), "uid-b".to_owned()].into();
    node.listening = [("uid-a".to_owned(), 7), ("uid-b".to_owned(), 8)].into();
    node.proxy = false;
    node.proxied = 3;
    let mut leaving = pod("b");
    leaving.labels.insert("istio.io/dataplane-mode".into(), "none".into());
    for (name, netns) in [("a", 7), ("b", 8)] {
        let (namespace, name) = ("shop".to_owned(), name.to_owned());
        node.input(Input::SandboxAdded { request: None, namespace, name, uid: None, netns });
    }
    node.input(namespace(true));
    node.input(Input::Pod(pod("a")));
    node.input(Input::Pod(leaving));
    assert!(!node.accepting && node.taken.is_empty());
    node.input(Input::Synced);
    // Both are on the list before a proxy may ask for it: the one that leaves has open connections.
    assert!(node.accepting);
    assert_eq!(node.steps("uid-b")[..3], [Step::WithdrawStatus, Step::Observe, Step::Hold]);
    node.proxy = true;
    for uid in ["uid-a", "uid-b"] {
        node.input(Input::Listening { uid: uid.into() });
    }
    node.pass(Duration::from_secs(1));
    assert_eq!(node.state("uid-a").unwrap().state, State::Enrolled);
    assert_eq!(node.state("uid-b").unwrap().state, State::Releasing);
}

#[test]
fn a_pod_that_is_gone_leaves_nothing_and_one_that_ended_is_out_at_once() {
    let mut node = running(true);
    node.proxied = 5;
    node.input(Input::Pod(Pod { ended: true, ..pod("a") }));
    assert!(node.listening.is_empty() && node.told.is_empty());
    assert_eq!(node.state("uid-a").unwrap().state, State::Out);
    node.input(Input::PodGone { uid: "uid-a".into() });
    assert_eq!(node.state("uid-a"), None);
}

#[test]
fn a_sandbox_that_is_made_anew_is_enrolled_anew() {
    let mut node = running(true);
    node.input(Input::SandboxGone { netns: 7 });
    assert!(node.listening.is_empty() && node.told.is_empty());
    node.add(2, "a", 9);
    assert_eq!(node.answers.last(), Some(&(RequestId(2), Answer::Enrolled)));
    assert_eq!(node.listening, [("uid-a".to_owned(), 9)].into());
    // The old one's end, told late, does not touch the new one.
    node.input(Input::SandboxGone { netns: 7 });
    assert_eq!(node.state("uid-a").unwrap().state, State::Enrolled);
}

#[test]
fn a_namespace_that_vanishes_breaks_nothing() {
    let mut node = running(true);
    node.input(Input::NamespaceGone { name: "shop".into() });
    node.pass(Duration::from_secs(30));
    assert_eq!(node.rules[&7], Rules::InPlace);
    assert!(node.listening.contains(&("uid-a".to_owned(), 7)));
}

#[test]
fn an_agent_that_starts_without_the_namespace_leaves_what_stands_and_keeps_it_on_the_list() {
    let mut node = Node::new();
    node.rules = [(7, Rules::InPlace)].into();
    node.told = ["uid-a".to_owned()].into();
    node.listening = [("uid-a".to_owned(), 7)].into();
    let (namespace_name, name) = ("shop".to_owned(), "a".to_owned());
    node.input(Input::SandboxAdded { request: None, namespace: namespace_name, name, uid: None, netns: 7 });
    node.input(Input::Pod(pod("a")));
    node.input(Input::Synced);
    assert!(node.accepting);
    assert_eq!(node.steps("uid-a"), [Step::Observe, Step::Hold]);
    assert!(node.told.contains("uid-a"));
    assert_eq!(node.state("uid-a").unwrap().state, State::Pending);
    node.input(namespace(true));
    assert_eq!(node.state("uid-a").unwrap().state, State::Enrolled);
}

#[test]
fn a_pod_whose_namespace_is_not_found_at_the_start_is_kept_by_name_until_it_is() {
    let mut node = Node::new();
    node.input(namespace(true));
    node.input(Input::Pod(pod("a")));
    node.input(Input::Synced);
    assert!(node.accepting);
    assert_eq!(node.keep, ["uid-a"]);
    node.pass(Duration::from_secs(20));
    assert!(!node.steps("uid-a").contains(&Step::StopListening));
    node.in_proc.insert("uid-a".into(), 7);
    node.pass(Duration::from_secs(20));
    assert_eq!(node.state("uid-a").unwrap().state, State::Enrolled);
}

#[test]
fn what_was_told_and_is_lost_is_told_again() {
    let mut node = running(true);
    node.told.clear();
    node.pass(Duration::from_secs(6));
    assert!(node.told.contains("uid-a"));
    assert_eq!(node.state("uid-a").unwrap().state, State::Enrolled);
}

#[test]
fn a_sandbox_that_goes_while_its_runtime_waits_is_answered() {
    let mut node = Node::new();
    node.proxy = false;
    node.input(namespace(true));
    node.input(Input::Pod(pod("a")));
    node.input(Input::Synced);
    node.add(1, "a", 7);
    assert!(node.answers.is_empty());
    node.input(Input::SandboxGone { netns: 7 });
    assert!(matches!(&node.answers[..], [(RequestId(1), Answer::Refused { .. })]));
}

#[test]
fn a_running_pod_is_found_among_the_nodes_processes() {
    let mut node = Node::new();
    node.in_proc.insert("uid-a".into(), 7);
    node.input(namespace(true));
    node.input(Input::Pod(pod("a")));
    node.input(Input::Synced);
    assert_eq!(node.state("uid-a").unwrap().state, State::Enrolled);
}

#[derive(Clone, Debug)]
enum Happening {
    Label(bool),
    Sandbox(u32),
    SandboxGone(u32),
    Fails(Step),
    Works(Step),
    Proxy(bool),
    Proxied(usize),
    Tampered(Rules),
    Time(u64),
    Ends(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop::sample::select(vec![
        Step::FindNetns,
        Step::Hold,
        Step::Listen,
        Step::ApplyRules,
        Step::Observe,
        Step::WriteStatus,
        Step::WithdrawStatus,
        Step::ReleaseRedirects,
        Step::CountProxied,
        Step::StopListening,
        Step::RemoveRules,
    ])
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        any::<bool>().prop_map(Happening::Label),
        (1u32..4).prop_map(Happening::Sandbox),
        (1u32..4).prop_map(Happening::SandboxGone),
        step().prop_map(Happening::Fails),
        step().prop_map(Happening::Works),
        any::<bool>().prop_map(Happening::Proxy),
        (0usize..3).prop_map(Happening::Proxied),
        prop::sample::select(vec![Rules::Absent, Rules::Wrong, Rules::Released]).prop_map(Happening::Tampered),
        (0u64..20_000).prop_map(Happening::Time),
        any::<bool>().prop_map(Happening::Ends),
    ]
}

proptest! {
    /// Whatever happens in whatever order, once it stops happening the pod is where it belongs, and no step ever came out of order (the node checks).
    #[test]
    fn a_pod_always_gets_where_it_belongs(happenings in prop::collection::vec(happening(), 0..40), ambient: bool) {
        let mut node = running(!ambient);
        for happening in happenings {
            match happening {
                Happening::Label(ambient) => node.input(namespace(ambient)),
                Happening::Sandbox(netns) => node.add(100, "a", netns),
                Happening::SandboxGone(netns) => node.input(Input::SandboxGone { netns }),
                Happening::Fails(step) => _ = node.failing.insert(step),
                Happening::Works(step) => _ = node.failing.remove(&step),
                Happening::Proxy(up) => {
                    node.proxy = up;
                    if !up {
                        node.listening.clear();
                    }
                    node.input(Input::ProxyChanged);
                }
                Happening::Proxied(count) => node.proxied = count,
                Happening::Tampered(rules) => node.rules.values_mut().for_each(|found| *found = rules),
                Happening::Time(milliseconds) => node.pass(Duration::from_millis(milliseconds)),
                Happening::Ends(ended) => node.input(Input::Pod(Pod { ended, ..pod("a") })),
            }
        }
        node.failing.clear();
        node.proxied = 0;
        node.proxy = true;
        node.input(Input::ProxyChanged);
        node.input(Input::Pod(pod("a")));
        node.input(namespace(ambient));
        node.add(200, "a", 9);
        node.pass(Duration::from_secs(60));
        let report = node.state("uid-a").unwrap();
        prop_assert_eq!(report.state, if ambient { State::Enrolled } else { State::Out }, "{:?}", report);
        prop_assert_eq!(node.told.contains("uid-a"), ambient);
        prop_assert_eq!(node.listening.contains(&("uid-a".to_owned(), 9)), ambient);
        prop_assert_eq!(node.rules.get(&9) == Some(&Rules::InPlace), ambient);
    }
}
