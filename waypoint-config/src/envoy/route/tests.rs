// SPDX-License-Identifier: Apache-2.0
//! What rules become; that Envoy takes and does it is shown by `tests/envoy`.

use std::{sync::Arc, time::Duration};

use envoy_types::pb::envoy::{
    config::{
        core::v3::header_value_option::HeaderAppendAction,
        route::v3::{
            Route, RouteAction, RouteConfiguration, route::Action, route_action::ClusterSpecifier,
            route_match::PathSpecifier,
        },
    },
    extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier as TcpClusters,
};

use super::*;
use crate::{
    api::{Key, Kind},
    envoy::names::{NOBODY, inbound_http, inbound_tcp, outbound},
    view::{
        Name,
        rule::{
            Backend, HeaderEdits, HttpEntry, HttpMatch, HttpRule, Origin, PathMatch, PortRules, Retry, Rewrite, Target,
            TcpRule,
        },
    },
};

fn origin() -> Origin {
    Origin { route: Key::new(Kind::Service, "shop", "route"), rule: 0, name: None }
}

fn rule(backends: Vec<Backend>) -> HttpRule {
    HttpRule {
        origin: origin(),
        is_grpc: false,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        redirect: None,
        rewrite: Rewrite::default(),
        mirrors: Vec::new(),
        cors: None,
        timeout: None,
        backend_timeout: None,
        retry: None,
        backends,
        broken: None,
    }
}

fn backend(name: &str, weight: u32) -> Backend {
    Backend {
        target: Target::Service { service: Name::new("shop", name), port: 80 },
        weight,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
    }
}

fn nobody_with(weight: u32) -> Backend {
    Backend { target: Target::Invalid { reason: "gone".to_owned() }, ..backend("", weight) }
}

/// `v1` is served here, `away` elsewhere, others nowhere.
fn cluster_of(service: &Name, port: u16, protocol: Protocol) -> Option<String> {
    match (&*service.name, protocol) {
        ("v1", Protocol::Http) => Some(inbound_http("v1", port)),
        ("v1", Protocol::Tcp) => Some(inbound_tcp("v1", port)),
        ("away", _) => Some(outbound("away", port)),
        _ => None,
    }
}

fn configured(http: Vec<HttpEntry>) -> RouteConfiguration {
    route_configuration("web", 80, &PortRules { http, tcp: None }, &cluster_of)
}

fn entry(rule: HttpRule) -> HttpEntry {
    HttpEntry { client_namespace: None, matches: HttpMatch::default(), rule: Arc::new(rule) }
}

fn only(rule: HttpRule) -> Route {
    configured(vec![entry(rule)]).virtual_hosts.remove(0).routes.remove(0)
}

fn sent(rule: HttpRule) -> RouteAction {
    match only(rule).action {
        Some(Action::Route(action)) => action,
        other => panic!("{other:?}"),
    }
}

fn answered(rule: HttpRule) -> u32 {
    match only(rule).action {
        Some(Action::DirectResponse(answer)) => answer.status,
        other => panic!("{other:?}"),
    }
}

