// SPDX-License-Identifier: Apache-2.0
//! Dialled connections too young for keepalive. It costs four calls, and nothing of it works before minutes have passed: what ends within seconds is
//! spared them. `thread` asks for those that have grown.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Who has come, oldest first. Those that ended meanwhile are still among them.
#[derive(Debug)]
pub(super) struct Young<T> {
    waiting: VecDeque<(Instant, T)>,
}

impl<T> Default for Young<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<T> Young<T> {
    /// One more.
    pub(super) fn enter(&mut self, now: Instant, who: T) {
        self.waiting.push_back((now, who));
    }

    /// The oldest, if it has lived long enough.
    pub(super) fn grown(&mut self, now: Instant) -> Option<T> {
        self.waiting.pop_front_if(|(since, _)| now.duration_since(*since) >= GROWN).map(|(_, who)| who)
    }

    /// Gives back what a peak left.
    pub(super) fn trim(&mut self) {
        if self.waiting.capacity() > LEAST_ROOM && self.waiting.len() < self.waiting.capacity() / 4 {
            self.waiting.shrink_to(LEAST_ROOM.max(2 * self.waiting.len()));
        }
    }
}

/// How old a connection is when it gets keepalive: long before the first probe is due.
const GROWN: Duration = Duration::from_secs(5);
/// Room that a quiet thread keeps.
const LEAST_ROOM: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_grown_after_a_while_and_in_the_order_they_came() {
        let (start, mut young) = (Instant::now(), Young::default());
        young.enter(start, 'a');
        young.enter(start + GROWN / 2, 'b');
        assert_eq!(young.grown(start + GROWN - Duration::from_millis(1)), None);
        assert_eq!((young.grown(start + GROWN), young.grown(start + GROWN)), (Some('a'), None));
        assert_eq!(young.grown(start + GROWN * 2), Some('b'));
    }

    #[test]
    fn a_peak_leaves_nothing_behind() {
        let (now, mut young) = (Instant::now(), Young::default());
        (0..10_000).for_each(|number| young.enter(now, number));
        while young.grown(now + GROWN).is_some() {}
        young.trim();
        assert!(young.waiting.capacity() <= 2 * LEAST_ROOM, "{}", young.waiting.capacity());
    }
}
