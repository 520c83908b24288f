// SPDX-License-Identifier: Apache-2.0
//! When to fetch which keys: each source once however many objects name it, again before they are old, and after a failure soon, then ever less often. Keys
//! that were good stand until better ones come. Pure. Called by `keeper`.
//!
//! A source that nobody names any more keeps its keys and its date until then, so that an object that comes and goes makes no traffic of its own.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{Rng, RngExt as _};

use crate::{api::KeySource, envoy::input::KeySets};

/// All sources and what is known of them.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    entries: BTreeMap<KeySource, Entry>,
    /// Named, but more than there may be.
    surplus: BTreeMap<KeySource, Duration>,
}

#[derive(Debug)]
struct Entry {
    /// How long a fetch may take; `None`: nobody names it.
    patience: Option<Duration>,
    turn: Turn,
    kept: Option<Arc<str>>,
    /// Why the last fetch failed.
    fault: Option<String>,
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Due(Instant),
    Running,
}

impl Entry {
    fn since(&self) -> Option<Instant> {
        match self.turn {
            Turn::Due(at) => Some(at),
            Turn::Running => None,
        }
    }
}

/// A fetch to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) source: KeySource,
    /// How long it may take.
    pub(super) patience: Duration,
}

impl Schedule {
    /// Who is named now, and how long fetches may take.
    pub(super) fn handle_wanted(&mut self, now: Instant, wanted: &BTreeMap<KeySource, Duration>) {
        for (source, entry) in &mut self.entries {
            entry.patience = wanted.get(source).copied();
        }
        self.surplus = wanted
            .iter()
            .filter(|(source, _)| !self.entries.contains_key(*source))
            .map(|(source, patience)| (source.clone(), *patience))
            .collect();
        self.make_room(now);
    }

    /// Whoever is named takes a place that is free, or that of one whom nobody names any more.
    fn make_room(&mut self, now: Instant) {
        self.forget(now);
        let mut unnamed: Vec<KeySource> = Vec::new();
        if self.entries.len() + self.surplus.len() > MAX_SOURCES {
            let is_idle = |entry: &Entry| entry.patience.is_none() && entry.since().is_some();
            unnamed.extend(self.entries.iter().filter(|(_, entry)| is_idle(entry)).map(|(source, _)| source.clone()));
        }
        while !self.surplus.is_empty() {
            if self.entries.len() >= MAX_SOURCES {
                let Some(source) = unnamed.pop() else { return };
                self.entries.remove(&source);
            }
            let Some((source, patience)) = self.surplus.pop_first() else { return };
            let entry = Entry { patience: Some(patience), turn: Turn::Due(now), kept: None, fault: None, failures: 0 };
            self.entries.insert(source, entry);
        }
    }

    /// What is to be fetched now, at most `free` at once; each is to be answered with [`Self::handle_fetched`].
    pub(super) fn begin(&mut self, now: Instant, free: usize) -> Vec<Order> {
        self.make_room(now);
        let due = |entry: &Entry| matches!(entry.turn, Turn::Due(at) if at <= now);
        let mut all: Vec<_> = self.entries.iter_mut().filter(|(_, entry)| due(entry)).collect();
        // Who waits longest comes first: slow ones cannot shut out others.
        all.sort_by_key(|(_, entry)| entry.since());
        let mut orders = Vec::new();
        for (source, entry) in all.into_iter().take(free) {
            if let Some(patience) = entry.patience {
                entry.turn = Turn::Running;
                orders.push(Order { source: source.clone(), patience });
            }
        }
        orders
    }

