// SPDX-License-Identifier: Apache-2.0
//! Chance that can be had again: a small generator, and the numbers a person may set.

use std::time::{SystemTime, UNIX_EPOCH};

/// A splitmix64 generator.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// From `PRESSURE_SEED`, or a new seed; either is printed.
    pub(crate) fn seeded() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let seed = setting("PRESSURE_SEED", now);
        println!("the seed is {seed} (PRESSURE_SEED={seed} chooses alike again)");
        Self(seed)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }

    /// One of several.
    pub(crate) fn pick<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        let at = self.below(choices.len() as u64);
        &choices[usize::try_from(at).unwrap_or_default()]
    }
}

/// A number from the environment, for longer runs by hand.
pub(crate) fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var_os(name).and_then(|text| text.to_str()?.parse().ok()).unwrap_or(otherwise)
}
