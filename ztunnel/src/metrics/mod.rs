// SPDX-License-Identifier: Apache-2.0
//! What the program counts, and the page that shows it (ztunnel.md §13.1; names as Istio's dashboards know them).
//!
//! `series` holds the counters of the control side, `traffic` the shape in which the data threads' accounts are shown,
//! `page` the registry and its text.

mod page;
mod series;
mod traffic;

pub use page::{Counters, Page};
pub use series::{Certificates, WorkloadManager, Xds, Zds};
pub use traffic::{LabelPairs, Reading, Traffic, TrafficReading};
