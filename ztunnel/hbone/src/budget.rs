// SPDX-License-Identifier: Apache-2.0
//! How many bytes may wait for slow readers: a tree of limits shared by connections and threads.
//!
//! The node has one [`Budget`], every pod a child of it, every connection charges its pod's. A charge is granted only if each
//! limit on the way up has room; what was granted goes back when the bytes are consumed or their stream ends.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit on buffered bytes, with the limits it stands under. Cheap to clone; clones share the account.
#[derive(Clone)]
pub struct Budget(Arc<Account>);

struct Account {
    scope: Scope,
    limit: usize,
    used: AtomicUsize,
    promised: AtomicUsize,
    parent: Option<Budget>,
}

/// Which of the nested limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One stream.
    Stream,
    /// One HBONE connection.
    Tunnel,
    /// One pod's connections.
    Pod,
    /// All pods of the node.
    Node,
}

/// A limit was reached: the stream that asked is to be reset with [`crate::ErrorCode::ENHANCE_YOUR_CALM`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("buffered bytes reached the limit of {limit} for one {scope}: the reader is too slow")]
pub struct OverBudget {
    /// Whose limit.
    pub scope: Scope,
    /// The limit in bytes.
    pub limit: usize,
}

impl Budget {
    /// The limit of the whole node.
    pub fn node(limit: usize) -> Self {
        Self(Arc::new(Account {
            scope: Scope::Node,
            limit,
            used: AtomicUsize::new(0),
            promised: AtomicUsize::new(0),
            parent: None,
        }))
    }

    /// A pod's limit under the node's.
    pub fn pod(&self, limit: usize) -> Self {
        let parent = Some(self.clone());
        Self(Arc::new(Account {
            scope: Scope::Pod,
            limit,
            used: AtomicUsize::new(0),
            promised: AtomicUsize::new(0),
            parent,
        }))
    }

    /// Bytes charged now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Charges here and all the way up, or nowhere: for bytes that wait outside of a connection, such as those of a stream whose
    /// connection has gone. What was granted is to be given back by [`Self::refund`].
    pub fn charge(&self, bytes: usize) -> Result<(), OverBudget> {
        let account = &self.0;
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= account.limit);
        // The counter guards no other memory, so no ordering is needed.
        if account.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return Err(OverBudget { scope: account.scope, limit: account.limit });
        }
        let above = account.parent.as_ref().map_or(Ok(()), |parent| parent.charge(bytes));
        if above.is_err() {
            account.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        above
    }

    /// Notes that a peer may be allowed `bytes` more than it was, if there is room for such: nowhere is half of the limit in
    /// use, and all promises together stay within [`OVERCOMMIT`] times the limit. A promise is not a charge: most readers
    /// that were granted a large window never let it fill.
    pub(crate) fn promise(&self, bytes: usize) -> bool {
        let account = &self.0;
        if self.is_half_used() {
            return false;
        }
        let most = account.limit.saturating_mul(OVERCOMMIT);
        let fits = |promised: usize| promised.checked_add(bytes).filter(|&sum| sum <= most);
        if account.promised.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return false;
        }
        let above = account.parent.as_ref().is_none_or(|parent| parent.promise(bytes));
        if !above {
            account.promised.fetch_sub(bytes, Ordering::Relaxed);
        }
        above
    }

    /// More than half of the limit is in use, here or further up.
    pub(crate) fn is_pressed(&self) -> bool {
        self.is_half_used() || self.0.parent.as_ref().is_some_and(Self::is_pressed)
    }

    fn is_half_used(&self) -> bool {
        self.used() > self.0.limit / 2
    }

    /// Takes back what was promised.
    pub(crate) fn retract(&self, bytes: usize) {
        self.lower(bytes, |account| &account.promised);
    }

    /// Gives back what [`Self::charge`] granted.
    pub fn refund(&self, bytes: usize) {
        self.lower(bytes, |account| &account.used);
    }

    fn lower(&self, bytes: usize, counter: fn(&Account) -> &AtomicUsize) {
        let mut budget = Some(self);
        while let Some(Self(account)) = budget {
            // Only what was added comes off, so this cannot fall below zero.
            counter(account).fetch_sub(bytes, Ordering::Relaxed);
            budget = account.parent.as_ref();
        }
    }
}

/// How many times the limit may be promised as windows. All grown windows would have to stall at once to be missed.
const OVERCOMMIT: usize = 4;

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Budget({}: {} of {})", self.0.scope, self.used(), self.0.limit)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "stream",
            Self::Tunnel => "tunnel",
            Self::Pod => "pod",
            Self::Node => "node",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_counts_on_every_level_or_on_none() {
        let node = Budget::node(100);
        let (one, two) = (node.pod(80), node.pod(80));
        assert_eq!((node.limit(), one.limit()), (100, 80));
        one.charge(70).unwrap();
        assert_eq!(two.charge(40), Err(OverBudget { scope: Scope::Node, limit: 100 }));
        assert_eq!((one.used(), two.used(), node.used()), (70, 0, 70));
        assert_eq!(one.charge(20), Err(OverBudget { scope: Scope::Pod, limit: 80 }));
        one.refund(70);
        two.charge(80).unwrap();
        assert_eq!((one.used(), two.used(), node.used()), (0, 80, 80));
    }

    #[test]
    fn promises_end_where_half_is_in_use_or_the_overcommitment_is_reached() {
        let node = Budget::node(100);
        let pod = node.pod(1000);
        assert!(pod.promise(400));
        assert!(!pod.promise(1));
        pod.retract(400);
        pod.charge(51).unwrap();
        assert!(!pod.promise(1));
        assert!(pod.is_pressed());
        pod.refund(1);
        assert!(pod.promise(1) && !pod.is_pressed());
        assert!(pod.charge(usize::MAX).is_err());
    }

    #[test]
    fn the_message_says_whose_limit() {
        let text = OverBudget { scope: Scope::Pod, limit: 5 }.to_string();
        assert_eq!(text, "buffered bytes reached the limit of 5 for one pod: the reader is too slow");
    }
}
