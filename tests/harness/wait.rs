// SPDX-License-Identifier: Apache-2.0
//! Waiting for a condition with a deadline: the only place of the tests that sleeps.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long anything of the world may take before it counts as failed. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The same where the test itself keeps the machine busy. Of one that others keep busy as well it may have a hundredth part, and who waits for what never comes
/// fails anyway.
pub const LONG_PATIENCE: Duration = Duration::from_secs(180);

/// Asks `look` until it says yes; the error names `what` and the last thing that was seen instead.
pub fn until<T, E: Display>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<T, E>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() >= end => {
                bail!("waited {} s for {what}; last seen: {seen:#}", deadline.as_secs())
            }
            Err(_) => pause(),
        }
    }
}

/// Lets a little time pass between two looks at a condition.
#[expect(clippy::disallowed_methods, reason = "the one poll interval everything else waits through")]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Lets time pass that is itself what is measured. Not for waiting for something: see [`until`].
#[expect(clippy::disallowed_methods, reason = "a window of a measurement has no other condition than time")]
pub fn pass(time: Duration) {
    std::thread::sleep(time);
}
