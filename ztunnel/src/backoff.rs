// SPDX-License-Identifier: Apache-2.0
//! Growing, jittered delays between attempts: used by every core here that retries. Randomness is an argument.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Doubles from `first` up to `cap`; every delay is spread by a fifth to either side so that a node's, or a fleet's,
/// attempts do not fall on the same instant.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    /// A fresh backoff: its first delay is about `first`.
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, next: first }
    }

    /// The delay before the next attempt; the one after it is twice as long.
    pub fn delay(&mut self, rng: &mut impl Rng) -> Duration {
        let base = self.next;
        self.next = base.saturating_mul(2).min(self.cap);
        spread(base, SPREAD, rng)
    }

    /// An attempt went well: start again from the first delay.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// `base` changed at random by at most the fraction `by` in either direction.
pub fn spread(base: Duration, by: f64, rng: &mut impl Rng) -> Duration {
    base.mul_f64(1.0 + rng.random_range(-by..=by))
}

/// A fifth to either side, as the peer implementation's CA backoff.
const SPREAD: f64 = 0.2;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn delays_double_to_the_cap_within_a_fifth() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(15));
        let mut base = Duration::from_millis(20);
        for _ in 0..40 {
            let delay = backoff.delay(&mut rng);
            assert!(delay >= base.mul_f64(0.79) && delay <= base.mul_f64(1.21), "{delay:?} around {base:?}");
            base = (base * 2).min(Duration::from_secs(15));
        }
        backoff.reset();
        assert!(backoff.delay(&mut rng) < Duration::from_millis(25));
    }
}
