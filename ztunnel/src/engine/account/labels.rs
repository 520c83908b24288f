// SPDX-License-Identifier: Apache-2.0
//! The traffic label set, in its output order. Pure.

use std::sync::Arc;

use mesh_proto::spiffe::Identity;

/// Which end of a connection reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reporter {
    /// The client's proxy.
    Source,
    /// The server's proxy.
    Destination,
}

impl Reporter {
    /// As label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }

    /// As the access log calls it.
    pub(crate) fn direction(self) -> &'static str {
        match self {
            Self::Source => "outbound",
            Self::Destination => "inbound",
        }
    }
}

/// Why a connection ended badly, as label value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub enum Flag {
    /// It did not.
    #[default]
    None,
    /// A policy.
    Deny,
    /// The next hop could not be reached, and whatever has no flag of its own.
    Connect,
    /// TLS.
    TlsFailure,
    /// HTTP/2.
    H2HandshakeFailure,
    /// Nothing answers on the HBONE port.
    NetworkPolicy,
    /// There is no certificate.
    IdentityError,
    /// The peer's certificate was revoked.
    CertRevoked,
}

impl Flag {
    /// As label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::CertRevoked => "CERT_REVOKED",
        }
    }
}

/// One end of a connection. Empty texts print `unknown`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Party {
    /// Whether a workload is known at all: locality labels are printed only then.
    pub known: bool,
    /// Name of the controller.
    pub workload: Arc<str>,
    /// The application's name.
    pub canonical_service: Arc<str>,
    /// The application's version.
    pub canonical_revision: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Source: only what mutual TLS proved. Destination: the workload's identity.
    pub principal: Option<Identity>,
    /// `*_app`, which is the canonical name unless the labels come from baggage.
    pub app: Arc<str>,
    /// `*_version`.
    pub version: Arc<str>,
    /// Cluster id.
    pub cluster: Arc<str>,
    /// Region.
    pub region: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
}

/// The service that was addressed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ServiceLabels {
    /// Host name.
    pub hostname: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name of the object.
    pub name: Arc<str>,
}

/// The label set of one series.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Labels {
    /// Who reports.
    pub reporter: Reporter,
    /// The client.
    pub source: Party,
    /// The server.
    pub destination: Party,
    /// What the client asked for.
    pub service: ServiceLabels,
    /// How it ended; bytes are counted under `-` whatever happens later.
    pub flag: Flag,
    /// Whether the connection between the proxies was mutual TLS.
    pub mutual_tls: bool,
}

impl Labels {
    /// The same connection, ended with a flag.
    pub(crate) fn with_flag(&self, flag: Flag) -> Self {
        Self { flag, ..self.clone() }
    }

    /// Name and value of every label, in output order.
    pub fn pairs(&self) -> Vec<(&'static str, &str)> {
        let (source, destination, service) = (&self.source, &self.destination, &self.service);
        let mut pairs = Vec::with_capacity(27);
        let mut put = |name, value| pairs.push((name, value));
        put("reporter", self.reporter.as_str());
        put("source_workload", or_unknown(&source.workload));
        put("source_canonical_service", or_unknown(&source.canonical_service));
        put("source_canonical_revision", or_unknown(&source.canonical_revision));
        put("source_workload_namespace", or_unknown(&source.namespace));
        put("source_principal", principal(source));
        put("source_app", or_unknown(&source.app));
        put("source_version", or_unknown(&source.version));
        put("source_cluster", or_unknown(&source.cluster));
        put("destination_service", or_unknown(&service.hostname));
        put("destination_service_namespace", or_unknown(&service.namespace));
        put("destination_service_name", or_unknown(&service.name));
        put("destination_workload", or_unknown(&destination.workload));
        put("destination_canonical_service", or_unknown(&destination.canonical_service));
        put("destination_canonical_revision", or_unknown(&destination.canonical_revision));
        put("destination_workload_namespace", or_unknown(&destination.namespace));
        put("destination_principal", principal(destination));
        put("destination_app", or_unknown(&destination.app));
        put("destination_version", or_unknown(&destination.version));
        put("destination_cluster", or_unknown(&destination.cluster));
        put("request_protocol", "tcp");
        put("response_flags", self.flag.as_str());
        put("connection_security_policy", if self.mutual_tls { "mutual_tls" } else { UNKNOWN });
        if source.known || destination.known {
            put("source_region", or_unknown(&source.region));
            put("source_zone", or_unknown(&source.zone));
            put("destination_region", or_unknown(&destination.region));
            put("destination_zone", or_unknown(&destination.zone));
        }
        pairs
    }
}

fn principal(party: &Party) -> &str {
    party.principal.as_ref().map_or(UNKNOWN, Identity::as_uri)
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { UNKNOWN } else { text }
}

const UNKNOWN: &str = "unknown";
