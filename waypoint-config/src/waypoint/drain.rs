// SPDX-License-Identifier: Apache-2.0
//! How Envoy is brought to an end. Pure; `app` tells what happens and does what it says.
//!
//! The first wish to end: Envoy calls itself unhealthy and tells its clients to go elsewhere, but goes on taking connections for a while, because not
//! everybody knows yet. Once that while is over and no connection is left, it is asked to end. The deadline, or a second wish, kills it.

use std::time::{Duration, Instant};

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until everybody knows: it does not end before, even without connections.
    pub least: Duration,
    /// Until what is left is cut off.
    pub most: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Tell Envoy to fail its health check and to drain its listeners.
    Drain,
    /// Ask Envoy how many connections it has.
    Count,
    /// Ask Envoy to end.
    Terminate,
    /// End it.
    Kill,
}

/// How far the end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining { known_at: Instant, deadline: Instant, count_at: Instant },
    Ending { deadline: Instant },
    Killed,
}

/// The way to the end.
#[derive(Debug)]
pub struct Drain {
    patience: Patience,
    phase: Phase,
}

impl Drain {
    /// Nobody wants it to end yet.
    #[must_use]
    pub const fn new(patience: Patience) -> Self {
        Self { patience, phase: Phase::Serving }
    }

    /// Somebody wants it to end.
    pub fn handle_asked(&mut self, now: Instant) -> Vec<Action> {
        match self.phase {
            Phase::Serving => {
                let deadline = now + self.patience.most;
                let known_at = now + self.patience.least.min(self.patience.most);
                self.phase = Phase::Draining { known_at, deadline, count_at: known_at };
                vec![Action::Drain]
            }
            Phase::Draining { .. } | Phase::Ending { .. } => self.kill(),
            Phase::Killed => vec![],
        }
    }

    /// Envoy said how many connections it has; nothing if it did not answer.
    pub fn handle_connections(&mut self, now: Instant, open: Option<u64>) -> Vec<Action> {
        match (self.phase, open) {
            (Phase::Draining { known_at, deadline, .. }, Some(0)) if now >= known_at => {
                self.phase = Phase::Ending { deadline: deadline.min(now + END) };
                vec![Action::Terminate]
            }
            _ => vec![],
        }
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now: Instant) -> Vec<Action> {
        match &mut self.phase {
            Phase::Draining { deadline, .. } | Phase::Ending { deadline } if now >= *deadline => self.kill(),
            Phase::Draining { count_at, .. } if now >= *count_at => {
                *count_at = now + COUNT_INTERVAL;
                vec![Action::Count]
            }
            _ => vec![],
        }
    }

    /// When [`handle_time`](Self::handle_time) has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Serving | Phase::Killed => None,
            Phase::Draining { deadline, count_at, .. } => Some(deadline.min(count_at)),
            Phase::Ending { deadline } => Some(deadline),
        }
    }

    fn kill(&mut self) -> Vec<Action> {
        self.phase = Phase::Killed;
        vec![Action::Kill]
    }
}

const COUNT_INTERVAL: Duration = Duration::from_millis(500);
/// How long Envoy may take to end once it has nothing to do.
const END: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn asked() -> (Instant, Drain) {
        let start = Instant::now();
        let mut drain = Drain::new(Patience { least: Duration::from_secs(5), most: Duration::from_secs(25) });
        assert_eq!(drain.next_deadline(), None);
        assert_eq!(drain.handle_time(start), []);
        assert_eq!(drain.handle_asked(start), [Action::Drain]);
        (start, drain)
    }

    #[test]
    fn envoy_is_asked_to_end_once_everybody_knows_and_nobody_is_left() {
        let (start, mut drain) = asked();
        assert_eq!(drain.handle_connections(at(start, 4), Some(0)), []);
        assert_eq!(drain.next_deadline(), Some(at(start, 5)));
        assert_eq!(drain.handle_time(at(start, 5)), [Action::Count]);
        assert_eq!(drain.handle_connections(at(start, 5), Some(3)), []);
        assert_eq!(drain.handle_connections(at(start, 5), None), []);
        assert_eq!(drain.next_deadline(), Some(at(start, 5) + COUNT_INTERVAL));
        assert_eq!(drain.handle_time(at(start, 6)), [Action::Count]);
        assert_eq!(drain.handle_connections(at(start, 6), Some(0)), [Action::Terminate]);
        assert_eq!(drain.handle_connections(at(start, 6), Some(0)), []);
        assert_eq!(drain.next_deadline(), Some(at(start, 11)));
        assert_eq!(drain.handle_time(at(start, 11)), [Action::Kill]);
    }

    #[test]
    fn what_is_left_at_the_deadline_is_cut_off() {
        let (start, mut drain) = asked();
        assert_eq!(drain.handle_connections(at(start, 24), Some(1)), []);
        assert_eq!(drain.handle_time(at(start, 25)), [Action::Kill]);
        assert_eq!(drain.next_deadline(), None);
        assert_eq!(drain.handle_time(at(start, 26)), []);
        assert_eq!(drain.handle_asked(at(start, 26)), []);
    }

    #[test]
    fn a_second_wish_kills() {
        let (start, mut drain) = asked();
        assert_eq!(drain.handle_asked(at(start, 1)), [Action::Kill]);
        let (start, mut drain) = asked();
        drain.handle_connections(at(start, 5), Some(0));
        assert_eq!(drain.handle_asked(at(start, 6)), [Action::Kill]);
    }
}
