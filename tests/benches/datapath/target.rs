// SPDX-License-Identifier: Apache-2.0
//! What ours shall reach beside the baseline (and passthrough beside Envoy) in the same run.

use crate::{
    case::{CASES, Variant},
    results::{Pick, Results},
};

/// A bound on a ratio of medians, or on an absolute number.
struct Target {
    cases: &'static [&'static str],
    what: &'static str,
    pick: Pick,
    /// Ours over this one; absolute without it.
    beside: Option<Variant>,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// A target and what came of it.
pub(crate) struct Verdict {
    pub(crate) case: &'static str,
    pub(crate) what: &'static str,
    pub(crate) wanted: String,
    pub(crate) seen: f64,
    pub(crate) unit: &'static str,
    pub(crate) holds: bool,
}

const BULK: &[&str] = &["up1", "up8", "down1", "down8"];

/// 12 MB.
const MOST_WITHOUT_PODS: u64 = 12_000_000;

const TARGETS: &[Target] = &[
    beside(BULK, "CPU per GB", |sample| sample.cpu, Bound::AtMost(1.0)),
    beside(BULK, "throughput", |sample| sample.rate, Bound::AtLeast(0.95)),
    beside(&["rr1"], "rate", |sample| sample.rate, Bound::AtLeast(0.85)),
    beside(&["rr32"], "rate", |sample| sample.rate, Bound::AtLeast(1.4)),
    beside(&["crr1"], "rate", |sample| sample.rate, Bound::AtLeast(1.2)),
    beside(&["crr16"], "rate", |sample| sample.rate, Bound::AtLeast(1.25)),
    beside(&["rr32", "crr16"], "CPU per operation", |sample| sample.cpu, Bound::AtMost(0.7)),
    Target {
        cases: &["pass-up1", "pass-down1"],
        what: "CPU per GB",
        pick: |sample| sample.cpu,
        beside: Some(Variant::Envoy),
        bound: Bound::AtMost(0.6),
    },
    Target {
        cases: &["hold"],
        what: "user space per idle connection, the larger side",
        pick: |sample| sample.held[0].max(sample.held[1]),
        beside: None,
        bound: Bound::AtMost(1024.0),
    },
];

const fn beside(cases: &'static [&'static str], what: &'static str, pick: Pick, bound: Bound) -> Target {
    Target { cases, what, pick, beside: Some(Variant::Baseline), bound }
}

/// Judges what was measured; targets whose cases or variants were left out are left out.
pub(crate) fn judge(results: &Results) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    if let Some(seen) = results.resident.as_ref().and_then(|resident| resident.without_pods.iter().max()) {
        verdicts.push(Verdict {
            case: "start",
            what: "proxy without pods, resident, the larger",
            wanted: format!("<= {MOST_WITHOUT_PODS}"),
            seen: *seen as f64,
            unit: " B",
            holds: *seen <= MOST_WITHOUT_PODS,
        });
    }
    for target in TARGETS {
        for name in target.cases {
            let Some(case) = CASES.iter().position(|case| case.name == *name) else { continue };
            let seen = match target.beside {
                Some(other) => results.ratio(case, (Variant::Ours, other), target.pick),
                None => results.median(case, Variant::Ours, target.pick),
            };
            let Some(seen) = seen else { continue };
            let (sign, bound, holds) = match target.bound {
                Bound::AtLeast(bound) => (">=", bound, seen >= bound),
                Bound::AtMost(bound) => ("<=", bound, seen <= bound),
            };
            let (unit, of) = target.beside.map_or((" B", String::new()), |other| ("x", format!("x {other}")));
            verdicts.push(Verdict {
                case: name,
                what: target.what,
                wanted: format!("{sign} {bound}{of}"),
                seen,
                unit,
                holds,
            });
        }
    }
    verdicts
}
