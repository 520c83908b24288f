// SPDX-License-Identifier: Apache-2.0
//! The schedule in virtual time.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

struct World {
    schedule: Schedule,
    now: Instant,
    rng: StdRng,
}

impl World {
    fn new() -> Self {
        Self { schedule: Schedule::default(), now: Instant::now(), rng: StdRng::seed_from_u64(5) }
    }

    fn wanted(&mut self, name: &str, priority: Priority) -> Vec<Action> {
        self.schedule.handle_wanted(self.now, &id(name), priority)
    }

    fn issued(&mut self, name: &str, hours: u64) -> (bool, Vec<Action>) {
        let left = Duration::from_secs(hours * 3600);
        self.schedule.handle_issued(self.now, &id(name), Validity { total: left, left }, &mut self.rng)
    }

    fn failed(&mut self, name: &str) -> Vec<Action> {
        self.schedule.handle_failed(self.now, &id(name), "no", &mut self.rng)
    }

    fn reach_deadline(&mut self) -> Vec<Action> {
        self.now = self.now.max(self.schedule.next_deadline().unwrap());
        self.schedule.handle_timeout(self.now)
    }

    fn state(&self, name: &str) -> Option<State> {
        self.schedule.states().find(|(identity, _)| **identity == id(name)).map(|(_, state)| state)
    }
}

fn id(name: &str) -> Identity {
    Identity::new("cluster.local", "demo", name).unwrap()
}

fn request(name: &str) -> Action {
    Action::Request(id(name))
}

fn refuse(name: &str) -> Action {
    Action::Refuse(id(name), "no".into())
}

#[test]
fn a_certificate_is_renewed_at_about_half_of_its_validity() {
    let mut world = World::new();
    assert_eq!(world.wanted("a", Priority::Warmup), [request("a")]);
    assert_eq!(world.state("a"), Some(State::Initializing));
    let start = world.now;
    assert_eq!(world.issued("a", 24), (true, vec![]));
    assert_eq!(world.state("a"), Some(State::Available));
    assert_eq!(world.reach_deadline(), [request("a")]);
    let hours = (world.now - start).as_secs_f64() / 3600.0;
    assert!((10.7..13.3).contains(&hours), "{hours}");
}

#[test]
fn renewals_of_one_moment_are_spread() {
    let mut world = World::new();
    let mut times = std::collections::BTreeSet::new();
    for name in ["a", "b", "c", "d"] {
        world.wanted(name, Priority::Warmup);
        world.issued(name, 24);
    }
    for _ in 0..4 {
        assert_eq!(world.reach_deadline().len(), 1);
        times.insert(world.now);
    }
    assert_eq!(times.len(), 4);
}

#[test]
fn at_most_eight_calls_at_once_and_the_urgent_go_first() {
    let mut world = World::new();
    for n in 0..CONCURRENCY {
        assert_eq!(world.wanted(&format!("busy{n}"), Priority::Warmup).len(), 1);
    }
    assert_eq!(world.wanted("warm", Priority::Warmup), []);
    assert_eq!(world.wanted("now", Priority::Warmup), []);
    assert_eq!(world.wanted("now", Priority::RealTime), [], "raised");
    assert_eq!(world.schedule.next_deadline(), None, "waiting for room, not for time");
    assert_eq!(world.issued("busy0", 1).1, [request("now")]);
    assert_eq!(world.failed("busy1"), [refuse("busy1"), request("warm")]);
}

#[test]
fn failures_back_off_to_a_cap_and_the_unexpired_certificate_stays() {
    let mut world = World::new();
    world.wanted("a", Priority::Warmup);
    world.issued("a", 24);
    assert_eq!(world.reach_deadline(), [request("a")]);
    let start = world.now;
    for _ in 0..12 {
        assert_eq!(world.failed("a"), []);
        assert_eq!(world.state("a"), Some(State::Available));
        assert_eq!(world.reach_deadline(), [request("a")]);
    }
    let spent = world.now - start;
    assert!(spent > Duration::from_secs(500) && spent < Duration::from_secs(1200), "{spent:?}");
}

#[test]
fn an_expired_certificate_is_withdrawn_at_its_end_even_while_a_call_runs() {
    let mut world = World::new();
    world.wanted("a", Priority::Warmup);
    world.issued("a", 1);
    world.reach_deadline();
    world.failed("a");
    while world.schedule.next_deadline().unwrap() < world.now + Duration::from_secs(600) {
        if world.reach_deadline() == [request("a")] {
            if world.schedule.next_deadline() == Some(world.schedule.entries[&id("a")].expires.unwrap()) {
                break;
            }
            world.failed("a");
        }
    }
    world.now = world.schedule.entries[&id("a")].expires.unwrap();
    let actions = world.schedule.handle_timeout(world.now);
    assert_eq!(actions[..2], [Action::Withdraw(id("a")), refuse("a")]);
    assert_eq!(world.state("a"), Some(State::Unavailable("no".into())));
}

