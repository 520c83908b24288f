// SPDX-License-Identifier: Apache-2.0
//! What a request must look like, and whose it must be.

use envoy_types::pb::envoy::{
    config::route::v3::{
        HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher::HeaderMatchSpecifier,
        query_parameter_matcher::QueryParameterMatchSpecifier, route_match::PathSpecifier,
    },
    r#type::matcher::v3::{FilterStateMatcher, filter_state_matcher::Matcher},
};

use super::values::{literal, regex, string, string_regex};
use crate::{
    envoy::names::PEER_PRINCIPAL,
    view::rule::{HttpMatch, PathMatch, Pattern, ValueMatch},
};

/// Requests that look so, of clients of that namespace or of all.
pub(super) fn requests(wanted: &HttpMatch, client_namespace: Option<&str>) -> RouteMatch {
    let method = wanted.method.as_ref().map(|method| header(":method", &Pattern::Exact(method.clone())));
    let headers = wanted.headers.iter().map(|condition| {
        // Whatever the client wrote, it is one field by now.
        let name = if condition.name == "host" { ":authority" } else { &condition.name };
        header(name, &condition.value)
    });
    RouteMatch {
        path_specifier: Some(path(wanted.path.as_ref())),
        headers: method.into_iter().chain(headers).collect(),
        query_parameters: wanted.query.iter().map(query).collect(),
        filter_state: client_namespace.map(clients_of).into_iter().collect(),
        ..RouteMatch::default()
    }
}

/// Every request.
pub(super) fn all(client_namespace: Option<&str>) -> RouteMatch {
    requests(&HttpMatch::default(), client_namespace)
}

fn path(wanted: Option<&PathMatch>) -> PathSpecifier {
    match wanted {
        None => PathSpecifier::Prefix("/".to_owned()),
        Some(PathMatch::Prefix(prefix)) if prefix == "/" => PathSpecifier::Prefix("/".to_owned()),
        Some(PathMatch::Prefix(prefix)) => PathSpecifier::PathSeparatedPrefix(prefix.clone()),
        Some(PathMatch::Exact(path)) => PathSpecifier::Path(path.clone()),
        Some(PathMatch::Regex(pattern)) => PathSpecifier::SafeRegex(regex(pattern.as_str())),
    }
}

fn header(name: &str, value: &Pattern) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(string(value))),
        ..HeaderMatcher::default()
    }
}

fn query(condition: &ValueMatch) -> QueryParameterMatcher {
    QueryParameterMatcher {
        name: condition.name.clone(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(string(&condition.value))),
    }
}

/// By the identity that came with the connection; whether its trust domain is one of ours was checked where TLS ended.
fn clients_of(namespace: &str) -> FilterStateMatcher {
    let identity = string_regex(format!("spiffe://[^/]+/ns/{}/sa/[^/]+", literal(namespace)));
    FilterStateMatcher { key: PEER_PRINCIPAL.to_owned(), matcher: Some(Matcher::StringMatch(identity)) }
}
