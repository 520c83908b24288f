// SPDX-License-Identifier: Apache-2.0
//! What the process has of things that run out, and which pod has how much of it: sockets, dials and inbound handshakes under way.
//!
//! One rule for all of them: a pod gets no more than is still free. Whoever takes all it can get ends up with half and leaves half to
//! the others; two who do so leave a third; and what nobody else wants, one pod may have. No sizes need tuning, and no pod is
//! cut off by another. All data threads count here; counting is lock-free.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What there is only so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Sockets of connections: one for each side of a proxied connection that is a socket, one for each tunnel.
    Sockets,
    /// Connections that are being opened: TCP, and TLS for tunnels.
    Dials,
    /// TLS handshakes that peers have begun and not finished.
    Handshakes,
}

/// How much there is for all pods together, and what every pod may have as long as there is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Most {
    pub(super) sockets: usize,
    pub(super) dials: usize,
    pub(super) handshakes: usize,
    /// What one pod may have at most, however much is free.
    pub(super) handshakes_per_pod: usize,
}

/// The account of the whole process.
#[derive(Debug)]
pub(crate) struct Shares {
    most: Most,
    used: [AtomicUsize; Kind::COUNT],
}

/// The account of one pod.
#[derive(Debug)]
pub(crate) struct Share {
    all: Arc<Shares>,
    used: [AtomicUsize; Kind::COUNT],
    /// Sockets the pod has for as long as it is open.
    fixed: usize,
}

/// There is none left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The pod has its share.
    #[error("{kind} of this pod: it has {used}, its share of {most}")]
    Pod { kind: Kind, used: usize, most: usize },
    /// Everything is taken.
    #[error("{kind} of this node: all {most} are in use")]
    Node { kind: Kind, most: usize },
}

impl Refusal {
    /// What there was too much of.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Pod { kind, .. } | Self::Node { kind, .. } => kind,
        }
    }
}

impl Kind {
    const COUNT: usize = 3;

    /// As label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Dials => "dials",
            Self::Handshakes => "handshakes",
        }
    }

    /// What a pod may have even if less is free: with many pods at work a fair share may be small.
    fn least(self) -> usize {
        match self {
            Self::Sockets => 64,
            Self::Dials => 16,
            Self::Handshakes => 16,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sockets => "sockets",
            Self::Dials => "connections being opened",
            Self::Handshakes => "handshakes under way",
        })
    }
}

impl Most {
    fn of(&self, kind: Kind) -> usize {
        match kind {
            Kind::Sockets => self.sockets,
            Kind::Dials => self.dials,
            Kind::Handshakes => self.handshakes,
        }
    }

    fn per_pod(&self, kind: Kind) -> usize {
        match kind {
            Kind::Sockets | Kind::Dials => usize::MAX,
            Kind::Handshakes => self.handshakes_per_pod,
        }
    }
}

impl Shares {
    pub(super) fn new(most: Most) -> Arc<Self> {
        Arc::new(Self { most, used: Default::default() })
    }

    /// A pod's account. Its listeners count as long as it lives, and are not refused.
    pub(super) fn pod(self: &Arc<Self>, fixed: usize) -> Arc<Share> {
        self.used[Kind::Sockets as usize].fetch_add(fixed, Relaxed);
        Arc::new(Share { all: Arc::clone(self), used: Default::default(), fixed })
    }

    /// How much is in use.
    pub(super) fn used(&self, kind: Kind) -> usize {
        self.used[kind as usize].load(Relaxed)
    }

    /// How much there is.
    pub(super) fn most(&self, kind: Kind) -> usize {
        self.most.of(kind)
    }
}

impl Share {
    /// Takes one, to be given back.
    pub(super) fn take(&self, kind: Kind) -> Result<(), Refusal> {
        let (used, most) = (self.used(kind), self.all.most.of(kind));
        if used >= self.allowed(kind) {
            return Err(Refusal::Pod { kind, used, most });
        }
        // The counters guard no other memory. Two threads of one pod may both get the last of its share; none gets more than there is.
        let fits = |taken: usize| (taken < most).then(|| taken + 1);
        let all = &self.all.used[kind as usize];
        all.fetch_update(Relaxed, Relaxed, fits).map_err(|_| Refusal::Node { kind, most })?;
        self.used[kind as usize].fetch_add(1, Relaxed);
        Ok(())
    }

    /// Gives one back.
    pub(super) fn give(&self, kind: Kind) {
        self.give_some(kind, 1);
    }

    /// Gives several back.
    pub(super) fn give_some(&self, kind: Kind, count: usize) {
        // Only what was taken is given back, so neither can fall below zero.
        self.used[kind as usize].fetch_sub(count, Relaxed);
        self.all.used[kind as usize].fetch_sub(count, Relaxed);
    }

    /// How many the pod may have with those it has, as things stand.
    pub(super) fn allowed(&self, kind: Kind) -> usize {
        let free = self.all.most.of(kind).saturating_sub(self.all.used(kind));
        free.max(kind.least()).min(self.all.most.per_pod(kind))
    }

