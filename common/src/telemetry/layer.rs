// SPDX-License-Identifier: Apache-2.0
//! Turns `tracing` events and the spans around them into lines in the queue.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::line::{Format, Head, Line, Members};
use super::queue::Queue;

/// The layer between `tracing` and the queue.
pub(super) struct Lines {
    pub(super) queue: Arc<Queue>,
    pub(super) format: Format,
    /// Taken from the front of scopes in plain lines, e.g. `ztunnel::` (T-11).
    pub(super) own_scope: String,
}

/// The fields of a span, as they will stand in lines.
struct SpanFields(Vec<u8>);

impl<S> Layer<S> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Vec::new();
        Members { out: &mut fields, format: self.format }.write(|line| attributes.record(&mut FieldWriter { line }));
        span.extensions_mut().insert(SpanFields(fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(SpanFields(fields)) = span.extensions_mut().get_mut() {
            Members { out: fields, format: self.format }.write(|line| values.record(&mut FieldWriter { line }));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        BUFFER.with(|buffer| match buffer.try_borrow_mut() {
            Ok(mut buffer) => {
                self.write(event, &context, &mut buffer);
                self.queue.append(&buffer, 1);
                buffer.clear();
                buffer.shrink_to(KEPT_BYTES);
            }
            // A value that logs while it is being printed.
            Err(_) => {
                let mut buffer = Vec::new();
                self.write(event, &context, &mut buffer);
                self.queue.append(&buffer, 1);
            }
        });
    }
}

impl Lines {
    fn write<S>(&self, event: &Event<'_>, context: &Context<'_, S>, out: &mut Vec<u8>)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let metadata = event.metadata();
        let mut message = MessageReader(String::new());
        event.record(&mut message);
        let (scope, spans) = match self.format {
            Format::Plain => {
                let target = metadata.target();
                (target.strip_prefix(self.own_scope.as_str()).unwrap_or(target), plain_spans(event, context))
            }
            Format::Json => (metadata.target(), String::new()),
        };
        let head = Head { format: self.format, time: SystemTime::now(), level: *metadata.level(), scope };
        let mut line = Line::begin_with_spans(out, head, &spans, message.0);
        event.record(&mut FieldWriter { line: &mut line });
        if self.format == Format::Json {
            for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
                if let Some(SpanFields(fields)) = span.extensions().get() {
                    line.json_object(span.name(), fields);
                }
            }
        }
        line.end();
    }
}

/// `:outer{key=value}:inner` for the spans around an event.
fn plain_spans<S>(event: &Event<'_>, context: &Context<'_, S>) -> String
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let mut text = String::new();
    for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
        text.push(':');
        text.push_str(span.name());
        if let Some(SpanFields(fields)) = span.extensions().get()
            && !fields.is_empty()
        {
            // The fields were written from `str`s, cut nowhere.
            let _ = write!(text, "{{{}}}", String::from_utf8_lossy(fields));
        }
    }
    text
}

/// Writes every field but the message.
struct FieldWriter<'a, 'b> {
    line: &'a mut Line<'b>,
}

impl Visit for FieldWriter<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(name) = field_name(field) {
            self.line.text(name, value);
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if let Some(name) = field_name(field) {
            self.line.bare(name, value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if let Some(name) = field_name(field) {
            self.line.number(name, value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if let Some(name) = field_name(field) {
            self.line.bare(name, value);
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match field_name(field) {
            // JSON knows neither NaN nor infinity.
            Some(name) if !value.is_finite() => self.line.display(name, &value),
            Some(name) => self.line.bare(name, value),
            None => {}
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        if let Some(name) = field_name(field) {
            self.line.display(name, &Causes(value));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if let Some(name) = field_name(field) {
            self.line.display(name, &format_args!("{value:?}"));
        }
    }
}

/// An error with all that caused it, so that callers need not spell that out.
struct Causes<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Reads the message alone.
struct MessageReader(String);

impl Visit for MessageReader {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            self.0.push_str(value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

/// The name a field has in a line, if it stands among the fields.
fn field_name(field: &Field) -> Option<&'static str> {
    let name = field.name();
    (name != MESSAGE).then(|| name.strip_prefix("r#").unwrap_or(name))
}

const MESSAGE: &str = "message";
/// One long line must not keep its buffer for ever.
const KEPT_BYTES: usize = 4 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}
