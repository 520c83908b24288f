// SPDX-License-Identifier: Apache-2.0
//! Counters per label set. A data thread resolves a label set once per connection to a handle and counts into cells that nobody else
//! writes; a scrape sums the cells of all threads.
//!
//! Series nobody has used for a while are dropped, so that short-lived destinations do not stay for ever.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::labels::{Labels, Reporter};
use super::reason::Reason;
use crate::decide::Party;

/// The sum of a series over all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// `istio_tcp_connections_opened_total`
    pub opened: u64,
    /// `istio_tcp_connections_closed_total`
    pub closed: u64,
    /// `istio_tcp_connections_failed_total`
    pub failed: u64,
    /// `istio_tcp_received_bytes_total`: client to server.
    pub received: u64,
    /// `istio_tcp_sent_bytes_total`: server to client.
    pub sent: u64,
}

/// One label set with its sums, as a scrape sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// The labels.
    pub labels: Arc<Labels>,
    /// The sums.
    pub totals: Totals,
}

/// What all data threads count, for the scrape. One per process.
#[derive(Debug, Default)]
pub struct Accounts {
    sheets: Mutex<Vec<Arc<Cells>>>,
    sockets: [AtomicI64; 2],
    refused: [[AtomicU64; Reason::COUNT]; 2],
    left_out: AtomicU64,
}

/// The cells of one label set on one thread. Only that thread writes.
#[derive(Debug)]
struct Cells {
    labels: Arc<Labels>,
    opened: AtomicU64,
    closed: AtomicU64,
    failed: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Accounts {
    /// Every series that has counted something, summed over the threads.
    pub fn series(&self) -> Vec<Series> {
        let mut sums: HashMap<Arc<Labels>, Totals> = HashMap::new();
        for cells in self.sheets.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let sum = sums.entry(cells.labels.clone()).or_default();
            sum.opened += cells.opened.load(Relaxed);
            sum.closed += cells.closed.load(Relaxed);
            sum.failed += cells.failed.load(Relaxed);
            sum.received += cells.received.load(Relaxed);
            sum.sent += cells.sent.load(Relaxed);
        }
        sums.into_iter().map(|(labels, totals)| Series { labels, totals }).collect()
    }

    /// `istio_tcp_sockets_open` of one reporter.
    pub fn sockets_open(&self, reporter: Reporter) -> i64 {
        self.sockets[reporter as usize].load(Relaxed)
    }

