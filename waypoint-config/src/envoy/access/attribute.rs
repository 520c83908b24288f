// SPDX-License-Identifier: Apache-2.0
//! Single attributes of policies as conditions of Envoy's RBAC filters. Called by `rule`.

use envoy_types::pb::envoy::{
    config::{
        core::v3::CidrRange,
        rbac::v3::{
            MetadataSource, Permission, Principal, SourcedMetadata, permission, permission::Rule, principal,
            principal::Identifier,
        },
        route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
    },
    r#type::matcher::v3::{
        FilterStateMatcher, ListMatcher, MetadataMatcher, OrMatcher, PathMatcher, StringMatcher, ValueMatcher,
        filter_state_matcher, list_matcher,
        metadata_matcher::{PathSegment, path_segment::Segment},
        path_matcher, value_matcher,
    },
};

use super::{
    text::{Glob, exact, host, is_header_name, path, quote, regex},
    token::{PAYLOAD, TOKENS},
};
use crate::{
    api::parse_range,
    envoy::{encode::number, names::PEER_PRINCIPAL},
};

/// A condition: Envoy has two kinds, with the same ways to combine them.
pub(super) trait Node: Sized {
    fn all(nodes: Vec<Self>) -> Self;
    fn any(nodes: Vec<Self>) -> Self;
    fn not(node: Self) -> Self;
    fn always() -> Self;
}

impl Node for Permission {
    fn all(rules: Vec<Self>) -> Self {
        permission(Rule::AndRules(permission::Set { rules }))
    }

    fn any(rules: Vec<Self>) -> Self {
        permission(Rule::OrRules(permission::Set { rules }))
    }

    fn not(node: Self) -> Self {
        permission(Rule::NotRule(Box::new(node)))
    }

    fn always() -> Self {
        permission(Rule::Any(true))
    }
}

impl Node for Principal {
    fn all(ids: Vec<Self>) -> Self {
        principal(Identifier::AndIds(principal::Set { ids }))
    }

    fn any(ids: Vec<Self>) -> Self {
        principal(Identifier::OrIds(principal::Set { ids }))
    }

    fn not(node: Self) -> Self {
        principal(Identifier::NotId(Box::new(node)))
    }

    fn always() -> Self {
        principal(Identifier::Any(true))
    }
}

fn permission(rule: Rule) -> Permission {
    Permission { rule: Some(rule) }
}

fn principal(identifier: Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

pub(super) fn host_is(value: &str) -> Option<Permission> {
    Some(permission(Rule::Header(header(":authority", host(value)))))
}

pub(super) fn method_is(value: &str) -> Option<Permission> {
    Some(permission(Rule::Header(header(":method", Glob::of(value).matcher()))))
}

pub(super) fn path_is(value: &str) -> Option<Permission> {
    Some(permission(Rule::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(path(value))) })))
}

pub(super) fn port_is(value: &str) -> Option<Permission> {
    value.parse::<u16>().ok().map(|port| permission(Rule::DestinationPort(port.into())))
}

pub(super) fn destination_in(value: &str) -> Option<Permission> {
    Some(permission(Rule::DestinationIp(range(value)?)))
}

/// `experimental.envoy.filters.x.y[key]`: what another filter found out; a value in brackets is one of a list.
pub(super) fn found_out(filter: &str, key: &str, value: &str) -> Option<Permission> {
    let inside = value.strip_prefix('[').and_then(|value| value.strip_suffix(']'));
    let matcher = match inside {
        Some(value) => in_list(Glob::of(value).matcher()),
        None => string(Glob::of(value).matcher()),
    };
    Some(permission(Rule::SourcedMetadata(metadata(filter, &[key], matcher)?)))
}

pub(super) fn connected_from(value: &str) -> Option<Principal> {
    Some(principal(Identifier::DirectRemoteIp(range(value)?)))
}

pub(super) fn comes_from(value: &str) -> Option<Principal> {
    Some(principal(Identifier::RemoteIp(range(value)?)))
}

fn range(value: &str) -> Option<CidrRange> {
    let range = parse_range(value)?;
    Some(CidrRange { address_prefix: range.addr().to_string(), prefix_len: number(range.prefix_len().into()) })
}

/// `trust.domain/ns/x/sa/y`. One of the mesh's trust domains stands for all of them, and so does `cluster.local`, as in Istio.
pub(super) fn peer_is(value: &str, trust_domains: &[String]) -> Option<Principal> {
    let prefixed = |text: &str| format!("spiffe://{text}");
    let matchers: Vec<StringMatcher> = match Glob::of(value) {
        Glob::Any => vec![Glob::Prefix("spiffe://").matcher()],
        Glob::Suffix(text) => vec![Glob::Suffix(text).matcher()],
        Glob::Prefix(text) => {
            all_domains(text, trust_domains).iter().map(|text| Glob::Prefix(&prefixed(text)).matcher()).collect()
        }
        Glob::Exact(text) => all_domains(text, trust_domains).iter().map(|text| exact(&prefixed(text))).collect(),
    };
    Some(Principal::any(matchers.into_iter().map(peer).collect()))
}

fn all_domains(value: &str, trust_domains: &[String]) -> Vec<String> {
    match value.split_once('/') {
        Some((domain, rest)) if domain == LOCAL || trust_domains.iter().any(|known| known == domain) => {
            trust_domains.iter().map(|domain| format!("{domain}/{rest}")).collect()
        }
        _ => vec![value.to_owned()],
    }
}

