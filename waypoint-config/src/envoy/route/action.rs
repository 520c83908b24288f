// SPDX-License-Identifier: Apache-2.0
//! What is done with a request: send on, redirect, or answer.

use std::time::Duration;

use envoy_types::pb::envoy::config::{
    core::v3::{DataSource, data_source},
    route::v3::{
        DirectResponseAction, RouteAction, WeightedCluster,
        route::Action,
        route_action::{
            ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration, RequestMirrorPolicy,
        },
        weighted_cluster::ClusterWeight,
    },
};

use super::{
    headers,
    path::{self, Edit},
    redirect, retry,
    values::{boolean, duration, share, substitute, uint32},
};
use crate::{
    envoy::names::NOBODY,
    view::{
        Name,
        rule::{Backend, HttpMatch, HttpRule, Target},
    },
};

/// What is sent to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Requests.
    Http,
    /// Bytes of a connection.
    Tcp,
}

/// The cluster of a service's port (by the service's key in the snapshot), for one waypoint: of the services it serves `names::inbound_http` or
/// `names::inbound_tcp`, of others `names::outbound`; `None` when there is none.
pub type ClusterOf<'a> = dyn Fn(&Name, u16, Protocol) -> Option<String> + 'a;

/// What `rule` does with requests on `port` that were matched so.
pub(super) fn of_rule(rule: &HttpRule, matched: &HttpMatch, port: u16, cluster_of: &ClusterOf<'_>) -> Action {
    if rule.broken.is_some() {
        return failure(rule, "cannot be carried out");
    }
    if let Some(wanted) = &rule.redirect {
        return Action::Redirect(redirect::action(wanted, matched.path.as_ref(), port));
    }
    let Some(clusters) = clusters(&rule.backends, cluster_of) else {
        return failure(rule, "has no backend");
    };
    let mut action = sent_to(clusters, rule.is_grpc);
    rewrite(rule, matched, &mut action);
    action.request_mirror_policies = rule
        .mirrors
        .iter()
        .filter_map(|mirror| {
            let cluster = cluster(&mirror.target, Protocol::Http, cluster_of)?;
            Some(RequestMirrorPolicy {
                cluster,
                runtime_fraction: Some(share(mirror.parts_per_million.min(1_000_000))),
                trace_sampled: boolean(false),
                ..RequestMirrorPolicy::default()
            })
        })
        .collect();
    action.retry_policy = retry::policy(rule.retry.as_ref(), rule.backend_timeout);
    let bound = |timeout: Option<Duration>| timeout.filter(|timeout| !timeout.is_zero());
    let whole = match (bound(rule.timeout), bound(rule.backend_timeout)) {
        // One try is all there is.
        (whole, Some(of_try)) if action.retry_policy.is_none() => Some(whole.map_or(of_try, |whole| whole.min(of_try))),
        (whole, _) => whole,
    };
    set_timeout(&mut action, whole.unwrap_or_default());
    Action::Route(action)
}

/// To the service itself, with the defaults of the mesh.
pub(super) fn to_cluster(cluster: String) -> Action {
    let mut action = sent_to(ClusterSpecifier::Cluster(cluster), false);
    action.retry_policy = retry::policy(None, None);
    set_timeout(&mut action, Duration::ZERO);
    Action::Route(action)
}

/// An answer of ours. Envoy turns it into one of gRPC when the request is of gRPC: 503 into UNAVAILABLE, 404 into UNIMPLEMENTED.
pub(super) fn answer(status: u32, text: String) -> Action {
    let body = DataSource { specifier: Some(data_source::Specifier::InlineString(text)), watched_directory: None };
    Action::DirectResponse(DirectResponseAction { status, body: Some(body), body_format: None })
}

fn failure(rule: &HttpRule, why: &str) -> Action {
    let status = if rule.is_grpc { 503 } else { 500 };
    let origin = &rule.origin;
    answer(status, format!("{}: rules[{}] {why}, see the route's status\n", origin.route, origin.rule))
}

