// SPDX-License-Identifier: Apache-2.0
//! How a line looks, in both formats. Pure: text is appended to a buffer, the time is an argument.

use std::fmt::{self, Display, Write as _};
use std::io::Write as _;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::Level;

/// What lines look like (`LOG_FORMAT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Columns with tabs between them, for people.
    #[default]
    Plain,
    /// One JSON object each, for programs.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "plain" | "" => Ok(Self::Plain),
            "json" => Ok(Self::Json),
            other => Err(format!("log format {other:?} is neither \"plain\" nor \"json\"")),
        }
    }
}

/// What every line begins with.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// How it looks.
    pub format: Format,
    /// When it happened.
    pub time: SystemTime,
    /// How grave it is.
    pub level: Level,
    /// Who says it.
    pub scope: &'a str,
}

/// A line under construction at the end of a buffer: begin, fields in order, [`end`](Self::end).
///
/// ```
/// use std::time::UNIX_EPOCH;
/// use mesh_common::telemetry::{Format, Head, Line};
/// use tracing::Level;
///
/// let mut out = Vec::new();
/// let head = Head { format: Format::Plain, time: UNIX_EPOCH, level: Level::INFO, scope: "access" };
/// let mut line = Line::begin(&mut out, head, "connection complete");
/// line.display("src.addr", &"10.0.0.1:5000");
/// line.text("src.workload", "client");
/// line.number("bytes_sent", 5);
/// line.end();
/// assert_eq!(out, b"1970-01-01T00:00:00.000000Z\tinfo\taccess\tconnection complete\tsrc.addr=10.0.0.1:5000 src.workload=\"client\" bytes_sent=5\n");
/// ```
#[must_use = "a line has to be ended"]
pub struct Line<'a> {
    out: &'a mut Vec<u8>,
    format: Format,
    first: bool,
}

impl<'a> Line<'a> {
    /// Begins a line.
    pub fn begin(out: &'a mut Vec<u8>, head: Head<'_>, message: impl Display) -> Self {
        Self::begin_with_spans(out, head, "", message)
    }

    /// Begins a line with the plain text of the spans it is in, which JSON puts at its end instead.
    pub(super) fn begin_with_spans(out: &'a mut Vec<u8>, head: Head<'_>, spans: &str, message: impl Display) -> Self {
        let Head { format, time, level, scope } = head;
        let level = level_name(level);
        match format {
            Format::Plain => {
                write_time(out, time);
                append(out, format_args!("\t{level}\t{scope}{spans}\t"));
                Escaped::one_line(out).display(&message);
            }
            Format::Json => {
                append(out, format_args!("{{\"level\":\"{level}\",\"time\":\""));
                write_time(out, time);
                out.extend_from_slice(b"\",\"scope\":");
                write_json_text(out, scope);
                out.extend_from_slice(b",\"message\":");
                write_json_display(out, &message);
            }
        }
        Self { out, format, first: true }
    }

    /// Appends a text: quoted in both formats.
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        let (value, lost) = value.split_at(value.floor_char_boundary(LONGEST_VALUE));
        match self.format {
            Format::Plain if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') => {
                self.out.push(b'"');
                self.out.extend_from_slice(value.as_bytes());
                self.out.push(b'"');
            }
            Format::Plain => append(self.out, format_args!("{value:?}")),
            Format::Json => write_json_text(self.out, value),
        }
        if !lost.is_empty() {
            let quote = self.out.pop();
            write_lost(self.out, lost.len());
            self.out.extend(quote);
        }
    }

    /// Appends what prints without need of quotes, such as an address: bare in plain lines, a string in JSON.
    pub fn display(&mut self, key: &str, value: &(impl Display + ?Sized)) {
        self.key(key);
        match self.format {
            Format::Plain => {
                Escaped::one_line(self.out).display(value);
            }
            Format::Json => write_json_display(self.out, value),
        }
    }

    /// Appends a number.
    pub fn number(&mut self, key: &str, value: u64) {
        self.bare(key, value);
    }

    /// Appends what JSON knows without quotes: numbers and booleans.
    pub(super) fn bare(&mut self, key: &str, value: impl Display) {
        self.key(key);
        append(self.out, format_args!("{value}"));
    }

    /// Appends the fields of a span, which are already JSON.
    pub(super) fn json_object(&mut self, key: &str, members: &[u8]) {
        self.key(key);
        self.out.push(b'{');
        self.out.extend_from_slice(members);
        self.out.push(b'}');
    }

    /// Ends the line.
    pub fn end(self) {
        self.out.extend_from_slice(if self.format == Format::Json { b"}\n" } else { b"\n" });
    }

    fn key(&mut self, key: &str) {
        match self.format {
            Format::Plain => {
                self.out.push(if self.first { b'\t' } else { b' ' });
                append(self.out, format_args!("{key}="));
            }
            Format::Json => {
                self.out.push(b',');
                write_json_text(self.out, key);
                self.out.push(b':');
            }
        }
        self.first = false;
    }
}

/// Fields without a line around them: those of a span.
pub(super) struct Members<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) format: Format,
}