pub(super) fn peer_in_namespace(value: &str) -> Option<Principal> {
    Some(peer(regex(format!("spiffe://[^/]+/ns/{}/sa/.*", Glob::of(value).expression("[^/]*")))))
}

/// `namespace/name`, or `name` in the policy's own namespace.
pub(super) fn peer_is_account(value: &str, own_namespace: &str) -> Option<Principal> {
    let (namespace, account) = value.split_once('/').unwrap_or((own_namespace, value));
    Some(peer(exact_account(namespace, account)))
}

fn exact_account(namespace: &str, account: &str) -> StringMatcher {
    regex(format!("spiffe://[^/]+/ns/{}/sa/{}", quote(namespace), quote(account)))
}

pub(super) fn peer_in_domain(value: &str) -> Option<Principal> {
    Some(peer(regex(format!("spiffe://{}/.*", Glob::of(value).expression("[^/]*")))))
}

fn peer(matcher: StringMatcher) -> Principal {
    let matcher = Some(filter_state_matcher::Matcher::StringMatch(matcher));
    principal(Identifier::FilterState(FilterStateMatcher { key: PEER_PRINCIPAL.to_owned(), matcher }))
}

/// `request.headers[x]`.
pub(super) fn header_is(name: &str, value: &str) -> Option<Principal> {
    let matcher = match Glob::of(value) {
        Glob::Any => HeaderMatcher {
            name: name.to_owned(),
            header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
            ..Default::default()
        },
        glob => header(name, glob.matcher()),
    };
    is_header_name(name).then(|| principal(Identifier::Header(matcher)))
}

fn header(name: &str, value: StringMatcher) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(value)),
        ..Default::default()
    }
}

/// `issuer/subject`, with stars as in other values. Both may hold slashes, so every slash may be the one between.
pub(super) fn token_of(value: &str) -> Option<Principal> {
    let both = |issuer: Glob<'_>, subject: Glob<'_>| {
        let claims = [("iss", issuer), ("sub", subject)];
        claims
            .iter()
            .map(|(claim, glob)| claim_matches(&[claim], glob.matcher(), false))
            .collect::<Option<Vec<_>>>()
            .map(Principal::all)
    };
    let slashes = |text: &'_ str| text.match_indices('/').map(|(at, _)| at).collect::<Vec<_>>();
    let ways: Vec<_> = match Glob::of(value) {
        Glob::Any => vec![both(Glob::Any, Glob::Any)],
        Glob::Exact(text) => {
            slashes(text).iter().map(|at| both(Glob::Exact(&text[..*at]), Glob::Exact(&text[at + 1..]))).collect()
        }
        Glob::Prefix(text) => {
            let split = slashes(text);
            let split = split.iter().map(|at| both(Glob::Exact(&text[..*at]), prefix(&text[at + 1..])));
            split.chain([both(prefix(text), Glob::Any)]).collect()
        }
        Glob::Suffix(text) => {
            let split = slashes(text);
            let split = split.iter().map(|at| both(suffix(&text[..*at]), Glob::Exact(&text[at + 1..])));
            split.chain([both(Glob::Any, suffix(text))]).collect()
        }
    };
    let ways: Vec<_> = ways.into_iter().collect::<Option<_>>()?;
    (!ways.is_empty()).then(|| Principal::any(ways))
}

fn prefix(text: &str) -> Glob<'_> {
    if text.is_empty() { Glob::Any } else { Glob::Prefix(text) }
}

fn suffix(text: &str) -> Glob<'_> {
    if text.is_empty() { Glob::Any } else { Glob::Suffix(text) }
}

/// A claim of the token, or one of its values when it is a list.
pub(super) fn claim_is(path: &[&str], value: &str) -> Option<Principal> {
    claim_matches(path, Glob::of(value).matcher(), true)
}

fn claim_matches(path: &[&str], value: StringMatcher, or_in_list: bool) -> Option<Principal> {
    let matcher = match or_in_list {
        true => ValueMatcher {
            match_pattern: Some(value_matcher::MatchPattern::OrMatch(OrMatcher {
                value_matchers: vec![string(value.clone()), in_list(value)],
            })),
        },
        false => string(value),
    };
    let path: Vec<_> = [PAYLOAD].into_iter().chain(path.iter().copied()).collect();
    Some(principal(Identifier::SourcedMetadata(metadata(TOKENS, &path, matcher)?)))
}

fn metadata(filter: &str, path: &[&str], value: ValueMatcher) -> Option<SourcedMetadata> {
    let segment = |key: &&str| PathSegment { segment: Some(Segment::Key((*key).to_owned())) };
    let is_whole = !filter.is_empty() && !path.is_empty() && path.iter().all(|key| !key.is_empty());
    let matcher = MetadataMatcher {
        filter: filter.to_owned(),
        path: path.iter().map(segment).collect(),
        value: Some(value),
        ..Default::default()
    };
    is_whole
        .then(|| SourcedMetadata { metadata_matcher: Some(matcher), metadata_source: MetadataSource::Dynamic.into() })
}

fn string(matcher: StringMatcher) -> ValueMatcher {
    ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::StringMatch(matcher)) }
}

fn in_list(matcher: StringMatcher) -> ValueMatcher {
    let one = list_matcher::MatchPattern::OneOf(Box::new(string(matcher)));
    let list = ListMatcher { match_pattern: Some(one) };
    ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::ListMatch(Box::new(list))) }
}

/// What Istio lets stand for the mesh's own trust domain.
const LOCAL: &str = "cluster.local";
