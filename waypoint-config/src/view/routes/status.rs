// SPDX-License-Identifier: Apache-2.0
//! What the author of a route hears: plain values with Istio's reasons. The caller writes them where the source keeps its status, and puts together what
//! several parents said.

use std::fmt;

use crate::api::{Key, ParentRef};

/// Who speaks in the status of routes.
pub const CONTROLLER: &str = "istio.io/gateway-controller";

/// What became of one `parentRef` of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteStatus {
    /// The route.
    pub route: Key,
    /// The reference, as it was written.
    pub parent: ParentRef,
    /// `Accepted`, `ResolvedRefs`, and `PartiallyInvalid` when it is true.
    pub conditions: Vec<RouteCondition>,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteCondition {
    /// Its type.
    pub kind: ConditionKind,
    /// True or False.
    pub is_true: bool,
    /// One word.
    pub reason: Reason,
    /// What to check next.
    pub message: String,
}

/// Types of conditions; shown as they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum ConditionKind {
    Accepted,
    ResolvedRefs,
    PartiallyInvalid,
}

/// Reasons of conditions; shown as they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Reason {
    Accepted,
    NoMatchingParent,
    NoMatchingListenerHostname,
    UnsupportedValue,
    IncompatibleFilters,
    Conflicted,
    ResolvedRefs,
    BackendNotFound,
    RefNotPermitted,
    InvalidKind,
    InvalidDestination,
    InvalidFilter,
    UnsupportedProtocol,
}

impl ConditionKind {
    /// As it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::PartiallyInvalid => "PartiallyInvalid",
        }
    }
}

impl Reason {
    /// As it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::NoMatchingParent => "NoMatchingParent",
            Self::NoMatchingListenerHostname => "NoMatchingListenerHostname",
            Self::UnsupportedValue => "UnsupportedValue",
            Self::IncompatibleFilters => "IncompatibleFilters",
            Self::Conflicted => "Conflicted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::BackendNotFound => "BackendNotFound",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::InvalidKind => "InvalidKind",
            Self::InvalidDestination => "InvalidDestination",
            Self::InvalidFilter => "InvalidFilter",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
        }
    }
}

impl fmt::Display for ConditionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Something wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) reason: Reason,
    pub(super) text: String,
}

impl Problem {
    pub(super) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }

    fn is_of_references(&self) -> bool {
        !matches!(self.reason, Reason::UnsupportedValue | Reason::IncompatibleFilters | Reason::Conflicted)
    }
}

/// What was found wrong with the rules of a route.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    /// Whether some rule works as it was written.
    pub(super) has_sound_rule: bool,
}

/// The conditions for a parent, given why it does not take the route, if so.
pub(super) fn conditions(refused: Option<&Problem>, findings: &Findings) -> Vec<RouteCondition> {
    let (references, values): (Vec<&Problem>, Vec<&Problem>) =
        findings.problems.iter().partition(|problem| problem.is_of_references());
    let mut conditions = Vec::with_capacity(3);
    let condition = |kind, is_true, reason, message| RouteCondition { kind, is_true, reason, message };
    let accepted = match (refused, values.first()) {
        (Some(refused), _) => condition(ConditionKind::Accepted, false, refused.reason, refused.text.clone()),
        (None, Some(first)) if !findings.has_sound_rule => {
            condition(ConditionKind::Accepted, false, first.reason, told(&values))
        }
        _ => condition(ConditionKind::Accepted, true, Reason::Accepted, "the route is in force".to_owned()),
    };
    let is_accepted = accepted.is_true;
    conditions.push(accepted);
    conditions.push(match references.first() {
        Some(first) => condition(ConditionKind::ResolvedRefs, false, first.reason, told(&references)),
        None => {
            condition(ConditionKind::ResolvedRefs, true, Reason::ResolvedRefs, "all references are resolved".to_owned())
        }
    });
    if is_accepted && !values.is_empty() {
        conditions.push(condition(ConditionKind::PartiallyInvalid, true, Reason::UnsupportedValue, told(&values)));
    }
    conditions
}

/// The first few; a person fixes those before looking again.
fn told(problems: &[&Problem]) -> String {
    const SHOWN: usize = 4;
    let mut texts: Vec<String> = problems.iter().take(SHOWN).map(|problem| problem.text.clone()).collect();
    if problems.len() > SHOWN {
        texts.push(format!("and {} more", problems.len() - SHOWN));
    }
    texts.join("; ")
}
