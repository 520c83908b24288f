// SPDX-License-Identifier: Apache-2.0
//! One proxy's conversation, without I/O. `N` is what stands for a network namespace's descriptor.
//!
//! Strict lock-step: one message is under way at a time, and an answer can only be the answer to it. A proxy that answers late is cut off, for its
//! answer would be taken for that of the next message (Z-09).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mesh_proto::zds::{
    AddWorkload, DelWorkload, KeepWorkload, MAX_PACKET, SnapshotSent, Version, WorkloadInfo, WorkloadRequest,
    WorkloadResponse, ZdsHello, workload_request, workload_response,
};
use prost::Message as _;

/// Who a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInfo {
    /// `metadata.name`
    pub name: String,
    /// `metadata.namespace`
    pub namespace: String,
    /// `spec.serviceAccountName`
    pub service_account: String,
}

/// What the proxy is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order<N> {
    /// Listen in this pod.
    Add { uid: String, info: PodInfo, netns: N, token: u64 },
    /// Go on listening in this pod, if you do. Only before the list is complete.
    Keep { uid: String, token: u64 },
    /// Leave this pod.
    Delete { uid: String, token: u64 },
    /// The list is complete.
    SnapshotSent,
}

/// What the shell has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action<N> {
    /// Send a message.
    Send { message: WorkloadRequest, netns: Option<N> },
    /// The proxy answered an order.
    Answered { token: u64, result: Result<(), String> },
    /// The proxy has the whole list.
    Listed,
    /// End the connection.
    Close { reason: String },
}

impl<N: Clone> Order<N> {
    const fn token(&self) -> Option<u64> {
        match self {
            Self::Add { token, .. } | Self::Keep { token, .. } | Self::Delete { token, .. } => Some(*token),
            Self::SnapshotSent => None,
        }
    }

    /// As it travels.
    fn message(&self) -> (WorkloadRequest, Option<N>) {
        let (payload, netns) = match self {
            Self::Add { uid, info, netns, .. } => {
                let info = WorkloadInfo {
                    name: info.name.clone(),
                    namespace: info.namespace.clone(),
                    service_account: info.service_account.clone(),
                };
                let add = AddWorkload { uid: uid.clone(), workload_info: Some(info) };
                (workload_request::Payload::Add(add), Some(netns.clone()))
            }
            Self::Keep { uid, .. } => (workload_request::Payload::Keep(KeepWorkload { uid: uid.clone() }), None),
            Self::Delete { uid, .. } => (workload_request::Payload::Del(DelWorkload { uid: uid.clone() }), None),
            Self::SnapshotSent => (workload_request::Payload::SnapshotSent(SnapshotSent {}), None),
        };
        (WorkloadRequest { payload: Some(payload) }, netns)
    }
}

/// The conversation.
#[derive(Debug)]
pub(super) struct Session<N> {
    greeted: bool,
    closed: bool,
    queue: VecDeque<Order<N>>,
    awaiting: Option<Order<N>>,
    deadline: Option<Instant>,
}

/// How long a proxy may take for its hello, and for each answer (Z-09).
const PATIENCE: Duration = Duration::from_secs(5);

impl<N: Clone> Session<N> {
    /// A proxy has connected.
    pub(super) fn new(now: Instant) -> Self {
        Self { greeted: false, closed: false, queue: VecDeque::new(), awaiting: None, deadline: Some(now + PATIENCE) }
    }

    /// Whether the proxy has said hello.
    pub(super) const fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(super) const fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes an order; it is sent when its turn comes.
    pub(super) fn push(&mut self, now: Instant, order: Order<N>) -> Vec<Action<N>> {
        self.queue.push_back(order);
        self.send_next(now)
    }

