// SPDX-License-Identifier: Apache-2.0
//! Says at most once in a while what others can make happen as often as they like: what is logged for each connection or
//! packet of a hostile peer is a second way to hurt.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One thing to say, and how often it was not said.
///
/// ```
/// use std::time::{Duration, Instant};
/// use mesh_common::telemetry::Seldom;
///
/// static REFUSED: Seldom = Seldom::every(Duration::from_secs(10));
/// if let Some(times) = REFUSED.due(Instant::now()) {
///     tracing::warn!(times, "connections were refused");
/// }
/// ```
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    said: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// At most once in this time.
    #[must_use]
    pub const fn every(every: Duration) -> Self {
        Self { every, state: Mutex::new(State { said: None, unsaid: 0 }) }
    }

    /// It has happened once more: whether to say so, and then for how many times, this one included.
    pub fn due(&self, now: Instant) -> Option<u64> {
        // Every change is a single step, so a poisoned state is whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.unsaid = state.unsaid.saturating_add(1);
        if state.said.is_some_and(|said| now.saturating_duration_since(said) < self.every) {
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_is_said_and_later_ones_are_counted_until_it_is_time_again() {
        let seldom = Seldom::every(Duration::from_secs(10));
        let start = Instant::now();
        assert_eq!(seldom.due(start), Some(1));
        for second in 1..10 {
            assert_eq!(seldom.due(start + Duration::from_secs(second)), None);
        }
        assert_eq!(seldom.due(start + Duration::from_secs(10)), Some(10));
        assert_eq!(seldom.due(start + Duration::from_secs(11)), None);
        assert_eq!(seldom.due(start + Duration::from_secs(100)), Some(2));
    }
}