    /// What a fetch brought. Gives what an operator should read, if it is news.
    pub(super) fn handle_fetched(
        &mut self,
        now: Instant,
        rng: &mut impl Rng,
        source: &KeySource,
        fetched: Result<Arc<str>, String>,
    ) -> Option<String> {
        let entry = self.entries.get_mut(source)?;
        match fetched {
            Ok(keys) => {
                let news = entry.fault.take().map(|_| format!("{source}: the keys are fetched again"));
                entry.kept = Some(keys);
                entry.failures = 0;
                entry.turn = Turn::Due(now + spread(REFRESH, rng));
                news
            }
            Err(reason) => {
                let pause = FIRST_PAUSE * 2_u32.saturating_pow(entry.failures.min(16));
                entry.failures = entry.failures.saturating_add(1);
                entry.turn = Turn::Due(now + spread(pause.min(LONGEST_PAUSE), rng));
                let stands = if entry.kept.is_some() { "; the last good keys stand" } else { "" };
                let news = (entry.fault.as_ref() != Some(&reason)).then(|| format!("{source}: {reason}{stands}"));
                entry.fault = Some(reason);
                news
            }
        }
    }

    /// When to call [`Self::begin`] next; `None` while nothing is due before something else happens.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.entries.values().filter_map(Entry::since).min()
    }

    /// The keys of all who are named; nothing of those that are not fetched yet.
    pub(super) fn keys(&self) -> KeySets {
        let known = self.entries.iter().filter(|(_, entry)| entry.patience.is_some()).filter_map(|(source, entry)| {
            let known = match (&entry.kept, &entry.fault) {
                (Some(keys), _) => Ok(Arc::clone(keys)),
                (None, Some(fault)) => Err(fault.clone()),
                (None, None) => return None,
            };
            Some((source.clone(), known))
        });
        let surplus = self.surplus.keys().map(|source| {
            (source.clone(), Err(format!("more than {MAX_SOURCES} places of keys are named in this mesh")))
        });
        known.chain(surplus).collect()
    }

    fn forget(&mut self, now: Instant) {
        let is_over = |entry: &Entry| entry.patience.is_none() && matches!(entry.turn, Turn::Due(at) if at <= now);
        self.entries.retain(|_, entry| !is_over(entry));
    }
}

fn spread(base: Duration, rng: &mut impl Rng) -> Duration {
    base.mul_f64(1.0 + rng.random_range(-0.1..=0.1))
}

