// SPDX-License-Identifier: Apache-2.0
//! What the discovery server counts, under the names Istio's dashboards know.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A type of resources, in short.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TypeLabel {
    r#type: String,
}

impl TypeLabel {
    /// The last part of a type URL this server knows; all others count as one, as they are the clients' to invent.
    pub(super) fn of(type_url: &str, known: bool) -> Self {
        let kind = if known { type_url.rsplit('.').next().unwrap_or(type_url) } else { "unknown" };
        Self { r#type: kind.to_owned() }
    }
}

/// The server's counters. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct XdsMetrics {
    pub(super) connected: Gauge,
    pub(super) pushes: Family<TypeLabel, Counter>,
    pub(super) resources: Family<TypeLabel, Counter>,
    pub(super) bytes: Family<TypeLabel, Counter>,
    pub(super) acks: Family<TypeLabel, Counter>,
    pub(super) rejects: Family<TypeLabel, Counter>,
    pub(super) stale: Counter,
    pub(super) refused: Counter,
}

impl XdsMetrics {
    /// Counters registered under Istio's names (`pilot_*`) where it has some.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("pilot_xds", "Discovery streams open", metrics.connected.clone());
        registry.register("pilot_xds_pushes", "Responses sent", metrics.pushes.clone());
        registry.register("lateen_xds_resources", "Resources sent", metrics.resources.clone());
        registry.register("lateen_xds_resource_bytes", "Bytes of the resources sent", metrics.bytes.clone());
        registry.register("lateen_xds_acks", "Responses taken by clients", metrics.acks.clone());
        registry.register("pilot_total_xds_rejects", "Responses refused by clients", metrics.rejects.clone());
        registry.register("pilot_xds_expired_nonce", "Requests that speak of an older response", metrics.stale.clone());
        registry.register("pilot_xds_refused", "Streams refused for want of a known caller", metrics.refused.clone());
        metrics
    }

    /// A response of a type this server knows.
    pub(super) fn sent(&self, type_url: &str, resources: usize, bytes: usize) {
        let label = TypeLabel::of(type_url, true);
        self.pushes.get_or_create(&label).inc();
        self.resources.get_or_create(&label).inc_by(resources as u64);
        self.bytes.get_or_create(&label).inc_by(bytes as u64);
    }
}
