// SPDX-License-Identifier: Apache-2.0
//! How much a peer may send us, on one stream and on the connection.
//!
//! The connection's credit is returned when bytes arrive, a stream's when the application has taken them: a reader that stalls
//! holds up its own stream and no other.

use std::time::{Duration, Instant};

use crate::budget::Budget;

/// A window is reported to the peer when this part of it can be given back at once.
const BATCH: u32 = 4;
/// A window grows when a whole one of it was consumed in this time: up to about a second of what the stream carries.
const GROWTH_TIME: Duration = Duration::from_secs(1);

/// The receiving side of one stream.
#[derive(Debug)]
pub(super) struct StreamWindow {
    /// What the peer may still send.
    open: u32,
    /// Received (or announced by a frame header) and not yet consumed by the application.
    unconsumed: u32,
    /// What the window is brought back to.
    size: u32,
    /// Of `unconsumed`: what the caller buffers, charged to the budgets.
    held: u32,
    /// Consumed since `since`, to judge whether the window should grow.
    consumed: u32,
    /// Milliseconds on the connection's clock; it comes round after 49 days, which at worst grows a window early.
    since: u32,
}

impl StreamWindow {
    pub(super) fn new(size: u32, clock: u32) -> Self {
        Self { open: size, unconsumed: 0, size, held: 0, consumed: 0, since: clock }
    }

    /// A frame of `length` bytes begins; false if the peer had no right to it.
    pub(super) fn arrive(&mut self, length: u32) -> bool {
        let Some(open) = self.open.checked_sub(length) else { return false };
        self.open = open;
        self.unconsumed += length;
        true
    }

    /// Everything that arrived has been consumed.
    pub(super) fn is_empty(&self) -> bool {
        self.unconsumed == 0
    }

    pub(super) fn held(&self) -> u32 {
        self.held
    }

    /// What the window has grown by since the stream was opened with `initial`.
    pub(super) fn grown(&self, initial: u32) -> u32 {
        self.size.saturating_sub(initial)
    }

    /// How many of `length` bytes can be held on top: no more than have arrived.
    pub(super) fn can_hold(&self, length: usize) -> u32 {
        let most = self.unconsumed - self.held;
        u32::try_from(length).unwrap_or(u32::MAX).min(most)
    }

    /// The caller buffers so many more, as [`Self::can_hold`] allowed.
    pub(super) fn hold(&mut self, length: u32) {
        self.held += length;
    }

    /// The application took `length` bytes. Returns how many of them were held.
    pub(super) fn consume(&mut self, length: u32) -> u32 {
        let length = length.min(self.unconsumed);
        self.unconsumed -= length;
        self.consumed = self.consumed.saturating_add(length);
        let released = self.held.saturating_sub(self.unconsumed);
        self.held -= released;
        released
    }

    /// Once per window consumed, doubles the window if the application keeps up with a peer that uses it and the budget has room,
    /// and halves it, down to `initial`, if the budget has none.
    pub(super) fn resize(&mut self, clock: u32, (initial, max): (u32, u32), budget: &Budget, room: bool) {
        if self.consumed < self.size {
            return;
        }
        let quick = u128::from(clock.wrapping_sub(self.since)) <= GROWTH_TIME.as_millis();
        let keeps_up = self.unconsumed <= self.size / 4;
        self.consumed = 0;
        self.since = clock;
        if !room || budget.is_pressed() {
            let size = (self.size / 2).max(initial);
            budget.retract((self.size - size) as usize);
            // What the peer may send already it may send; it gets less back until that is used up.
            self.size = size;
        } else if quick && keeps_up && self.size < max {
            let size = self.size.saturating_mul(2).min(max);
            if budget.promise((size - self.size) as usize) {
                self.size = size;
            }
        }
    }

    /// The credit to send now, if it is worth a frame.
    pub(super) fn credit(&mut self) -> Option<u32> {
        let due = self.size.saturating_sub(self.open).saturating_sub(self.unconsumed);
        if due == 0 || due < self.size / BATCH {
            return None;
        }
        self.open += due;
        Some(due)
    }
}

/// The receiving side of the connection as a whole.
#[derive(Debug)]
pub(super) struct ConnectionWindow {
    open: u32,
    size: u32,
    /// Received and not yet reported.
    due: u32,
}

impl ConnectionWindow {
    pub(super) fn new(size: u32) -> Self {
        Self { open: size, size, due: 0 }
    }

    /// A frame of `length` bytes begins; false if the peer had no right to it.
    pub(super) fn arrive(&mut self, length: u32) -> bool {
        let Some(open) = self.open.checked_sub(length) else { return false };
        self.open = open;
        true
    }

    /// Bytes of such a frame are here. Returns the credit to send now, if it is worth a frame.
    pub(super) fn received(&mut self, length: u32) -> Option<u32> {
        self.due += length;
        if self.due < self.size / BATCH {
            return None;
        }
        self.open += self.due;
        Some(std::mem::take(&mut self.due))
    }
}

/// How much we may send: of one stream or of the connection. Negative after the peer has shrunk its windows.
#[derive(Debug, Clone, Copy)]
pub(super) struct SendWindow(i32);

impl SendWindow {
    pub(super) fn new(size: u32) -> Self {
        // Sizes over 2^31-1 are refused where SETTINGS are read.
        Self(i32::try_from(size).unwrap_or(i32::MAX))
    }

    pub(super) fn open(self) -> u32 {
        u32::try_from(self.0).unwrap_or(0)
    }

    /// The caller has checked that `length` is not more than is open.
    pub(super) fn spend(&mut self, length: u32) {
        self.0 = self.0.saturating_sub_unsigned(length);
    }

    /// A WINDOW_UPDATE; false if the sum is over 2^31-1.
    pub(super) fn add(&mut self, increment: u32) -> bool {
        self.0.checked_add_unsigned(increment).map(|sum| self.0 = sum).is_some()
    }

    /// A change of INITIAL_WINDOW_SIZE; false if the sum is over 2^31-1.
    pub(super) fn shift(&mut self, delta: i32) -> bool {
        self.0.checked_add(delta).map(|sum| self.0 = sum).is_some()
    }
}

/// The clock of [`StreamWindow`].
pub(super) fn clock(start: Instant, now: Instant) -> u32 {
    now.saturating_duration_since(start).as_millis() as u32
}
