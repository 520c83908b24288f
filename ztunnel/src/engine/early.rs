// SPDX-License-Identifier: Apache-2.0
//! What an application says first goes out with the request for its connection: between nodes that saves a round trip, on one node a
//! wake-up of the other proxy.
//!
//! The bytes are copied and stay in the application's socket until the answer comes, so that a request which certainly was not
//! processed can be made again elsewhere. One that may have been is not repeated: hence only where the tunnel has just been heard of,
//! and one that has died unnoticed costs nobody a connection.

use std::time::{Duration, Instant};

use super::flow::{Ending, Far, Flow, Stage};
use super::relay::{HEADER, LEAST_ROOM};
use super::table::Key;
use super::thread::Worker;
use super::tunnel::{Phase, Tunnel};

impl Worker {
    /// Sends what the application of an unanswered flow has said so far, once.
    pub(super) fn send_early(&mut self, key: Key<Flow>) {
        let now = self.now;
        if !self.options.early_data {
            return;
        }
        let Some(flow) = self.flows.get_mut(key) else { return };
        let (Stage::Asked(_), Far::Stream { tunnel: tunnel_key, id }) = (&flow.stage, &flow.far) else { return };
        let (tunnel_key, id) = (*tunnel_key, *id);
        let (Some(app), Some(tunnel)) = (&mut flow.app, self.tunnels.get_mut(tunnel_key)) else { return };
        if flow.early > 0 || !is_alive(tunnel.heard, now) || !tunnel.sealed.is_empty() || tunnel.broken.is_some() {
            return;
        }
        let Tunnel { phase: Phase::Open(session), frames, .. } = tunnel else { return };
        // The request is in front.
        session.connection.write_control(&mut self.control);
        self.buffers.fill(frames);
        frames.put(&self.control);
        self.control.clear();
        let has_room = frames.room_mut().len() >= LEAST_ROOM;
        let most = if has_room { session.connection.send_capacity(id).min(MOST) } else { 0 };
        let peeked = if most > 0 { app.peek(&mut frames.room_mut()[HEADER..HEADER + most]) } else { Ok(0) };
        // An error is told once: nobody would find it later.
        let Ok(count) = peeked else {
            self.mark_dirty(tunnel_key);
            return self.end_flow(key, Ending::Reset);
        };
        if count > 0
            && let Some(header) = session.connection.data_header(id, count, false)
        {
            frames.room_mut()[..HEADER].copy_from_slice(&header);
            frames.fill(HEADER + count);
            flow.early = u16::try_from(count).unwrap_or(u16::MAX);
        }
        self.mark_dirty(tunnel_key);
    }
}

/// Whether a tunnel of which something came then can be relied on.
fn is_alive(heard: Option<Instant>, now: Instant) -> bool {
    heard.is_some_and(|heard| now.duration_since(heard) <= FRESH)
}

/// How much goes out early: a request, not a file. Less than what a tunnel's buffer always has room for.
const MOST: usize = 4096;
/// How long after its last bytes a tunnel is thought to be alive.
const FRESH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_is_relied_on_for_a_second_after_its_last_bytes() {
        let heard = Instant::now();
        assert!(is_alive(Some(heard), heard) && is_alive(Some(heard), heard + FRESH));
        assert!(!is_alive(Some(heard), heard + FRESH + Duration::from_nanos(1)) && !is_alive(None, heard));
    }
}