impl Members<'_> {
    /// A line that has begun and only takes fields; what stands before the first one is taken away again.
    pub(super) fn write(self, fields: impl FnOnce(&mut Line<'_>)) {
        let start = self.out.len();
        let mut line = Line { out: &mut *self.out, format: self.format, first: start == 0 };
        fields(&mut line);
        if start == 0 && !self.out.is_empty() {
            self.out.remove(0);
        }
    }
}

/// `2026-11-21T05:14:48.510435Z`. Before 1970 there is no log, after 9999 the year has more digits.
fn write_time(out: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days since 1 March of year 0, in the Gregorian calendar's cycles of 400 years: leap days come last in such a year, so no table is needed.
    let day = days + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    append(
        out,
        format_args!(
            "{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z",
            since.subsec_micros()
        ),
    );
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// Writing to a vector cannot fail; a `Display` that reports an error loses its own text only.
fn append(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

fn write_json_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_escaped(out, text, is_special_in_json);
    out.push(b'"');
}

fn write_json_display(out: &mut Vec<u8>, value: &(impl Display + ?Sized)) {
    out.push(b'"');
    Escaped { out: &mut *out, is_special: is_special_in_json, left: LONGEST_VALUE, lost: 0 }.display(value);
    out.push(b'"');
}

/// The inside of a JSON string (RFC 8259 §7).
const fn is_special_in_json(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | 0..0x20)
}

fn write_lost(out: &mut Vec<u8>, bytes: usize) {
    append(out, format_args!("... and {bytes} bytes more"));
}

/// Keeps what prints itself from breaking the line it stands in, and from going on for ever: peers choose part of it.
struct Escaped<'a> {
    out: &'a mut Vec<u8>,
    is_special: fn(u8) -> bool,
    left: usize,
    lost: usize,
}

impl<'a> Escaped<'a> {
    /// Without line breaks, which would forge a line, and without what a terminal obeys.
    const fn one_line(out: &'a mut Vec<u8>) -> Self {
        const fn is_special(byte: u8) -> bool {
            byte.is_ascii_control()
        }
        Self { out, is_special, left: LONGEST_VALUE, lost: 0 }
    }

    fn display(mut self, value: &(impl Display + ?Sized)) {
        let _ = write!(self, "{value}");
        if self.lost > 0 {
            write_lost(self.out, self.lost);
        }
    }
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let (kept, lost) = text.split_at(text.floor_char_boundary(self.left));
        write_escaped(self.out, kept, self.is_special);
        self.lost += lost.len();
        // Nothing follows what was cut.
        self.left = if lost.is_empty() { self.left - kept.len() } else { 0 };
        Ok(())
    }
}

/// Copies the stretches between bytes that are not to stand as they are; most texts are one such stretch.
fn write_escaped(out: &mut Vec<u8>, text: &str, is_special: impl Fn(u8) -> bool) {
    let mut rest = text.as_bytes();
    while let Some(place) = rest.iter().position(|byte| is_special(*byte)) {
        out.extend_from_slice(&rest[..place]);
        match rest[place] {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => append(out, format_args!("\\u{byte:04x}")),
        }
        rest = &rest[place + 1..];
    }
    out.extend_from_slice(rest);
}