fn weights(action: &RouteAction) -> Vec<(String, u32)> {
    match &action.cluster_specifier {
        Some(ClusterSpecifier::WeightedClusters(several)) => {
            let pair = |cluster: &envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight| {
                (cluster.name.clone(), cluster.weight.as_ref().map_or(0, |weight| weight.value))
            };
            several.clusters.iter().map(pair).collect()
        }
        Some(ClusterSpecifier::Cluster(name)) => vec![(name.clone(), 0)],
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_rules_requests_go_to_the_service_without_a_timeout() {
    let config = configured(Vec::new());
    assert_eq!(config.name, "inbound-vip|80|http|web");
    let [route] = config.virtual_hosts[0].routes.as_slice() else { panic!("{config:?}") };
    let Some(Action::Route(action)) = &route.action else { panic!("{route:?}") };
    assert_eq!(weights(action), [(inbound_http("web", 80), 0)]);
    assert_eq!(action.timeout.as_ref().map(|timeout| timeout.seconds), Some(0));
    assert_eq!(action.retry_policy.as_ref().and_then(|policy| policy.num_retries.as_ref()).map(|n| n.value), Some(2));
}

#[test]
fn shares_of_zero_are_dropped_and_a_single_one_is_a_plain_cluster() {
    let action = sent(rule(vec![backend("v1", 1), backend("away", 0)]));
    assert_eq!(weights(&action), [(inbound_http("v1", 80), 0)]);
    let action = sent(rule(vec![backend("v1", 9), backend("away", 1)]));
    assert_eq!(weights(&action), [(inbound_http("v1", 80), 9), (outbound("away", 80), 1)]);
}

#[test]
fn nobody_gets_the_share_of_an_invalid_backend() {
    let action = sent(rule(vec![backend("v1", 1), nobody_with(3), backend("unknown", 1)]));
    assert_eq!(weights(&action)[1..], [(NOBODY.to_owned(), 3), (NOBODY.to_owned(), 1)]);
    assert_eq!(action.cluster_not_found_response_code, 2);
    let grpc = sent(HttpRule { is_grpc: true, ..rule(vec![nobody_with(1)]) });
    assert_eq!(grpc.cluster_not_found_response_code, 0);
}

#[test]
fn without_backends_or_with_a_broken_rule_an_error_is_the_answer() {
    assert_eq!(answered(rule(Vec::new())), 500);
    assert_eq!(answered(rule(vec![backend("v1", 0)])), 500);
    assert_eq!(answered(HttpRule { broken: Some("x".to_owned()), ..rule(vec![backend("v1", 1)]) }), 500);
    assert_eq!(answered(HttpRule { is_grpc: true, ..rule(Vec::new()) }), 503);
}

#[test]
fn weights_whose_sum_is_too_large_are_scaled() {
    let action = sent(rule(vec![backend("v1", u32::MAX), backend("away", u32::MAX), backend("v1", 1)]));
    let sum: u64 = weights(&action).iter().map(|(_, weight)| u64::from(*weight)).sum();
    assert!(sum <= u64::from(u32::MAX), "{sum}");
    assert_eq!(weights(&action)[2].1, 1);
}

#[test]
fn values_of_headers_are_no_templates() {
    let request_headers = HeaderEdits {
        set: vec![("a".to_owned(), "100%".to_owned())],
        add: vec![("b".to_owned(), String::new())],
        remove: vec!["c".to_owned()],
    };
    let route = only(HttpRule { request_headers, ..rule(vec![backend("v1", 1)]) });
    let [set, add] = route.request_headers_to_add.as_slice() else { panic!("{route:?}") };
    assert_eq!(set.header.as_ref().map(|header| header.value.as_str()), Some("100%%"));
    assert_eq!(set.append_action, i32::from(HeaderAppendAction::OverwriteIfExistsOrAdd));
    assert_eq!(add.append_action, i32::from(HeaderAppendAction::AppendIfExistsOrAdd));
    assert!(add.keep_empty_value);
    assert_eq!(route.request_headers_to_remove, ["c"]);
}

#[test]
fn headers_of_one_backend_make_a_weighted_cluster_of_one() {
    let mut one = backend("v1", 5);
    one.request_headers.remove.push("x".to_owned());
    let action = sent(rule(vec![one]));
    let Some(ClusterSpecifier::WeightedClusters(several)) = action.cluster_specifier else { panic!() };
    assert_eq!(several.clusters[0].request_headers_to_remove, ["x"]);
}

#[test]
fn timeouts_are_of_the_request_and_of_each_try() {
    let seconds = |action: &RouteAction| action.timeout.as_ref().map(|timeout| timeout.seconds);
    let of_try = |action: &RouteAction| {
        action.retry_policy.as_ref().map(|policy| policy.per_try_timeout.map(|timeout| timeout.seconds))
    };
    let with = |timeout: Option<u64>, backend_timeout: Option<u64>, attempts: Option<u32>| {
        sent(HttpRule {
            timeout: timeout.map(Duration::from_secs),
            backend_timeout: backend_timeout.map(Duration::from_secs),
            retry: attempts.map(|attempts| Retry { attempts, codes: vec![503], backoff: None }),
            ..rule(vec![backend("v1", 1)])
        })
    };
    let action = with(Some(9), Some(3), Some(2));
    assert_eq!((seconds(&action), of_try(&action)), (Some(9), Some(Some(3))));
    let action = with(Some(9), Some(3), Some(0));
    assert_eq!((seconds(&action), of_try(&action)), (Some(3), None));
    let action = with(Some(0), None, None);
    assert_eq!((seconds(&action), of_try(&action)), (Some(0), Some(None)));
    assert!(action.max_stream_duration.is_some_and(|bound| bound.grpc_timeout_header_max.is_some()));
    // Envoy would not look at the timeout.
    assert_eq!(with(Some(9), None, None).max_stream_duration, None);
}

#[test]
fn who_asks_for_retries_gets_them_after_broken_connections_too() {
    let conditions = |retry: Option<Retry>| {
        let action = sent(HttpRule { retry, ..rule(vec![backend("v1", 1)]) });
        action.retry_policy.map(|policy| policy.retry_on).unwrap_or_default()
    };
    assert!(!conditions(None).contains("reset"), "nobody asked");
    let asked = conditions(Some(Retry { attempts: 1, codes: Vec::new(), backoff: None }));
    assert!(asked.split(',').any(|condition| condition == "reset"), "{asked}");
}

#[test]
fn behind_the_routes_of_a_namespace_its_clients_get_nothing_else() {
    let of_clients = HttpEntry {
        client_namespace: Some("b".into()),
        matches: HttpMatch { path: Some(PathMatch::Prefix("/a".to_owned())), ..HttpMatch::default() },
        rule: Arc::new(rule(vec![backend("v1", 1)])),
    };
    let config = configured(vec![of_clients.clone(), entry(rule(vec![backend("away", 1)]))]);
    let routes = &config.virtual_hosts[0].routes;
    let names: Vec<&str> = routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["shop.route.0", "b.unmatched", "shop.route.0"]);
    let states = |route: &Route| route.r#match.as_ref().map_or(0, |wanted| wanted.filter_state.len());
    assert_eq!(routes.iter().map(states).collect::<Vec<_>>(), [1, 1, 0]);
    // Everybody else still reaches the service.
    let config = configured(vec![of_clients]);
    assert_eq!(config.virtual_hosts[0].routes.last().map(|route| route.name.as_str()), Some("default"));
}

#[test]
fn prefixes_are_of_whole_elements() {
    let with = |path: PathMatch| {
        let matches = HttpMatch { path: Some(path), ..HttpMatch::default() };
        let entry = HttpEntry { matches, ..entry(rule(Vec::new())) };
        configured(vec![entry]).virtual_hosts[0].routes[0]
            .r#match
            .as_ref()
            .and_then(|wanted| wanted.path_specifier.clone())
    };
    assert_eq!(with(PathMatch::Prefix("/a".to_owned())), Some(PathSpecifier::PathSeparatedPrefix("/a".to_owned())));
    assert_eq!(with(PathMatch::Prefix("/".to_owned())), Some(PathSpecifier::Prefix("/".to_owned())));
    assert_eq!(with(PathMatch::Exact("/a/".to_owned())), Some(PathSpecifier::Path("/a/".to_owned())));
}

#[test]
fn connections_go_to_the_service_unless_a_rule_says_otherwise() {
    let clusters = |backends: Option<Vec<Backend>>| {
        let tcp = backends.map(|backends| Arc::new(TcpRule { origin: origin(), backends }));
        match tcp_clusters("web", 80, &PortRules { http: Vec::new(), tcp }, &cluster_of) {
            TcpClusters::Cluster(name) => vec![(name, 0)],
            TcpClusters::WeightedClusters(several) => {
                several.clusters.into_iter().map(|cluster| (cluster.name, cluster.weight)).collect()
            }
        }
    };
    assert_eq!(clusters(None), [(inbound_tcp("web", 80), 0)]);
    assert_eq!(clusters(Some(Vec::new())), [(NOBODY.to_owned(), 0)]);
    assert_eq!(clusters(Some(vec![backend("v1", 0)])), [(NOBODY.to_owned(), 0)]);
    assert_eq!(clusters(Some(vec![backend("v1", 1), backend("away", 0)])), [(inbound_tcp("v1", 80), 0)]);
    assert_eq!(
        clusters(Some(vec![backend("v1", 1), nobody_with(2)])),
        [(inbound_tcp("v1", 80), 1), (NOBODY.to_owned(), 2)]
    );
}