    pub(crate) fn socket_opened(&self, reporter: Reporter) {
        self.sockets[reporter as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn socket_closed(&self, reporter: Reporter) {
        self.sockets[reporter as usize].fetch_sub(1, Relaxed);
    }

    /// How many connections of one reporter came to nothing for a reason, before it was known what they were.
    pub fn refusals(&self, reporter: Reporter) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL
            .into_iter()
            .map(move |reason| (reason, self.refused[reporter as usize][reason as usize].load(Relaxed)))
    }

    /// Log lines about them that were left out because there were too many.
    pub fn lines_left_out(&self) -> u64 {
        self.left_out.load(Relaxed)
    }

    pub(crate) fn refused(&self, reporter: Reporter, reason: Reason) {
        self.refused[reporter as usize][reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn left_out(&self, lines: u64) {
        self.left_out.fetch_add(lines, Relaxed);
    }

    fn add(&self, cells: Arc<Cells>) {
        self.sheets.lock().unwrap_or_else(PoisonError::into_inner).push(cells);
    }

    fn remove(&self, gone: &HashSet<*const Cells>) {
        let mut sheets = self.sheets.lock().unwrap_or_else(PoisonError::into_inner);
        sheets.retain(|cells| !gone.contains(&Arc::as_ptr(cells)));
    }
}

/// A data thread's view: label sets it knows.
pub struct Book {
    accounts: Arc<Accounts>,
    known: HashMap<Arc<Labels>, Entry>,
    next_sweep: Option<Instant>,
    /// How many of them are told apart by what a peer's baggage said.
    described: usize,
}

struct Entry {
    cells: Arc<Cells>,
    used: Instant,
}

/// Counts for one connection.
#[derive(Debug, Clone)]
pub(crate) struct Handle(Arc<Cells>);

impl Book {
    /// An empty one that adds what it counts to these.
    pub fn new(accounts: Arc<Accounts>) -> Self {
        Self { accounts, known: HashMap::new(), next_sweep: None, described: 0 }
    }

    pub(crate) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The handle of a label set.
    pub(crate) fn handle(&mut self, now: Instant, mut labels: Labels) -> Handle {
        self.next_sweep.get_or_insert(now + EXPIRY);
        if let Some(entry) = self.known.get_mut(&labels) {
            entry.used = now;
            return Handle(entry.cells.clone());
        }
        // Peers choose what baggage says: only so many of their inventions become series of their own.
        if matches!(labels.traffic.source, Party::Described(_)) {
            if self.described >= MOST_DESCRIBED {
                labels.traffic.source = Party::Unknown;
                return self.handle(now, labels);
            }
            self.described += 1;
        }
        let labels = Arc::new(labels);
        let cells = Arc::new(Cells {
            labels: labels.clone(),
            opened: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        self.accounts.add(cells.clone());
        self.known.insert(labels, Entry { cells: cells.clone(), used: now });
        Handle(cells)
    }

    /// When [`Book::sweep`] is due.
    pub(crate) fn next_sweep(&self) -> Option<Instant> {
        self.next_sweep
    }

    /// Drops what no connection holds and none asked for since `EXPIRY`.
    pub(crate) fn sweep(&mut self, now: Instant) {
        // Two holders are this book and the accounts; a third is a connection.
        let stale = |entry: &Entry| Arc::strong_count(&entry.cells) <= 2 && now.duration_since(entry.used) >= EXPIRY;
        let stale: Vec<_> = self.known.values().filter(|entry| stale(entry)).map(|entry| entry.cells.clone()).collect();
        if !stale.is_empty() {
            // `stale` keeps them alive, so none of these addresses means anything else meanwhile.
            let gone: HashSet<_> = stale.iter().map(Arc::as_ptr).collect();
            self.known.retain(|_, entry| !gone.contains(&Arc::as_ptr(&entry.cells)));
            self.accounts.remove(&gone);
            let is_described = |labels: &&Arc<Labels>| matches!(labels.traffic.source, Party::Described(_));
            self.described = self.known.keys().filter(is_described).count();
        }
        self.next_sweep = (!self.known.is_empty()).then(|| now + EXPIRY / 4);
    }
}

impl Handle {
    pub(crate) fn labels(&self) -> &Labels {
        &self.0.labels
    }

    pub(crate) fn opened(&self) {
        add(&self.0.opened, 1);
    }

    pub(crate) fn closed(&self, failed: bool) {
        add(&self.0.closed, 1);
        if failed {
            add(&self.0.failed, 1);
        }
    }

    pub(crate) fn received(&self, bytes: usize) {
        add(&self.0.received, bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        add(&self.0.sent, bytes as u64);
    }
}

/// One writer, so no read-modify-write cycle on the bus is needed.
fn add(cell: &AtomicU64, count: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(count), Relaxed);
}

/// Series per thread whose source is known from baggage only.
const MOST_DESCRIBED: usize = 1000;
/// How long an unused series is kept: several scrapes of any usual interval.
const EXPIRY: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::super::labels::Flag;
    use super::*;
    use crate::decide::{Described, Security, Traffic};

    fn labels(workload: &str) -> Labels {
        let source = Party::Described(Arc::new(Described { workload_name: workload.into(), ..Described::default() }));
        let traffic = Traffic {
            source,
            source_identity: None,
            destination: Party::Unknown,
            destination_identity: None,
            service: None,
            security: Security::MutualTls,
        };
        Labels { reporter: Reporter::Source, traffic, flag: Flag::None }
    }

    #[test]
    fn a_scrape_sums_over_threads() {
        let accounts = Arc::new(Accounts::default());
        let now = Instant::now();
        for _ in 0..2 {
            let mut book = Book::new(accounts.clone());
            let handle = book.handle(now, labels("a"));
            handle.opened();
            handle.received(5);
            book.handle(now, labels("a").with_flag(Flag::Deny)).closed(true);
        }
        let series = accounts.series();
        let plain = series.iter().find(|series| series.labels.flag == Flag::None).unwrap();
        assert_eq!(plain.totals, Totals { opened: 2, received: 10, ..Totals::default() });
        let denied = series.iter().find(|series| series.labels.flag == Flag::Deny).unwrap();
        assert_eq!(denied.totals, Totals { closed: 2, failed: 2, ..Totals::default() });
    }

    #[test]
    fn what_peers_invent_becomes_one_series_in_the_end() {
        let accounts = Arc::new(Accounts::default());
        let mut book = Book::new(accounts.clone());
        for number in 0..MOST_DESCRIBED * 2 {
            book.handle(Instant::now(), labels(&number.to_string())).opened();
        }
        assert_eq!(accounts.series().len(), MOST_DESCRIBED + 1);
    }

    #[test]
    fn a_series_in_use_outlives_any_sweep() {
        let accounts = Arc::new(Accounts::default());
        let mut book = Book::new(accounts.clone());
        let start = Instant::now();
        let held = book.handle(start, labels("held"));
        book.handle(start, labels("gone"));
        book.sweep(start + EXPIRY);
        let left = accounts.series();
        assert_eq!(left.len(), 1);
        assert_eq!(&*left[0].labels, held.labels());
        drop(held);
        book.sweep(start + EXPIRY * 2);
        assert!(accounts.series().is_empty());
    }
}
