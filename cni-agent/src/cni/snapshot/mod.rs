// SPDX-License-Identifier: Apache-2.0
//! What the agent leaves on disk for the plugin, for the time it cannot be asked: `<run dir>/snapshot.json` (DESIGN §3).
//!
//! The agent writes it on every change of a namespace and again before half the age limit has passed; the plugin reads it when nobody answers.
//!
//! **Guarantees**: a pod is held unless its namespace is known to be outside the mesh by a recent snapshot that nobody but the agent can have written. A
//! namespace the snapshot does not know is held too: it may have been made, with the label, while the agent was away.
//! **Caveat**: a pod that is in the mesh by a label of its own, in a namespace that is not, starts outside; the agent enrols it once it is back.

pub mod file;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The namespaces of the cluster as the agent knew them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was written: seconds since 1970.
    pub written_at: u64,
    /// Every namespace the agent knew.
    pub namespaces: BTreeMap<String, Membership>,
}

/// What being in a namespace means for a pod without labels of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Membership {
    /// It is in the mesh.
    Ambient,
    /// It is not.
    Outside,
    /// It is not, whatever labels say.
    Excluded,
}

/// What to do with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may start.
    Start,
    /// It may not, for this reason.
    Hold(String),
}

/// How far ahead the clock may seem to have been when the snapshot was written.
const CLOCK_STEP: u64 = 60;

impl Snapshot {
    /// Whether a pod in `namespace` may start at `now` (seconds since 1970) without the agent having been asked.
    pub fn decide(&self, namespace: &str, now: u64, max_age: Duration) -> Verdict {
        if self.written_at > now.saturating_add(CLOCK_STEP) {
            let ahead = self.written_at - now;
            return Verdict::Hold(format!(
                "the snapshot it left is from {ahead} s in the future: check the node's clock"
            ));
        }
        let age = now.saturating_sub(self.written_at);
        if age > max_age.as_secs() {
            let limit = max_age.as_secs();
            return Verdict::Hold(format!("the snapshot it left is {age} s old, more than the {limit} s it may be"));
        }
        match self.namespaces.get(namespace) {
            Some(Membership::Outside | Membership::Excluded) => Verdict::Start,
            Some(Membership::Ambient) => Verdict::Hold(format!("namespace {namespace:?} is in the mesh")),
            None => Verdict::Hold(format!("the snapshot it left {age} s ago does not know namespace {namespace:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(600);

    fn decide(namespace: &str, now: u64) -> Verdict {
        let membership =
            [("mesh", Membership::Ambient), ("plain", Membership::Outside), ("kube-system", Membership::Excluded)];
        let namespaces = membership.map(|(name, membership)| (name.to_owned(), membership)).into();
        Snapshot { written_at: 10_000, namespaces }.decide(namespace, now, AGE)
    }

    fn held(namespace: &str, now: u64) -> String {
        match decide(namespace, now) {
            Verdict::Hold(reason) => reason,
            Verdict::Start => panic!("{namespace} starts at {now}"),
        }
    }

    #[test]
    fn only_what_is_known_to_be_outside_starts() {
        assert_eq!(decide("plain", 10_000), Verdict::Start);
        assert_eq!(decide("kube-system", 10_000), Verdict::Start);
        assert_eq!(held("mesh", 10_000), "namespace \"mesh\" is in the mesh");
        assert_eq!(held("new", 10_007), "the snapshot it left 7 s ago does not know namespace \"new\"");
    }

    #[test]
    fn a_snapshot_ages() {
        assert_eq!(decide("plain", 10_600), Verdict::Start);
        assert!(held("plain", 10_601).contains("601 s old"));
        assert!(held("plain", u64::MAX).contains("old"));
    }

    #[test]
    fn a_snapshot_from_the_future_is_not_believed_beyond_a_step_of_the_clock() {
        assert_eq!(decide("plain", 9_940), Verdict::Start);
        assert!(held("plain", 9_939).contains("61 s in the future"));
        assert!(held("plain", 0).contains("future"));
    }

    #[test]
    fn the_file_is_readable_by_people() {
        let text = r#"{"written_at":7,"namespaces":{"a":"ambient","b":"outside","c":"excluded"}}"#;
        let snapshot: Snapshot = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&snapshot).unwrap(), text);
    }
}
