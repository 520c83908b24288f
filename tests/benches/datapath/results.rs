// SPDX-License-Identifier: Apache-2.0
//! The samples of a run and what is made of them: medians, and ratios of medians.

use std::collections::BTreeMap;

use crate::{
    case::{CASES, Case, Variant},
    measure::Sample,
};

/// Every sample of a run.
#[derive(Debug, Default)]
pub(crate) struct Results {
    samples: BTreeMap<(usize, Variant), Vec<Sample>>,
    /// Of our proxies before any load, if they run.
    pub(crate) resident: Option<Resident>,
}

/// Bytes in memory of the client's proxy and of the server's: what a process has once it does nothing, its program included.
#[derive(Clone, Debug)]
pub(crate) struct Resident {
    /// Before the first pod is enrolled.
    pub(crate) without_pods: Vec<u64>,
    /// When the pods of the bench are, and before their first connection.
    pub(crate) with_pods: Vec<u64>,
}

/// A number of a sample.
pub(crate) type Pick = fn(&Sample) -> f64;

impl Results {
    pub(crate) fn add(&mut self, case: usize, variant: Variant, sample: Sample) {
        self.samples.entry((case, variant)).or_default().push(sample);
    }

    /// The cases that were measured, each with its place in the list.
    pub(crate) fn cases(&self) -> impl Iterator<Item = (usize, &'static Case)> {
        CASES.iter().enumerate().filter(|(place, _)| self.samples.keys().any(|(case, _)| case == place))
    }

    /// The variants a case was measured on.
    pub(crate) fn variants(&self, case: usize) -> impl Iterator<Item = Variant> {
        Variant::ALL.into_iter().filter(move |variant| self.samples.contains_key(&(case, *variant)))
    }

    pub(crate) fn samples(&self, case: usize, variant: Variant) -> &[Sample] {
        self.samples.get(&(case, variant)).map_or(&[], Vec::as_slice)
    }

    /// The median of a number over the rounds.
    pub(crate) fn median(&self, case: usize, variant: Variant, pick: Pick) -> Option<f64> {
        let mut all: Vec<f64> = self.samples(case, variant).iter().map(pick).collect();
        all.sort_by(f64::total_cmp);
        let middle = all.len() / 2;
        match all.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(all[middle]),
            _ => Some(f64::midpoint(all[middle - 1], all[middle])),
        }
    }

    /// One variant's median over another's.
    pub(crate) fn ratio(&self, case: usize, (over, under): (Variant, Variant), pick: Pick) -> Option<f64> {
        let (over, under) = (self.median(case, over, pick)?, self.median(case, under, pick)?);
        (under > 0.0 && over > 0.0).then_some(over / under)
    }

    /// The largest of a number over the whole run.
    pub(crate) fn largest(&self, pick: Pick) -> f64 {
        self.samples.values().flatten().map(pick).fold(0.0, f64::max)
    }
}
