// SPDX-License-Identifier: Apache-2.0
//! What holds after any sequence of events, however the agent and the pods behave.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Add(usize, u32, bool),
    Keep(usize),
    Del(usize),
    SnapshotSent,
    Unreadable,
    /// The oldest start under way ends.
    Started(bool),
    Disconnected,
    /// The next deadline passes; connecting succeeds or not.
    Timeout(bool),
    Pass(u64),
}

const UIDS: [&str; 3] = ["a", "b", "c"];

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..UIDS.len(), 0..2_u32, prop::bool::weighted(0.95)).prop_map(|(uid, netns, info)| Event::Add(uid, netns, info)),
        2 => (0..UIDS.len()).prop_map(Event::Keep),
        2 => (0..UIDS.len()).prop_map(Event::Del),
        3 => Just(Event::SnapshotSent),
        1 => Just(Event::Unreadable),
        5 => any::<bool>().prop_map(Event::Started),
        1 => Just(Event::Disconnected),
        5 => prop::bool::weighted(0.8).prop_map(Event::Timeout),
        1 => (0..6000_u64).prop_map(Event::Pass),
    ];
    prop::collection::vec(event, 0..80)
}

/// What the shell and `pods` would know.
struct World {
    session: Session<u32>,
    now: Instant,
    rng: StdRng,
    /// Tries that hold listeners, or are about to.
    open: BTreeMap<String, Attempt>,
    /// Tries whose end has not been reported, oldest first.
    starting: Vec<(String, Attempt)>,
    owed: usize,
    connect: bool,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(now),
            now,
            rng: StdRng::seed_from_u64(1),
            open: BTreeMap::new(),
            starting: Vec::new(),
            owed: 0,
            connect: true,
        }
    }

    fn step(&mut self, event: Event) {
        let actions = match event {
            Event::Add(uid, netns, info) => {
                let uid = UIDS[uid].to_owned();
                let named = PodInfo { name: uid.clone(), namespace: "n".into(), service_account: "s".into() };
                self.message(Message::Add { uid, info: info.then_some(named), netns })
            }
            Event::Keep(uid) => self.message(Message::Keep { uid: UIDS[uid].to_owned() }),
            Event::Del(uid) => self.message(Message::Del { uid: UIDS[uid].to_owned() }),
            Event::SnapshotSent => self.message(Message::SnapshotSent),
            Event::Unreadable if self.session.may_read() => {
                self.owed += 1;
                self.session.handle_unreadable(self.now, "?", &mut self.rng)
            }
            Event::Unreadable => Vec::new(),
            Event::Started(ok) if !self.starting.is_empty() => {
                let (uid, attempt) = self.starting.remove(0);
                if !ok && self.open.get(&uid) == Some(&attempt) {
                    self.open.remove(&uid);
                }
                let result = if ok { Ok(()) } else { Err("no".to_owned()) };
                self.session.handle_started(self.now, &uid, attempt, result)
            }
            Event::Started(_) => Vec::new(),
            Event::Disconnected => {
                if self.session.is_connected() {
                    self.owed = 0;
                    self.session.handle_disconnected(self.now, &mut self.rng);
                }
                Vec::new()
            }
            Event::Timeout(connect) => {
                self.connect = connect;
                self.now = self.now.max(self.session.next_deadline().unwrap_or(self.now));
                self.timeout()
            }
            Event::Pass(millis) => {
                self.now += Duration::from_millis(millis);
                self.timeout()
            }
        };
        self.obey(actions);
        self.check();
    }

    fn message(&mut self, message: Message<u32>) -> Vec<Action<u32>> {
        if !self.session.may_read() {
            return Vec::new();
        }
        self.owed += 1;
        self.session.handle_message(self.now, message, &mut self.rng)
    }

    fn timeout(&mut self) -> Vec<Action<u32>> {
        let actions = self.session.handle_timeout(self.now);
        assert!(self.session.next_deadline().is_none_or(|deadline| deadline > self.now), "the shell would spin");
        actions
    }

    fn obey(&mut self, actions: Vec<Action<u32>>) {
        for action in actions {
            match action {
                Action::Connect if self.connect => {
                    assert_eq!(self.session.handle_connected(self.now), [Action::Hello]);
                }
                Action::Connect => {
                    self.session.handle_connect_failed(self.now, &mut self.rng);
                }
                Action::Hello => panic!("hello is said once, when connected"),
                Action::Reply(_) => {
                    assert_eq!(self.owed, 1, "an answer nobody waits for");
                    self.owed = 0;
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

proptest! {
    #[test]
    fn every_request_is_answered_once_and_no_listener_is_lost(events in events()) {
        let mut world = World::new();
        for event in events {
            world.step(event);
        }
    }

    /// Whatever has happened, an agent that behaves gets every pod up and this ztunnel ready.
    #[test]
    fn a_good_session_heals_everything(events in events()) {
        let mut world = World::new();
        for event in events {
            world.step(event);
        }
        world.step(Event::Disconnected);
        while !world.session.is_connected() {
            world.step(Event::Timeout(true));
        }
        for uid in 0..UIDS.len() {
            world.step(Event::Add(uid, 1, true));
            while !world.starting.is_empty() {
                world.step(Event::Started(true));
            }
            assert!(world.session.may_read());
        }
        world.step(Event::SnapshotSent);
        prop_assert!(world.session.is_ready());
        prop_assert_eq!(world.session.active(), UIDS.len());
        prop_assert_eq!(world.open.len(), UIDS.len());
    }
}
