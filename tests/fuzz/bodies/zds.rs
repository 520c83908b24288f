// SPDX-License-Identifier: Apache-2.0
//! What is to hold for whatever a node agent sends: the body of a fuzz target of the proxy's side of ZDS. `cargo test -p
//! ztunnel --test fuzz` runs it as a bounded property, `cargo fuzz run proxy` (in `tests/fuzz`) without bound. A plain
//! function: it panics where something does not hold.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mesh_proto::zds::{MAX_PACKET, WorkloadRequest, WorkloadResponse, workload_response};
use prost::Message as _;
use rand::SeedableRng;
use rand::rngs::StdRng;
use ztunnel::zds::{Action, Attempt, Message, Netns, Session};

/// Packets of an agent, with a descriptor or without, and what happens between them. Each packet is answered once, with
/// an answer the agent can read; no listener is opened twice or forgotten; the shell never spins.
pub fn proxy(input: &[u8]) {
    let now = Instant::now();
    let mut world = World {
        session: Session::new(now),
        now,
        rng: StdRng::seed_from_u64(1),
        open: BTreeMap::new(),
        starting: Vec::new(),
        owed: 0,
    };
    world.timeout();
    let mut rest = input;
    while let [kind, argument, after @ ..] = rest {
        rest = after;
        match kind % 8 {
            0..4 => {
                let (packet, later) = after.split_at(after.len().min(usize::from(*argument)));
                rest = later;
                let netns = (kind & 0x10 == 0).then_some(Space(kind >> 5));
                world.packet(packet, netns);
            }
            4 => world.started(argument & 1 == 0),
            5 => world.disconnected(),
            6 => {
                world.now = world.now.max(world.session.next_deadline().unwrap_or(world.now));
                world.timeout();
            }
            _ => {
                world.now += Duration::from_millis(u64::from(*argument) * 40);
                world.timeout();
            }
        }
        world.check();
    }
}

/// Stands for a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Space(u8);

impl Netns for Space {
    fn is_same(&self, other: &Self) -> bool {
        self == other
    }
}

/// What the shell and those who listen in the pods know.
struct World {
    session: Session<Space>,
    now: Instant,
    rng: StdRng,
    /// Attempts that hold listeners, or are about to.
    open: BTreeMap<String, Attempt>,
    /// Attempts whose end has not been reported, oldest first.
    starting: Vec<(String, Attempt)>,
    /// Packets without an answer.
    owed: usize,
}

impl World {
    fn packet(&mut self, packet: &[u8], netns: Option<Space>) {
        if !self.session.may_read() {
            return;
        }
        self.owed += 1;
        let read = WorkloadRequest::decode(packet).map_err(|error| error.to_string());
        let read = read.and_then(|request| Message::new(request, netns).map_err(|error| error.to_string()));
        let actions = match read {
            Ok(message) => {
                assert_eq!(netns.is_some(), matches!(message, Message::Add { .. }));
                self.session.handle_message(self.now, message, &mut self.rng)
            }
            Err(reason) => self.session.handle_unreadable(self.now, &reason, &mut self.rng),
        };
        self.obey(actions);
    }

    fn started(&mut self, well: bool) {
        if self.starting.is_empty() {
            return;
        }
        let (uid, attempt) = self.starting.remove(0);
        if !well && self.open.get(&uid) == Some(&attempt) {
            self.open.remove(&uid);
        }
        let result = if well { Ok(()) } else { Err("é".repeat(2000)) };
        let actions = self.session.handle_started(self.now, &uid, attempt, result);
        self.obey(actions);
    }

    fn disconnected(&mut self) {
        if self.session.is_connected() {
            self.owed = 0;
            self.session.handle_disconnected(self.now, &mut self.rng);
        }
    }

    fn timeout(&mut self) {
        let actions = self.session.handle_timeout(self.now);
        assert!(self.session.next_deadline().is_none_or(|deadline| deadline > self.now), "the shell would spin");
        self.obey(actions);
    }

    fn obey(&mut self, actions: Vec<Action<Space>>) {
        for action in actions {
            match action {
                Action::Connect => assert_eq!(self.session.handle_connected(self.now), [Action::Hello]),
                Action::Hello => panic!("hello is said once, when connected"),
                Action::Reply(answer) => {
                    assert_eq!(self.owed, 1, "an answer nobody waits for");
                    self.owed = 0;
                    check_answer(answer);
                }
                Action::Start { uid, attempt, .. } => {
                    assert_eq!(self.open.insert(uid.clone(), attempt), None, "{uid} has listeners already");
                    self.starting.push((uid, attempt));
                }
                Action::Stop { uid, attempt, .. } => {
                    assert_eq!(self.open.remove(&uid), Some(attempt), "{uid} has no such listeners");
                }
                Action::HangUp => assert!(!self.session.is_connected()),
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.session.may_read(), self.session.is_connected() && self.owed == 0, "lock-step");
        for (uid, _, up) in self.session.pods() {
            assert!(!up || self.open.contains_key(uid), "{uid} is up without listeners");
        }
        for uid in self.open.keys() {
            assert!(self.session.pods().any(|(known, ..)| known == uid), "{uid} has listeners and is forgotten");
        }
        assert!(!self.session.is_ready() || self.session.pods().all(|(_, _, up)| up));
    }
}

/// An answer fits into a packet, and yes is read as yes and no as no.
fn check_answer(answer: Result<(), String>) {
    let response = match &answer {
        Ok(()) => WorkloadResponse::done(),
        Err(reason) => WorkloadResponse::failed(reason),
    };
    let packet = response.encode_to_vec();
    assert!((1..=MAX_PACKET).contains(&packet.len()), "{} bytes", packet.len());
    let read = WorkloadResponse::decode(&*packet).expect("what was written can be read");
    let Some(workload_response::Payload::Ack(ack)) = read.payload else { panic!("an answer without payload") };
    assert_eq!(ack.error.is_empty(), answer.is_ok());
}
