// SPDX-License-Identifier: Apache-2.0
//! What is due when. An alarm is never taken back: whoever gets one looks whether it still means anything. Pure.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// Alarms in the order they are due.
pub(super) struct Timers<T> {
    heap: BinaryHeap<Reverse<Alarm<T>>>,
    set: u64,
}

struct Alarm<T> {
    at: Instant,
    /// Alarms for the same moment ring in the order they were set.
    order: u64,
    what: T,
}

impl<T> Timers<T> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), set: 0 }
    }

    pub(super) fn set(&mut self, at: Instant, what: T) {
        self.set += 1;
        self.heap.push(Reverse(Alarm { at, order: self.set, what }));
    }

    /// The next alarm that is due.
    pub(super) fn ring(&mut self, now: Instant) -> Option<T> {
        self.heap.peek().filter(|Reverse(alarm)| alarm.at <= now)?;
        self.heap.pop().map(|Reverse(alarm)| alarm.what)
    }

    /// Gives back the room of a peak that is over.
    pub(super) fn trim(&mut self) {
        if self.heap.len() < self.heap.capacity() / 4 {
            self.heap.shrink_to((self.heap.len() * 2).max(KEPT));
        }
    }

    /// How long until the next alarm.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.heap.peek().map(|Reverse(alarm)| alarm.at.saturating_duration_since(now))
    }
}

/// Alarms there is always room for.
const KEPT: usize = 1024;

impl<T> Ord for Alarm<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl<T> PartialOrd for Alarm<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Alarm<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Alarm<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_ring_in_order_and_not_early() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::new();
        for (seconds, what) in [(2, 'c'), (1, 'a'), (1, 'b')] {
            timers.set(at(seconds), what);
        }
        assert_eq!(timers.ring(start), None);
        assert_eq!(timers.wait(start), Some(Duration::from_secs(1)));
        assert_eq!([timers.ring(at(1)), timers.ring(at(1)), timers.ring(at(1))], [Some('a'), Some('b'), None]);
        assert_eq!(timers.ring(at(9)), Some('c'));
        assert_eq!(timers.wait(at(9)), None);
        (0..100_000).for_each(|_| timers.set(at(10), 'x'));
        while timers.ring(at(10)).is_some() {}
        timers.trim();
        assert!(timers.heap.capacity() <= KEPT);
    }
}
