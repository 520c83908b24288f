// SPDX-License-Identifier: Apache-2.0
//! What a waypoint does with requests and connections: routes of all kinds resolved to one form. Plain values; `routes` makes them, `envoy` translates
//! them. Nothing here knows Envoy, and nothing but the origin of a rule tells which kind it was written as.

use std::sync::Arc;
use std::time::Duration;

use super::model::Name;
use crate::api::Key;

/// The rules of one port of a service, as one waypoint applies them. All empty: requests and connections go to the service itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PortRules {
    /// For HTTP, in the order in which they are tried. If there are any and none matches, the request is answered 404.
    pub http: Vec<HttpEntry>,
    /// For connections of which nothing but their addresses is known.
    pub tcp: Option<Arc<TcpRule>>,
}

/// One way to reach a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpEntry {
    /// Only for clients of this namespace: the rule stands in a *consumer route* (GEP-1426). Such entries come before those for everybody, and a client
    /// for which there are any is never served by the latter.
    pub client_namespace: Option<Arc<str>>,
    /// What the request must look like.
    pub matches: HttpMatch,
    /// What is done with it.
    pub rule: Arc<HttpRule>,
}

/// What a request must look like; every present part must be so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HttpMatch {
    /// Path without the query; `None`: any. [`PathMatch::Prefix`] of `/` is the same.
    pub path: Option<PathMatch>,
    /// Method, exactly.
    pub method: Option<String>,
    /// Headers; the first of a name counts.
    pub headers: Vec<ValueMatch>,
    /// Query parameters.
    pub query: Vec<ValueMatch>,
}

/// A condition on a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole elements from the start: `/a` matches `/a` and `/a/b`, not `/ab`. Without a slash at the end, except for `/` alone.
    Prefix(String),
    /// The whole path, RE2.
    Regex(String),
}

/// A condition on a named value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ValueMatch {
    /// Name; of headers in lower case.
    pub name: String,
    /// What it must be.
    pub value: Pattern,
}

/// A condition on a string.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// Equal.
    Exact(String),
    /// The whole of it, RE2.
    Regex(String),
}

/// What is done with requests.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRule {
    /// Where it is written.
    pub origin: Origin,
    /// Whether gRPC is spoken: deadlines and failures are told its way.
    pub is_grpc: bool,
    /// Changes of the request's headers.
    pub request_headers: HeaderEdits,
    /// Changes of the response's headers.
    pub response_headers: HeaderEdits,
    /// Answer with a redirect; there are no backends then.
    pub redirect: Option<Redirect>,
    /// Change path or host.
    pub rewrite: Rewrite,
    /// Where copies go.
    pub mirrors: Vec<Mirror>,
    /// Cross-origin requests.
    pub cors: Option<Cors>,
    /// Of the whole request; `None` or zero: none.
    pub timeout: Option<Duration>,
    /// Of each try; `None` or zero: none.
    pub backend_timeout: Option<Duration>,
    /// Retries; `None`: the mesh's default.
    pub retry: Option<Retry>,
    /// Where requests go. None, or all of weight 0: answered 500.
    pub backends: Vec<Backend>,
    /// The rule cannot be carried out as written (the text says why): whatever reaches it is answered 500.
    pub broken: Option<String>,
}

/// Which rule of which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The object.
    pub route: Key,
    /// Position of the rule, from 0.
    pub rule: usize,
    /// Its name, if it has one.
    pub name: Option<Arc<str>>,
}

/// Changes of headers, in this order: remove, set, add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Replace.
    pub set: Vec<(String, String)>,
    /// Append.
    pub add: Vec<(String, String)>,
    /// Remove.
    pub remove: Vec<String>,
}

impl HeaderEdits {
    /// Nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// A redirect; what is absent stays as it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host.
    pub host: Option<String>,
    /// Port; one that the scheme implies is left out of the answer.
    pub port: Option<u16>,
    /// Path.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// Changes before a request goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Of the authority.
    pub host: Option<String>,
    /// Of the path.
    pub path: Option<PathRewrite>,
}

/// A new path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// All of it.
    Full(String),
    /// Of what [`PathMatch::Prefix`] has matched.
    Prefix(String),
}

/// Where copies of requests go.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// To whom.
    pub target: Target,
    /// Of how many requests, in parts of a million.
    pub parts_per_million: u32,
}

/// Answers to cross-origin requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// Origins; `*` may stand for any part.
    pub allow_origins: Vec<String>,
    /// Methods.
    pub allow_methods: Vec<String>,
    /// Headers.
    pub allow_headers: Vec<String>,
    /// Headers the page may read.
    pub expose_headers: Vec<String>,
    /// How long an answer may be kept.
    pub max_age: Option<Duration>,
    /// Cookies and the like.
    pub allow_credentials: bool,
}

/// Retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How many beyond the first try; 0: none.
    pub attempts: u32,
    /// After these status codes, beside failures to connect.
    pub codes: Vec<u16>,
    /// Before the first of them.
    pub backoff: Option<Duration>,
}

/// One of several receivers.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Who.
    pub target: Target,
    /// Its share of the sum.
    pub weight: u32,
    /// Changes of the request's headers on this way only.
    pub request_headers: HeaderEdits,
    /// Changes of the response's headers on this way only.
    pub response_headers: HeaderEdits,
}

/// A receiver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A port of a service the mesh knows.
    Service {
        /// Its key in the snapshot.
        service: Name,
        /// The port.
        port: u16,
    },
    /// There is none such, or it may not be used; its share is answered 500 and connections to it are closed.
    Invalid {
        /// Why.
        reason: String,
    },
}

/// What is done with connections.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpRule {
    /// Where it is written.
    pub origin: Origin,
    /// Where connections go. None, or all of weight 0: they are closed.
    pub backends: Vec<Backend>,
}
