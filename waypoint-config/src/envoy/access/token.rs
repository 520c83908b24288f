// SPDX-License-Identifier: Apache-2.0
//! RequestAuthentications as one filter that judges tokens. Called by `guard`.
//!
//! A request without a token passes; one with a token passes only if one of the issuers' keys made it. An issuer whose keys are not known gets a key
//! nobody can have used: its tokens are rejected.

use std::collections::{BTreeMap, HashMap};

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{DataSource, data_source::Specifier},
            route::v3::{RouteMatch, route_match::PathSpecifier},
        },
        extensions::filters::http::jwt_authn::v3::{
            JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement, JwtRequirementOrList,
            RequirementRule,
            jwt_provider::{JwksSourceSpecifier, NormalizePayload},
            jwt_requirement::RequiresType,
            requirement_rule::RequirementType,
        },
    },
    google::protobuf::Empty,
};
use serde_json::Value;

use super::{
    guard::Filter,
    said::{About, Said},
    text::is_header_name,
};
use crate::{
    api::{JwtRule, RequestAuthentication},
    envoy::{
        Notice,
        encode::pack,
        input::{KeySets, Serving},
    },
    view::{Name, waypoint::Access},
};

/// Under this filter's name, at this key, stands the payload of the token.
pub(super) const TOKENS: &str = "envoy.filters.http.jwt_authn";
/// See [`TOKENS`].
pub(super) const PAYLOAD: &str = "payload";

/// The filter; `None` when nobody speaks of tokens.
pub(super) fn filter(serving: &Serving, access: &[&Access], said: &mut Vec<Said>) -> Option<Filter> {
    let objects = access.iter().flat_map(|one| &one.authentication);
    let mut rules: Vec<(&RequestAuthentication, &JwtRule)> =
        objects.flat_map(|object| object.spec.jwt_rules.iter().map(|rule| (&**object, rule))).collect();
    rules.sort_by(|(_, one), (_, other)| one.issuer.cmp(&other.issuer));
    let mut providers = HashMap::new();
    let mut names = Vec::new();
    for (position, (object, rule)) in rules.into_iter().enumerate() {
        let (provider, notices) = provider(&serving.keys, rule);
        said.extend(notices.into_iter().map(|notice| Said { about: About::Authentication(name_of(object)), notice }));
        let name = format!("origins-{position}");
        providers.insert(name.clone(), provider);
        names.push(name);
    }
    if names.is_empty() {
        return None;
    }
    let provider = |name| JwtRequirement { requires_type: Some(RequiresType::ProviderName(name)) };
    let missing = JwtRequirement { requires_type: Some(RequiresType::AllowMissing(Empty::default())) };
    let any = JwtRequirementOrList { requirements: names.into_iter().map(provider).chain([missing]).collect() };
    let rule = RequirementRule {
        r#match: Some(RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..Default::default() }),
        requirement_type: Some(RequirementType::Requires(JwtRequirement {
            requires_type: Some(RequiresType::RequiresAny(any)),
        })),
    };
    let config = JwtAuthentication { providers, rules: vec![rule], bypass_cors_preflight: true, ..Default::default() };
    Some(Filter::Http(TOKENS, pack(&config)))
}

fn name_of(object: &RequestAuthentication) -> Name {
    Name::new(
        object.metadata.namespace.as_deref().unwrap_or_default(),
        object.metadata.name.as_deref().unwrap_or_default(),
    )
}

