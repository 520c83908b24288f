// SPDX-License-Identifier: Apache-2.0
//! What the mesh says about its connections: the `istio_tcp_*` series (ztunnel.md §13.1, §13.2) and the access log (§13.3).
//!
//! Data threads count into handles of their own (`Book`); `metrics.rs` reads [`Accounts`] at scrape. The log line of a connection is
//! formatted once, at its end.

mod book;
mod gate;
mod labels;
mod log;
mod reason;
mod record;

pub use book::{Accounts, Book, Series, Totals};
pub use labels::{Flag, Labels, Reporter};
pub use log::{AccessLog, IsEnabled, LogBuffer, WriteLines};
pub use reason::Reason;
pub use record::{Ends, Record};

pub(crate) use gate::{Gate, LeftOut};
pub(crate) use log::Denied;
