// SPDX-License-Identifier: Apache-2.0
//! The session in virtual time.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

impl Netns for u32 {
    fn is_same(&self, other: &Self) -> bool {
        self == other
    }
}

struct World {
    session: Session<u32>,
    now: Instant,
    rng: StdRng,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self { session: Session::new(now), now, rng: StdRng::seed_from_u64(7) }
    }

    /// Connected, hello said.
    fn connected() -> Self {
        let mut world = Self::new();
        world.connect();
        world
    }

    fn connect(&mut self) {
        self.advance_to_deadline();
        assert_eq!(self.session.handle_timeout(self.now), [Action::Connect]);
        assert_eq!(self.session.handle_connected(self.now), [Action::Hello]);
    }

    /// Connected, empty snapshot complete.
    fn live() -> Self {
        let mut world = Self::connected();
        assert_eq!(world.message(Message::SnapshotSent), [yes()]);
        world
    }

    fn advance_to_deadline(&mut self) {
        self.now = self.now.max(self.session.next_deadline().unwrap());
    }

    fn message(&mut self, message: Message<u32>) -> Vec<Action<u32>> {
        assert!(self.session.may_read());
        self.session.handle_message(self.now, message, &mut self.rng)
    }

    fn started(&mut self, uid: &str, attempt: u64, result: Result<(), &str>) -> Vec<Action<u32>> {
        self.session.handle_started(self.now, uid, Attempt(attempt), result.map_err(str::to_owned))
    }

    /// Add a pod and let its start succeed.
    fn up(&mut self, uid: &str, netns: u32) -> u64 {
        let actions = self.message(add(uid, netns));
        let Some(Action::Start { attempt, .. }) = actions.last() else { panic!("no start in {actions:?}") };
        let attempt = attempt.0;
        assert_eq!(self.started(uid, attempt, Ok(())), [yes()]);
        attempt
    }
}

fn info(name: &str) -> PodInfo {
    PodInfo { name: name.into(), namespace: "demo".into(), service_account: "sa".into() }
}

fn add(uid: &str, netns: u32) -> Message<u32> {
    Message::Add { uid: uid.into(), info: Some(info(uid)), netns }
}

fn keep(uid: &str) -> Message<u32> {
    Message::Keep { uid: uid.into() }
}

fn del(uid: &str) -> Message<u32> {
    Message::Del { uid: uid.into() }
}

fn start(uid: &str, attempt: u64, netns: u32) -> Action<u32> {
    Action::Start { uid: uid.into(), attempt: Attempt(attempt), info: info(uid), netns }
}

fn stop(uid: &str, attempt: u64, why: Stop) -> Action<u32> {
    Action::Stop { uid: uid.into(), attempt: Attempt(attempt), why }
}

fn yes() -> Action<u32> {
    Action::Reply(Ok(()))
}

fn no(text: &str) -> Action<u32> {
    Action::Reply(Err(text.into()))
}

#[test]
fn the_ack_of_an_add_waits_for_the_listeners() {
    let mut world = World::connected();
    assert_eq!(world.message(add("a", 1)), [start("a", 1, 1)]);
    assert!(!world.session.may_read(), "lock-step");
    assert_eq!(world.started("a", 1, Ok(())), [yes()]);
    assert!(world.session.may_read());
    assert!(!world.session.is_ready(), "the snapshot is not complete");
    assert_eq!(world.message(Message::SnapshotSent), [yes()]);
    assert!(world.session.is_ready());
    assert_eq!((world.session.active(), world.session.pending()), (1, 0));
}

#[test]
fn the_same_add_twice_is_a_no_op_and_another_namespace_replaces() {
    let mut world = World::live();
    world.up("a", 1);
    assert_eq!(world.message(add("a", 1)), [yes()]);
    assert_eq!(world.message(add("a", 2)), [stop("a", 1, Stop::Replaced), start("a", 2, 2)]);
    assert_eq!(world.started("a", 1, Err("late")), [], "the first try is nobody's now");
    assert_eq!(world.started("a", 2, Ok(())), [yes()]);
}

