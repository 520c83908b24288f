// SPDX-License-Identifier: Apache-2.0
//! Policies that ask an external authorizer: shadow rules find the requests it is asked about, then Envoy asks. Called by `guard`.
//!
//! One chain has one authorizer, as in Istio. Without one that can be asked everything is refused.

use envoy_types::pb::envoy::{
    config::{
        core::v3::{ApiVersion, GrpcService, HeaderValue, HttpUri, grpc_service, http_uri::HttpUpstreamType},
        rbac::v3::{Rbac, rbac::Action},
    },
    extensions::filters::{
        http::{
            ext_authz::v3::{
                AuthorizationRequest, AuthorizationResponse, BufferSettings, ExtAuthz, HttpService, ext_authz::Services,
            },
            rbac::v3::Rbac as HttpRbac,
        },
        network::{ext_authz::v3::ExtAuthz as NetworkExtAuthz, rbac::v3::Rbac as NetworkRbac},
    },
    r#type::{
        matcher::v3::{
            ListStringMatcher, MetadataMatcher, StringMatcher, ValueMatcher,
            metadata_matcher::{PathSegment, path_segment::Segment},
            string_matcher, value_matcher,
        },
        v3::HttpStatus,
    },
};

use super::{
    guard::{Filter, HTTP_RBAC, NETWORK_RBAC},
    rule::{self, Context, everything, name_of},
    said::{About, Said},
    text::Glob,
};
use crate::{
    api::AuthorizationPolicy,
    envoy::{
        Notice, cluster,
        encode::{duration, pack},
        input::{Authorizer, AuthorizerProtocol, Serving},
    },
};

/// The filters, in order; what they refuse without asking goes to `enforcing`, too.
pub(super) fn filters(
    serving: &Serving,
    context: Context<'_>,
    objects: &[&AuthorizationPolicy],
    said: &mut Vec<Said>,
    enforcing: &mut Vec<Rbac>,
) -> Vec<Filter> {
    let Some(first) = objects.first() else { return Vec::new() };
    let provider = provider_of(first);
    let authorizer = match authorizer(serving, context, objects) {
        Ok(authorizer) => authorizer,
        Err(reason) => {
            said.extend(objects.iter().map(|object| Said {
                about: About::Authorization(name_of(object)),
                notice: Notice::NoProvider { provider: provider_of(object).to_owned(), reason },
            }));
            let rules = everything(Action::Deny, &format!("{NAME}-deny-due-to-bad-provider"));
            enforcing.push(rules.clone());
            return vec![match context.sees_requests {
                true => Filter::Http(HTTP_RBAC, pack(&HttpRbac { rules: Some(rules), ..Default::default() })),
                false => Filter::Network(
                    NETWORK_RBAC,
                    pack(&NetworkRbac { rules: Some(rules), stat_prefix: STAT.into(), ..Default::default() }),
                ),
            }];
        }
    };
    let prefix = format!("{NAME}-{provider}-");
    let shadow_rules = Some(rule::rules(context, Action::Deny, &prefix, objects, said));
    let shadow_rules_stat_prefix = SHADOW.to_owned();
    match context.sees_requests {
        true => vec![
            Filter::Http(HTTP_RBAC, pack(&HttpRbac { shadow_rules, shadow_rules_stat_prefix, ..Default::default() })),
            Filter::Http("envoy.filters.http.ext_authz", pack(&ask(authorizer, &prefix))),
        ],
        false => vec![
            Filter::Network(
                NETWORK_RBAC,
                pack(&NetworkRbac {
                    shadow_rules,
                    shadow_rules_stat_prefix,
                    stat_prefix: STAT.into(),
                    ..Default::default()
                }),
            ),
            Filter::Network("envoy.filters.network.ext_authz", pack(&ask_about_connection(authorizer, &prefix))),
        ],
    }
}

fn provider_of(object: &AuthorizationPolicy) -> &str {
    object.spec.provider.as_ref().map_or("", |provider| &provider.name)
}

fn authorizer<'a>(
    serving: &'a Serving,
    context: Context<'_>,
    objects: &[&AuthorizationPolicy],
) -> Result<&'a Authorizer, &'static str> {
    let name = objects.first().map_or("", |object| provider_of(object));
    if objects.iter().any(|object| provider_of(object) != name) {
        return Err("is not the only one here, and only one can be asked");
    }
    let authorizer = serving.settings.authorizers.get(name).ok_or("is not in the mesh settings")?;
    match (&authorizer.speaks, context.sees_requests) {
        (AuthorizerProtocol::Http { .. }, false) => Err("speaks HTTP and cannot judge connections"),
        _ => Ok(authorizer),
    }
}

