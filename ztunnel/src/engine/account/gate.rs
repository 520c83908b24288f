// SPDX-License-Identifier: Apache-2.0
//! Which log lines about failed connections are written and which are left out: a flood of them from one address must neither drown the
//! log nor keep others out of it. Pure: time is an argument.
//!
//! Every source has a burst and then a steady rate; all sources together have twenty times that. What is left out is counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// See the module. One per data thread.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Lines per second about one source; 0 writes everything.
    rate: u32,
    all: Bucket,
    sources: HashMap<IpAddr, Bucket>,
    left_out: LeftOut,
}

/// What was left out since it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LeftOut {
    /// How many lines.
    pub(crate) lines: u64,
    /// One of the sources they were about: the first, or whoever went on longest.
    pub(crate) about: Option<IpAddr>,
}

#[derive(Debug)]
struct Bucket {
    left: u32,
    filled: Instant,
}

impl Gate {
    pub(crate) fn new(now: Instant, rate: u32) -> Self {
        let all = Bucket::full(now, rate.saturating_mul(ALL));
        Self { rate, all, sources: HashMap::new(), left_out: LeftOut::default() }
    }

    /// Whether a line about this source is to be written.
    pub(crate) fn admits(&mut self, now: Instant, source: IpAddr) -> bool {
        if self.rate == 0 {
            return true;
        }
        let admitted = self.of_source(now, source) && self.all.take(now, self.rate.saturating_mul(ALL));
        if !admitted {
            self.left_out.lines += 1;
            self.left_out.about.get_or_insert(source);
        }
        admitted
    }

    /// What was left out since the last time. Forgets sources that have been quiet.
    pub(crate) fn sweep(&mut self, now: Instant) -> LeftOut {
        let rate = self.rate;
        self.sources.retain(|_, bucket| !bucket.is_full(now, rate));
        if self.sources.is_empty() {
            self.sources = HashMap::new();
        }
        std::mem::take(&mut self.left_out)
    }

    fn of_source(&mut self, now: Instant, source: IpAddr) -> bool {
        let rate = self.rate;
        if let Some(bucket) = self.sources.get_mut(&source) {
            return bucket.take(now, rate);
        }
        // So many at once are one flood: they share what is for all.
        if self.sources.len() < MOST_SOURCES {
            let mut bucket = Bucket::full(now, rate);
            bucket.take(now, rate);
            self.sources.insert(source, bucket);
        }
        true
    }
}

impl Bucket {
    fn full(now: Instant, rate: u32) -> Self {
        Self { left: rate.saturating_mul(BURST), filled: now }
    }

    fn take(&mut self, now: Instant, rate: u32) -> bool {
        self.fill(now, rate);
        let is_there = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_there
    }

    fn is_full(&mut self, now: Instant, rate: u32) -> bool {
        self.fill(now, rate);
        self.left == rate.saturating_mul(BURST)
    }

    fn fill(&mut self, now: Instant, rate: u32) {
        let seconds = now.saturating_duration_since(self.filled).as_secs();
        if seconds > 0 {
            self.filled += Duration::from_secs(seconds);
            let more = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(rate);
            self.left = self.left.saturating_add(more).min(rate.saturating_mul(BURST));
        }
    }
}

/// How many times the lines of a second may come at once.
const BURST: u32 = 8;
/// How many times the lines of one source all of them may cause.
const ALL: u32 = 20;
/// Sources told apart.
const MOST_SOURCES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn flood(gate: &mut Gate, now: Instant, source: u32, lines: u64) -> u64 {
        (0..lines).filter(|_| gate.admits(now, address(source))).count() as u64
    }

    #[test]
    fn a_flood_from_one_source_leaves_the_others_their_lines() {
        let start = Instant::now();
        let mut gate = Gate::new(start, 10);
        assert_eq!(flood(&mut gate, start, 1, 1000), 80);
        assert_eq!(flood(&mut gate, start, 2, 5), 5);
        assert_eq!(gate.sweep(start), LeftOut { lines: 920, about: Some(address(1)) });
        assert_eq!(gate.sweep(start), LeftOut::default());
        let later = start + Duration::from_secs(2);
        assert_eq!(flood(&mut gate, later, 1, 1000), 20);
    }

    #[test]
    fn a_flood_from_everywhere_is_limited_as_well_and_costs_bounded_memory() {
        let start = Instant::now();
        let mut gate = Gate::new(start, 10);
        let written: u64 = (0..100_000).map(|source| flood(&mut gate, start, source, 1)).sum();
        assert_eq!(written, 1600);
        assert_eq!(gate.sources.len(), MOST_SOURCES);
        assert_eq!(gate.sweep(start).lines, 100_000 - 1600);
        gate.sweep(start + Duration::from_secs(8));
        assert!(gate.sources.is_empty(), "the quiet are forgotten");
    }

    #[test]
    fn without_a_rate_everything_is_written() {
        let start = Instant::now();
        let mut gate = Gate::new(start, 0);
        assert_eq!(flood(&mut gate, start, 1, 5000), 5000);
        assert_eq!(gate.sweep(start), LeftOut::default());
        assert!(gate.sources.is_empty());
    }
}