    /// Takes a packet.
    pub(super) fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> Vec<Action<N>> {
        if self.closed {
            return Vec::new();
        }
        if !self.greeted {
            return match ZdsHello::decode(packet) {
                Ok(hello) if hello.version == i32::from(Version::V1) => {
                    self.greeted = true;
                    self.deadline = None;
                    Vec::new()
                }
                Ok(hello) => {
                    self.close(format!("the node proxy speaks version {}, this agent speaks 1", hello.version))
                }
                Err(error) => self.close(format!("the node proxy's hello cannot be decoded: {error}")),
            };
        }
        let Some(order) = self.awaiting.take() else {
            return self.close("the node proxy answered a question nobody asked".to_owned());
        };
        let Ok(WorkloadResponse { payload: Some(workload_response::Payload::Ack(ack)) }) =
            WorkloadResponse::decode(packet)
        else {
            return self.close("the node proxy's answer cannot be decoded".to_owned());
        };
        self.deadline = None;
        let result = if ack.error.is_empty() { Ok(()) } else { Err(ack.error) };
        let mut actions = vec![match order {
            Order::Add { token, .. } | Order::Keep { token, .. } | Order::Delete { token, .. } => {
                Action::Answered { token, result }
            }
            Order::SnapshotSent => match result {
                Ok(()) => Action::Listed,
                Err(error) => return self.close(format!("the node proxy refused the list: {error}")),
            },
        }];
        actions.extend(self.send_next(now));
        actions
    }

