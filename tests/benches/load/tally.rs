// SPDX-License-Identifier: Apache-2.0
//! What happened since the last question: bytes received, operations done, and how long they took.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Steps per power of two: latencies are known to 1.6 %.
const STEPS: usize = 64;

/// See the module.
pub(crate) struct Tally {
    since: Instant,
    bytes: u64,
    operations: u64,
    failures: u64,
    latencies: Vec<u64>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), bytes: 0, operations: 0, failures: 0, latencies: vec![0; STEPS * 64] }
    }

    pub(crate) fn receive(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    pub(crate) fn complete(&mut self, took: Duration) {
        self.operations += 1;
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.latencies[slot(nanos)] += 1;
    }

    pub(crate) fn fail(&mut self) {
        self.failures += 1;
    }

    /// All of it, and starts anew.
    pub(crate) fn take(&mut self) -> Value {
        let now = Instant::now();
        let answer = json!({
            "nanos": u64::try_from((now - self.since).as_nanos()).unwrap_or(u64::MAX),
            "bytes": self.bytes,
            "operations": self.operations,
            "failures": self.failures,
            "p50": self.percentile(0.50),
            "p99": self.percentile(0.99),
        });
        *self = Self { since: now, ..Self::new() };
        answer
    }

    /// Nanoseconds that this share of the operations did not exceed.
    fn percentile(&self, share: f64) -> u64 {
        let mut left = (self.operations as f64 * share).ceil() as u64;
        for (slot, count) in self.latencies.iter().enumerate() {
            if *count > 0 && *count >= left {
                return value(slot);
            }
            left -= count;
        }
        0
    }
}

/// Logarithmic in powers of two, linear between them.
fn slot(nanos: u64) -> usize {
    let nanos = nanos.max(STEPS as u64);
    let power = nanos.ilog2() as usize;
    let step = (nanos >> (power - STEPS.ilog2() as usize)) as usize & (STEPS - 1);
    power * STEPS + step
}

/// The middle of a slot.
fn value(slot: usize) -> u64 {
    let (power, step) = (slot / STEPS, slot % STEPS);
    let unit = (1_u64 << power) / STEPS as u64;
    (1_u64 << power) + step as u64 * unit + unit / 2
}
