// SPDX-License-Identifier: Apache-2.0
//! What holds after any sequence of wishes and answers.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Wanted(usize, Priority),
    Unwanted(usize),
    /// A call under way ends: which, and the validity it gave in seconds.
    Answered(usize, Option<u64>),
    Timeout,
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let priority = prop_oneof![Just(Priority::Warmup), Just(Priority::RealTime)];
    let event = prop_oneof![
        6 => (0..12_usize, priority).prop_map(|(identity, priority)| Event::Wanted(identity, priority)),
        2 => (0..12_usize).prop_map(Event::Unwanted),
        6 => (any::<usize>(), prop::option::weighted(0.6, 1..5000_u64)).prop_map(|(which, left)| Event::Answered(which, left)),
        6 => Just(Event::Timeout),
        1 => (0..200_000_u64).prop_map(Event::Pass),
    ];
    prop::collection::vec(event, 0..120)
}

fn id(number: usize) -> Identity {
    Identity::new("cluster.local", "demo", &format!("sa{number}")).unwrap()
}

struct World {
    schedule: Schedule,
    now: Instant,
    rng: StdRng,
    in_flight: Vec<Identity>,
    in_force: BTreeMap<Identity, Instant>,
    kept: BTreeSet<Identity>,
    /// Those a connection has asked for since their last call.
    demanded: BTreeSet<Identity>,
}

impl World {
    fn step(&mut self, event: Event) {
        let mut ended = None;
        let actions = match event {
            Event::Wanted(number, priority) => {
                let wishes = if priority == Priority::RealTime { &mut self.demanded } else { &mut self.kept };
                wishes.insert(id(number));
                self.schedule.handle_wanted(self.now, &id(number), priority)
            }
            Event::Unwanted(number) => {
                self.kept.remove(&id(number));
                self.schedule.handle_unwanted(&id(number))
            }
            Event::Answered(which, left) if !self.in_flight.is_empty() => {
                let identity = self.in_flight.remove(which % self.in_flight.len());
                ended = Some(identity.clone());
                match left {
                    Some(left) => {
                        let left = Duration::from_secs(left);
                        let validity = Validity { total: left, left };
                        let (used, actions) = self.schedule.handle_issued(self.now, &identity, validity, &mut self.rng);
                        if used {
                            self.in_force.insert(identity, self.now + left);
                        }
                        actions
                    }
                    None => self.schedule.handle_failed(self.now, &identity, "no", &mut self.rng),
                }
            }
            Event::Answered(..) => Vec::new(),
            Event::Timeout => {
                self.now = self.now.max(self.schedule.next_deadline().unwrap_or(self.now));
                self.timeout()
            }
            Event::Pass(millis) => {
                self.now += Duration::from_millis(millis);
                self.timeout()
            }
        };
        for action in actions {
            match action {
                Action::Request(identity) => {
                    assert!(!self.in_flight.contains(&identity), "two calls for {identity}");
                    self.in_flight.push(identity);
                }
                Action::Withdraw(identity) => {
                    assert!(self.in_force.remove(&identity).is_some(), "{identity} has none in force");
                }
                Action::Refuse(identity, _) => {
                    let is_good = self.in_force.contains_key(&identity) && !self.demanded.contains(&identity);
                    assert!(!is_good, "{identity} has one in force, and nobody says that it is over");
                }
            }
        }
        if let Some(identity) = ended {
            self.demanded.remove(&identity);
        }
        self.check();
    }

    fn timeout(&mut self) -> Vec<Action> {
        let actions = self.schedule.handle_timeout(self.now);
        assert!(self.schedule.next_deadline().is_none_or(|deadline| deadline > self.now), "the shell would spin");
        actions
    }

    fn check(&self) {
        assert!(self.in_flight.len() <= CONCURRENCY);
        let available: BTreeSet<_> = self
            .schedule
            .states()
            .filter(|(_, state)| *state == State::Available)
            .map(|(identity, _)| identity.clone())
            .collect();
        assert_eq!(available, self.in_force.keys().cloned().collect());
        for identity in &self.kept {
            assert!(self.schedule.states().any(|(known, _)| known == identity), "{identity} is wanted and forgotten");
        }
    }
}

proptest! {
    #[test]
    fn calls_are_bounded_and_what_is_in_force_is_known(events in events()) {
        let mut world = World {
            schedule: Schedule::default(),
            now: Instant::now(),
            rng: StdRng::seed_from_u64(1),
            in_flight: Vec::new(),
            in_force: BTreeMap::new(),
            kept: BTreeSet::new(),
            demanded: BTreeSet::new(),
        };
        for event in events {
            world.step(event);
        }
        // Once time has been given, nothing that has ended is in force any more.
        world.step(Event::Pass(0));
        prop_assert!(world.in_force.values().all(|end| *end > world.now));
        // And with an authority that answers, everything wanted gets its certificate.
        for _ in 0..200 {
            while !world.in_flight.is_empty() {
                world.step(Event::Answered(0, Some(1_000_000)));
            }
            if world.kept.iter().all(|identity| world.in_force.contains_key(identity)) {
                break;
            }
            world.step(Event::Timeout);
        }
        prop_assert!(world.kept.iter().all(|identity| world.in_force.contains_key(identity)));
    }
}
