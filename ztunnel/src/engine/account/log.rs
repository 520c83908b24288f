// SPDX-License-Identifier: Apache-2.0
//! Access-log lines (ztunnel.md §13.3 T-14 to T-17): formatted here once per connection, handed over in batches.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hbone::request::Authority;
use mesh_common::telemetry::{Format, Head, Line, Sink};
use tracing::Level;

use super::labels::Reporter;
use crate::decide::{Party, Security, Traffic};

/// Where lines go. The sink must not block: it drops and counts instead.
#[derive(Clone)]
pub struct AccessLog {
    /// How lines look.
    pub format: Format,
    /// Whether lines of a level are wanted.
    pub is_enabled: Arc<IsEnabled>,
    /// Takes whole lines, each with its end of line; the number says how many.
    pub write: Arc<WriteLines>,
}

/// See [`AccessLog::is_enabled`].
pub type IsEnabled = dyn Fn(Level) -> bool + Send + Sync;
/// See [`AccessLog::write`].
pub type WriteLines = dyn Fn(&[u8], u64) + Send + Sync;

impl From<Sink> for AccessLog {
    fn from(sink: Sink) -> Self {
        let format = sink.head(SystemTime::UNIX_EPOCH, Level::INFO).format;
        let levels = sink.clone();
        Self {
            format,
            is_enabled: Arc::new(move |level| levels.is_enabled(level)),
            write: Arc::new(move |lines, count| sink.write(lines, count)),
        }
    }
}

impl AccessLog {
    /// The target of access lines in log filters, for [`mesh_common::telemetry::Handle::sink`].
    pub const TARGET: &'static str = "access";
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").field("format", &self.format).finish_non_exhaustive()
    }
}

/// A connection of which it is known what it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Complete<'a> {
    pub(crate) reporter: Reporter,
    pub(crate) source: SocketAddr,
    /// The next hop on the wire, with 15008 for HBONE.
    pub(crate) destination: SocketAddr,
    pub(crate) authority: Option<&'a Authority>,
    pub(crate) traffic: &'a Traffic,
    /// Client to server.
    pub(crate) received: u64,
    /// Server to client.
    pub(crate) sent: u64,
    pub(crate) duration: Duration,
    pub(crate) error: Option<&'a str>,
}

/// A connection that ended before it was known what it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Denied<'a> {
    pub(crate) reporter: Reporter,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) error: &'a str,
}

/// Collects lines of one data thread, to be handed over a moment later: to wake who writes them costs more than to make one.
pub struct LogBuffer {
    log: AccessLog,
    lines: Vec<u8>,
    count: u64,
    /// Somebody will flush.
    is_promised: bool,
}

impl LogBuffer {
    /// An empty one for this log.
    pub fn new(log: AccessLog) -> Self {
        Self { log, lines: Vec::new(), count: 0, is_promised: false }
    }

    /// "connection complete", INFO or ERROR.
    pub(crate) fn complete(&mut self, time: SystemTime, what: &Complete<'_>) {
        let level = if what.error.is_some() { Level::ERROR } else { Level::INFO };
        self.write(time, level, "connection complete", |line| {
            what.ends(line);
            // The view is that of this proxy's application (T-16).
            let (sent, received) = match what.reporter {
                Reporter::Source => (what.received, what.sent),
                Reporter::Destination => (what.sent, what.received),
            };
            line.number("bytes_sent", sent);
            line.number("bytes_recv", received);
            line.text("duration", &format!("{}ms", what.duration.as_millis()));
            if let Some(error) = what.error {
                line.text("error", error);
            }
        });
    }

    /// "connection opened", DEBUG.
    pub(crate) fn opened(&mut self, time: SystemTime, what: &Complete<'_>) {
        self.write(time, Level::DEBUG, "connection opened", |line| what.ends(line));
    }

    /// "connection failed", WARN.
    pub(crate) fn denied(&mut self, time: SystemTime, what: &Denied<'_>) {
        self.write(time, Level::WARN, "connection failed", |line| {
            line.display("src.addr", &what.source);
            line.display("dst.addr", &what.destination);
            line.text("direction", what.reporter.direction());
            line.text("error", what.error);
        });
    }

    /// Whether there are lines and nobody has promised to flush them; now the caller has.
    pub(crate) fn asks_for_flush(&mut self) -> bool {
        let asks = self.count > 0 && !self.is_promised;
        self.is_promised |= asks;
        asks
    }

    /// Hands the collected lines over, as promised.
    pub(crate) fn keep_promise(&mut self) {
        self.is_promised = false;
        self.flush();
    }

    /// Hands the collected lines over.
    pub fn flush(&mut self) {
        if self.count > 0 {
            (self.log.write)(&self.lines, self.count);
            self.lines.clear();
            self.lines.shrink_to(KEEP);
            self.count = 0;
        }
    }

    fn write(&mut self, time: SystemTime, level: Level, message: &str, put: impl FnOnce(&mut Line<'_>)) {
        if !(self.log.is_enabled)(level) {
            return;
        }
        let head = Head { format: self.log.format, time, level, scope: AccessLog::TARGET };
        let mut line = Line::begin(&mut self.lines, head, message);
        put(&mut line);
        line.end();
        self.count += 1;
        if self.lines.len() >= FLUSH_AT {
            self.flush();
        }
    }
}

impl Drop for LogBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Complete<'_> {
    fn ends(&self, line: &mut Line<'_>) {
        let Traffic { source, source_identity, destination, destination_identity, service, security } = self.traffic;
        let proven = |identity| if *security == Security::MutualTls { identity } else { None };
        line.display("src.addr", &self.source);
        party(
            line,
            ["src.workload", "src.namespace", "src.identity", "src.cluster"],
            source,
            proven(source_identity.as_ref()),
        );
        line.display("dst.addr", &self.destination);
        if let Some(authority) = self.authority {
            line.display("dst.hbone_addr", authority);
        }
        if let Some(service) = service {
            line.text("dst.service", &service.hostname);
        }
        let identity = proven(destination_identity.as_ref());
        party(line, ["dst.workload", "dst.namespace", "dst.identity", "dst.cluster"], destination, identity);
        line.text("direction", self.reporter.direction());
    }
}

/// One end; what is not known is left out.
fn party(line: &mut Line<'_>, keys: [&str; 4], party: &Party, identity: Option<&mesh_proto::spiffe::Identity>) {
    let identity = identity.map_or("", |identity| identity.as_uri());
    for (key, value) in keys.into_iter().zip([party.log_name(), party.namespace(), identity, party.cluster()]) {
        if !value.is_empty() {
            line.text(key, value);
        }
    }
}

/// A turn that writes more than this hands over in between.
const FLUSH_AT: usize = 64 * 1024;
/// What an idle thread keeps.
const KEEP: usize = 16 * 1024;

#[cfg(test)]
mod tests;
