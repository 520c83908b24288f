// SPDX-License-Identifier: Apache-2.0
//! The types of the `gateway-api` crate -> [`Draft`]. The crate has a type of its own for every place a thing may stand in, all of the same shape: hence
//! the macros. Nothing is decided here.

use gateway_api::experimental::{
    grpcroutes::{self as grpc, GrpcRoute},
    httproutes::{self, HttpRoute},
    tcproutes::{self as tcp, TcpRoute},
    tlsroutes::{self as tls, TlsRoute},
};

use super::draft::{
    BackendRef, Draft, DraftBackend, DraftMatch, DraftMirror, DraftPath, DraftRedirect, DraftRetry, DraftRewrite,
    DraftRule, DraftValue, Filter,
};
use crate::{
    api::ParentRef,
    view::rule::{Cors, HeaderEdits},
};

macro_rules! parents {
    ($spec:expr) => {
        $spec
            .parent_refs
            .iter()
            .flatten()
            .map(|parent| ParentRef {
                group: parent.group.clone(),
                kind: parent.kind.clone(),
                namespace: parent.namespace.clone(),
                name: parent.name.clone(),
                section_name: parent.section_name.clone(),
                port: parent.port,
            })
            .collect()
    };
}

macro_rules! reference {
    ($backend:expr) => {
        BackendRef {
            group: $backend.group.clone(),
            kind: $backend.kind.clone(),
            namespace: $backend.namespace.clone(),
            name: $backend.name.clone(),
            port: $backend.port,
        }
    };
}

macro_rules! plain_backends {
    ($backends:expr) => {
        $backends
            .iter()
            .map(|backend| DraftBackend { reference: reference!(backend), weight: backend.weight, filters: Vec::new() })
            .collect()
    };
}

macro_rules! values {
    ($list:expr, $regex:path) => {
        $list
            .iter()
            .flatten()
            .map(|value| DraftValue {
                name: value.name.clone(),
                value: value.value.clone(),
                is_regex: matches!(value.r#type, Some($regex)),
            })
            .collect()
    };
}

macro_rules! header_edits {
    ($modifier:expr) => {
        HeaderEdits {
            set: $modifier.set.iter().flatten().map(|header| (header.name.clone(), header.value.clone())).collect(),
            add: $modifier.add.iter().flatten().map(|header| (header.name.clone(), header.value.clone())).collect(),
            remove: $modifier.remove.clone().unwrap_or_default(),
        }
    };
}

macro_rules! mirror {
    ($mirror:expr) => {
        DraftMirror {
            backend: reference!($mirror.backend_ref),
            percent: $mirror.percent,
            fraction: $mirror.fraction.as_ref().map(|fraction| (fraction.numerator, fraction.denominator)),
        }
    };
}

macro_rules! path {
    ($path:expr, $full:path) => {
        match (&$path.r#type, &$path.replace_full_path, &$path.replace_prefix_match) {
            ($full, Some(path), None) => DraftRewrite::Full(path.clone()),
            (kind, None, Some(path)) if *kind != $full => DraftRewrite::Prefix(path.clone()),
            _ => DraftRewrite::Empty,
        }
    };
}

macro_rules! extension {
    ($reference:expr) => {
        Filter::Extension {
            group: $reference.group.clone(),
            kind: $reference.kind.clone(),
            name: $reference.name.clone(),
        }
    };
}

macro_rules! http_filter {
    ($name:ident, $filter:ty, $kind:ident, $scheme:ident, $redirect:ident, $rewrite:ident) => {
        fn $name(filter: &$filter) -> Filter {
            use httproutes::$kind as Kind;
            let read = match filter.r#type {
                Kind::RequestHeaderModifier => {
                    filter.request_header_modifier.as_ref().map(|edits| Filter::RequestHeaders(header_edits!(edits)))
                }
                Kind::ResponseHeaderModifier => {
                    filter.response_header_modifier.as_ref().map(|edits| Filter::ResponseHeaders(header_edits!(edits)))
                }
                Kind::RequestMirror => filter.request_mirror.as_ref().map(|mirror| Filter::Mirror(mirror!(mirror))),
                Kind::RequestRedirect => filter.request_redirect.as_ref().map(|redirect| {
                    Filter::Redirect(DraftRedirect {
                        scheme: redirect.scheme.as_ref().map(|scheme| match scheme {
                            httproutes::$scheme::Http => "http",
                            httproutes::$scheme::Https => "https",
                        }),
                        host: redirect.hostname.clone(),
                        port: redirect.port,
                        path: redirect.path.as_ref().map(|path| path!(path, httproutes::$redirect::ReplaceFullPath)),
                        status: redirect.status_code,
                    })
                }),
                Kind::UrlRewrite => filter.url_rewrite.as_ref().map(|rewrite| Filter::Rewrite {
                    host: rewrite.hostname.clone(),
                    path: rewrite.path.as_ref().map(|path| path!(path, httproutes::$rewrite::ReplaceFullPath)),
                }),
                Kind::Cors => filter.cors.as_ref().map(|cors| {
                    Filter::Cors(Cors {
                        allow_origins: cors.allow_origins.clone().unwrap_or_default(),
                        allow_methods: cors.allow_methods.clone().unwrap_or_default(),
                        allow_headers: cors.allow_headers.clone().unwrap_or_default(),
                        expose_headers: cors.expose_headers.clone().unwrap_or_default(),
                        max_age: cors
                            .max_age
                            .and_then(|seconds| u64::try_from(seconds).ok())
                            .map(std::time::Duration::from_secs),
                        allow_credentials: cors.allow_credentials.unwrap_or_default(),
                    })
                }),
                Kind::ExtensionRef => filter.extension_ref.as_ref().map(|reference| extension!(reference)),
                Kind::ExternalAuth => Some(Filter::ExternalAuth),
            };
            read.unwrap_or(Filter::Empty)
        }
    };
}

