// SPDX-License-Identifier: Apache-2.0
//! Sets logging up, and changes it at run time.

use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;

use super::filter::{Filter, FilterError};
use super::layer::Lines;
use super::line::{Format, Head, Line};
use super::queue::{QUEUE_BYTES, Queue};

/// How a program logs.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What lines look like (`LOG_FORMAT`).
    pub format: Format,
    /// The filter as given by the user (`RUST_LOG`), e.g. `info,access=off`. It comes behind `info`.
    pub filter: String,
    /// The program's own quiet parts, put before everything else, e.g. `hickory_server::server=off` (T-13).
    pub quiet: &'static str,
    /// The program's crate, taken from the front of scopes in plain lines, e.g. `ztunnel` (T-11).
    pub program: &'static str,
}

/// Sends the process's `tracing` events to standard output, and panics as well. To be called once, first thing in a main.
pub fn init(options: &Options) -> Result<Handle, InitError> {
    let (handle, subscriber) = build(options, io::stdout())?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| InitError::Twice)?;
    let (queue, format) = (Arc::clone(&handle.shared.queue), options.format);
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        log_panic(&queue, format, panic);
        previous(panic);
    }));
    Ok(handle)
}

/// The process may be about to abort: what is in the queue has to get out now, and what it died of with it.
fn log_panic(queue: &Queue, format: Format, panic: &PanicHookInfo<'_>) {
    let mut out = Vec::new();
    let head = Head { format, time: SystemTime::now(), level: Level::ERROR, scope: "panic" };
    let message = panic.payload_as_str().unwrap_or("panic without a message");
    let mut line = Line::begin(&mut out, head, message);
    if let Some(place) = panic.location() {
        line.display("place", place);
    }
    line.text("thread", std::thread::current().name().unwrap_or_default());
    line.end();
    queue.append(&out, 1);
    queue.flush(PANIC_PATIENCE);
}

/// Everything but making it the process's own, so that tests can have several.
pub(super) fn build(
    options: &Options,
    output: impl Write + Send + 'static,
) -> Result<(Handle, impl Subscriber + Send + Sync), InitError> {
    let mut initial: Filter = options.quiet.parse()?;
    initial.append(DEFAULT_FILTER.parse()?);
    initial.append(options.filter.parse()?);
    let queue = Queue::start(QUEUE_BYTES, options.format, output).map_err(InitError::Thread)?;
    let (targets, reload) = reload::Layer::new(initial.targets());
    let own_scope = format!("{}::", options.program);
    let lines = Lines { queue: Arc::clone(&queue), format: options.format, own_scope };
    let subscriber = Registry::default().with(lines.with_filter(targets));
    let filters = Filters { current: initial.clone(), sinks: Vec::new() };
    let handle = Handle {
        shared: Arc::new(Shared { queue, format: options.format, initial, reload, filters: Mutex::new(filters) }),
    };
    Ok((handle, subscriber))
}

/// One that no event reaches, for tests of what is done with it.
#[cfg(test)]
pub(crate) fn detached(options: &Options) -> Result<Handle, InitError> {
    build(options, io::sink()).map(|(handle, _)| handle)
}

/// Logging of this process. Clones are the same.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Arc<Queue>,
    format: Format,
    initial: Filter,
    reload: reload::Handle<Targets, Registry>,
    filters: Mutex<Filters>,
}

struct Filters {
    current: Filter,
    /// The targets of sinks, and where each keeps its level.
    sinks: Vec<(&'static str, Arc<AtomicU8>)>,
}

impl Handle {
    /// The filter in force.
    pub fn filter(&self) -> String {
        self.lock().current.to_string()
    }

    /// Puts further clauses behind the filter in force, after going back to the one of the start if `reset` (M-04). Returns the filter now in force.
    pub fn change_filter(&self, clauses: &str, reset: bool) -> Result<String, FilterError> {
        let added: Filter = clauses.parse()?;
        let mut filters = self.lock();
        if reset {
            filters.current = self.shared.initial.clone();
        }
        filters.current.append(added);
        for (target, level) in &filters.sinks {
            level.store(as_number(filters.current.level_of(target)), Ordering::Relaxed);
        }
        // Fails only when the subscriber is gone, and then nobody logs.
        let _ = self.shared.reload.reload(filters.current.targets());
        Ok(filters.current.to_string())
    }

    /// A way for ready-made lines of `target` into the log, e.g. `access`.
    pub fn sink(&self, target: &'static str) -> Sink {
        let mut filters = self.lock();
        let level = Arc::new(AtomicU8::new(as_number(filters.current.level_of(target))));
        filters.sinks.push((target, Arc::clone(&level)));
        Sink { queue: Arc::clone(&self.shared.queue), format: self.shared.format, target, level }
    }

    /// How many lines have been dropped since the start because standard output was too slow, or is gone.
    pub fn dropped(&self) -> u64 {
        self.shared.queue.dropped()
    }

    /// Waits until what was logged so far is written, at most `patience`; the last thing in a main. Tells whether it is.
    pub fn flush(&self, patience: Duration) -> bool {
        self.shared.queue.flush(patience)
    }

    /// Nothing that can panic runs while this lock is held.
    fn lock(&self) -> MutexGuard<'_, Filters> {
        self.shared.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes ready-made lines of one target. Clones are the same sink; nobody ever waits in it.
#[derive(Clone)]
pub struct Sink {
    queue: Arc<Queue>,
    format: Format,
    target: &'static str,
    level: Arc<AtomicU8>,
}

impl Sink {
    /// Whether lines of this level are wanted; ask before formatting one. Costs one relaxed load.
    pub fn is_enabled(&self, level: Level) -> bool {
        as_number(LevelFilter::from_level(level)) <= self.level.load(Ordering::Relaxed)
    }

    /// What to begin a line of this sink with, see [`Line::begin`](super::Line::begin).
    pub fn head(&self, time: SystemTime, level: Level) -> Head<'static> {
        Head { format: self.format, time, level, scope: self.target }
    }

    /// Hands over whole lines, all ending in a line feed; `count` is how many. Without room they are dropped and counted, all or none.
    pub fn write(&self, lines: &[u8], count: u64) {
        if !lines.is_empty() {
            self.queue.append(lines, count);
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A filter means nothing.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The writing thread could not be started.
    #[error("cannot start the thread that writes the log: check the limit on processes")]
    Thread(#[source] io::Error),
    /// Logging was set up before.
    #[error("logging was set up twice in one process")]
    Twice,
}

const DEFAULT_FILTER: &str = "info";
/// A reader that stands still must not keep a dying process alive.
const PANIC_PATIENCE: Duration = Duration::from_millis(500);

fn as_number(level: LevelFilter) -> u8 {
    match level.into_level() {
        None => 0,
        Some(Level::ERROR) => 1,
        Some(Level::WARN) => 2,
        Some(Level::INFO) => 3,
        Some(Level::DEBUG) => 4,
        Some(Level::TRACE) => 5,
    }
}

#[cfg(test)]
mod tests;
