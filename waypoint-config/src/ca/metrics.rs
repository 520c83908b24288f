// SPDX-License-Identifier: Apache-2.0
//! What the authority counts, under the names Istio's dashboards know.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// How a certificate request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A certificate was issued.
    Issued,
    /// The caller proved nothing.
    Unauthenticated,
    /// The caller may not have the identity it asked for.
    Refused,
    /// The request was not good, or signing failed.
    Failed,
}

/// The authority's counters. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct CaMetrics {
    requests: Counter,
    issued: Counter,
    unauthenticated: Counter,
    refused: Counter,
    failed: Counter,
}

impl CaMetrics {
    /// Counters registered under Istio's names (`citadel_server_*`).
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let mut add = |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        add("citadel_server_csr_count", "Certificate requests received", &metrics.requests);
        add("citadel_server_success_cert_issuance_count", "Certificates issued", &metrics.issued);
        add(
            "citadel_server_authentication_failure_count",
            "Certificate requests of callers that proved nothing",
            &metrics.unauthenticated,
        );
        add(
            "citadel_server_impersonation_refused_count",
            "Certificate requests for an identity the caller may not have",
            &metrics.refused,
        );
        add(
            "citadel_server_csr_sign_err_count",
            "Certificate requests that were not good or could not be signed",
            &metrics.failed,
        );
        metrics
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.requests.inc();
        match outcome {
            Outcome::Issued => self.issued.inc(),
            Outcome::Unauthenticated => self.unauthenticated.inc(),
            Outcome::Refused => self.refused.inc(),
            Outcome::Failed => self.failed.inc(),
        };
    }
}
