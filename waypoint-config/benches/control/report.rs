// SPDX-License-Identifier: Apache-2.0
//! What was measured, beside what it must reach.

use std::fmt;

use serde_json::{Value, json};

use crate::{
    build::Built,
    change::{Changes, Kind},
};

/// From a file's change to the push, in ms: what is asked for is this plus Envoy's own time.
const MOST_MILLISECONDS: f64 = 20.0;
const MOST_SECONDS: f64 = 2.0;
const MOST_BYTES: u64 = 400 << 20;

pub(crate) struct Report {
    services: u32,
    changes: Changes,
    built_services: u32,
    built: Built,
}

impl Report {
    pub(crate) fn new(services: u32, changes: Changes, built_services: u32, built: Built) -> Self {
        Self { services, changes, built_services, built }
    }

    fn kinds(&self) -> [(&'static str, &Kind); 2] {
        [("endpoint", &self.changes.endpoint), ("route", &self.changes.route)]
    }

    pub(crate) fn json(&self) -> Value {
        let kind = |kind: &Kind| {
            let (pushed, acknowledged) = (median(&kind.pushed), median(&kind.acknowledged));
            json!({"pushed_ms": pushed, "acknowledged_ms": acknowledged, "envoy_ms": acknowledged - pushed,
                "floor_ms": MOST_MILLISECONDS, "reached": pushed <= MOST_MILLISECONDS,
                "acknowledged_p90_ms": at(&kind.acknowledged, 0.9), "resources": kind.resources, "bytes": kind.bytes})
        };
        let changes: serde_json::Map<_, _> =
            self.kinds().map(|(name, of)| (name.to_owned(), kind(of))).into_iter().collect();
        json!({
            "services": self.services, "changes": changes, "first_s": self.changes.first, "resident": self.changes.resident,
            "build": {"services": self.built_services, "seconds": self.built.seconds, "floor_seconds": MOST_SECONDS,
                "seconds_reached": self.built.seconds <= MOST_SECONDS, "resident": self.built.resident, "floor_resident": MOST_BYTES,
                "resident_reached": self.built.resident <= MOST_BYTES, "reading_seconds": self.built.reading, "resources": self.built.resources},
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| {} services x 2 routes, one change | median | of that Envoy's | p90 | must reach | | resources, bytes |\n|---|---|---|---|---|---|---|",
            self.services
        )?;
        for (name, kind) in self.kinds() {
            let (pushed, acknowledged) = (median(&kind.pushed), median(&kind.acknowledged));
            writeln!(
                f,
                "| {name}: file to acknowledgement | {acknowledged:.1} ms | {:.1} ms | {:.1} ms | {MOST_MILLISECONDS} ms and Envoy's own | {} | {:.2}, {:.0} |",
                acknowledged - pushed,
                at(&kind.acknowledged, 0.9),
                mark(pushed <= MOST_MILLISECONDS),
                kind.resources,
                kind.bytes
            )?;
        }
        writeln!(
            f,
            "\nA new Envoy had everything after {:.1} s; the program then held {} MB.\n",
            self.changes.first,
            self.changes.resident >> 20
        )?;
        let Built { seconds, resident, resources, reading } = &self.built;
        writeln!(
            f,
            "| {} services x 2 routes, built at once | measured | must reach | |\n|---|---|---|---|",
            self.built_services
        )?;
        writeln!(
            f,
            "| objects to {resources} resources | {seconds:.2} s | {MOST_SECONDS} s | {} |",
            mark(*seconds <= MOST_SECONDS)
        )?;
        writeln!(
            f,
            "| memory, resident | {} MB | {} MB | {} |",
            resident >> 20,
            MOST_BYTES >> 20,
            mark(*resident <= MOST_BYTES)
        )?;
        writeln!(f, "| before that, reading the objects strictly | {reading:.2} s | | |")
    }
}

fn mark(reached: bool) -> &'static str {
    if reached { "reached" } else { "MISSED" }
}

fn median(all: &[f64]) -> f64 {
    at(all, 0.5)
}

/// The value at a share of the sorted values.
fn at(all: &[f64], share: f64) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted[(last as f64 * share).round() as usize]
}
