// SPDX-License-Identifier: Apache-2.0
//! What a connection announces, grants and waits for. The defaults are the contract; tests and tuning change single fields.

use std::sync::Arc;
use std::time::Duration;

use crate::budget::Budget;
use crate::frame::{MAX_FRAME_SIZE, MIN_FRAME_SIZE};

/// Settings of one connection, shared by those of one pod. Start from [`Options::client`] or [`Options::server`].
#[derive(Debug, Clone)]
pub struct Options {
    /// The pod's budget, charged for bytes held for slow readers and for windows grown beyond `initial_window`.
    pub budget: Budget,
    /// Window a stream opens with, announced as SETTINGS_INITIAL_WINDOW_SIZE. At least 65,535.
    pub initial_window: u32,
    /// What a stream's window may grow to.
    pub max_window: u32,
    /// The window of the connection; it is returned on receipt, so it only bounds what is in flight.
    pub connection_window: u32,
    /// The largest frame we take, announced as SETTINGS_MAX_FRAME_SIZE.
    pub max_frame_size: u32,
    /// Server: streams the client may have open, announced as SETTINGS_MAX_CONCURRENT_STREAMS.
    /// Client: the most it opens, whatever more the server grants.
    pub max_streams: u32,
    /// Decoded size of a header list and encoded size of a header block we take, announced as SETTINGS_MAX_HEADER_LIST_SIZE.
    pub max_header_bytes: u32,
    /// Fields of a header list we take.
    pub max_header_fields: u32,
    /// Bytes held for one stream.
    pub stream_limit: usize,
    /// Bytes held for all streams of this connection.
    pub tunnel_limit: usize,
    /// Control bytes that may wait for a peer that does not read.
    pub control_limit: usize,
    /// Silence before the first ping, and between a pong and the next ping.
    pub ping_interval: Duration,
    /// How long a ping may stay without any sign of life.
    pub ping_timeout: Duration,
    /// How long the peer's preface and SETTINGS, and any header block it begins, may take.
    pub opening_timeout: Duration,
}

impl Options {
    /// The defaults of the side that opens streams.
    pub fn client(budget: Budget) -> Self {
        Self { max_streams: 100, max_header_bytes: 16 << 10, ..Self::server(budget) }
    }

    /// Numbers HTTP/2 has no room for, brought back to the nearest it has: a tuning variable must not break the wire.
    pub(crate) fn sound(self: Arc<Self>) -> Arc<Self> {
        let window = |size: u32| size.min(MAX_WINDOW);
        let time = |time: Duration| time.min(MAX_TIME);
        let sound = Self {
            // Until it has read our SETTINGS a peer counts on the default, so a smaller window would be overdrawn in good faith.
            initial_window: window(self.initial_window.max(DEFAULT_WINDOW)),
            max_window: window(self.max_window.max(self.initial_window).max(DEFAULT_WINDOW)),
            connection_window: window(self.connection_window.max(DEFAULT_WINDOW)),
            max_frame_size: self.max_frame_size.clamp(MIN_FRAME_SIZE, MAX_FRAME_SIZE),
            ping_interval: time(self.ping_interval),
            ping_timeout: time(self.ping_timeout),
            opening_timeout: time(self.opening_timeout),
            ..(*self).clone()
        };
        let sizes = |o: &Self| (o.initial_window, o.max_window, o.connection_window, o.max_frame_size);
        let times = |o: &Self| (o.ping_interval, o.ping_timeout, o.opening_timeout);
        let numbers = |o: &Self| (sizes(o), times(o));
        if numbers(&sound) == numbers(&self) { self } else { Arc::new(sound) }
    }

    /// The defaults of the side that answers them.
    pub fn server(budget: Budget) -> Self {
        Self {
            budget,
            initial_window: 256 << 10,
            max_window: 4 << 20,
            connection_window: 16 << 20,
            max_frame_size: 1 << 20,
            max_streams: 200,
            max_header_bytes: 64 << 10,
            max_header_fields: 100,
            stream_limit: 4 << 20,
            tunnel_limit: 64 << 20,
            control_limit: 64 << 10,
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(20),
            opening_timeout: Duration::from_secs(10),
        }
    }
}

/// What every window is before anybody says otherwise, and the least the connection's can be (RFC 9113 §6.9.2).
pub(crate) const DEFAULT_WINDOW: u32 = 65_535;
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// As good as never, and still a time the clock can be set to.
const MAX_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_numbers_are_brought_into_range_and_sound_ones_shared() {
        let defaults = Arc::new(Options::server(Budget::node(1)));
        assert!(Arc::ptr_eq(&defaults.clone().sound(), &defaults));
        let absurd =
            Options { initial_window: u32::MAX, connection_window: 1, max_frame_size: 1, ..(*defaults).clone() };
        let sound = Arc::new(absurd).sound();
        assert_eq!((sound.initial_window, sound.max_window), (0x7fff_ffff, 0x7fff_ffff));
        let times: [fn(&mut Options) -> &mut Duration; 3] =
            [|o| &mut o.ping_interval, |o| &mut o.ping_timeout, |o| &mut o.opening_timeout];
        for time in times {
            let mut never = (*defaults).clone();
            *time(&mut never) = Duration::MAX;
            let mut sound = (*Arc::new(never).sound()).clone();
            assert_eq!(*time(&mut sound), MAX_TIME);
        }
        let tiny = Arc::new(Options { initial_window: 0, max_window: 0, ..(*defaults).clone() }).sound();
        assert_eq!((tiny.initial_window, tiny.max_window), (65_535, 65_535));
        assert_eq!((sound.connection_window, sound.max_frame_size), (65_535, 16_384));
    }
}
