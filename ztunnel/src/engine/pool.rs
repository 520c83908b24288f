// SPDX-License-Identifier: Apache-2.0
//! Which tunnel a new stream goes through: reuse | dial | wait | refused. One pool per pod and thread. Pure: time is an argument.
//!
//! At most one tunnel per key is being dialled; who comes meanwhile waits for it, and if it fails they all fail with it. Whether a failure
//! also speaks for those who come within a moment after, the caller says. A tunnel with room for streams is reused; one that nobody has asked for in a while is released.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Limits of a pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Streams per tunnel.
    pub(super) streams: usize,
    /// How long an unasked-for tunnel is kept.
    pub(super) unused: Duration,
}

/// Tunnels `T` by key `K`, waiters `W`, and why a dial failed `E`.
pub(super) struct Pool<K, T, W, E> {
    limits: Limits,
    keys: HashMap<K, Entry<T, W, E>>,
}

struct Entry<T, W, E> {
    tunnels: Vec<Member<T>>,
    dial: Dial<W, E>,
}

struct Member<T> {
    tunnel: T,
    streams: usize,
    /// How many it takes.
    limit: usize,
    asked: Instant,
}

enum Dial<W, E> {
    No,
    Running(VecDeque<W>),
    Failed { until: Instant, error: E },
}

/// The answer to [`Pool::check_out`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CheckOut<T, E> {
    /// Open a stream on this one; it is counted.
    Reuse(T),
    /// Dial: the asker waits with the others.
    Dial,
    /// Somebody dials already: the asker waits.
    Wait,
    /// Somebody has just failed to dial.
    Refused(E),
}

