// SPDX-License-Identifier: Apache-2.0
//! Time and the end: pings, deadlines, GOAWAY.

use std::time::Instant;

use super::keepalive::KEEPALIVE;
use super::keepalive::{DRAIN, Due};
use super::state::{Connection, Life, Opening, Role};
use crate::error::{ConnectionError, ErrorCode};
use crate::frame;

impl Connection {
    /// When [`Self::handle_timeout`] is to be called next. It moves with every call into the connection.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.life == Life::Ended {
            return None;
        }
        let mut deadline = self.guard.keepalive.deadline();
        for (since, _) in self.waits().into_iter().flatten() {
            deadline = deadline.min(since + self.options.opening_timeout);
        }
        Some(deadline)
    }

    /// Does what is due at `now`; a call too early does no harm. An error ends the connection as one from `next_event` does.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if self.life == Life::Ended {
            return Ok(());
        }
        let limit = self.options.opening_timeout;
        for (since, error) in self.waits().into_iter().flatten() {
            if now >= since + limit {
                return Err(self.fail(error));
            }
        }
        match self.guard.keepalive.check(now, self.options.ping_timeout) {
            Due::Nothing => Ok(()),
            Due::Ping => {
                frame::ping(&mut self.output.control, false, KEEPALIVE);
                Ok(())
            }
            Due::Gone => Err(self.fail(ConnectionError::PingTimeout(self.options.ping_timeout))),
        }
    }

    /// What the peer has begun or must begin, since when, and what it is if that takes too long.
    fn waits(&self) -> [Option<(Instant, ConnectionError)>; 2] {
        let limit = self.options.opening_timeout;
        let missing = match self.guard.opening {
            Opening { settings_seen: false, .. } => Some("its SETTINGS"),
            Opening { ack_seen: false, .. } => Some("the acknowledgement of our SETTINGS"),
            _ => None,
        };
        [
            missing.map(|what| (self.guard.started, ConnectionError::SlowOpening { what, limit })),
            self.input.block_began.map(|since| (since, ConnectionError::SlowHeaders(limit))),
        ]
    }

    /// Says that no more streams are taken, and lets those go on that are open or on their way. A server announces it, and
    /// names the last stream one round trip later, when every request the client sent before it knew has arrived.
    /// When [`Self::is_drained`] is true the connection can be closed.
    pub fn go_away_gracefully(&mut self) {
        if self.life != Life::Running {
            return;
        }
        match self.role {
            // A server opens no streams, so there is none it has to be told about.
            Role::Client => self.leave(0, ErrorCode::NO_ERROR),
            Role::Server => {
                self.life = Life::Announced;
                frame::go_away(&mut self.output.control, ANY_STREAM, ErrorCode::NO_ERROR.0);
                frame::ping(&mut self.output.control, false, DRAIN);
            }
        }
    }

    /// Ends the connection now: GOAWAY with `code` is queued, nothing is read any more. Write what is queued, then close.
    pub fn close(&mut self, code: ErrorCode) {
        if self.life != Life::Ended {
            let last = match (self.role, self.life) {
                (Role::Client, _) => 0,
                (Role::Server, Life::Leaving { last }) => last,
                (Role::Server, _) => self.streams.highest(),
            };
            frame::go_away(&mut self.output.control, last, code.0);
            self.life = Life::Ended;
        }
    }

    /// The pong behind the announcement is here: no request can arrive any more that was sent without knowing. False if there
    /// was no announcement.
    pub(super) fn announcement_arrived(&mut self) -> bool {
        let is_announced = self.life == Life::Announced;
        if is_announced {
            self.leave(self.streams.highest(), ErrorCode::NO_ERROR);
        }
        is_announced
    }

    /// Ends the connection for a reason the peer is to blame for, or that makes it useless.
    pub(super) fn fail(&mut self, error: ConnectionError) -> ConnectionError {
        self.close(error.code());
        error
    }

    fn leave(&mut self, last: u32, code: ErrorCode) {
        frame::go_away(&mut self.output.control, last, code.0);
        self.life = Life::Leaving { last };
    }
}

/// The last stream of a GOAWAY that names none yet.
const ANY_STREAM: u32 = (1 << 31) - 1;
