// SPDX-License-Identifier: Apache-2.0
//! Counters and gauges of the control side. Clones count into the same series.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Workload discovery.
#[derive(Clone, Debug, Default)]
pub struct Xds {
    terminations: Family<Reason, Counter>,
    messages: Family<Url, Counter>,
    bytes: Family<Url, Counter>,
    rejected: Family<Url, Counter>,
    connected: Gauge,
}

impl Xds {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "istio_xds_connection_terminations",
            "The total number of completed connections to xds server (unstable)",
            self.terminations.clone(),
        );
        registry.register("istio_xds_message", "Total number of messages received (unstable)", self.messages.clone());
        registry.register_with_unit(
            "istio_xds_message",
            "Total number of bytes received (unstable)",
            Unit::Bytes,
            self.bytes.clone(),
        );
        registry.register(
            "mesh_xds_rejected_resources",
            "Resources of the control plane that were refused (unstable)",
            self.rejected.clone(),
        );
        registry.register(
            "mesh_xds_connected",
            "1 while there is a stream to the control plane (unstable)",
            self.connected.clone(),
        );
    }

    /// A connection ended, or could not be made.
    pub fn terminated(&self, reason: &'static str) {
        self.connected.set(0);
        self.terminations.get_or_create(&Reason { reason }).inc();
    }

    /// A stream is open.
    pub fn connected(&self) {
        self.connected.set(1);
    }

    /// A response came, with so many bytes of resources.
    pub fn received(&self, url: &str, bytes: u64) {
        let url = Url { url: url.to_owned() };
        self.messages.get_or_create(&url).inc();
        self.bytes.get_or_create(&url).inc_by(bytes);
    }

    /// So many of its resources were refused.
    pub fn rejected(&self, url: &str, count: u64) {
        self.rejected.get_or_create(&Url { url: url.to_owned() }).inc_by(count);
    }
}

/// The pods this ztunnel carries. The names have no `istio_` in front, as upstream's.
#[derive(Clone, Debug, Default)]
pub struct WorkloadManager {
    active: Gauge,
    pending: Gauge,
    started: Counter,
    stopped: Counter,
}

impl WorkloadManager {
    pub(super) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("workload_manager");
        registry.register(
            "active_proxy_count",
            "The total number current workloads with active proxies (unstable)",
            self.active.clone(),
        );
        registry.register(
            "pending_proxy_count",
            "The total number current workloads with pending proxies (unstable)",
            self.pending.clone(),
        );
        registry.register(
            "proxies_started",
            "The total number of proxies that were started (unstable)",
            self.started.clone(),
        );
        registry.register(
            "proxies_stopped",
            "The total number of proxies that were stopped (unstable)",
            self.stopped.clone(),
        );
    }

    /// So many pods are up, so many are not yet.
    pub fn standing(&self, active: usize, pending: usize) {
        self.active.set(i64::try_from(active).unwrap_or(i64::MAX));
        self.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
    }

    /// A pod's listeners are bound.
    pub fn started(&self) {
        self.started.inc();
    }

    /// A pod is carried no longer.
    pub fn stopped(&self) {
        self.stopped.inc();
    }
}

/// The session with the node agent.
#[derive(Clone, Debug, Default)]
pub struct Zds {
    connected: Gauge,
    connections: Counter,
    refusals: Counter,
}

impl Zds {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "mesh_zds_connected",
            "1 while there is a connection to the node agent (unstable)",
            self.connected.clone(),
        );
        registry.register(
            "mesh_zds_connections",
            "Connections made to the node agent (unstable)",
            self.connections.clone(),
        );
        registry.register(
            "mesh_zds_refusals",
            "Requests of the node agent that were answered with an error (unstable)",
            self.refusals.clone(),
        );
    }

    /// Connected.
    pub fn connected(&self) {
        self.connected.set(1);
        self.connections.inc();
    }

    /// Not connected any more.
    pub fn disconnected(&self) {
        self.connected.set(0);
    }

    /// A request was refused.
    pub fn refused(&self) {
        self.refusals.inc();
    }
}

/// Workload certificates.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    issued: Counter,
    failed: Counter,
    earliest_end: Gauge<f64, AtomicU64>,
}

impl Certificates {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("mesh_certificates_issued", "Certificates received (unstable)", self.issued.clone());
        registry.register(
            "mesh_certificate_failures",
            "Calls for a certificate that gave none (unstable)",
            self.failed.clone(),
        );
        registry.register(
            "mesh_certificate_earliest_expiry_timestamp_seconds",
            "When the first of the certificates in force ends, as Unix time; 0 without any (unstable)",
            self.earliest_end.clone(),
        );
    }

    /// One came.
    pub fn issued(&self) {
        self.issued.inc();
    }

    /// None came.
    pub fn failed(&self) {
        self.failed.inc();
    }

    /// The first end of all in force, in Unix time.
    pub fn earliest_end(&self, unix: f64) {
        self.earliest_end.set(unix);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Url {
    url: String,
}