impl<K: Hash + Eq + Clone, T: Copy + PartialEq, W: PartialEq, E: Clone> Pool<K, T, W, E> {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, keys: HashMap::new() }
    }

    /// Asks for a tunnel.
    pub(super) fn check_out(&mut self, now: Instant, key: &K, waiter: W) -> CheckOut<T, E> {
        if !self.keys.contains_key(key) {
            self.keys.insert(key.clone(), Entry { tunnels: Vec::new(), dial: Dial::No });
        }
        let Some(entry) = self.keys.get_mut(key) else { return CheckOut::Wait };
        // The fullest with room, so that the others can fall idle.
        let with_room = entry.tunnels.iter_mut().filter(|member| member.streams < member.limit);
        if let Some(member) = with_room.max_by_key(|member| member.streams) {
            member.streams += 1;
            member.asked = now;
            return CheckOut::Reuse(member.tunnel);
        }
        match &mut entry.dial {
            Dial::Running(waiters) => {
                waiters.push_back(waiter);
                CheckOut::Wait
            }
            Dial::Failed { until, error } if now < *until => CheckOut::Refused(error.clone()),
            Dial::No | Dial::Failed { .. } => {
                entry.dial = Dial::Running(VecDeque::from([waiter]));
                CheckOut::Dial
            }
        }
    }

    /// A dialled tunnel stands. Answers who may open a stream on it now (they are counted); when more wait than it has room for,
    /// `again` says that another must be dialled for them.
    pub(super) fn connected(&mut self, now: Instant, key: &K, tunnel: T) -> Connected<W> {
        let limit = self.limits.streams;
        let Some(entry) = self.keys.get_mut(key) else { return Connected { ready: Vec::new(), again: false } };
        let mut waiters = match std::mem::replace(&mut entry.dial, Dial::No) {
            Dial::Running(waiters) => waiters,
            Dial::No | Dial::Failed { .. } => VecDeque::new(),
        };
        let ready: Vec<W> = waiters.drain(..waiters.len().min(limit)).collect();
        entry.tunnels.push(Member { tunnel, streams: ready.len(), limit, asked: now });
        let again = !waiters.is_empty();
        if again {
            entry.dial = Dial::Running(waiters);
        }
        Connected { ready, again }
    }

    /// A dial failed. Answers who waited for it. The error also answers those who come within `speaks_for`.
    pub(super) fn failed(&mut self, now: Instant, key: &K, error: E, speaks_for: Duration) -> Vec<W> {
        let Some(entry) = self.keys.get_mut(key) else { return Vec::new() };
        let failed = match speaks_for {
            Duration::ZERO => Dial::No,
            _ => Dial::Failed { until: now + speaks_for, error },
        };
        match std::mem::replace(&mut entry.dial, failed) {
            Dial::Running(waiters) => waiters.into(),
            Dial::No | Dial::Failed { .. } => Vec::new(),
        }
    }

    /// A tunnel that stood was of no use: the error answers those who come within `speaks_for`, unless somebody dials already.
    pub(super) fn turned_away(&mut self, now: Instant, key: &K, error: E, speaks_for: Duration) {
        if let Some(entry) = self.keys.get_mut(key)
            && !matches!(entry.dial, Dial::Running(_))
            && speaks_for > Duration::ZERO
        {
            entry.dial = Dial::Failed { until: now + speaks_for, error };
        }
    }

    /// A waiter does not wait any more.
    pub(super) fn forget(&mut self, key: &K, waiter: &W) {
        if let Some(Entry { dial: Dial::Running(waiters), .. }) = self.keys.get_mut(key) {
            waiters.retain(|other| other != waiter);
        }
    }

    /// A tunnel's peer takes that many streams; never more than the pool puts on one.
    pub(super) fn limit(&mut self, key: &K, tunnel: T, streams: usize) {
        let most = self.limits.streams;
        let members = self.keys.get_mut(key).into_iter().flat_map(|entry| &mut entry.tunnels);
        for member in members.filter(|member| member.tunnel == tunnel) {
            member.limit = streams.min(most);
        }
    }

    /// A counted stream has ended.
    pub(super) fn check_in(&mut self, key: &K, tunnel: T) {
        let members = self.keys.get_mut(key).into_iter().flat_map(|entry| &mut entry.tunnels);
        for member in members.filter(|member| member.tunnel == tunnel) {
            member.streams = member.streams.saturating_sub(1);
        }
    }

    /// A tunnel takes no more streams: it is going away or gone.
    pub(super) fn withdraw(&mut self, key: &K, tunnel: T) {
        if let Some(entry) = self.keys.get_mut(key) {
            entry.tunnels.retain(|member| member.tunnel != tunnel);
        }
    }

    /// Takes out what has not been asked for in a while and carries nothing: to be closed.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<T> {
        let unused = self.limits.unused;
        let mut expired = Vec::new();
        self.keys.retain(|_, entry| {
            entry.tunnels.retain(|member| {
                let is_unused = member.streams == 0 && now.duration_since(member.asked) >= unused;
                if is_unused {
                    expired.push(member.tunnel);
                }
                !is_unused
            });
            let says_something = match entry.dial {
                Dial::No => false,
                Dial::Running(_) => true,
                Dial::Failed { until, .. } => now < until,
            };
            says_something || !entry.tunnels.is_empty()
        });
        if self.keys.is_empty() {
            self.keys = HashMap::new();
        }
        expired
    }

    /// Everything that stands, taken out: the pod is closing.
    pub(super) fn withdraw_all(&mut self) -> Vec<T> {
        self.keys.values_mut().flat_map(|entry| entry.tunnels.drain(..)).map(|member| member.tunnel).collect()
    }
}

