// SPDX-License-Identifier: Apache-2.0
//! Everything one waypoint serves, as plain values: what `render` translates. Whoever holds the snapshot fills it and says which units changed.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use crate::{
    api::KeySource,
    view::{
        AppProtocol, Mesh, Name, Service, ServicePort, Workload,
        rule::PortRules,
        waypoint::{Access, Waypoint},
    },
};

/// One waypoint and what it serves. Host names are unique among `services` and among `others`: of two services with the same one, whoever fills this
/// keeps the one that sorts first.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The waypoint.
    pub waypoint: Arc<Waypoint>,
    /// What is the same for the whole mesh.
    pub mesh: Arc<Mesh>,
    /// What the mesh's operator decided for its waypoints.
    pub settings: Arc<Settings>,
    /// The keys of token issuers.
    pub keys: Arc<KeySets>,
    /// Policies of the waypoint itself.
    pub access: Access,
    /// The services bound to it.
    pub services: BTreeMap<Name, ServedService>,
    /// Services bound elsewhere, or nowhere, that its routes or the mesh settings speak of.
    pub others: BTreeMap<Name, Destination>,
    /// The workloads whose own addresses are bound to it.
    pub workloads: Vec<Arc<Workload>>,
}

/// A service bound to the waypoint.
#[derive(Clone, Debug)]
pub struct ServedService {
    /// The service and its endpoints.
    pub destination: Destination,
    /// What is done on each port; an absent port: nothing.
    pub rules: BTreeMap<u16, PortRules>,
    /// Its own policies.
    pub access: Access,
    /// Whether it is no longer bound: no new connections are led to it, those that are open go on.
    pub is_leaving: bool,
}

/// A service to which requests are sent.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The service.
    pub service: Arc<Service>,
    /// Where it is.
    pub endpoints: Endpoints,
}

/// Where a service is.
#[derive(Clone, Debug)]
pub enum Endpoints {
    /// At workloads, which say in [`Workload::services`] which of their ports belong to it.
    Workloads(Vec<Arc<Workload>>),
    /// Behind names outside the mesh, which Envoy resolves.
    Names(Vec<NamedEndpoint>),
}

/// An endpoint known by a DNS name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedEndpoint {
    /// The name.
    pub host: Arc<str>,
    /// Its ports, by port of the service; an absent one is the same.
    pub ports: BTreeMap<u16, u16>,
}

/// What the mesh's operator decided for its waypoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Trust domains that count as the mesh's own.
    pub trust_domain_aliases: Vec<String>,
    /// How long a connection to an endpoint may take.
    pub connect_timeout: Duration,
    /// On ports whose protocol is undeclared: how long a client may stay silent before it counts as one that waits for the server to speak.
    pub detection_timeout: Duration,
    /// The access log; absent: there is none.
    pub access_log: Option<AccessLog>,
    /// Whether requests are counted under Istio's names and labels.
    pub metrics: bool,
    /// Spans.
    pub tracing: Option<Tracing>,
    /// External authorizers, by name.
    pub authorizers: BTreeMap<String, Authorizer>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trust_domain_aliases: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            detection_timeout: Duration::from_secs(1),
            access_log: None,
            metrics: false,
            tracing: None,
            authorizers: BTreeMap::new(),
        }
    }
}

/// Where the access log goes and what its lines look like.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// A file, e.g. `/dev/stdout`.
    pub path: String,
    /// What a line looks like.
    pub format: LogFormat,
}

/// What a line of the access log looks like. Texts are Envoy's format strings, checked by [`format`](super::format).
#[derive(Clone, Debug, PartialEq)]
pub enum LogFormat {
    /// JSON with the usual fields.
    Fields,
    /// JSON with these fields, which may be nested.
    Json(serde_json::Map<String, serde_json::Value>),
    /// The usual line of text.
    Line,
    /// This line of text.
    Text(String),
}

impl From<&str> for AccessLog {
    /// The usual JSON in that file.
    fn from(path: &str) -> Self {
        Self { path: path.to_owned(), format: LogFormat::Fields }
    }
}

