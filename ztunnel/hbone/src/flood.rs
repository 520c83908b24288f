// SPDX-License-Identifier: Apache-2.0
//! Limits on what is cheap for a peer to send and dear for us to take: one bucket per kind, filled up again with time.
//!
//! The bursts are far above what proxies do when they behave (flow control updates are also earned by what we send), and the
//! refill rates so low that whoever lives off them costs nothing.

use std::fmt;
use std::time::{Duration, Instant};

/// What there can be too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Streams reset by the peer before they were answered ("rapid reset").
    Resets,
    /// Faults that made us reset a stream, answer a dead one, or refuse a request that is no usable CONNECT.
    Faults,
    /// PING.
    Pings,
    /// SETTINGS, or entries in one SETTINGS.
    Settings,
    /// WINDOW_UPDATE beyond what our own DATA accounts for.
    WindowUpdates,
    /// Frames that say nothing: empty DATA, PRIORITY, unknown types, interim answers.
    Noise,
}

impl Kind {
    const COUNT: usize = 6;

    /// (most at once, more per second)
    const fn rate(self) -> (u16, u16) {
        match self {
            // An application that cannot be reached makes its clients give up, two hundred streams a second if they are impatient.
            Self::Resets => (512, 256),
            Self::Faults => (128, 16),
            Self::Pings => (512, 128),
            Self::Settings => (64, 8),
            Self::WindowUpdates => (8192, 1024),
            Self::Noise => (1024, 128),
        }
    }

    const ALL: [Self; Self::COUNT] =
        [Self::Resets, Self::Faults, Self::Pings, Self::Settings, Self::WindowUpdates, Self::Noise];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resets => "streams reset before their answer (rapid reset)",
            Self::Faults => "stream faults and unusable requests",
            Self::Pings => "PING frames",
            Self::Settings => "SETTINGS",
            Self::WindowUpdates => "WINDOW_UPDATE frames",
            Self::Noise => "frames without content (empty DATA, PRIORITY, unknown types)",
        })
    }
}

/// The buckets of one connection.
#[derive(Debug)]
pub(crate) struct Flood {
    left: [u16; Kind::COUNT],
    refilled: Instant,
}

impl Flood {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: Kind::ALL.map(|kind| kind.rate().0), refilled: now }
    }

    /// One more of `kind`; false when it was one too many.
    pub(crate) fn take(&mut self, kind: Kind, now: Instant) -> bool {
        if self.left[kind as usize] == 0 {
            self.refill(now);
        }
        let left = &mut self.left[kind as usize];
        let granted = *left > 0;
        *left = left.saturating_sub(1);
        granted
    }

    /// The peer has earned some of `kind`.
    pub(crate) fn earn(&mut self, kind: Kind, count: u16) {
        let left = &mut self.left[kind as usize];
        *left = left.saturating_add(count).min(kind.rate().0);
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.refilled).as_secs();
        if seconds == 0 {
            return;
        }
        self.refilled += Duration::from_secs(seconds);
        let seconds = u16::try_from(seconds).unwrap_or(u16::MAX);
        for kind in Kind::ALL {
            self.earn(kind, kind.rate().1.saturating_mul(seconds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_granted_and_what_follows_only_at_the_rate() {
        let start = Instant::now();
        for kind in Kind::ALL {
            let (burst, rate) = kind.rate();
            let mut flood = Flood::new(start);
            let mut granted = |now| (0..20_000).take_while(|_| flood.take(kind, now)).count();
            assert_eq!(granted(start), usize::from(burst), "{kind}");
            assert_eq!(granted(start + Duration::from_millis(999)), 0, "{kind}");
            assert_eq!(granted(start + Duration::from_millis(1500)), usize::from(rate), "{kind}");
            assert_eq!(granted(start + Duration::from_millis(2000)), usize::from(rate), "{kind}");
            assert_eq!(granted(start + Duration::from_secs(1 << 40)), usize::from(burst), "{kind}");
        }
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names = std::collections::BTreeSet::from(Kind::ALL.map(|kind| kind.to_string()));
        assert_eq!(names.len(), Kind::COUNT);
        assert!(!names.contains(""));
    }

    #[test]
    fn what_is_earned_never_exceeds_the_burst() {
        let start = Instant::now();
        let mut flood = Flood::new(start);
        flood.earn(Kind::Pings, u16::MAX);
        assert_eq!((0..20_000).take_while(|_| flood.take(Kind::Pings, start)).count(), 512);
    }
}
