// SPDX-License-Identifier: Apache-2.0
//! The places of a server: how many clients it serves at once, and who has to go when one more comes.
//!
//! A client that only sits there, sends its head byte by byte or does not read its answer must not keep a probe or a
//! scrape waiting. So nobody waits behind it: the client that has made no progress for longest gives up its place. Only
//! a client whose request is being answered keeps it; when all are, newcomers wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::telemetry::Seldom;

/// The places.
#[derive(Debug)]
pub(super) struct Places {
    server: &'static str,
    clients: usize,
    answer_bytes: usize,
    table: Mutex<Table>,
    freed: Notify,
    said: Seldom,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    seats: BTreeMap<u64, Seat>,
}

#[derive(Debug)]
struct Seat {
    /// When it came, or read some of its answer last.
    progress: Instant,
    /// Its request is being answered.
    working: bool,
    /// The size of the answer it may still be reading.
    answer: usize,
    leave: Arc<Notify>,
}

/// One client's place; free again once dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    leave: Arc<Notify>,
}

/// At most one line about this in so long.
const SAY_EVERY: Duration = Duration::from_secs(10);

impl Places {
    /// For so many clients, and answers of so many bytes together; a single answer may be longer.
    pub(super) fn new(server: &'static str, clients: usize, answer_bytes: usize) -> Self {
        let (table, freed, said) = (Mutex::default(), Notify::new(), Seldom::new(1, SAY_EVERY));
        Self { server, clients, answer_bytes, table, freed, said }
    }

    /// A place for one more client.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        loop {
            let freed = self.freed.notified();
            if let Some(place) = self.try_take() {
                return place;
            }
            freed.await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<Place> {
        let mut table = self.lock();
        if table.seats.len() >= self.clients {
            let idlest = table.idlest(|_| true)?;
            table.send_away(idlest);
            self.say("more clients than places", self.clients);
        }
        table.next += 1;
        let (id, leave) = (table.next, Arc::new(Notify::new()));
        let seat = Seat { progress: Instant::now(), working: false, answer: 0, leave: Arc::clone(&leave) };
        table.seats.insert(id, seat);
        Some(Place { places: Arc::clone(self), id, leave })
    }

    fn say(&self, why: &'static str, limit: usize) {
        if let Some(times) = self.said.due(Instant::now()) {
            tracing::warn!(
                server = self.server,
                limit,
                times,
                "{why}: the client that made no progress for longest was sent away; who holds so many connections?"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every change is a single step, so a poisoned table is whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn idlest(&self, also: impl Fn(&Seat) -> bool) -> Option<u64> {
        let idle = self.seats.iter().filter(|(_, seat)| !seat.working && also(seat));
        idle.min_by_key(|(_, seat)| seat.progress).map(|(id, _)| *id)
    }

    fn send_away(&mut self, id: u64) {
        if let Some(seat) = self.seats.remove(&id) {
            seat.leave.notify_one();
        }
    }
}

impl Place {
    /// Until somebody else needs it.
    pub(super) async fn given_up(&self) {
        self.leave.notified().await;
    }

    /// It has read some of its answer.
    pub(super) fn progress(&self) {
        self.change(|seat| seat.progress = Instant::now());
    }

    /// Its request is whole: from now on it waits for us. What it was sent before, it has read.
    pub(super) fn begin(&self) {
        self.change(|seat| (seat.working, seat.answer) = (true, 0));
    }

    /// Its answer has so many bytes. Where that is too much for all of them together, others that read slowly have to go.
    pub(super) fn answered(&self, bytes: usize) {
        let mut table = self.places.lock();
        let Some(seat) = table.seats.get_mut(&self.id) else { return };
        (seat.working, seat.answer, seat.progress) = (false, bytes, Instant::now());
        while table.seats.values().map(|seat| seat.answer).sum::<usize>() > self.places.answer_bytes {
            // The newest progress is its own.
            let slowest = table.idlest(|seat| seat.answer > 0).filter(|id| *id != self.id);
            let Some(slowest) = slowest else { break };
            table.send_away(slowest);
            self.places
                .say("more bytes in answers that nobody has read yet than there may be", self.places.answer_bytes);
        }
        drop(table);
        self.places.freed.notify_one();
    }

    fn change(&self, change: impl FnOnce(&mut Seat)) {
        if let Some(seat) = self.places.lock().seats.get_mut(&self.id) {
            change(seat);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().seats.remove(&self.id);
        self.places.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_given_up(place: &Place) -> bool {
        tokio::time::timeout(Duration::ZERO, place.given_up()).await.is_ok()
    }

    fn taken(places: &Arc<Places>) -> usize {
        places.lock().seats.len()
    }

    #[tokio::test]
    async fn who_made_no_progress_for_longest_goes_first_and_who_is_being_answered_never() {
        let places = Arc::new(Places::new("test", 3, 100));
        let (first, second, third) = (places.take().await, places.take().await, places.take().await);
        first.begin();
        second.progress();
        let fourth = places.take().await;
        assert!(is_given_up(&third).await);
        assert!(!is_given_up(&first).await && !is_given_up(&second).await);
        let _fifth = places.take().await;
        assert!(is_given_up(&second).await && !is_given_up(&fourth).await);
        assert_eq!(taken(&places), 3);
        // What has left gives nothing back a second time.
        drop((second, third));
        assert_eq!(taken(&places), 3);
    }

    #[tokio::test]
    async fn while_all_are_being_answered_newcomers_wait() {
        let places = Arc::new(Places::new("test", 2, 100));
        let (first, second) = (places.take().await, places.take().await);
        first.begin();
        second.begin();
        let (third, ()) = tokio::join!(places.take(), async {
            tokio::task::yield_now().await;
            assert_eq!(taken(&places), 2);
            second.answered(1);
        });
        assert!(is_given_up(&second).await && !is_given_up(&first).await);
        drop((first, second, third));
        assert_eq!(taken(&places), 0);
    }

    #[tokio::test]
    async fn answers_that_nobody_reads_have_a_budget_together_and_one_may_exceed_it() {
        let places = Arc::new(Places::new("test", 10, 100));
        let (first, second, third) = (places.take().await, places.take().await, places.take().await);
        let idle = places.take().await;
        for (place, bytes) in [(&first, 60), (&second, 40)] {
            place.begin();
            place.answered(bytes);
        }
        first.progress();
        third.begin();
        third.answered(30);
        assert!(is_given_up(&second).await && !is_given_up(&first).await && !is_given_up(&third).await);
        third.begin();
        third.answered(1000);
        assert!(is_given_up(&first).await && !is_given_up(&third).await);
        assert!(!is_given_up(&idle).await, "it holds nothing");
        assert_eq!(taken(&places), 2);
    }
}
