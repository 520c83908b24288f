// SPDX-License-Identifier: Apache-2.0
//! Says only so often what others can make happen as often as they like: what is logged for each connection or packet of
//! a hostile peer is a second way to hurt.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One thing to say, and how often it was not said.
///
/// ```
/// use std::time::{Duration, Instant};
/// use mesh_common::telemetry::Seldom;
///
/// static REFUSED: Seldom = Seldom::new(5, Duration::from_secs(10));
/// if let Some(times) = REFUSED.due(Instant::now()) {
///     tracing::warn!(times, "a connection was refused");
/// }
/// ```
#[derive(Debug)]
pub struct Seldom {
    most: u32,
    period: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    since: Option<Instant>,
    said: u32,
    unsaid: u64,
}

impl Seldom {
    /// At most so many times in each period.
    #[must_use]
    pub const fn new(most: u32, period: Duration) -> Self {
        Self { most, period, state: Mutex::new(State { since: None, said: 0, unsaid: 0 }) }
    }

    /// It has happened once more: whether to say so, and then for how many times, this one and unsaid ones included.
    pub fn due(&self, now: Instant) -> Option<u64> {
        // Every change is a single step, so a poisoned state is whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.unsaid = state.unsaid.saturating_add(1);
        if state.since.is_none_or(|since| now.saturating_duration_since(since) >= self.period) {
            (state.since, state.said) = (Some(now), 0);
        }
        if state.said >= self.most {
            return None;
        }
        state.said += 1;
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_times_are_said_and_later_ones_are_counted_until_it_is_time_again() {
        let seldom = Seldom::new(2, Duration::from_secs(10));
        let start = Instant::now();
        assert_eq!(seldom.due(start), Some(1));
        assert_eq!(seldom.due(start + Duration::from_secs(1)), Some(1));
        for second in 2..10 {
            assert_eq!(seldom.due(start + Duration::from_secs(second)), None);
        }
        assert_eq!(seldom.due(start + Duration::from_secs(10)), Some(9));
        assert_eq!(seldom.due(start + Duration::from_secs(11)), Some(1));
        assert_eq!(seldom.due(start + Duration::from_secs(12)), None);
        assert_eq!(seldom.due(start + Duration::from_secs(100)), Some(2));
    }
}
