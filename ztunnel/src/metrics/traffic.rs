// SPDX-License-Identifier: Apache-2.0
//! The data threads' accounts on the page. This room lies below the engine, so it is given a function that reads them.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// The labels of a series, in output order.
pub trait LabelPairs: fmt::Debug + Send + Sync {
    /// Name and value of each.
    fn pairs(&self) -> Vec<(&'static str, &str)>;
}

/// One series.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Its labels.
    pub labels: Arc<dyn LabelPairs>,
    /// Connections opened.
    pub opened: u64,
    /// Connections closed.
    pub closed: u64,
    /// Connections closed with a failure.
    pub failed: u64,
    /// Bytes from client to server.
    pub received: u64,
    /// Bytes from server to client.
    pub sent: u64,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct TrafficReading {
    /// Every series.
    pub series: Vec<Reading>,
    /// Open sockets by reporter.
    pub sockets_open: Vec<(&'static str, i64)>,
    /// Log lines that were dropped.
    pub lost_log_lines: u64,
    /// Connections that came to nothing before it was known what they were, by reporter and reason.
    pub refused: Vec<(&'static str, &'static str, u64)>,
    /// Log lines about them that were left out.
    pub left_out_log_lines: u64,
    /// What runs out: its name, how much is in use, how much there is.
    pub resources: Vec<(&'static str, usize, usize)>,
}

/// Reads the accounts at every scrape.
pub struct Traffic {
    read: Box<dyn Fn() -> TrafficReading + Send + Sync>,
}

impl Traffic {
    /// A collector that reads by `read`.
    pub fn new(read: impl Fn() -> TrafficReading + Send + Sync + 'static) -> Self {
        Self { read: Box::new(read) }
    }
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traffic").finish_non_exhaustive()
    }
}

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let TrafficReading { series, sockets_open, lost_log_lines, refused, left_out_log_lines, resources } =
            (self.read)();
        for (name, help, value) in COUNTERS {
            let mut shown = series.iter().filter(|reading| value(reading) > 0).peekable();
            if shown.peek().is_none() {
                continue;
            }
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for reading in shown {
                let pairs = reading.labels.pairs();
                ConstCounter::new(value(reading)).encode(family.encode_family(&pairs)?)?;
            }
        }
        if !sockets_open.is_empty() {
            let help = "The current number of open TCP sockets (unstable)";
            let mut family = encoder.encode_descriptor("istio_tcp_sockets_open", help, None, MetricType::Gauge)?;
            for (reporter, count) in &sockets_open {
                family.encode_family(&[("reporter", *reporter)])?.encode_gauge(count)?;
            }
        }
        if refused.iter().any(|(_, _, count)| *count > 0) {
            let help = "Connections that failed before it was known what they were, by reason (unstable)";
            let name = "mesh_refused_connections";
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (reporter, reason, count) in refused.iter().filter(|(_, _, count)| *count > 0) {
                let labels = [("reporter", *reporter), ("reason", *reason)];
                ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, value) in RESOURCES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for resource in &resources {
                let value = i64::try_from(value(resource)).unwrap_or(i64::MAX);
                family.encode_family(&[("resource", resource.0)])?.encode_gauge(&value)?;
            }
        }
        let help = "Log lines about failed connections that were left out because there were too many (unstable)";
        let family = encoder.encode_descriptor("mesh_log_left_out_lines", help, None, MetricType::Counter)?;
        ConstCounter::new(left_out_log_lines).encode(family)?;
        let help = "Log lines that were dropped because nobody read them (unstable)";
        let family = encoder.encode_descriptor("mesh_log_lost_lines", help, None, MetricType::Counter)?;
        ConstCounter::new(lost_log_lines).encode(family)
    }
}

type Amount = fn(&(&'static str, usize, usize)) -> usize;

const RESOURCES: [(&str, &str, Amount); 2] = [
    ("mesh_resource_used", "What connections use of things that run out (unstable)", |(_, used, _)| *used),
    ("mesh_resource_limit", "How much of them there is for all pods together (unstable)", |(_, _, most)| *most),
];

type Value = fn(&Reading) -> u64;

const COUNTERS: [(&str, &str, Value); 5] = [
    ("istio_tcp_connections_opened", "The total number of TCP connections opened", |reading| reading.opened),
    ("istio_tcp_connections_closed", "The total number of TCP connections closed", |reading| reading.closed),
    (
        "istio_tcp_received_bytes",
        "The size of total bytes received during request in case of a TCP connection",
        |reading| reading.received,
    ),
    ("istio_tcp_sent_bytes", "The size of total bytes sent during response in case of a TCP connection", |reading| {
        reading.sent
    }),
    (
        "istio_tcp_connections_failed",
        "The total number of TCP connections that failed to establish or ended with an error (unstable)",
        |reading| reading.failed,
    ),
];
