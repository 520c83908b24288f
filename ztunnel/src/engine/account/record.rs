// SPDX-License-Identifier: Apache-2.0
//! What is kept of one connection for account and log, from the moment it is known what it is until its end.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use hbone::request::Authority;

use super::book::{Book, Handle};
use super::labels::{Flag, Labels, Reporter};
use super::log::{Complete, LogBuffer};
use crate::decide::Traffic;

/// See the module. Dropping it without [`Record::close`] would lose the connection's end.
#[derive(Debug)]
pub struct Record {
    handle: Handle,
    ends: Ends,
    started: Instant,
    received: u64,
    sent: u64,
}

/// The addresses of a connection.
#[derive(Debug, Clone)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// The next hop on the wire, with 15008 for HBONE.
    pub destination: SocketAddr,
    /// What is asked for over HBONE.
    pub authority: Option<Box<Authority>>,
}

impl Record {
    /// Counts the connection as opened.
    pub fn open(
        book: &mut Book,
        log: &mut LogBuffer,
        now: Instant,
        (reporter, traffic): (Reporter, Traffic),
        ends: Ends,
    ) -> Self {
        let handle = book.handle(now, Labels { reporter, traffic, flag: Flag::None });
        handle.opened();
        let record = Self { handle, ends, started: now, received: 0, sent: 0 };
        log.opened(SystemTime::now(), &record.as_line(now, None));
        record
    }

    /// Bytes from client to server.
    pub fn count_received(&mut self, bytes: usize) {
        self.received += bytes as u64;
        self.handle.received(bytes);
    }

    /// Bytes from server to client.
    pub fn count_sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.handle.sent(bytes);
    }

    /// Who opened the connection.
    pub(crate) fn source(&self) -> SocketAddr {
        self.ends.source
    }

    /// Counts the connection as closed, and logs it if there is a log for it.
    pub fn close(self, book: &mut Book, log: Option<&mut LogBuffer>, now: Instant, ended: Result<(), (Flag, &str)>) {
        let error = match ended {
            Ok(()) => None,
            Err((_, text)) => Some(text),
        };
        if let Some(log) = log {
            log.complete(SystemTime::now(), &self.as_line(now, error));
        }
        match ended {
            Err((flag, _)) if flag != Flag::None => {
                book.handle(now, self.handle.labels().with_flag(flag)).closed(true);
            }
            Ok(()) | Err(_) => self.handle.closed(false),
        }
    }

    fn as_line<'a>(&'a self, now: Instant, error: Option<&'a str>) -> Complete<'a> {
        let Labels { reporter, traffic, .. } = self.handle.labels();
        Complete {
            reporter: *reporter,
            source: self.ends.source,
            destination: self.ends.destination,
            authority: self.ends.authority.as_deref(),
            traffic,
            received: self.received,
            sent: self.sent,
            duration: now.saturating_duration_since(self.started),
            error,
        }
    }
}
