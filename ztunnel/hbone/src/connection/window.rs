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

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: (u32, u32) = (1000, 4000);

    /// The peer sends `length` bytes, the application takes them, and the window is judged.
    fn take(window: &mut StreamWindow, length: u32, clock: u32, budget: &Budget, room: bool) {
        assert!(window.arrive(length));
        window.consume(length);
        window.resize(clock, SIZES, budget, room);
        window.credit();
    }

    /// A window that has grown from 1000 to 4000 bytes.
    fn grown(budget: &Budget) -> StreamWindow {
        let mut window = StreamWindow::new(1000, 0);
        take(&mut window, 1000, 0, budget, true);
        take(&mut window, 2000, 0, budget, true);
        assert_eq!(window.grown(1000), 3000);
        window
    }

    #[test]
    fn only_what_has_arrived_can_be_held_and_what_is_taken_is_released() {
        let mut window = StreamWindow::new(1000, 0);
        assert!(window.arrive(600));
        assert_eq!(window.can_hold(100), 100);
        window.hold(100);
        assert_eq!((window.held(), window.can_hold(1000)), (100, 500));
        window.hold(500);
        assert_eq!((window.held(), window.can_hold(1)), (600, 0));
        assert_eq!(window.consume(250), 250);
        assert_eq!((window.held(), window.is_empty()), (350, false));
        assert_eq!(window.consume(u32::MAX), 350);
        assert_eq!((window.held(), window.is_empty()), (0, true));
        // What was never held is taken first.
        assert!(window.arrive(300));
        window.hold(100);
        assert_eq!((window.consume(200), window.consume(60), window.held()), (0, 60, 40));
    }

    #[test]
    fn a_window_doubles_when_a_whole_one_was_taken_within_a_second() {
        let budget = Budget::node(1 << 20);
        let mut window = StreamWindow::new(1000, u32::MAX - 9);
        take(&mut window, 999, u32::MAX, &budget, true);
        assert_eq!(window.grown(1000), 0);
        // A second later, the clock having come round.
        take(&mut window, 1, 990, &budget, true);
        assert_eq!(window.grown(1000), 1000);
        take(&mut window, 2000, 1991, &budget, true);
        assert_eq!(window.grown(1000), 1000, "a millisecond too late");
        take(&mut window, 2000, 1992, &budget, true);
        assert_eq!(window.grown(1000), 3000, "counted anew");
        take(&mut window, 4000, 1992, &budget, true);
        assert_eq!(window.grown(1000), 3000, "the most it may be");
    }

    #[test]
    fn a_window_does_not_double_while_more_than_a_quarter_of_it_waits() {
        let budget = Budget::node(1 << 20);
        for (waiting, expected) in [(250, 1000), (251, 0)] {
            let mut window = StreamWindow::new(1000, 0);
            assert!(window.arrive(1000));
            window.consume(500);
            window.resize(0, SIZES, &budget, true);
            assert_eq!(window.credit(), Some(500));
            assert!(window.arrive(waiting));
            window.consume(500);
            window.resize(0, SIZES, &budget, true);
            assert_eq!(window.grown(1000), expected, "{waiting}");
        }
    }

    #[test]
    fn what_a_window_grows_by_is_promised_and_no_more() {
        // Four times the limit may be promised: room for one step from 1000 to 2000.
        let budget = Budget::node(250);
        let mut window = StreamWindow::new(1000, 0);
        take(&mut window, 1000, 0, &budget, true);
        assert_eq!(window.grown(1000), 1000);
        take(&mut window, 2000, 0, &budget, true);
        assert_eq!(window.grown(1000), 1000);
        assert!(!budget.promise(1));
    }

    #[test]
    fn a_window_shrinks_when_the_connection_or_the_budget_has_no_room_and_gives_back_what_it_gave_up() {
        for pressed in [false, true] {
            let budget = Budget::node(1000);
            let mut window = grown(&budget);
            if pressed {
                budget.charge(501).unwrap();
            }
            for expected in [1000, 0, 0] {
                // What it may send already it may send, so it takes whole windows of the old size.
                assert!(window.arrive(4000));
                window.consume(4000);
                window.resize(0, SIZES, &budget, pressed);
                window.open = 4000;
                assert_eq!(window.grown(1000), expected);
            }
            budget.refund(if pressed { 501 } else { 0 });
            assert!(budget.promise(4000), "all of it is free again");
        }
    }

    #[test]
    fn credit_is_given_back_a_quarter_at_a_time() {
        let mut window = StreamWindow::new(1002, 0);
        assert!(window.arrive(500));
        window.consume(249);
        assert_eq!(window.credit(), None);
        window.consume(1);
        assert_eq!(window.credit(), Some(250));
        assert_eq!((window.open, window.credit()), (752, None));
        assert!(!window.arrive(753) && window.arrive(752));

        let mut tiny = StreamWindow::new(3, 0);
        assert_eq!(tiny.credit(), None, "nothing is no credit");

        let mut whole = ConnectionWindow::new(1000);
        assert!(whole.arrive(1000) && !whole.arrive(1));
        assert_eq!((whole.received(249), whole.received(1)), (None, Some(250)));
        assert!(!whole.arrive(251) && whole.arrive(250));
    }
}