fn sent_to(clusters: ClusterSpecifier, is_grpc: bool) -> RouteAction {
    let not_found = if is_grpc {
        ClusterNotFoundResponseCode::ServiceUnavailable
    } else {
        ClusterNotFoundResponseCode::InternalServerError
    };
    RouteAction {
        cluster_specifier: Some(clusters),
        cluster_not_found_response_code: not_found.into(),
        ..RouteAction::default()
    }
}

/// Zero is no bound; then a client of gRPC bounds its calls itself.
fn set_timeout(action: &mut RouteAction, timeout: Duration) {
    action.timeout = Some(duration(timeout));
    action.max_stream_duration = Some(MaxStreamDuration {
        max_stream_duration: None,
        grpc_timeout_header_max: Some(duration(timeout)),
        grpc_timeout_header_offset: None,
    });
}

fn rewrite(rule: &HttpRule, matched: &HttpMatch, action: &mut RouteAction) {
    action.host_rewrite_specifier = rule.rewrite.host.clone().map(HostRewriteSpecifier::HostRewriteLiteral);
    let Some(wanted) = &rule.rewrite.path else { return };
    match path::edit(matched.path.as_ref(), wanted) {
        Edit::Keep => {}
        Edit::Prefix(prefix) => action.prefix_rewrite = prefix,
        Edit::Regex(pattern, substitution) => action.regex_rewrite = Some(substitute(pattern, substitution)),
        Edit::Full(path) => {
            let (pattern, substitution) = path::full(&path);
            action.regex_rewrite = Some(substitute(pattern, substitution));
        }
    }
}

/// `None` when nobody has a share.
fn clusters(backends: &[Backend], cluster_of: &ClusterOf<'_>) -> Option<ClusterSpecifier> {
    let named = |backend: &Backend| cluster(&backend.target, Protocol::Http, cluster_of).unwrap_or_else(nobody);
    let sharing: Vec<&Backend> = backends.iter().filter(|backend| backend.weight > 0).collect();
    match sharing.as_slice() {
        [] => None,
        [only] if only.request_headers.is_empty() && only.response_headers.is_empty() => {
            Some(ClusterSpecifier::Cluster(named(only)))
        }
        several => {
            let weights = scaled(several);
            let clusters = several.iter().zip(weights).map(|(backend, weight)| {
                let (request_headers_to_add, request_headers_to_remove) = headers::edits(&backend.request_headers);
                let (response_headers_to_add, response_headers_to_remove) = headers::edits(&backend.response_headers);
                ClusterWeight {
                    name: named(backend),
                    weight: uint32(weight),
                    request_headers_to_add,
                    request_headers_to_remove,
                    response_headers_to_add,
                    response_headers_to_remove,
                    ..ClusterWeight::default()
                }
            });
            Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters: clusters.collect(),
                ..WeightedCluster::default()
            }))
        }
    }
}

/// The weights, such that their sum is one that Envoy can hold.
pub(super) fn scaled(backends: &[&Backend]) -> Vec<u32> {
    let sum: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    // The sum of what is rounded up to 1 must still fit.
    let divisor = u32::try_from(sum / u64::from(u32::MAX / 2) + 1).unwrap_or(u32::MAX);
    if sum <= u64::from(u32::MAX) {
        return backends.iter().map(|backend| backend.weight).collect();
    }
    backends.iter().map(|backend| (backend.weight / divisor).max(1)).collect()
}

pub(super) fn cluster(target: &Target, protocol: Protocol, cluster_of: &ClusterOf<'_>) -> Option<String> {
    match target {
        Target::Service { service, port } => cluster_of(service, *port, protocol),
        Target::Invalid { .. } => None,
    }
}

pub(super) fn nobody() -> String {
    NOBODY.to_owned()
}
