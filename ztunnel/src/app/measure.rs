// SPDX-License-Identifier: Apache-2.0
//! Puts the data threads' accounts on the metrics page, and their lines into the log.

use std::sync::Arc;

use mesh_common::telemetry;

use crate::engine::account::{AccessLog, Accounts, Labels, Reporter};
use crate::metrics::{LabelPairs, Reading, Traffic, TrafficReading};

/// Lines of the access log go where all lines go, as far as the filter lets `access` through.
pub(super) fn access_log(telemetry: &telemetry::Handle) -> AccessLog {
    telemetry.sink(AccessLog::TARGET).into()
}

/// The accounts as the page shows them.
pub(super) fn traffic(accounts: Arc<Accounts>, telemetry: telemetry::Handle) -> Traffic {
    Traffic::new(move || TrafficReading {
        series: accounts.series().into_iter().map(reading).collect(),
        sockets_open: [Reporter::Source, Reporter::Destination]
            .map(|reporter| (reporter.as_str(), accounts.sockets_open(reporter)))
            .to_vec(),
        lost_log_lines: telemetry.dropped(),
    })
}

fn reading(series: crate::engine::account::Series) -> Reading {
    let totals = series.totals;
    Reading {
        labels: Arc::new(Shown(series.labels)),
        opened: totals.opened,
        closed: totals.closed,
        failed: totals.failed,
        received: totals.received,
        sent: totals.sent,
    }
}

#[derive(Debug)]
struct Shown(Arc<Labels>);

impl LabelPairs for Shown {
    fn pairs(&self) -> Vec<(&'static str, &str)> {
        self.0.pairs()
    }
}