/// The longest text or printed value of a line, in bytes; what is longer is cut, and says so. What peers send ends up in
/// lines, and some of them may send megabytes.
const LONGEST_VALUE: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn time_text(seconds: u64, micros: u32) -> String {
        let mut out = Vec::new();
        write_time(&mut out, UNIX_EPOCH + Duration::new(seconds, micros * 1000 + 999));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_utc_with_microseconds() {
        // Cross-checked with `date -u -d @...`.
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000007Z"),
            (68_169_599, "1972-02-28T23:59:59.000007Z"),
            (68_169_600, "1972-02-29T00:00:00.000007Z"),
            (951_868_800, "2000-03-01T00:00:00.000007Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000007Z"),
            (1_795_238_088, "2026-11-21T05:14:48.000007Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000007Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000007Z"),
        ] {
            assert_eq!(time_text(seconds, 7), expected);
        }
    }

    fn sample(format: Format) -> String {
        let mut out = Vec::new();
        let time = UNIX_EPOCH + Duration::from_micros(1_795_238_089_790_380);
        let mut line =
            Line::begin(&mut out, Head { format, time, level: Level::INFO, scope: "access" }, "connection complete");
        line.display("src.addr", &"10.77.1.2:50694");
        line.text("src.workload", "client");
        line.number("bytes_sent", 5);
        line.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_plain_line_has_columns() {
        assert_eq!(
            sample(Format::Plain),
            "2026-11-21T05:14:49.790380Z\tinfo\taccess\tconnection complete\tsrc.addr=10.77.1.2:50694 src.workload=\"client\" bytes_sent=5\n"
        );
    }

    #[test]
    fn a_json_line_is_what_istio_writes() {
        // The beginning of a recorded access log line.
        assert_eq!(
            sample(Format::Json),
            r#"{"level":"info","time":"2026-11-21T05:14:49.790380Z","scope":"access","message":"connection complete","src.addr":"10.77.1.2:50694","src.workload":"client","bytes_sent":5}"#.to_owned() + "\n"
        );
    }

    #[test]
    fn nothing_printed_can_forge_a_line_or_a_member() {
        for format in [Format::Plain, Format::Json] {
            let mut out = Vec::new();
            let mut line = Line::begin(
                &mut out,
                Head { format, time: UNIX_EPOCH, level: Level::WARN, scope: "x" },
                "a\n\"b\r\u{1}",
            );
            line.text("text", "c\n\",\"d\":\"\\");
            line.display("shown", "e\nf\tg");
            line.end();
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            if format == Format::Json {
                assert_eq!(
                    text,
                    r#"{"level":"warn","time":"1970-01-01T00:00:00.000000Z","scope":"x","message":"a\n\"b\r\u0001","text":"c\n\",\"d\":\"\\","shown":"e\nf\tg"}"#.to_owned() + "\n"
                );
            }
        }
    }

    #[test]
    fn a_value_of_many_megabytes_is_cut_and_says_so() {
        let long = "é".repeat(1 << 20);
        for format in [Format::Plain, Format::Json] {
            let mut out = Vec::new();
            let head = Head { format, time: UNIX_EPOCH, level: Level::WARN, scope: "x" };
            let mut line = Line::begin(&mut out, head, format_args!("{long}{long}"));
            line.text("text", &long);
            line.display("shown", &format_args!("x{long}y"));
            line.text("quoted", &"\"".repeat(10_000));
            line.end();
            assert!(out.len() < 8 * LONGEST_VALUE, "{}", out.len());
            let text = String::from_utf8(out).unwrap();
            let end = format!("é... and {} bytes more", (2 << 20) - LONGEST_VALUE);
            assert!(text.contains(&format!("{end}\"")), "{}", &text[text.len() - 300..]);
            assert_eq!(text.matches("bytes more").count(), 4);
            assert!(text.contains(&format!("... and {} bytes more", (4 << 20) - LONGEST_VALUE)));
            if format == Format::Json {
                let object: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert!(object["text"].as_str().unwrap().ends_with(&end));
                // One byte fewer fits before the cut: characters are kept whole.
                assert!(object["shown"].as_str().unwrap().ends_with(" bytes more"));
            }
        }
    }

    #[test]
    fn a_printed_value_cannot_speak_to_the_terminal() {
        let mut out = Vec::new();
        let head = Head { format: Format::Plain, time: UNIX_EPOCH, level: Level::WARN, scope: "x" };
        let mut line = Line::begin(&mut out, head, "a\u{1b}[2Jb");
        line.display("shown", "c\u{7f}\u{0}d");
        line.end();
        assert!(!out[..out.len() - 1].iter().any(|byte| byte.is_ascii_control() && *byte != b'\t'), "{out:?}");
    }

    #[test]
    fn a_text_in_a_plain_line_is_quoted_so_that_its_end_is_seen() {
        let mut out = Vec::new();
        let head = Head { format: Format::Plain, time: UNIX_EPOCH, level: Level::INFO, scope: "x" };
        let mut line = Line::begin(&mut out, head, "");
        for text in ["a b", "say \"x\"", "back\\slash", "tab\t", "é", "\u{202e}"] {
            line.text("k", text);
        }
        line.end();
        let text = String::from_utf8(out).unwrap();
        let fields = text.split_once("x\t\t").unwrap().1;
        assert_eq!(fields, "k=\"a b\" k=\"say \\\"x\\\"\" k=\"back\\\\slash\" k=\"tab\\t\" k=\"é\" k=\"\\u{202e}\"\n");
    }

    #[test]
    fn formats_have_names() {
        assert_eq!("json".parse(), Ok(Format::Json));
        assert_eq!("plain".parse(), Ok(Format::Plain));
        assert_eq!("".parse(), Ok(Format::Plain));
        assert!("JSON5".parse::<Format>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_comes_back_out_of_json_and_keeps_to_one_plain_line(scope in any::<String>(), message in any::<String>(), value in any::<String>()) {
            let head = |format| Head { format, time: UNIX_EPOCH, level: Level::INFO, scope: &scope };
            let mut out = Vec::new();
            let mut line = Line::begin(&mut out, head(Format::Json), &message);
            line.text("text", &value);
            line.display("shown", &value);
            line.number("number", u64::MAX);
            line.end();
            let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(object["scope"].as_str(), Some(scope.as_str()));
            prop_assert_eq!(object["message"].as_str(), Some(message.as_str()));
            prop_assert_eq!(object["text"].as_str(), Some(value.as_str()));
            prop_assert_eq!(object["shown"].as_str(), Some(value.as_str()));
            prop_assert_eq!(object["number"].as_u64(), Some(u64::MAX));

            let mut out = Vec::new();
            let plain = Head { scope: "scope", ..head(Format::Plain) };
            let mut line = Line::begin(&mut out, plain, &message);
            line.text("text", &value);
            line.display("shown", &value);
            line.end();
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(text.matches(['\n', '\r']).count(), 1);
            prop_assert!(text.ends_with('\n'));
        }
    }
}
