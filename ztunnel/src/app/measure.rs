// SPDX-License-Identifier: Apache-2.0
//! Puts the data threads' accounts on the metrics page, and their lines into the log.

use std::sync::Arc;

use mesh_common::telemetry;

use crate::engine::Gauges;
use crate::engine::account::{AccessLog, Accounts, Labels, Reason, Reporter};
use crate::metrics::{LabelPairs, Reading, Traffic, TrafficReading};

/// Lines of the access log go where all lines go, as far as the filter lets `access` through.
pub(super) fn access_log(telemetry: &telemetry::Handle) -> AccessLog {
    telemetry.sink(AccessLog::TARGET).into()
}

/// The accounts as the page shows them.
pub(super) fn traffic(accounts: Arc<Accounts>, gauges: Gauges, telemetry: telemetry::Handle) -> Traffic {
    let refused = |accounts: &Accounts, reporter: Reporter| {
        let named = |(reason, count): (Reason, u64)| (reporter.as_str(), reason.as_str(), count);
        accounts.refusals(reporter).map(named).collect::<Vec<_>>()
    };
    Traffic::new(move || TrafficReading {
        refused: [Reporter::Source, Reporter::Destination].map(|reporter| refused(&accounts, reporter)).concat(),
        left_out_log_lines: accounts.lines_left_out(),
        resources: gauges.all().map(|usage| (usage.what, usage.used, usage.most)).to_vec(),
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