#[test]
fn a_waiting_connection_is_refused_at_once_and_brings_the_next_try_forward() {
    let mut world = World::new();
    world.wanted("a", Priority::Warmup);
    for _ in 0..10 {
        world.failed("a");
        world.reach_deadline();
    }
    assert_eq!(world.failed("a"), [refuse("a")]);
    let failed = world.now;
    assert!(world.schedule.next_deadline().unwrap() > world.now + Duration::from_secs(100));
    world.now += Duration::from_secs(1);
    assert_eq!(world.wanted("a", Priority::RealTime), [refuse("a")]);
    assert_eq!(world.schedule.next_deadline(), Some(failed + URGENT_RETRY));
    assert_eq!(world.reach_deadline(), [request("a")]);
}

#[test]
fn an_identity_nobody_wants_is_withdrawn_and_its_late_certificate_unused() {
    let mut world = World::new();
    world.wanted("a", Priority::Warmup);
    world.issued("a", 24);
    assert_eq!(world.schedule.handle_unwanted(&id("a")), [Action::Withdraw(id("a"))]);
    assert_eq!(world.state("a"), None);

    world.wanted("b", Priority::Warmup);
    assert_eq!(world.schedule.handle_unwanted(&id("b")), []);
    assert_eq!(world.issued("b", 24), (false, vec![]));
    assert_eq!(world.schedule.next_deadline(), None);

    world.wanted("c", Priority::Warmup);
    world.schedule.handle_unwanted(&id("c"));
    assert_eq!(world.wanted("c", Priority::RealTime), [], "the call already runs");
    assert!(world.issued("c", 24).0);
}

#[test]
fn an_old_certificate_is_renewed_at_once_but_not_in_a_loop() {
    let mut world = World::new();
    world.wanted("a", Priority::Warmup);
    let validity = Validity { total: Duration::from_secs(100), left: Duration::from_secs(10) };
    let (used, actions) = world.schedule.handle_issued(world.now, &id("a"), validity, &mut world.rng);
    assert!(used && actions.is_empty());
    assert_eq!(world.schedule.next_deadline(), Some(world.now + SHORTEST_REFRESH));
}

#[test]
fn what_only_a_connection_asked_for_is_not_renewed_or_tried_for_ever() {
    let mut world = World::new();
    assert_eq!(world.wanted("a", Priority::RealTime), [request("a")]);
    world.issued("a", 24);
    assert_eq!(world.reach_deadline(), [Action::Withdraw(id("a"))]);
    assert_eq!(world.state("a"), None);

    world.wanted("b", Priority::RealTime);
    assert_eq!(world.failed("b"), [refuse("b")]);
    assert_eq!(world.wanted("b", Priority::RealTime), [refuse("b")], "asked again before the next try");
    assert_eq!(world.reach_deadline(), [request("b")]);
    world.failed("b");
    assert_eq!(world.reach_deadline(), []);
    assert_eq!(world.schedule.next_deadline(), None);
}

#[test]
fn a_connection_that_finds_the_certificate_in_force_over_gets_a_fresh_one_now_but_not_in_a_loop() {
    let mut world = World::new();
    world.wanted("a", Priority::Warmup);
    world.issued("a", 24);
    world.now += Duration::from_secs(60);
    assert_eq!(world.wanted("a", Priority::Warmup), [], "a warm-up is content with it");
    assert_eq!(world.wanted("a", Priority::RealTime), [request("a")]);
    assert_eq!(world.wanted("a", Priority::RealTime), [], "the call already runs");
    assert_eq!(world.issued("a", 24), (true, vec![]));

    let issued = world.now;
    world.now += Duration::from_secs(1);
    assert_eq!(world.wanted("a", Priority::RealTime), [], "there was a call a moment ago");
    assert_eq!(world.schedule.next_deadline(), Some(issued + URGENT_RETRY));
    assert_eq!(world.reach_deadline(), [request("a")]);

    assert_eq!(world.failed("a"), [refuse("a")], "the connection is told");
    assert_eq!(world.state("a"), Some(State::Available));
    let failed = world.now;
    assert_eq!(world.reach_deadline(), [request("a")]);
    assert!(world.now < failed + URGENT_RETRY, "the first delay is shorter");
    assert_eq!(world.failed("a"), [], "nobody waits");
}

