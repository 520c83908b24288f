// SPDX-License-Identifier: Apache-2.0
//! Lines on their way to standard output: appended by anybody without waiting, written by one thread.
//!
//! All lines lie one behind the other in one buffer. The writing thread takes the whole buffer and leaves an empty one, so a burst becomes one large write
//! and nobody allocates for a line. When the buffer is full, lines are dropped and counted, and the count is itself written as a line.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::Level;

use super::line::{Format, Head, Line};

/// How many bytes may wait. At some 400 bytes a line it is Istio's 10,000 lines (T-10).
pub(super) const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// The queue. Shared by all who write.
pub(super) struct Queue {
    state: Mutex<State>,
    /// The writing thread waits here for lines.
    filled: Condvar,
    /// [`flush`](Queue::flush) waits here for the writing thread.
    written: Condvar,
    dropped: AtomicU64,
    limit: usize,
}

struct State {
    waiting: Vec<u8>,
    /// Lines that found no room since the last buffer was taken.
    lost: u64,
    /// The thread is writing what it took.
    writing: bool,
}

impl Queue {
    /// A queue of at most `limit` bytes whose lines go to `output`.
    pub(super) fn start(limit: usize, format: Format, output: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let state = State { waiting: Vec::new(), lost: 0, writing: false };
        let queue = Arc::new(Self {
            state: Mutex::new(state),
            filled: Condvar::new(),
            written: Condvar::new(),
            dropped: AtomicU64::new(0),
            limit,
        });
        let writer = Arc::clone(&queue);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_all_to(format, output))?;
        Ok(queue)
    }

    /// Appends whole lines, or drops them all if there is no room for all. `count` is how many they are.
    pub(super) fn append(&self, lines: &[u8], count: u64) {
        let mut state = self.lock();
        if state.waiting.len() + lines.len() > self.limit {
            state.lost += count;
            drop(state);
            self.dropped.fetch_add(count, Ordering::Relaxed);
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(lines);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// How many lines have been dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything appended so far has been written, at most `patience`. Tells whether it has.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while !state.waiting.is_empty() || state.writing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.written.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn write_all_to(&self, format: Format, mut output: impl Write) -> ! {
        let mut taken = Vec::new();
        loop {
            let mut state = self.lock();
            state.writing = false;
            self.written.notify_all();
            while state.waiting.is_empty() && state.lost == 0 {
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut state.waiting, &mut taken);
            let lost = std::mem::take(&mut state.lost);
            state.writing = true;
            drop(state);
            if lost > 0 {
                let head = Head { format, time: SystemTime::now(), level: Level::WARN, scope: "log" };
                let mut line = Line::begin(&mut taken, head, LOST);
                line.number("lines", lost);
                line.end();
            }
            // There is nobody to tell that standard output is gone; the lines count as lost.
            if output.write_all(&taken).and_then(|()| output.flush()).is_err() {
                let count = taken.iter().filter(|byte| **byte == b'\n').count();
                self.dropped.fetch_add(count as u64, Ordering::Relaxed);
            }
            taken.clear();
            taken.shrink_to(KEPT_BYTES);
        }
    }

    /// Nothing that can panic runs while this lock is held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const LOST: &str = "log lines were dropped: whoever reads standard output is too slow";
/// A burst must not keep its buffer for ever.
const KEPT_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests;
