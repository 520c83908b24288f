// SPDX-License-Identifier: Apache-2.0
//! Logs: one line for each `tracing` event, plain or JSON, on standard output, without ever making anybody wait.
//!
//! A main calls [`init`] once and keeps the [`Handle`]: with it the filter is changed at run time, a [`Sink`] is made for lines that come ready-made and in
//! batches (the access log of data threads, which cannot afford an event for each connection), and the queue is flushed at the end. Ready-made lines are
//! written with [`Line`], which the events go through as well, so both look the same.
//!
//! **Formats** (ztunnel.md §13.3 T-11, T-12). Plain: `<time>\t<level>\t<scope>[:span{fields}...]\t<message>\tkey=value key=value`. JSON: one object with
//! `level`, `time`, `scope`, `message`, the event's fields, then each span as `"<name>":{fields}`.
//!
//! **Where it differs from Istio's, on purpose**: a reader of standard output that stands still costs log lines, which are counted and reported, and never
//! stops traffic (T-10 blocks).

mod filter;
mod handle;
mod layer;
mod line;
mod queue;
mod seldom;

pub use filter::FilterError;
#[cfg(test)]
pub(crate) use handle::detached;
pub use handle::{Handle, InitError, Options, Sink, init};
pub use line::{Format, Head, Line};
pub use seldom::Seldom;