http_filter!(
    http_rule_filter,
    httproutes::HttpRouteRulesFilters,
    HttpRouteRulesFiltersType,
    HttpRouteRulesFiltersRequestRedirectScheme,
    HttpRouteRulesFiltersRequestRedirectPathType,
    HttpRouteRulesFiltersUrlRewritePathType
);
http_filter!(
    http_backend_filter,
    httproutes::HttpRouteRulesBackendRefsFilters,
    HttpRouteRulesBackendRefsFiltersType,
    HttpRouteRulesBackendRefsFiltersRequestRedirectScheme,
    HttpRouteRulesBackendRefsFiltersRequestRedirectPathType,
    HttpRouteRulesBackendRefsFiltersUrlRewritePathType
);

macro_rules! grpc_filter {
    ($name:ident, $filter:ty, $kind:ident) => {
        fn $name(filter: &$filter) -> Filter {
            use grpc::$kind as Kind;
            let read = match filter.r#type {
                Kind::RequestHeaderModifier => {
                    filter.request_header_modifier.as_ref().map(|edits| Filter::RequestHeaders(header_edits!(edits)))
                }
                Kind::ResponseHeaderModifier => {
                    filter.response_header_modifier.as_ref().map(|edits| Filter::ResponseHeaders(header_edits!(edits)))
                }
                Kind::RequestMirror => filter.request_mirror.as_ref().map(|mirror| Filter::Mirror(mirror!(mirror))),
                Kind::ExtensionRef => filter.extension_ref.as_ref().map(|reference| extension!(reference)),
            };
            read.unwrap_or(Filter::Empty)
        }
    };
}

grpc_filter!(grpc_rule_filter, grpc::GrpcRouteRulesFilters, GrpcRouteRulesFiltersType);
grpc_filter!(grpc_backend_filter, grpc::GrpcRouteRulesBackendRefsFilters, GrpcRouteRulesBackendRefsFiltersType);

pub(super) fn http(route: &HttpRoute) -> Draft {
    let rules = match &route.spec.rules {
        Some(rules) => rules.iter().map(http_rule).collect(),
        // What the API server fills in.
        None => vec![DraftRule::default()],
    };
    Draft { hostnames: Vec::new(), parents: parents!(route.spec), rules }
}

