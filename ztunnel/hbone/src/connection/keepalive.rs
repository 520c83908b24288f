// SPDX-License-Identifier: Apache-2.0
//! Whether the peer is still there: a ping after some time, another some time after each pong.

use std::time::{Duration, Instant};

/// The payload of our keepalive pings.
pub(super) const KEEPALIVE: [u8; 8] = *b"hb-alive";
/// The payload of the ping behind the first GOAWAY.
pub(super) const DRAIN: [u8; 8] = *b"hb-drain";

/// Where the rhythm stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keepalive {
    /// The next ping is due then.
    Resting { until: Instant },
    /// A ping is out; unless something arrives, the peer counts as gone then.
    Waiting { until: Instant },
}

/// What is to be done at a deadline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    Gone,
}

impl Keepalive {
    pub(super) fn new(now: Instant, interval: Duration) -> Self {
        Self::Resting { until: now + interval }
    }

    pub(super) fn deadline(self) -> Instant {
        match self {
            Self::Resting { until } | Self::Waiting { until } => until,
        }
    }

    /// Something arrived. Data may stand before the pong in a long queue, so any byte is a sign of life.
    pub(super) fn heard(&mut self, now: Instant, timeout: Duration) {
        if let Self::Waiting { until } = self {
            *until = now + timeout;
        }
    }

    /// A pong to our ping; false if none was waited for.
    pub(super) fn pong(&mut self, now: Instant, interval: Duration) -> bool {
        let is_waiting = matches!(self, Self::Waiting { .. });
        if is_waiting {
            *self = Self::Resting { until: now + interval };
        }
        is_waiting
    }

    pub(super) fn check(&mut self, now: Instant, timeout: Duration) -> Due {
        match *self {
            Self::Resting { until } if now >= until => {
                *self = Self::Waiting { until: now + timeout };
                Due::Ping
            }
            Self::Waiting { until } if now >= until => Due::Gone,
            _ => Due::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const TIMEOUT: Duration = Duration::from_secs(20);
    const TICK: Duration = Duration::from_millis(1);

    #[test]
    fn a_ping_is_due_after_the_interval_and_the_end_after_the_timeout_not_a_moment_before() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(start, INTERVAL);
        let due = start + INTERVAL;
        assert_eq!(keepalive.deadline(), due);
        assert_eq!(keepalive.check(due - TICK, TIMEOUT), Due::Nothing);
        assert_eq!(keepalive.check(due, TIMEOUT), Due::Ping);
        assert_eq!(keepalive.deadline(), due + TIMEOUT);
        assert_eq!(keepalive.check(due + TIMEOUT - TICK, TIMEOUT), Due::Nothing);
        assert_eq!(keepalive.check(due + TIMEOUT, TIMEOUT), Due::Gone);
    }

    #[test]
    fn a_sign_of_life_puts_off_the_end_and_a_pong_the_next_ping() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(start, INTERVAL);
        keepalive.heard(start + TICK, TIMEOUT);
        assert_eq!(keepalive.deadline(), start + INTERVAL, "nothing waits for it");
        assert!(!keepalive.pong(start + TICK, INTERVAL), "nor for a pong");
        let due = start + INTERVAL;
        assert_eq!(keepalive.check(due, TIMEOUT), Due::Ping);
        keepalive.heard(due + INTERVAL, TIMEOUT);
        assert_eq!(keepalive.deadline(), due + INTERVAL + TIMEOUT);
        assert!(keepalive.pong(due + INTERVAL, INTERVAL));
        assert_eq!(keepalive.deadline(), due + INTERVAL + INTERVAL);
    }
}