/// Spans over OpenTelemetry's gRPC protocol, with W3C trace context.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// The collector.
    pub collector: Upstream,
    /// Of how many requests without a decision of the client, in percent.
    pub sampling: f64,
}

/// A server of the mesh's operator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Upstream {
    /// Its host name: that of a service in [`Serving::others`] or [`Serving::services`], else one for DNS.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// An external authorizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorizer {
    /// Where it is.
    pub upstream: Upstream,
    /// How it is asked.
    pub speaks: AuthorizerProtocol,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Whether requests pass when it does not answer.
    pub fail_open: bool,
    /// The status when it does not answer.
    pub status_on_error: u16,
    /// How much of the body it is shown, in bytes; 0: none.
    pub body_bytes: u32,
    /// Whether a longer body is shown in part; else a request with one is refused.
    pub body_partial: bool,
    /// Whether the body is shown as bytes and not as text.
    pub body_as_bytes: bool,
}

/// How an external authorizer is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizerProtocol {
    /// Envoy's gRPC protocol.
    Grpc,
    /// By a request that looks like the original one.
    Http {
        /// What stands before the path.
        path_prefix: String,
        /// Headers of the request it sees; `*` may stand at either end. Host, method, path and content length it always sees.
        include_request_headers: Vec<String>,
        /// Headers that are added to what it sees.
        additional_headers: BTreeMap<String, String>,
        /// Headers of its answer that go on to the workload.
        headers_to_upstream: Vec<String>,
        /// Headers of its consent that go back to the client with the workload's answer.
        headers_to_client_on_allow: Vec<String>,
        /// Headers of its refusal that go back to the client; none: all.
        headers_to_client_on_deny: Vec<String>,
    },
}

/// The keys of token issuers, by where they come from: a JSON Web Key Set, or why there is none.
pub type KeySets = BTreeMap<KeySource, Result<Arc<str>, String>>;

impl Serving {
    /// The destination a rule speaks of, and whether the waypoint serves it itself.
    pub fn destination(&self, service: &Name) -> Option<(&Destination, bool)> {
        match self.services.get(service) {
            Some(served) => Some((&served.destination, true)),
            None => self.others.get(service).map(|other| (other, false)),
        }
    }

    /// The destination with that host name.
    pub(super) fn by_host(&self, host: &str) -> Option<&Destination> {
        let served = self.services.values().map(|served| &served.destination);
        served.chain(self.others.values()).find(|destination| *destination.service.hostname == *host)
    }
}

impl ServedService {
    /// The rules of a port.
    pub fn rules(&self, port: u16) -> &PortRules {
        static NONE: PortRules = PortRules { http: Vec::new(), tcp: None };
        self.rules.get(&port).unwrap_or(&NONE)
    }
}

/// What the waypoint makes of a port's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    /// HTTP of whatever version the client speaks.
    Http,
    /// Bytes.
    Tcp,
    /// To be found out, connection by connection.
    Undeclared,
}

impl Speech {
    pub(super) fn of(protocol: AppProtocol) -> Self {
        match protocol {
            AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc => Self::Http,
            AppProtocol::Tcp | AppProtocol::Tls => Self::Tcp,
            AppProtocol::Unknown => Self::Undeclared,
        }
    }

    pub(super) fn has_http(self) -> bool {
        self != Self::Tcp
    }

    pub(super) fn has_tcp(self) -> bool {
        self != Self::Http
    }
}

/// The ports of a service, each number once: one that is declared counts before one that is not (which may be UDP).
pub(super) fn ports(service: &Service) -> Vec<ServicePort> {
    let mut by_number: BTreeMap<u16, ServicePort> = BTreeMap::new();
    for port in service.ports.iter().filter(|port| port.port != 0) {
        let known = by_number.entry(port.port).or_insert(*port);
        if known.protocol == AppProtocol::Unknown {
            *known = *port;
        }
    }
    by_number.into_values().collect()
}

/// Whom a workload proves to be, if anybody can tell.
pub(super) fn identity(mesh: &Mesh, workload: &Workload) -> String {
    format!("spiffe://{}/ns/{}/sa/{}", mesh.trust_domain, workload.namespace, workload.service_account)
}

/// An address with a port, as Envoy reads it.
pub(super) fn socket(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}