fn http_rule(rule: &httproutes::HttpRouteRules) -> DraftRule {
    let timeouts = rule.timeouts.as_ref();
    DraftRule {
        name: rule.name.clone(),
        matches: rule.matches.iter().flatten().map(http_match).collect(),
        filters: rule.filters.iter().flatten().map(http_rule_filter).collect(),
        backends: rule
            .backend_refs
            .iter()
            .flatten()
            .map(|backend| DraftBackend {
                reference: reference!(backend),
                weight: backend.weight,
                filters: backend.filters.iter().flatten().map(http_backend_filter).collect(),
            })
            .collect(),
        request_timeout: timeouts.and_then(|timeouts| timeouts.request.clone()),
        backend_timeout: timeouts.and_then(|timeouts| timeouts.backend_request.clone()),
        retry: rule.retry.as_ref().map(|retry| DraftRetry {
            attempts: retry.attempts,
            codes: retry.codes.clone().unwrap_or_default(),
            backoff: retry.backoff.clone(),
        }),
        has_session_persistence: rule.session_persistence.is_some(),
    }
}

fn http_match(wanted: &httproutes::HttpRouteRulesMatches) -> DraftMatch {
    use httproutes::{
        HttpRouteRulesMatchesHeadersType as Header, HttpRouteRulesMatchesPathType as Path,
        HttpRouteRulesMatchesQueryParamsType as Query,
    };
    let path = wanted.path.as_ref().map_or(DraftPath::Any, |path| {
        let value = path.value.clone().unwrap_or_else(|| "/".to_owned());
        match path.r#type {
            None | Some(Path::PathPrefix) => DraftPath::Prefix(value),
            Some(Path::Exact) => DraftPath::Exact(value),
            Some(Path::RegularExpression) => DraftPath::Regex(value),
        }
    });
    DraftMatch {
        path,
        method: wanted.method.as_ref().map(method),
        headers: values!(wanted.headers, Header::RegularExpression),
        query: values!(wanted.query_params, Query::RegularExpression),
    }
}

fn method(method: &httproutes::HttpRouteRulesMatchesMethod) -> &'static str {
    use httproutes::HttpRouteRulesMatchesMethod as Method;
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
    }
}

pub(super) fn grpc(route: &GrpcRoute) -> Draft {
    let rules = match &route.spec.rules {
        Some(rules) => rules.iter().map(grpc_rule).collect(),
        None => vec![DraftRule::default()],
    };
    Draft { hostnames: Vec::new(), parents: parents!(route.spec), rules }
}

fn grpc_rule(rule: &grpc::GrpcRouteRules) -> DraftRule {
    DraftRule {
        name: rule.name.clone(),
        matches: rule.matches.iter().flatten().map(grpc_match).collect(),
        filters: rule.filters.iter().flatten().map(grpc_rule_filter).collect(),
        backends: rule
            .backend_refs
            .iter()
            .flatten()
            .map(|backend| DraftBackend {
                reference: reference!(backend),
                weight: backend.weight,
                filters: backend.filters.iter().flatten().map(grpc_backend_filter).collect(),
            })
            .collect(),
        has_session_persistence: rule.session_persistence.is_some(),
        ..DraftRule::default()
    }
}

fn grpc_match(wanted: &grpc::GrpcRouteRulesMatches) -> DraftMatch {
    use grpc::{GrpcRouteRulesMatchesHeadersType as Header, GrpcRouteRulesMatchesMethodType as Method};
    DraftMatch {
        path: wanted.method.as_ref().map_or(DraftPath::Any, |method| DraftPath::Grpc {
            service: method.service.clone().filter(|service| !service.is_empty()),
            method: method.method.clone().filter(|method| !method.is_empty()),
            is_regex: matches!(method.r#type, Some(Method::RegularExpression)),
        }),
        headers: values!(wanted.headers, Header::RegularExpression),
        ..DraftMatch::default()
    }
}

pub(super) fn tcp(route: &TcpRoute) -> Draft {
    let rule = |rule: &tcp::TcpRouteRules| DraftRule {
        name: rule.name.clone(),
        backends: plain_backends!(rule.backend_refs),
        ..DraftRule::default()
    };
    Draft { hostnames: Vec::new(), parents: parents!(route.spec), rules: route.spec.rules.iter().map(rule).collect() }
}

pub(super) fn tls(route: &TlsRoute) -> Draft {
    let rule = |rule: &tls::TlsRouteRules| DraftRule {
        name: rule.name.clone(),
        backends: plain_backends!(rule.backend_refs),
        ..DraftRule::default()
    };
    Draft {
        hostnames: route.spec.hostnames.clone(),
        parents: parents!(route.spec),
        rules: route.spec.rules.iter().map(rule).collect(),
    }
}