    /// Nothing came in time.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<Action<N>> {
        match self.deadline {
            Some(deadline) if now >= deadline => {
                let what = if self.greeted { "answer" } else { "say hello" };
                self.close(format!("the node proxy did not {what} within {} s", PATIENCE.as_secs()))
            }
            _ => Vec::new(),
        }
    }

    /// Sends what is next, if it is its turn. What fits into no packet is answered here: one pod's absurd name must not
    /// cost the others their proxy.
    fn send_next(&mut self, now: Instant) -> Vec<Action<N>> {
        let mut actions = Vec::new();
        while self.greeted && !self.closed && self.awaiting.is_none() {
            let Some(order) = self.queue.pop_front() else { break };
            let (message, netns) = order.message();
            let bytes = message.encoded_len();
            match order.token() {
                Some(token) if bytes > MAX_PACKET => {
                    let text = format!(
                        "the message to the node proxy would have {bytes} bytes, more than the {MAX_PACKET} it can read: \
                         are name, namespace and service account of the pod what they should be?"
                    );
                    actions.push(Action::Answered { token, result: Err(text) });
                }
                _ => {
                    self.awaiting = Some(order);
                    self.deadline = Some(now + PATIENCE);
                    actions.push(Action::Send { message, netns });
                }
            }
        }
        actions
    }

    fn close(&mut self, reason: String) -> Vec<Action<N>> {
        self.closed = true;
        self.deadline = None;
        vec![Action::Close { reason }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Vec<u8> {
        ZdsHello { version: Version::V1.into() }.encode_to_vec()
    }

    fn add(token: u64) -> Order<u8> {
        let info = PodInfo { name: "p".into(), namespace: "n".into(), service_account: "s".into() };
        Order::Add { uid: format!("u{token}"), info, netns: 7, token }
    }

    fn sends(actions: &[Action<u8>]) -> usize {
        actions.iter().filter(|action| matches!(action, Action::Send { .. })).count()
    }

    #[test]
    fn nothing_is_sent_before_the_hello_and_one_message_at_a_time_after() {
        let now = Instant::now();
        let mut session = Session::new(now);
        assert!(session.push(now, add(1)).is_empty());
        assert!(session.handle_packet(now, &hello()).is_empty());
        assert_eq!(sends(&session.push(now, add(2))), 1);
        assert!(session.push(now, Order::SnapshotSent).is_empty());
        let ok = WorkloadResponse::done().encode_to_vec();
        let actions = session.handle_packet(now, &ok);
        assert!(matches!(
            &actions[..],
            [Action::Answered { token: 1, result: Ok(()) }, Action::Send { netns: Some(7), .. }]
        ));
        let no = WorkloadResponse::failed("no room").encode_to_vec();
        let actions = session.handle_packet(now, &no);
        assert_eq!(actions[0], Action::Answered { token: 2, result: Err("no room".to_owned()) });
        assert_eq!(session.handle_packet(now, &ok), [Action::Listed]);
        assert_eq!(session.next_deadline(), None);
    }

    #[test]
    fn a_pod_without_its_namespace_is_kept_by_name() {
        let now = Instant::now();
        let mut session = Session::<u8>::new(now);
        session.handle_packet(now, &hello());
        let actions = session.push(now, Order::Keep { uid: "u".into(), token: 3 });
        let keep = workload_request::Payload::Keep(KeepWorkload { uid: "u".into() });
        assert_eq!(actions, [Action::Send { message: WorkloadRequest { payload: Some(keep) }, netns: None }]);
        let actions = session.handle_packet(now, &WorkloadResponse::done().encode_to_vec());
        assert_eq!(actions, [Action::Answered { token: 3, result: Ok(()) }]);
    }

    #[test]
    fn a_pod_whose_names_fit_into_no_packet_is_refused_and_the_next_is_sent() {
        let now = Instant::now();
        let mut session = Session::new(now);
        session.push(now, add(1));
        let info = PodInfo { name: "p".repeat(400), namespace: "n".repeat(400), service_account: "s".repeat(400) };
        session.push(now, Order::Add { uid: "long".into(), info, netns: 7, token: 2 });
        session.push(now, Order::Keep { uid: "u".repeat(2000), token: 3 });
        session.push(now, add(4));
        session.push(now, Order::SnapshotSent);
        session.handle_packet(now, &hello());
        assert_eq!(sends(&session.push(now, add(5))), 1);
        let ok = WorkloadResponse::done().encode_to_vec();
        let actions = session.handle_packet(now, &ok);
        assert!(
            matches!(
                &actions[..],
                [
                    Action::Answered { token: 1, result: Ok(()) },
                    Action::Answered { token: 2, result: Err(reason) },
                    Action::Answered { token: 3, result: Err(_) },
                    Action::Send { netns: Some(7), .. },
                ] if reason.contains("service account")
            ),
            "{actions:?}"
        );
        assert_eq!(session.handle_packet(now, &ok)[0], Action::Answered { token: 4, result: Ok(()) });
        assert_eq!(session.handle_packet(now, &ok)[0], Action::Listed);
    }

    proptest::proptest! {
        #[test]
        fn no_packet_breaks_more_than_its_conversation(
            packets in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40), 0..6)
        ) {
            let now = Instant::now();
            let mut session = Session::new(now);
            session.push(now, add(1));
            let mut answered = 0;
            for packet in [hello()].iter().chain(&packets) {
                for action in session.handle_packet(now, packet) {
                    answered += usize::from(matches!(action, Action::Answered { .. }));
                }
            }
            proptest::prop_assert!(answered <= 1);
            proptest::prop_assert!(session.closed || packets.len() <= 1);
        }
    }

    #[test]
    fn a_proxy_that_is_late_or_out_of_turn_or_unintelligible_is_cut_off() {
        let now = Instant::now();
        let closes = |actions: Vec<Action<u8>>| matches!(&actions[..], [Action::Close { .. }]);
        let mut silent = Session::<u8>::new(now);
        assert!(silent.handle_timeout(now).is_empty());
        assert!(closes(silent.handle_timeout(now + PATIENCE)));

        let greeted = || {
            let mut session = Session::<u8>::new(now);
            session.handle_packet(now, &hello());
            session
        };
        assert!(closes(greeted().handle_packet(now, &WorkloadResponse::done().encode_to_vec())));
        let mut late = greeted();
        late.push(now, add(1));
        assert!(closes(late.handle_timeout(now + PATIENCE)));
        // What it says after that is not taken for an answer.
        assert!(late.handle_packet(now, &WorkloadResponse::done().encode_to_vec()).is_empty());
        let mut garbled = greeted();
        garbled.push(now, add(1));
        assert!(closes(garbled.handle_packet(now, b"\xff\xff")));
        assert!(closes(Session::<u8>::new(now).handle_packet(now, b"\x08\x02")));
    }
}
