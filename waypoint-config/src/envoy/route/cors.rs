// SPDX-License-Identifier: Apache-2.0
//! Answers to cross-origin requests.

use envoy_types::pb::envoy::{
    extensions::filters::http::cors::v3::CorsPolicy,
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

use super::values::{boolean, literal, string_regex};
use crate::view::rule::Cors;

/// What a page may use where `*` stands for every method but browsers take it for a name, as they do with credentials.
const METHODS: &str = "GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS";

pub(super) fn policy(cors: &Cors) -> CorsPolicy {
    let all_methods = cors.allow_credentials && cors.allow_methods.iter().any(|method| method == "*");
    CorsPolicy {
        allow_origin_string_match: cors.allow_origins.iter().map(|origin| matcher(origin)).collect(),
        allow_methods: if all_methods { METHODS.to_owned() } else { cors.allow_methods.join(",") },
        allow_headers: cors.allow_headers.join(","),
        expose_headers: cors.expose_headers.join(","),
        max_age: cors.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: boolean(cors.allow_credentials),
        forward_not_matching_preflights: boolean(false),
        ..CorsPolicy::default()
    }
}

fn matcher(origin: &str) -> StringMatcher {
    if origin.contains('*') {
        string_regex(origin.split('*').map(literal).collect::<Vec<_>>().join(".*"))
    } else {
        StringMatcher { ignore_case: false, match_pattern: Some(MatchPattern::Exact(origin.to_owned())) }
    }
}
