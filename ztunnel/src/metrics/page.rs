// SPDX-License-Identifier: Apache-2.0
//! The registry and its text.

use std::fmt;
use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::series::{Certificates, WorkloadManager, Xds, Zds};
use super::traffic::Traffic;

/// The control side's counters, all of them.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Workload discovery.
    pub xds: Xds,
    /// The session with the node agent.
    pub zds: Zds,
    /// The pods carried.
    pub workload_manager: WorkloadManager,
    /// Workload certificates.
    pub certificates: Certificates,
}

/// Everything that is shown at `/metrics`.
#[derive(Debug)]
pub struct Page {
    registry: Registry,
}

impl Page {
    /// A page that shows these counters, the traffic, and `tag` as the version that is running.
    pub fn new(counters: &Counters, traffic: Traffic, tag: &str) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { component: "ztunnel", tag: tag.to_owned() }).set(1);
        registry.register("istio_build", "Istio component build info", build);
        counters.xds.register(&mut registry);
        registry.register_collector(Box::new(traffic));
        counters.workload_manager.register(&mut registry);
        counters.zds.register(&mut registry);
        counters.certificates.register(&mut registry);
        Self { registry }
    }

    /// The page as it is now.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// What Prometheus' own client libraries show of every process.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // The directory's own descriptor is one of them, and gone again by the time anybody reads this.
        let open = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1));
        let open = i64::try_from(open).unwrap_or(i64::MAX);
        encoder
            .encode_descriptor("process_open_fds", "Number of open file descriptors", None, MetricType::Gauge)?
            .encode_gauge(&open)?;
        let max = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| i64::try_from(soft).unwrap_or(i64::MAX));
        encoder
            .encode_descriptor("process_max_fds", "Maximum number of file descriptors", None, MetricType::Gauge)?
            .encode_gauge(&max)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    component: &'static str,
    tag: String,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::traffic::{LabelPairs, Reading, TrafficReading};
    use super::*;

    #[derive(Debug)]
    struct Pairs;

    impl LabelPairs for Pairs {
        fn pairs(&self) -> Vec<(&'static str, &str)> {
            vec![("reporter", "source"), ("source_workload", "a\"b")]
        }
    }

    #[test]
    fn the_page_has_the_names_dashboards_know() {
        let counters = Counters::default();
        counters.xds.received("type.googleapis.com/istio.workload.Address", 396);
        counters.xds.terminated("Reconnect");
        counters.workload_manager.standing(2, 1);
        let traffic = Traffic::new(|| TrafficReading {
            series: vec![Reading { labels: Arc::new(Pairs), opened: 3, closed: 2, failed: 0, received: 10, sent: 20 }],
            sockets_open: vec![("source", 1)],
            lost_log_lines: 0,
            refused: vec![("destination", "handshakes", 7), ("source", "route", 0)],
            left_out_log_lines: 4,
            resources: vec![("sockets", 3, 1000)],
        });
        let text = Page::new(&counters, traffic, "1.2.3").text().unwrap();
        for line in [
            r#"istio_build{component="ztunnel",tag="1.2.3"} 1"#,
            r#"istio_xds_message_total{url="type.googleapis.com/istio.workload.Address"} 1"#,
            r#"istio_xds_message_bytes_total{url="type.googleapis.com/istio.workload.Address"} 396"#,
            r#"istio_xds_connection_terminations_total{reason="Reconnect"} 1"#,
            r#"istio_tcp_connections_opened_total{reporter="source",source_workload="a\"b"} 3"#,
            r#"istio_tcp_connections_closed_total{reporter="source",source_workload="a\"b"} 2"#,
            r#"istio_tcp_received_bytes_total{reporter="source",source_workload="a\"b"} 10"#,
            r#"istio_tcp_sent_bytes_total{reporter="source",source_workload="a\"b"} 20"#,
            r#"istio_tcp_sockets_open{reporter="source"} 1"#,
            r#"mesh_refused_connections_total{reporter="destination",reason="handshakes"} 7"#,
            r#"mesh_resource_used{resource="sockets"} 3"#,
            r#"mesh_resource_limit{resource="sockets"} 1000"#,
            "mesh_log_left_out_lines_total 4",
            "workload_manager_active_proxy_count 2",
            "workload_manager_pending_proxy_count 1",
            "workload_manager_proxies_started_total 0",
            "# TYPE process_open_fds gauge",
            "# EOF",
        ] {
            assert!(text.lines().any(|each| each == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("istio_tcp_connections_failed"), "empty families are not printed");
        assert!(!text.contains(r#"reason="route""#), "nor are reasons that were none");
    }

    #[test]
    fn recorded_families_have_the_same_help_and_type() {
        let text = Page::new(&Counters::default(), Traffic::new(TrafficReading::default), "x").text().unwrap();
        let recorded = include_str!("../../tests/wire/metrics-ztunnel.txt");
        for line in recorded.lines().filter(|line| line.starts_with("# ") && !line.contains("tokio_")) {
            let name = line.split(' ').nth(2).unwrap_or_default();
            if text.contains(&format!("# TYPE {name} ")) {
                assert!(text.lines().any(|each| each == line), "{line} is not in\n{text}");
            }
        }
    }
}
