// SPDX-License-Identifier: Apache-2.0
//! When to ask for a certificate: at half of the life that is left, spread so that waypoints started together do not ask together; after a failure soon,
//! then ever less often. Pure; called by `keeper`.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt as _};

/// When to ask next.
#[derive(Debug)]
pub(super) struct Schedule {
    due: Instant,
    pause: Duration,
}

impl Schedule {
    /// Ask at once.
    pub(super) const fn new(now: Instant) -> Self {
        Self { due: now, pause: FIRST_PAUSE }
    }

    /// There is a certificate for `left`.
    pub(super) fn handle_issued(&mut self, now: Instant, left: Duration, rng: &mut impl Rng) {
        self.pause = FIRST_PAUSE;
        // One that lives shorter than that would be asked for without end.
        self.due = now + spread(left / 2, 0.1, rng).max(FIRST_PAUSE);
    }

    /// There is none, or none to be taken.
    pub(super) fn handle_failed(&mut self, now: Instant, rng: &mut impl Rng) {
        self.due = now + spread(self.pause, 0.2, rng);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// When to ask.
    pub(super) const fn due(&self) -> Instant {
        self.due
    }
}

fn spread(base: Duration, by: f64, rng: &mut impl Rng) -> Duration {
    base.mul_f64(1.0 + rng.random_range(-by..=by))
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_certificate_is_renewed_around_half_of_its_life_and_never_without_pause() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut schedule = Schedule::new(now);
        assert_eq!(schedule.due(), now);
        for _ in 0..100 {
            schedule.handle_issued(now, Duration::from_secs(1000), &mut rng);
            let wait = (schedule.due() - now).as_secs_f64();
            assert!((449.9..=550.1).contains(&wait), "{wait}");
        }
        schedule.handle_issued(now, Duration::ZERO, &mut rng);
        assert_eq!(schedule.due(), now + FIRST_PAUSE);
    }

    #[test]
    fn failures_are_ever_further_apart_up_to_a_minute_until_one_goes_well() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut schedule = Schedule::new(now);
        let mut base = FIRST_PAUSE;
        for _ in 0..20 {
            schedule.handle_failed(now, &mut rng);
            let wait = schedule.due() - now;
            assert!(wait >= base.mul_f64(0.79) && wait <= base.mul_f64(1.21), "{wait:?} around {base:?}");
            base = (base * 2).min(LONGEST_PAUSE);
        }
        schedule.handle_issued(now, Duration::from_secs(100), &mut rng);
        schedule.handle_failed(now, &mut rng);
        assert!(schedule.due() - now < FIRST_PAUSE * 2);
    }
}