#[test]
fn an_add_that_changes_who_the_pod_is_restarts_it() {
    let mut world = World::live();
    world.up("a", 1);
    let other = Message::Add { uid: "a".into(), info: Some(info("b")), netns: 1 };
    let actions = world.message(other);
    assert_eq!(actions[0], stop("a", 1, Stop::Replaced));
    assert!(matches!(&actions[1], Action::Start { info, .. } if info.name == "b"));
}

#[test]
fn a_failed_start_is_refused_and_tried_again_every_five_seconds() {
    let mut world = World::live();
    world.message(add("a", 1));
    assert_eq!(world.started("a", 1, Err("port taken")), [no("failure to start proxy : port taken")]);
    assert!(!world.session.is_ready());
    assert!(world.session.may_read(), "the connection stays up");
    assert_eq!(world.session.next_deadline(), Some(world.now + RETRY));

    for attempt in 2..5 {
        world.now += RETRY;
        assert_eq!(world.session.handle_timeout(world.now), [start("a", attempt, 1)]);
        assert_eq!(world.started("a", attempt, Err("port taken")), [], "nobody waits for a retry");
    }
    world.now += RETRY;
    world.session.handle_timeout(world.now);
    assert_eq!(world.started("a", 5, Ok(())), []);
    assert!(world.session.is_ready());
    assert_eq!(world.session.next_deadline(), None);
}

#[test]
fn a_slow_start_is_refused_in_time_and_counts_when_it_succeeds_after_all() {
    let mut world = World::live();
    world.message(add("a", 1));
    world.now += ANSWER_LIMIT;
    let actions = world.session.handle_timeout(world.now);
    assert!(matches!(&actions[..], [Action::Reply(Err(text))] if text.starts_with("failure to start proxy : ")));
    assert!(!world.session.is_ready());
    assert_eq!(world.started("a", 1, Ok(())), [], "already answered");
    assert!(world.session.is_ready());
}

#[test]
fn a_reconnect_keeps_what_runs_and_reconciles_with_the_snapshot() {
    let mut world = World::live();
    world.up("kept", 1);
    world.up("again", 2);
    world.up("gone", 3);
    world.session.handle_disconnected(world.now, &mut world.rng);
    assert!(!world.session.is_ready());
    assert_eq!(world.session.active(), 3);

    world.connect();
    assert_eq!(world.message(keep("kept")), [yes()]);
    assert_eq!(world.message(keep("never-seen")), [yes()]);
    assert_eq!(world.message(add("again", 2)), [yes()]);
    assert_eq!(world.message(Message::SnapshotSent), [stop("gone", 3, Stop::Unnamed), yes()]);
    assert!(world.session.is_ready());
}

#[test]
fn a_failed_pod_survives_a_reconnect_when_the_agent_keeps_it() {
    let mut world = World::live();
    world.message(add("a", 1));
    world.started("a", 1, Err("no"));
    world.session.handle_disconnected(world.now, &mut world.rng);
    world.connect();
    world.message(keep("a"));
    world.message(Message::SnapshotSent);
    world.advance_to_deadline();
    assert_eq!(world.session.handle_timeout(world.now), [start("a", 2, 1)]);
}

#[test]
fn a_start_that_outlives_its_connection_answers_the_next_ones_add() {
    let mut world = World::live();
    world.message(add("a", 1));
    world.session.handle_disconnected(world.now, &mut world.rng);
    world.connect();
    assert_eq!(world.message(add("a", 1)), [], "the first start still runs");
    assert_eq!(world.started("a", 1, Ok(())), [yes()]);
}

#[test]
fn a_del_during_the_snapshot_leaves_the_pod_to_the_reconciliation() {
    let mut world = World::live();
    world.up("a", 1);
    world.session.handle_disconnected(world.now, &mut world.rng);
    world.connect();
    world.message(keep("a"));
    assert_eq!(world.message(del("a")), [yes()]);
    assert_eq!(world.message(Message::SnapshotSent), [stop("a", 1, Stop::Unnamed), yes()]);
}