/// The answer to [`Pool::connected`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Connected<W> {
    pub(super) ready: Vec<W>,
    pub(super) again: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { streams: 2, unused: Duration::from_secs(300) };
    const MOMENT: Duration = Duration::from_millis(200);

    fn pool() -> (Pool<&'static str, u32, u32, &'static str>, Instant) {
        (Pool::new(LIMITS), Instant::now())
    }

    #[test]
    fn a_burst_dials_once_and_shares_what_comes() {
        let (mut pool, now) = pool();
        assert_eq!(pool.check_out(now, &"a", 1), CheckOut::Dial);
        assert_eq!(pool.check_out(now, &"a", 2), CheckOut::Wait);
        assert_eq!(pool.check_out(now, &"b", 3), CheckOut::Dial);
        assert_eq!(pool.connected(now, &"a", 10), Connected { ready: vec![1, 2], again: false });
        assert_eq!(pool.check_out(now, &"a", 4), CheckOut::Dial, "the first is full");
        pool.check_in(&"a", 10);
        assert_eq!(pool.check_out(now, &"a", 5), CheckOut::Reuse(10), "and has room again");
    }

    #[test]
    fn more_waiters_than_streams_need_another_tunnel() {
        let (mut pool, now) = pool();
        for waiter in 1..=3 {
            pool.check_out(now, &"a", waiter);
        }
        assert_eq!(pool.connected(now, &"a", 10), Connected { ready: vec![1, 2], again: true });
        assert_eq!(pool.check_out(now, &"a", 4), CheckOut::Wait);
        assert_eq!(pool.connected(now, &"a", 11), Connected { ready: vec![3, 4], again: false });
    }

    #[test]
    fn a_failure_speaks_for_all_waiters_and_for_a_moment_if_it_is_told_to() {
        let (mut pool, now) = pool();
        pool.check_out(now, &"a", 1);
        pool.check_out(now, &"a", 2);
        pool.check_out(now, &"a", 3);
        pool.forget(&"a", &2);
        assert_eq!(pool.failed(now, &"a", "stranger", MOMENT), [1, 3]);
        assert_eq!(pool.check_out(now + MOMENT - Duration::from_nanos(1), &"a", 4), CheckOut::Refused("stranger"));
        assert!(pool.expire(now).is_empty());
        assert_eq!(pool.check_out(now, &"a", 4), CheckOut::Refused("stranger"), "not forgotten before its time");
        assert_eq!(pool.check_out(now + MOMENT, &"a", 4), CheckOut::Dial);
        assert_eq!(pool.failed(now, &"a", "refused", Duration::ZERO), [4]);
        assert_eq!(pool.check_out(now, &"a", 5), CheckOut::Dial, "a hop that may be back any moment is asked again");
    }

    #[test]
    fn a_hundred_connections_to_a_dead_hop_are_one_dial() {
        let (mut pool, now) = pool();
        let dials = (0..100).filter(|waiter| pool.check_out(now, &"a", *waiter) == CheckOut::Dial).count();
        assert_eq!(dials, 1);
        assert_eq!(pool.failed(now, &"a", "timeout", Duration::ZERO).len(), 100);
        pool.expire(now);
        assert!(pool.keys.is_empty(), "nothing is kept of a hop that is not asked for");
    }

    #[test]
    fn who_turns_us_away_is_not_asked_again_at_once_unless_somebody_asks_already() {
        let (mut pool, now) = pool();
        pool.check_out(now, &"a", 1);
        pool.connected(now, &"a", 10);
        pool.withdraw(&"a", 10);
        pool.turned_away(now, &"a", "alert", MOMENT);
        assert_eq!(pool.check_out(now, &"a", 2), CheckOut::Refused("alert"));
        assert_eq!(pool.check_out(now + MOMENT, &"a", 2), CheckOut::Dial);
        pool.turned_away(now + MOMENT, &"a", "alert", MOMENT);
        assert_eq!(pool.check_out(now + MOMENT, &"a", 3), CheckOut::Wait);
    }

    #[test]
    fn a_tunnel_that_goes_away_is_not_reused() {
        let (mut pool, now) = pool();
        pool.check_out(now, &"a", 1);
        pool.connected(now, &"a", 10);
        pool.withdraw(&"a", 10);
        assert_eq!(pool.check_out(now, &"a", 2), CheckOut::Dial);
        pool.check_in(&"a", 10);
    }

    #[test]
    fn a_peer_that_takes_fewer_streams_gets_fewer() {
        let (mut pool, now) = pool();
        pool.check_out(now, &"a", 1);
        pool.connected(now, &"a", 10);
        pool.limit(&"a", 10, 1);
        assert_eq!(pool.check_out(now, &"a", 2), CheckOut::Dial);
    }

    #[test]
    fn only_unused_tunnels_expire() {
        let (mut pool, now) = pool();
        pool.check_out(now, &"a", 1);
        pool.connected(now, &"a", 10);
        assert!(pool.expire(now + LIMITS.unused * 2).is_empty(), "it carries a stream");
        pool.check_in(&"a", 10);
        assert!(pool.expire(now + LIMITS.unused - Duration::from_secs(1)).is_empty());
        assert_eq!(pool.expire(now + LIMITS.unused), [10]);
        assert!(pool.keys.is_empty());
    }
}
