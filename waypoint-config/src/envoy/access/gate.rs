// SPDX-License-Identifier: Apache-2.0
//! Policies of connections as a condition on which a connection is refused before anything happens. Called by `guard`.
//!
//! Envoy's RBAC filter of connections decides at the first byte the client sends. Where the server speaks first, its greeting would reach a client that
//! is refused later. So the same rules are also asked when the chain of a connection is chosen. What is not known yet at that time (what other filters
//! find out) is left to the filter.

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::CidrRange,
            rbac::v3::{Permission, Principal, Rbac, permission::Rule, principal::Identifier, rbac::Action},
        },
        extensions::matching::{
            common_inputs::network::v3::{DestinationIpInput, DestinationPortInput, FilterStateInput, SourceIpInput},
            input_matchers::ip::v3::Ip,
        },
        r#type::matcher::v3::{StringMatcher, filter_state_matcher, string_matcher::MatchPattern},
    },
    xds::{
        core::v3::TypedExtensionConfig,
        r#type::matcher::v3::{
            RegexMatcher, StringMatcher as XdsString,
            matcher::matcher_list::{
                Predicate,
                predicate::{MatchType, PredicateList, SinglePredicate, single_predicate::Matcher},
            },
            regex_matcher::{EngineType, GoogleRe2},
            string_matcher::MatchPattern as XdsPattern,
        },
    },
};
use mesh_proto::discovery::Any;

use crate::envoy::encode::pack;

/// On which connections are refused.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::envoy) enum Refused {
    /// None.
    Never,
    /// All.
    Always,
    /// Those.
    When(Predicate),
}

/// Of an RBAC filter's enforced rules.
pub(super) fn refused<'a>(rules: impl IntoIterator<Item = &'a Rbac>) -> Refused {
    any(rules.into_iter().map(|rbac| {
        // What is not known is taken for whatever lets the connection pass here.
        let is_allow = rbac.action == i32::from(Action::Allow);
        let mut policies: Vec<_> = rbac.policies.iter().collect();
        policies.sort_by_key(|(name, _)| *name);
        let matched = any(policies.into_iter().map(|(_, policy)| {
            let permissions = any(policy.permissions.iter().map(|one| permission(one, is_allow)));
            all([permissions, any(policy.principals.iter().map(|one| principal(one, is_allow)))])
        }));
        if is_allow { not(matched) } else { matched }
    }))
}

fn permission(of: &Permission, unknown: bool) -> Refused {
    match of.rule.as_ref() {
        Some(Rule::AndRules(set)) => all(set.rules.iter().map(|one| permission(one, unknown))),
        Some(Rule::OrRules(set)) => any(set.rules.iter().map(|one| permission(one, unknown))),
        Some(Rule::NotRule(inner)) => not(permission(inner, !unknown)),
        Some(Rule::Any(_)) => Refused::Always,
        Some(Rule::DestinationPort(port)) => {
            let port = XdsPattern::Exact(port.to_string());
            single("port", pack(&DestinationPortInput::default()), text(port, false))
        }
        Some(Rule::DestinationIp(range)) => single("ip", pack(&DestinationIpInput::default()), within(range)),
        _ => constant(unknown),
    }
}

fn principal(of: &Principal, unknown: bool) -> Refused {
    match of.identifier.as_ref() {
        Some(Identifier::AndIds(set)) => all(set.ids.iter().map(|one| principal(one, unknown))),
        Some(Identifier::OrIds(set)) => any(set.ids.iter().map(|one| principal(one, unknown))),
        Some(Identifier::NotId(inner)) => not(principal(inner, !unknown)),
        Some(Identifier::Any(_)) => Refused::Always,
        Some(Identifier::DirectRemoteIp(range)) => single("source", pack(&SourceIpInput::default()), within(range)),
        Some(Identifier::FilterState(of)) => match &of.matcher {
            Some(filter_state_matcher::Matcher::StringMatch(matcher)) => {
                let input = FilterStateInput { key: of.key.clone(), ..Default::default() };
                string(matcher).map_or_else(|| constant(unknown), |matcher| single("peer", pack(&input), matcher))
            }
            _ => constant(unknown),
        },
        _ => constant(unknown),
    }
}

fn string(of: &StringMatcher) -> Option<Matcher> {
    let pattern = match of.match_pattern.as_ref()? {
        MatchPattern::Exact(value) => XdsPattern::Exact(value.clone()),
        MatchPattern::Prefix(value) => XdsPattern::Prefix(value.clone()),
        MatchPattern::Suffix(value) => XdsPattern::Suffix(value.clone()),
        MatchPattern::SafeRegex(value) => XdsPattern::SafeRegex(RegexMatcher {
            regex: value.regex.clone(),
            engine_type: Some(EngineType::GoogleRe2(GoogleRe2 {})),
        }),
        MatchPattern::Contains(_) | MatchPattern::Custom(_) => return None,
    };
    Some(text(pattern, of.ignore_case))
}

fn text(pattern: XdsPattern, ignore_case: bool) -> Matcher {
    Matcher::ValueMatch(XdsString { match_pattern: Some(pattern), ignore_case })
}

fn within(range: &CidrRange) -> Matcher {
    let ip = Ip { cidr_ranges: vec![range.clone()], stat_prefix: "policy".into() };
    Matcher::CustomMatch(extension("envoy.matching.matchers.ip", pack(&ip)))
}

fn single(name: &str, input: Any, matcher: Matcher) -> Refused {
    let single = SinglePredicate { input: Some(extension(name, input)), matcher: Some(matcher) };
    when(MatchType::SinglePredicate(single))
}

fn when(of: MatchType) -> Refused {
    Refused::When(Predicate { match_type: Some(of) })
}

fn extension(name: &str, config: Any) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) }
}

fn constant(value: bool) -> Refused {
    if value { Refused::Always } else { Refused::Never }
}

fn not(of: Refused) -> Refused {
    match of {
        Refused::Never => Refused::Always,
        Refused::Always => Refused::Never,
        Refused::When(predicate) => when(MatchType::NotMatcher(Box::new(predicate))),
    }
}

fn any(of: impl IntoIterator<Item = Refused>) -> Refused {
    joined(of, &Refused::Always, &Refused::Never, MatchType::OrMatcher)
}

fn all(of: impl IntoIterator<Item = Refused>) -> Refused {
    joined(of, &Refused::Never, &Refused::Always, MatchType::AndMatcher)
}

/// `decisive` decides alone, `idle` says nothing. Envoy wants at least two in a list.
fn joined(
    of: impl IntoIterator<Item = Refused>,
    decisive: &Refused,
    idle: &Refused,
    join: fn(PredicateList) -> MatchType,
) -> Refused {
    let mut predicate = Vec::new();
    for one in of {
        match one {
            Refused::When(one) => predicate.push(one),
            one if one == *decisive => return one,
            _ => {}
        }
    }
    match predicate.len() {
        0 => idle.clone(),
        1 => Refused::When(predicate.swap_remove(0)),
        _ => when(join(PredicateList { predicate })),
    }
}
