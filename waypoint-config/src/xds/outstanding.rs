// SPDX-License-Identifier: Apache-2.0
//! What a client was sent and has not answered yet, and what it refused. Used by the sessions, one for each type.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Responses on their way, and the resources that were refused.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    open: VecDeque<(String, Vec<Arc<str>>)>,
    refused: BTreeMap<Arc<str>, Arc<str>>,
}

/// A client that answers nothing makes us remember no more responses than this.
const MOST: usize = 256;
/// What is kept of a reason.
const MAX_REASON: usize = 4096;

impl Outstanding {
    /// A response goes out.
    pub(super) fn sent(&mut self, nonce: &str, names: Vec<Arc<str>>, removed: &[String]) {
        for name in removed {
            self.refused.remove(name.as_str());
        }
        if self.open.len() == MOST {
            self.open.pop_front();
        }
        self.open.push_back((nonce.to_owned(), names));
    }

    /// The client has taken it. The names in it, if it is one of ours.
    pub(super) fn acknowledged(&mut self, nonce: &str) -> Option<Vec<Arc<str>>> {
        let names = self.answered(nonce);
        for name in names.iter().flatten() {
            self.refused.remove(name);
        }
        names
    }

    /// The number of the oldest response that is not answered yet. Nonces are numbers that count up.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.open.front().and_then(|(nonce, _)| nonce.parse().ok())
    }

    /// The client has refused it: those resources which the reason names, or all of them if it names none. Whether it is one of ours.
    pub(super) fn rejected(&mut self, nonce: &str, reason: &str) -> bool {
        let Some(names) = self.answered(nonce) else { return false };
        let end =
            (0..=reason.len().min(MAX_REASON)).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or_default();
        let kept: Arc<str> = reason[..end].into();
        let names_any = names.iter().any(|name| reason.contains(&**name));
        for name in names {
            match names_any && !reason.contains(&*name) {
                true => _ = self.refused.remove(&name),
                false => _ = self.refused.insert(name, Arc::clone(&kept)),
            }
        }
        true
    }

    /// Names and reasons.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.refused.iter()
    }

    /// Clients answer in order: what was sent before that one is answered, too.
    fn answered(&mut self, nonce: &str) -> Option<Vec<Arc<str>>> {
        let at = self.open.iter().position(|(sent, _)| sent == nonce)?;
        self.open.drain(..at);
        self.open.pop_front().map(|(_, names)| names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(outstanding: &Outstanding) -> Vec<&str> {
        outstanding.refused().map(|(name, _)| &**name).collect()
    }

    #[test]
    fn only_what_the_reason_names_is_refused_until_it_is_taken() {
        let mut outstanding = Outstanding::default();
        outstanding.sent("1", vec!["a-cluster".into(), "b-cluster".into()], &[]);
        assert!(outstanding.rejected("1", "Error adding cluster(s) a-cluster: no"));
        assert_eq!(refused(&outstanding), ["a-cluster"]);
        outstanding.sent("2", vec!["b-cluster".into()], &[]);
        assert!(outstanding.acknowledged("2").is_some());
        assert_eq!(refused(&outstanding), ["a-cluster"]);
        outstanding.sent("3", vec!["a-cluster".into()], &[]);
        assert!(outstanding.acknowledged("3").is_some());
        assert_eq!(refused(&outstanding), [""; 0]);
        assert!(!outstanding.rejected("3", "again"));
    }

    #[test]
    fn what_is_removed_is_refused_no_longer_and_a_reason_without_names_means_all() {
        let mut outstanding = Outstanding::default();
        outstanding.sent("1", vec!["a".into(), "b".into()], &[]);
        outstanding.rejected("1", "no");
        assert_eq!(refused(&outstanding), ["a", "b"]);
        outstanding.sent("2", Vec::new(), &["a".to_owned()]);
        assert_eq!(refused(&outstanding), ["b"]);
    }
}
