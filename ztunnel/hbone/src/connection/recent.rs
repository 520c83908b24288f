// SPDX-License-Identifier: Apache-2.0
//! What became of streams that are no longer open, so that frames for them can be judged. The last 256 are remembered, in two
//! bits each.

const REMEMBERED: u32 = 256;
const WORDS: usize = REMEMBERED as usize / 64;

/// How a stream number stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// Not used yet.
    Idle,
    /// Passed over: a higher one was opened first.
    Skipped,
    /// Both sides had ended it, or the peer reset it: the peer knows it is over.
    Closed,
    /// We reset it, or it was so long ago that nobody knows: frames may still be under way.
    Forgiven,
}

/// The record of one connection's streams, which all are opened by the client.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// The highest number opened so far, 0 for none.
    highest: u32,
    opened: [u64; WORDS],
    forgiven: [u64; WORDS],
}

impl Recent {
    pub(super) fn highest(&self) -> u32 {
        self.highest
    }

    /// A stream is opened; its number is odd and higher than any before.
    pub(super) fn open(&mut self, number: u32) {
        let skipped = (number - self.highest) / 2;
        if skipped >= REMEMBERED {
            self.opened = [0; WORDS];
            self.forgiven = [0; WORDS];
        } else {
            let mut passed = number;
            while passed > self.highest {
                let (word, bit) = place(passed);
                self.opened[word] &= !bit;
                self.forgiven[word] &= !bit;
                passed = passed.saturating_sub(2);
            }
        }
        let (word, bit) = place(number);
        self.opened[word] |= bit;
        self.highest = number;
    }

    /// Frames of this stream may still arrive and mean no harm.
    pub(super) fn forgive(&mut self, number: u32) {
        if self.remembers(number) {
            let (word, bit) = place(number);
            self.forgiven[word] |= bit;
        }
    }

    /// How a number that is not open stands.
    pub(super) fn judge(&self, number: u32) -> Past {
        // The server opens none, so even numbers are idle for ever.
        if number > self.highest || number.is_multiple_of(2) {
            return Past::Idle;
        }
        let (word, bit) = place(number);
        if !self.remembers(number) || self.forgiven[word] & bit != 0 {
            Past::Forgiven
        } else if self.opened[word] & bit != 0 {
            Past::Closed
        } else {
            Past::Skipped
        }
    }

    fn remembers(&self, number: u32) -> bool {
        number <= self.highest && (self.highest - number) / 2 < REMEMBERED
    }
}

fn place(number: u32) -> (usize, u64) {
    let n = number / 2 % REMEMBERED;
    ((n / 64) as usize, 1 << (n % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn two_bits_remember_what_a_table_would(steps in proptest::collection::vec((0..300u32, any::<bool>(), 0..300u32), 1..60)) {
            let mut recent = Recent::default();
            let mut table = BTreeMap::new();
            let mut highest = 0u32;
            for (skip, forgive, back) in steps {
                let number = if highest == 0 { 1 } else { highest + 2 } + 2 * (skip / 10 * (skip / 100));
                recent.open(number);
                table.insert(number, Past::Closed);
                highest = number;
                if forgive {
                    let number = number.saturating_sub(2 * back) | 1;
                    recent.forgive(number);
                    table.insert(number, Past::Forgiven);
                }
                for number in 0..highest + 5 {
                    let expected = match number {
                        n if n % 2 == 0 || n > highest => Past::Idle,
                        n if (highest - n) / 2 >= REMEMBERED => Past::Forgiven,
                        n => table.get(&n).copied().unwrap_or(Past::Skipped),
                    };
                    prop_assert_eq!(recent.judge(number), expected, "{} of {}", number, highest);
                }
            }
        }
    }

    #[test]
    fn every_kind_of_past_is_told_apart() {
        let mut recent = Recent::default();
        assert_eq!(recent.judge(1), Past::Idle);
        recent.open(1);
        recent.open(7);
        recent.forgive(7);
        let judged = [1, 2, 3, 5, 7, 9].map(|number| recent.judge(number));
        assert_eq!(judged, [Past::Closed, Past::Idle, Past::Skipped, Past::Skipped, Past::Forgiven, Past::Idle]);
    }

    #[test]
    fn what_is_long_ago_is_forgiven_and_does_not_colour_what_took_its_place() {
        let mut recent = Recent::default();
        recent.open(1);
        recent.forgive(1);
        for number in (3..=601).step_by(2) {
            recent.open(number);
        }
        assert_eq!(recent.judge(601 - 2 * REMEMBERED), Past::Forgiven);
        assert_eq!(recent.judge(603 - 2 * REMEMBERED), Past::Closed);
        recent.open(2_000_001);
        assert_eq!(recent.judge(1_999_999), Past::Skipped);
        assert_eq!(recent.judge(601), Past::Forgiven);
        // A gap that is wide and not too wide to remember what lies before it.
        recent.open(2_000_201);
        assert_eq!((recent.judge(2_000_001), recent.judge(2_000_003)), (Past::Closed, Past::Skipped));
        recent.open(u32::MAX >> 1);
    }
}