/// As in Istio (`PILOT_JWT_PUB_KEY_REFRESH_INTERVAL`).
const REFRESH: Duration = Duration::from_secs(20 * 60);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What a mesh may name. Each may bring 64 KiB.
const MAX_SOURCES: usize = 4096;

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    struct World {
        schedule: Schedule,
        now: Instant,
        rng: StdRng,
    }

    impl World {
        fn new() -> Self {
            Self { schedule: Schedule::default(), now: Instant::now(), rng: StdRng::seed_from_u64(1) }
        }

        fn want(&mut self, sources: &[&KeySource]) {
            let wanted = sources.iter().map(|source| ((*source).clone(), Duration::from_secs(5))).collect();
            self.schedule.handle_wanted(self.now, &wanted);
        }

        fn begin(&mut self) -> Vec<KeySource> {
            self.schedule.begin(self.now, 10).into_iter().map(|order| order.source).collect()
        }

        fn fetched(&mut self, source: &KeySource, keys: Result<&str, &str>) -> Option<String> {
            let keys = keys.map(Arc::from).map_err(str::to_owned);
            self.schedule.handle_fetched(self.now, &mut self.rng, source, keys)
        }

        fn pass(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }
    }

    fn url(name: &str) -> KeySource {
        KeySource::Url(format!("https://{name}/keys"))
    }

    #[test]
    fn a_source_is_fetched_once_and_again_before_its_keys_are_old() {
        let (mut world, a) = (World::new(), url("a"));
        world.want(&[&a]);
        assert_eq!(world.schedule.keys().get(&a), None, "not fetched yet");
        assert_eq!(world.begin(), std::slice::from_ref(&a));
        assert!(world.begin().is_empty(), "it is being fetched");
        world.want(&[&a]);
        assert!(world.begin().is_empty(), "it still is");
        world.fetched(&a, Ok("keys"));
        assert_eq!(world.schedule.keys().get(&a), Some(&Ok("keys".into())));
        world.pass(17 * 60);
        assert!(world.begin().is_empty());
        assert!(world.schedule.next_deadline().is_some_and(|at| at > world.now));
        world.pass(6 * 60);
        assert_eq!(world.begin(), [a]);
    }

    #[test]
    fn good_keys_outlive_failures_and_without_any_the_reason_is_told_once() {
        let (mut world, a) = (World::new(), url("a"));
        world.want(&[&a]);
        world.begin();
        assert!(world.fetched(&a, Err("no route")).is_some());
        assert_eq!(world.schedule.keys().get(&a), Some(&Err("no route".into())));
        world.pass(2);
        assert_eq!(world.begin().len(), 1, "soon again");
        assert_eq!(world.fetched(&a, Err("no route")), None, "no news");
        world.pass(3);
        world.begin();
        assert!(world.fetched(&a, Ok("keys")).is_some_and(|news| news.contains("again")));
        world.pass(23 * 60);
        world.begin();
        assert!(world.fetched(&a, Err("gone")).is_some_and(|news| news.contains("stand")));
        assert_eq!(world.schedule.keys().get(&a), Some(&Ok("keys".into())));
    }

    #[test]
    fn failures_are_ever_further_apart_up_to_a_minute() {
        let (mut world, a) = (World::new(), url("a"));
        world.want(&[&a]);
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(world.begin().len(), 1);
            world.fetched(&a, Err("no"));
            let next = world.schedule.next_deadline().unwrap();
            waits.push((next - world.now).as_secs_f64());
            world.now = next;
        }
        assert!(waits[0] < 1.2 && waits[3] > 6.0 && waits[11] < 67.0 && waits[11] > 53.0, "{waits:?}");
    }

    #[test]
    fn a_source_that_comes_and_goes_is_fetched_no_more_often() {
        let (mut world, a) = (World::new(), url("a"));
        world.want(&[&a]);
        world.begin();
        world.fetched(&a, Ok("keys"));
        world.want(&[]);
        assert!(world.schedule.keys().is_empty());
        world.want(&[&a]);
        assert!(world.begin().is_empty(), "its date is not there yet");
        assert_eq!(world.schedule.keys().get(&a), Some(&Ok("keys".into())), "and its keys are good until then");
        world.want(&[]);
        world.pass(25 * 60);
        assert!(world.begin().is_empty());
        assert_eq!(world.schedule.next_deadline(), None, "it is forgotten");
    }

    #[test]
    fn more_sources_than_there_may_be_are_told_so_and_take_nothing_from_the_others() {
        let mut world = World::new();
        let all: Vec<_> = (0..=MAX_SOURCES).map(|number| url(&format!("h{number:05}"))).collect();
        world.want(&all[..MAX_SOURCES].iter().collect::<Vec<_>>());
        world.want(&all.iter().collect::<Vec<_>>());
        assert!(matches!(world.schedule.keys().get(&all[MAX_SOURCES]), Some(Err(reason)) if reason.contains("4096")));
        assert_eq!(world.begin().len(), 10);
        // Whom nobody names any more gives up the place, even before its date.
        for source in &all[..10] {
            world.fetched(source, Ok("keys"));
        }
        world.want(&all[1..].iter().collect::<Vec<_>>());
        assert_eq!(world.schedule.keys().get(&all[MAX_SOURCES]), None, "to be fetched like any other");
    }

    #[test]
    fn a_place_that_comes_free_is_taken_without_a_word_from_anybody() {
        let mut world = World::new();
        let all: Vec<_> = (0..=MAX_SOURCES).map(|number| url(&format!("h{number:05}"))).collect();
        world.want(&all[..MAX_SOURCES].iter().collect::<Vec<_>>());
        // The first is under way, and so keeps its place until it is back.
        assert_eq!(world.schedule.begin(world.now, 1).len(), 1);
        world.want(&all[1..].iter().collect::<Vec<_>>());
        assert!(matches!(world.schedule.keys().get(&all[MAX_SOURCES]), Some(Err(_))));
        world.fetched(&all[0], Ok("keys"));
        world.begin();
        assert_eq!(world.schedule.keys().get(&all[MAX_SOURCES]), None);
    }
}