    /// How much the pod has.
    pub(super) fn used(&self, kind: Kind) -> usize {
        self.used[kind as usize].load(Relaxed)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.used[Kind::Sockets as usize].fetch_sub(self.fixed, Relaxed);
    }
}

/// How many handshakes each address has under way at one pod, on one data thread.
#[derive(Debug, Default)]
pub(super) struct Sources(HashMap<IpAddr, usize>);

impl Sources {
    /// One more of this address, unless it has `most` or as much as is still `free`.
    pub(super) fn enter(&mut self, source: IpAddr, most: usize, free: usize) -> Result<(), usize> {
        let used = self.0.entry(source).or_default();
        if *used >= most.min(free.max(LEAST_PER_SOURCE)) {
            let used = *used;
            self.forget_unused(source);
            return Err(used);
        }
        *used += 1;
        Ok(())
    }

    /// One less.
    pub(super) fn leave(&mut self, source: IpAddr) {
        if let Some(used) = self.0.get_mut(&source) {
            *used = used.saturating_sub(1);
        }
        self.forget_unused(source);
    }

    fn forget_unused(&mut self, source: IpAddr) {
        if self.0.get(&source) == Some(&0) {
            self.0.remove(&source);
        }
        if self.0.is_empty() && self.0.capacity() > KEPT {
            self.0 = HashMap::new();
        }
    }
}

/// What an address may have under way even if a pod has little left.
const LEAST_PER_SOURCE: usize = 4;
/// Room that is kept for the next flood.
const KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(sockets: usize) -> Arc<Shares> {
        Shares::new(Most { sockets, dials: 100, handshakes: 100, handshakes_per_pod: 20 })
    }

    fn fill(share: &Share, kind: Kind) -> usize {
        (0..10_000).take_while(|_| share.take(kind).is_ok()).count()
    }

    #[test]
    fn who_takes_everything_leaves_as_much() {
        let shares = shares(1200);
        let (first, second, third) = (shares.pod(0), shares.pod(0), shares.pod(0));
        assert_eq!(fill(&first, Kind::Sockets), 600);
        assert_eq!(fill(&second, Kind::Sockets), 300);
        assert_eq!(fill(&third, Kind::Sockets), 150);
        let refusal = first.take(Kind::Sockets).unwrap_err();
        assert_eq!(refusal.to_string(), "sockets of this pod: it has 600, its share of 1200");
        // Who has less than his share gets more as others give back.
        first.give_some(Kind::Sockets, 600);
        assert_eq!(fill(&third, Kind::Sockets), (1200 - 300 - 150 - 150) / 2);
    }

    #[test]
    fn every_pod_gets_its_least_while_there_is_any() {
        let shares = shares(200);
        let all: Vec<_> = (0..5).map(|_| shares.pod(0)).collect();
        let got: Vec<_> = all.iter().map(|share| fill(share, Kind::Sockets)).collect();
        assert_eq!(got, [100, 64, 36, 0, 0]);
        assert_eq!(all[4].take(Kind::Sockets), Err(Refusal::Node { kind: Kind::Sockets, most: 200 }));
        assert_eq!(shares.used(Kind::Sockets), 200);
    }

    #[test]
    fn one_pod_has_no_more_handshakes_than_its_own_limit() {
        let shares = shares(1000);
        assert_eq!(fill(&shares.pod(0), Kind::Handshakes), 20);
        assert_eq!(fill(&shares.pod(0), Kind::Dials), 50);
    }

    #[test]
    fn listeners_count_until_the_pod_is_gone() {
        let shares = shares(100);
        let pod = shares.pod(60);
        assert_eq!(shares.used(Kind::Sockets), 60);
        assert_eq!(fill(&pod, Kind::Sockets), 40, "its least is more, but there is no more");
        pod.give_some(Kind::Sockets, 40);
        drop(pod);
        assert_eq!(shares.used(Kind::Sockets), 0);
    }

    #[test]
    fn an_address_gets_no_more_than_is_free_and_is_forgotten_afterwards() {
        let mut sources = Sources::default();
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut free = 16;
        let mut fill = |sources: &mut Sources, source| {
            let mut count = 0;
            while sources.enter(source, 12, free).is_ok() {
                count += 1;
                free -= 1;
            }
            count
        };
        assert_eq!(fill(&mut sources, one), 8);
        assert_eq!(fill(&mut sources, two), 4);
        assert_eq!(sources.enter(two, 12, 4), Err(4));
        assert_eq!(sources.enter(two, 12, 100), Ok(()));
        (0..8).for_each(|_| sources.leave(one));
        (0..5).for_each(|_| sources.leave(two));
        assert!(sources.0.is_empty());
        assert_eq!(sources.enter(one, 0, 100), Err(0));
        assert!(sources.0.is_empty(), "a refused one leaves no trace");
    }
}
