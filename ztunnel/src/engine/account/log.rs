// SPDX-License-Identifier: Apache-2.0
//! Access-log lines (ztunnel.md §13.3 T-11, T-12, T-14 to T-17): formatted here, written by whoever gave the sink. Pure but for the sink.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::labels::Reporter;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Tab-separated, for people.
    #[default]
    Plain,
    /// One object per line.
    Json,
}

/// Where lines go. The sink must not block: it drops and counts instead.
#[derive(Clone)]
pub struct AccessLog {
    /// How lines look.
    pub format: LogFormat,
    /// Takes whole lines, each with its end of line; the number says how many.
    pub sink: Arc<dyn Fn(&[u8], usize) + Send + Sync>,
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").field("format", &self.format).finish_non_exhaustive()
    }
}

/// A finished connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Complete<'a> {
    pub(crate) reporter: Reporter,
    pub(crate) source_address: SocketAddr,
    pub(crate) source: LogParty<'a>,
    pub(crate) destination_address: SocketAddr,
    pub(crate) hbone_address: Option<&'a str>,
    pub(crate) service: Option<&'a str>,
    pub(crate) destination: LogParty<'a>,
    /// From this proxy's application's view (T-16).
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) duration: Duration,
    pub(crate) error: Option<&'a str>,
}

/// One end. Absent values are left out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LogParty<'a> {
    pub(crate) workload: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) identity: Option<&'a str>,
    pub(crate) cluster: &'a str,
}

/// A connection that ended before it was known what it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Denied<'a> {
    pub(crate) reporter: Reporter,
    pub(crate) source_address: SocketAddr,
    pub(crate) destination_address: SocketAddr,
    pub(crate) error: &'a str,
}

/// Collects a turn's lines of one data thread.
pub(crate) struct LogBuffer {
    log: AccessLog,
    text: String,
    lines: usize,
}

impl LogBuffer {
    pub(crate) fn new(log: AccessLog) -> Self {
        Self { log, text: String::new(), lines: 0 }
    }

    /// "connection complete", INFO or ERROR.
    pub(crate) fn complete(&mut self, at: SystemTime, line: &Complete<'_>) {
        let level = if line.error.is_some() { "error" } else { "info" };
        self.write(at, level, "connection complete", |fields| {
            fields.address("src.addr", line.source_address);
            fields.party(["src.workload", "src.namespace", "src.identity", "src.cluster"], line.source);
            fields.address("dst.addr", line.destination_address);
            if let Some(address) = line.hbone_address {
                fields.bare("dst.hbone_addr", address);
            }
            fields.text("dst.service", line.service.unwrap_or_default());
            fields.party(["dst.workload", "dst.namespace", "dst.identity", "dst.cluster"], line.destination);
            fields.text("direction", line.reporter.direction());
            fields.number("bytes_sent", line.bytes_sent);
            fields.number("bytes_recv", line.bytes_received);
            fields.text("duration", &format!("{}ms", line.duration.as_millis()));
            fields.text("error", line.error.unwrap_or_default());
        });
    }

    /// "connection opened", DEBUG: the same fields as far as they are known.
    pub(crate) fn opened(&mut self, at: SystemTime, line: &Complete<'_>) {
        self.write(at, "debug", "connection opened", |fields| {
            fields.address("src.addr", line.source_address);
            fields.party(["src.workload", "src.namespace", "src.identity", "src.cluster"], line.source);
            fields.address("dst.addr", line.destination_address);
            if let Some(address) = line.hbone_address {
                fields.bare("dst.hbone_addr", address);
            }
            fields.text("dst.service", line.service.unwrap_or_default());
            fields.party(["dst.workload", "dst.namespace", "dst.identity", "dst.cluster"], line.destination);
            fields.text("direction", line.reporter.direction());
        });
    }

    /// "connection failed", WARN.
    pub(crate) fn denied(&mut self, at: SystemTime, line: &Denied<'_>) {
        self.write(at, "warn", "connection failed", |fields| {
            fields.address("src.addr", line.source_address);
            fields.address("dst.addr", line.destination_address);
            fields.text("direction", line.reporter.direction());
            fields.text("error", line.error);
        });
    }

    /// Hands the collected lines over.
    pub(crate) fn flush(&mut self) {
        if self.lines > 0 {
            (self.log.sink)(self.text.as_bytes(), self.lines);
            self.text.clear();
            self.lines = 0;
            self.text.shrink_to(KEEP);
        }
    }

    fn write(&mut self, at: SystemTime, level: &str, message: &str, put: impl FnOnce(&mut Fields<'_>)) {
        let out = &mut self.text;
        match self.log.format {
            LogFormat::Plain => {
                timestamp(out, at);
                let _ = write!(out, "\t{level}\taccess\t{message}\t");
                put(&mut Fields { out, json: false, first: true });
            }
            LogFormat::Json => {
                let _ = write!(out, "{{\"level\":\"{level}\",\"time\":\"");
                timestamp(out, at);
                let _ = write!(out, "\",\"scope\":\"access\",\"message\":\"{message}\"");
                put(&mut Fields { out, json: true, first: false });
                out.push('}');
            }
        }
        out.push('\n');
        self.lines += 1;
        if out.len() >= FLUSH_AT {
            self.flush();
        }
    }
}

/// Writes fields in either format; empty texts are absent values.
struct Fields<'a> {
    out: &'a mut String,
    json: bool,
    first: bool,
}

impl Fields<'_> {
    fn key(&mut self, key: &str) {
        if self.json {
            let _ = write!(self.out, ",\"{key}\":");
        } else {
            if !self.first {
                self.out.push(' ');
            }
            let _ = write!(self.out, "{key}=");
        }
        self.first = false;
    }

    fn text(&mut self, key: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        self.key(key);
        self.out.push('"');
        escape(self.out, value);
        self.out.push('"');
    }

    /// Quoted in JSON only.
    fn bare(&mut self, key: &str, value: &str) {
        self.key(key);
        let quote = if self.json { "\"" } else { "" };
        self.out.push_str(quote);
        escape(self.out, value);
        self.out.push_str(quote);
    }

    fn address(&mut self, key: &str, address: SocketAddr) {
        self.key(key);
        let quote = if self.json { "\"" } else { "" };
        let _ = write!(self.out, "{quote}{address}{quote}");
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        let _ = write!(self.out, "{value}");
    }

    fn party(&mut self, keys: [&str; 4], party: LogParty<'_>) {
        self.text(keys[0], party.workload);
        self.text(keys[1], party.namespace);
        self.text(keys[2], party.identity.unwrap_or_default());
        self.text(keys[3], party.cluster);
    }
}

/// Peers choose some of these texts: nothing in them may end a string or a line.
fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other if other.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(other));
            }
            other => out.push(other),
        }
    }
}

/// RFC 3339 with microseconds, UTC.
fn timestamp(out: &mut String, at: SystemTime) {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86400, since.as_secs() % 86400);
    // Days to civil date, after Howard Hinnant's algorithm: years start in March, eras have 400 years.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let micros = since.subsec_micros();
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z");
}

/// A turn that writes more than this hands over in between.
const FLUSH_AT: usize = 64 * 1024;
/// What an idle thread keeps.
const KEEP: usize = 16 * 1024;

#[cfg(test)]
mod tests;
