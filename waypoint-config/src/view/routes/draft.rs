// SPDX-License-Identifier: Apache-2.0
//! What the author of a route wrote, in one shape for the four kinds and nothing checked yet. `read` makes it, `matches`, `filters`, `backends` and
//! `resolve` decide what it means.

use crate::{
    api::ParentRef,
    view::rule::{Cors, HeaderEdits},
};

/// A route.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Draft {
    /// Only of a TLSRoute; those of the other kinds say nothing in a mesh.
    pub(super) hostnames: Vec<String>,
    pub(super) parents: Vec<ParentRef>,
    pub(super) rules: Vec<DraftRule>,
}

/// A rule of any kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DraftRule {
    pub(super) name: Option<String>,
    pub(super) matches: Vec<DraftMatch>,
    pub(super) filters: Vec<Filter>,
    pub(super) backends: Vec<DraftBackend>,
    pub(super) request_timeout: Option<String>,
    pub(super) backend_timeout: Option<String>,
    pub(super) retry: Option<DraftRetry>,
    pub(super) has_session_persistence: bool,
}

/// A match of an HTTPRoute or GRPCRoute.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DraftMatch {
    pub(super) path: DraftPath,
    pub(super) method: Option<&'static str>,
    pub(super) headers: Vec<DraftValue>,
    pub(super) query: Vec<DraftValue>,
}

/// Which paths.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum DraftPath {
    #[default]
    Any,
    Exact(String),
    Prefix(String),
    Regex(String),
    /// Method and service of gRPC.
    Grpc {
        service: Option<String>,
        method: Option<String>,
        is_regex: bool,
    },
}

/// A header or query parameter.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DraftValue {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) is_regex: bool,
}

/// A filter of a rule or of a backend.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Filter {
    RequestHeaders(HeaderEdits),
    ResponseHeaders(HeaderEdits),
    Mirror(DraftMirror),
    Redirect(DraftRedirect),
    Rewrite {
        host: Option<String>,
        path: Option<DraftRewrite>,
    },
    Cors(Cors),
    /// Some object that says what to do.
    Extension {
        group: String,
        kind: String,
        name: String,
    },
    ExternalAuth,
    /// The field that belongs to its type is absent.
    Empty,
}

/// Where copies go.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DraftMirror {
    pub(super) backend: BackendRef,
    pub(super) percent: Option<i32>,
    /// Numerator and denominator.
    pub(super) fraction: Option<(i32, Option<i32>)>,
}

/// A redirect.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DraftRedirect {
    pub(super) scheme: Option<&'static str>,
    pub(super) host: Option<String>,
    pub(super) port: Option<i32>,
    pub(super) path: Option<DraftRewrite>,
    pub(super) status: Option<i64>,
}

/// A new path.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum DraftRewrite {
    Full(String),
    Prefix(String),
    /// The field that belongs to its type is absent.
    Empty,
}

/// Retries.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DraftRetry {
    pub(super) attempts: Option<i64>,
    pub(super) codes: Vec<i64>,
    pub(super) backoff: Option<String>,
}

/// A receiver.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DraftBackend {
    pub(super) reference: BackendRef,
    pub(super) weight: Option<i32>,
    pub(super) filters: Vec<Filter>,
}

/// The name of a receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BackendRef {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) port: Option<i32>,
}