fn ask(of: &Authorizer, prefix: &str) -> ExtAuthz {
    let services = match &of.speaks {
        AuthorizerProtocol::Grpc => Services::GrpcService(grpc(of)),
        AuthorizerProtocol::Http { .. } => Services::HttpService(http(of)),
    };
    let body = BufferSettings {
        max_request_bytes: of.body_bytes,
        allow_partial_message: of.body_partial,
        pack_as_bytes: of.body_as_bytes,
    };
    ExtAuthz {
        transport_api_version: ApiVersion::V3.into(),
        failure_mode_allow: of.fail_open,
        status_on_error: Some(HttpStatus { code: status(of.status_on_error) }),
        with_request_body: (of.body_bytes > 0).then_some(body),
        filter_enabled_metadata: Some(asked_about("envoy.filters.http.rbac", prefix)),
        allowed_headers: request_headers(&of.speaks),
        services: Some(services),
        ..Default::default()
    }
}

fn ask_about_connection(of: &Authorizer, prefix: &str) -> NetworkExtAuthz {
    NetworkExtAuthz {
        stat_prefix: STAT.into(),
        grpc_service: Some(grpc(of)),
        failure_mode_allow: of.fail_open,
        transport_api_version: ApiVersion::V3.into(),
        filter_enabled_metadata: Some(asked_about("envoy.filters.network.rbac", prefix)),
        ..Default::default()
    }
}

/// Envoy knows a fixed list of codes; others would make it refuse everything we send.
fn status(code: u16) -> i32 {
    match envoy_types::pb::envoy::r#type::v3::StatusCode::try_from(i32::from(code)) {
        Ok(known) if code >= 200 => known.into(),
        _ => 403,
    }
}

fn grpc(of: &Authorizer) -> GrpcService {
    let target = grpc_service::EnvoyGrpc {
        cluster_name: cluster::upstream_name(&of.upstream, true),
        authority: of.upstream.host.clone(),
        ..Default::default()
    };
    GrpcService {
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(target)),
        timeout: duration(of.timeout),
        ..Default::default()
    }
}

fn http(of: &Authorizer) -> HttpService {
    let AuthorizerProtocol::Http {
        path_prefix,
        additional_headers,
        headers_to_upstream,
        headers_to_client_on_allow,
        headers_to_client_on_deny,
        include_request_headers: _,
    } = &of.speaks
    else {
        return HttpService::default();
    };
    let added = additional_headers.iter().map(|(key, value)| HeaderValue {
        key: key.clone(),
        value: value.clone(),
        ..Default::default()
    });
    let uri = HttpUri {
        uri: format!("http://{}:{}", of.upstream.host, of.upstream.port),
        http_upstream_type: Some(HttpUpstreamType::Cluster(cluster::upstream_name(&of.upstream, false))),
        timeout: duration(of.timeout),
    };
    HttpService {
        server_uri: Some(uri),
        path_prefix: path_prefix.clone(),
        authorization_request: Some(AuthorizationRequest { headers_to_add: added.collect(), ..Default::default() }),
        authorization_response: Some(AuthorizationResponse {
            allowed_upstream_headers: names(headers_to_upstream),
            allowed_client_headers: names(headers_to_client_on_deny),
            allowed_client_headers_on_success: names(headers_to_client_on_allow),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn request_headers(speaks: &AuthorizerProtocol) -> Option<ListStringMatcher> {
    match speaks {
        AuthorizerProtocol::Grpc => None,
        AuthorizerProtocol::Http { include_request_headers, .. } => names(include_request_headers),
    }
}

fn names(headers: &[String]) -> Option<ListStringMatcher> {
    let matcher = |name: &String| StringMatcher { ignore_case: true, ..Glob::of(name).matcher() };
    let any = |name: &String| if name == "*" { Glob::Any.matcher() } else { matcher(name) };
    (!headers.is_empty()).then(|| ListStringMatcher { patterns: headers.iter().map(any).collect() })
}

/// Only what the shadow rules matched.
fn asked_about(rbac: &str, prefix: &str) -> MetadataMatcher {
    let matched = string_matcher::MatchPattern::Prefix(prefix.to_owned());
    let value = StringMatcher { match_pattern: Some(matched), ..Default::default() };
    let key = format!("{SHADOW}shadow_effective_policy_id");
    MetadataMatcher {
        filter: rbac.to_owned(),
        path: vec![PathSegment { segment: Some(Segment::Key(key)) }],
        value: Some(ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::StringMatch(value)) }),
        ..Default::default()
    }
}

/// Istio's names, which its users know from logs and statistics.
const NAME: &str = "istio-ext-authz";
const SHADOW: &str = "istio_ext_authz_";
const STAT: &str = "tcp";