#[test]
fn a_del_stops_what_runs_forgets_what_failed_and_acks_what_it_does_not_know() {
    let mut world = World::live();
    world.up("a", 1);
    assert_eq!(world.message(del("a")), [stop("a", 1, Stop::Removed), yes()]);
    world.message(add("b", 2));
    world.started("b", 2, Err("no"));
    assert_eq!(world.message(del("b")), [yes()]);
    assert!(world.session.is_ready());
    assert_eq!(world.message(del("c")), [yes()]);
}

#[test]
fn a_del_while_a_retry_is_starting_stops_that_try() {
    let mut world = World::live();
    world.message(add("a", 1));
    world.started("a", 1, Err("no"));
    world.now += RETRY;
    world.session.handle_timeout(world.now);
    assert_eq!(world.message(del("a")), [stop("a", 2, Stop::Removed), yes()]);
    assert_eq!(world.started("a", 2, Ok(())), []);
    assert_eq!(world.session.active(), 0);
}

#[test]
fn protocol_errors_cost_the_connection_and_nothing_else() {
    let violations: [fn() -> Message<u32>; 3] =
        [|| keep("a"), || Message::SnapshotSent, || Message::Add { uid: "x".into(), info: None, netns: 9 }];
    for violation in violations {
        let mut world = World::live();
        world.up("a", 1);
        let actions = world.message(violation());
        assert!(
            matches!(&actions[..], [Action::Reply(Err(text)), Action::HangUp] if text.starts_with("failure to process message : ")),
            "{actions:?}"
        );
        assert!(!world.session.is_ready());
        assert_eq!(world.session.active(), 1, "the pod keeps running");
        assert!(world.session.next_deadline().unwrap() > world.now, "no spinning");
        world.connect();
    }
}

#[test]
fn an_unreadable_packet_is_refused_and_ends_the_connection() {
    let mut world = World::live();
    let actions = world.session.handle_unreadable(world.now, "no payload", &mut world.rng);
    assert!(
        matches!(&actions[..], [Action::Reply(Err(text)), Action::HangUp] if text.starts_with("failure to read message : "))
    );
}

#[test]
fn connecting_backs_off_and_a_good_session_is_taken_up_again_at_once() {
    let mut world = World::new();
    for _ in 0..20 {
        world.advance_to_deadline();
        assert_eq!(world.session.handle_timeout(world.now), [Action::Connect]);
        assert_eq!(world.session.next_deadline(), None, "connecting");
        world.session.handle_connect_failed(world.now, &mut world.rng);
    }
    assert!(world.session.next_deadline().unwrap() > world.now + Duration::from_secs(11));
    world.connect();
    world.message(Message::SnapshotSent);
    world.now += SETTLED;
    world.session.handle_disconnected(world.now, &mut world.rng);
    assert_eq!(world.session.next_deadline(), Some(world.now));
    world.connect();
    world.session.handle_disconnected(world.now, &mut world.rng);
    assert!(world.session.next_deadline().unwrap() > world.now, "hung up before the snapshot");
}

#[test]
fn an_agent_that_sends_its_list_and_goes_again_and_again_is_met_with_growing_delays() {
    let mut world = World::live();
    let start = world.now;
    let mut sessions = 0;
    while world.now < start + Duration::from_secs(600) {
        world.session.handle_disconnected(world.now, &mut world.rng);
        world.connect();
        world.message(Message::SnapshotSent);
        sessions += 1;
    }
    assert!(sessions < 75, "{sessions} sessions in ten minutes");
    // One that stays is trusted again.
    world.now += SETTLED;
    world.session.handle_disconnected(world.now, &mut world.rng);
    assert_eq!(world.session.next_deadline(), Some(world.now));
}

#[test]
fn violations_one_after_the_other_are_met_with_growing_delays() {
    let mut world = World::live();
    let start = world.now;
    let mut sessions = 0;
    while world.now < start + Duration::from_secs(600) {
        world.session.handle_unreadable(world.now, "garbage", &mut world.rng);
        world.connect();
        world.message(Message::SnapshotSent);
        sessions += 1;
    }
    assert!(sessions < 75, "{sessions} sessions in ten minutes");
}