#[test]
fn a_connection_is_told_why_while_a_renewal_that_just_failed_may_not_be_tried_again() {
    let mut world = World::new();
    world.wanted("a", Priority::Warmup);
    world.issued("a", 24);
    world.reach_deadline();
    for _ in 0..10 {
        assert_eq!(world.failed("a"), []);
        world.reach_deadline();
    }
    world.failed("a");
    let failed = world.now;
    world.now += Duration::from_secs(1);
    assert_eq!(world.wanted("a", Priority::RealTime), [refuse("a")]);
    assert_eq!(world.schedule.next_deadline(), Some(failed + URGENT_RETRY));
    assert_eq!(world.reach_deadline(), [request("a")]);
    assert_eq!(world.failed("a"), [refuse("a")]);
    world.now += URGENT_RETRY;
    assert_eq!(world.wanted("a", Priority::RealTime), [request("a")], "the call answers");
}

#[test]
fn who_waits_for_an_identity_that_nobody_else_wants_any_more_is_answered() {
    let mut world = World::new();
    world.wanted("a", Priority::Warmup);
    world.wanted("a", Priority::RealTime);
    assert_eq!(world.schedule.handle_unwanted(&id("a")), []);
    assert_eq!(world.issued("a", 24), (true, vec![]));
    assert_eq!(world.reach_deadline(), [Action::Withdraw(id("a"))], "not renewed");

    world.wanted("b", Priority::Warmup);
    world.wanted("b", Priority::RealTime);
    world.schedule.handle_unwanted(&id("b"));
    assert_eq!(world.failed("b"), [refuse("b")]);
    assert_eq!(world.reach_deadline(), []);
    assert_eq!(world.state("b"), None);

    for n in 0..CONCURRENCY {
        world.wanted(&format!("busy{n}"), Priority::Warmup);
    }
    world.wanted("c", Priority::Warmup);
    world.wanted("c", Priority::RealTime);
    assert_eq!(world.schedule.handle_unwanted(&id("c")), []);
    assert_eq!(world.issued("busy0", 24).1, [request("c")], "waited for room");

    world.wanted("busy1", Priority::RealTime);
    world.issued("busy1", 24);
    world.now += URGENT_RETRY;
    assert_eq!(world.wanted("busy1", Priority::RealTime), [request("busy1")]);
    assert_eq!(world.schedule.handle_unwanted(&id("busy1")), [Action::Withdraw(id("busy1"))], "wakes who waits");
    assert_eq!(world.wanted("busy1", Priority::RealTime), [], "who asks again");
    assert!(world.issued("busy1", 24).0);
}

/// Time passes with a CA that refuses every call, while connections ask for each identity every 50 ms or nobody does.
/// Gives how often the CA was called, and the most calls that were under way.
fn calls_in_ten_minutes(identities: usize, impatient: bool) -> (usize, usize) {
    let mut world = World::new();
    let names: Vec<String> = (0..identities).map(|number| format!("a{number}")).collect();
    let mut under_way = Vec::new();
    let (mut calls, mut most) = (0, 0);
    let end = world.now + Duration::from_secs(600);
    for name in &names {
        under_way.extend(world.wanted(name, Priority::Warmup));
    }
    while world.now < end {
        let requested = |action: &Action| matches!(action, Action::Request(_));
        most = most.max(under_way.iter().filter(|action| requested(action)).count());
        for action in std::mem::take(&mut under_way) {
            if let Action::Request(identity) = action {
                calls += 1;
                under_way.extend(world.schedule.handle_failed(world.now, &identity, "no", &mut world.rng));
            }
        }
        world.now += Duration::from_millis(50);
        under_way.extend(world.schedule.handle_timeout(world.now));
        for name in names.iter().filter(|_| impatient) {
            under_way.extend(world.wanted(name, Priority::RealTime));
        }
    }
    (calls, most)
}

#[test]
fn a_ca_that_always_fails_is_called_seldom_however_many_connections_ask() {
    let (calls, _) = calls_in_ten_minutes(1, false);
    assert!((8..=14).contains(&calls), "{calls}");
    let (calls, _) = calls_in_ten_minutes(1, true);
    assert!((100..=130).contains(&calls), "one in five seconds: {calls}");
    let (calls, most) = calls_in_ten_minutes(40, true);
    assert!(calls <= 40 * 130, "{calls}");
    assert!(most <= CONCURRENCY, "{most}");
}