fn provider(sets: &KeySets, rule: &JwtRule) -> (JwtProvider, Vec<Notice>) {
    let mut notices = Vec::new();
    let keys = keys(sets, rule).unwrap_or_else(|reason| {
        notices.push(Notice::NoKeys { issuer: rule.issuer.clone(), reason });
        serde_json::json!({ "keys": [nobodys()] }).to_string()
    });
    let mut bad = |name: &str| {
        let is_bad = !is_header_name(name) || name.starts_with(':');
        if is_bad {
            let reason = format!("{name:?} is not the name of a header");
            notices.push(Notice::BadTokenRule { issuer: rule.issuer.clone(), reason });
        }
        is_bad
    };
    let from_headers = rule.from_headers.iter().filter(|header| !bad(&header.name));
    let from_headers = from_headers
        .map(|header| JwtHeader { name: header.name.clone(), value_prefix: header.prefix.clone() })
        .collect::<Vec<_>>();
    let claims = rule.output_claim_to_headers.iter().filter(|claim| !claim.claim.is_empty() && !bad(&claim.header));
    let claim_to_headers = claims
        .map(|claim| JwtClaimToHeader {
            header_name: claim.header.clone(),
            claim_name: claim.claim.clone(),
            ..Default::default()
        })
        .collect();
    let payload_header = &rule.output_payload_to_header;
    let forward_payload_header =
        if payload_header.is_empty() || bad(payload_header) { String::new() } else { payload_header.clone() };
    let spaced = ["permission", "scope"].into_iter().map(str::to_owned);
    let mut space_delimited_claims: Vec<_> =
        spaced.chain(rule.space_delimited_claims.iter().filter(|claim| !claim.is_empty()).cloned()).collect();
    space_delimited_claims.sort();
    space_delimited_claims.dedup();
    let some = |texts: &[String]| texts.iter().filter(|text| !text.is_empty()).cloned().collect::<Vec<_>>();
    let mut provider = JwtProvider {
        issuer: rule.issuer.clone(),
        audiences: some(&rule.audiences),
        forward: rule.forward_original_token,
        from_headers,
        from_params: some(&rule.from_params),
        from_cookies: some(&rule.from_cookies),
        forward_payload_header,
        payload_in_metadata: PAYLOAD.into(),
        normalize_payload_in_metadata: Some(NormalizePayload { space_delimited_claims }),
        claim_to_headers,
        jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(DataSource {
            specifier: Some(Specifier::InlineString(keys)),
            ..Default::default()
        })),
        ..Default::default()
    };
    // Places were named, and none can be used: the usual places are not meant.
    let named = !rule.from_headers.is_empty() && rule.from_params.is_empty() && rule.from_cookies.is_empty();
    if named && provider.from_headers.is_empty() {
        provider.from_headers = vec![JwtHeader { name: "x-no-such-token".into(), ..Default::default() }];
    }
    (provider, notices)
}

fn keys(sets: &KeySets, rule: &JwtRule) -> Result<String, String> {
    let text = match (rule.keys(), rule.key_source()) {
        (Some(keys), _) => keys,
        (None, None) => {
            return Err(
                "neither jwks nor jwksUri is given, and the issuer is no URL where they could be looked for".into()
            );
        }
        (None, Some(source)) => match sets.get(&source) {
            Some(Ok(keys)) => &**keys,
            Some(Err(reason)) => return Err(reason.clone()),
            None => return Err("they have not been fetched yet".into()),
        },
    };
    usable(text).ok_or_else(|| "they are no JSON Web Key Set with a key in it".into())
}

/// Envoy refuses everything if it can use no key of a set, and tells usable keys from others itself: so one more is added that it can use and nobody else.
/// Of each key only texts are kept: nothing that means something is anything else.
fn usable(text: &str) -> Option<String> {
    let set: BTreeMap<String, Value> = serde_json::from_str(text).ok()?;
    let texts = |key: &Value| {
        let texts = key.as_object()?.iter().filter(|(_, value)| value.is_string());
        let texts: serde_json::Map<_, _> = texts.map(|(name, value)| (name.clone(), value.clone())).collect();
        texts.contains_key("kty").then_some(Value::Object(texts))
    };
    let mut keys: Vec<Value> = set.get("keys")?.as_array()?.iter().filter_map(texts).collect();
    if keys.is_empty() {
        return None;
    }
    keys.push(nobodys());
    Some(serde_json::json!({ "keys": keys }).to_string())
}

/// A point of the curve chosen by its text: nobody knows what would sign for it.
fn nobodys() -> Value {
    let x = "bm9ib2R5LWhhcy10aGlzLWtleS1ub2JvZHktaGFzLS0";
    serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "none", "x": x })
}
