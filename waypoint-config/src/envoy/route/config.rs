// SPDX-License-Identifier: Apache-2.0
//! The RouteConfiguration of one port.
//!
//! Routes of clients' namespaces stand first and look at [`PEER_PRINCIPAL`](crate::envoy::names::PEER_PRINCIPAL); behind those of a namespace
//! everything else of its clients is answered 404. Then come the routes for everybody, or, where there are none, the service itself. A request that
//! matches none is answered 404 by Envoy.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::route::v3::{
    Decorator, Route, RouteConfiguration, RouteMatch, VirtualHost, route::Action,
};
use mesh_proto::discovery::pack;

use super::{
    action::{self, ClusterOf},
    cors, headers, matches,
    values::{boolean, uint32},
};
use crate::{
    envoy::names::{CORS_FILTER, inbound_http, route_config},
    view::rule::{HttpEntry, Origin, PortRules},
};

/// Of an answer without a backend; Envoy's own bound is 4096, and it refuses the whole configuration for one that is longer.
pub const MAX_DIRECT_BODY: u32 = 1 << 20;

/// The routes of `port` of the service `hostname`, which this waypoint serves; also when there are no rules.
pub fn route_configuration(
    hostname: &str,
    port: u16,
    rules: &PortRules,
    cluster_of: &ClusterOf<'_>,
) -> RouteConfiguration {
    let operation = format!("{hostname}:{port}/*");
    let of_entry = |entry: &HttpEntry| route(entry, port, &operation, cluster_of);
    let (of_clients, of_all): (Vec<&HttpEntry>, Vec<&HttpEntry>) =
        rules.http.iter().partition(|entry| entry.client_namespace.is_some());
    let namespaces: BTreeSet<&str> = of_clients.iter().filter_map(|entry| entry.client_namespace.as_deref()).collect();
    let mut routes: Vec<Route> = of_clients.into_iter().map(of_entry).collect();
    routes.extend(namespaces.into_iter().map(|namespace| {
        let text = format!("no route of the namespace {namespace} matches\n");
        plain(format!("{namespace}.unmatched"), matches::all(Some(namespace)), action::answer(404, text), &operation)
    }));
    if of_all.is_empty() {
        let itself = action::to_cluster(inbound_http(hostname, port));
        routes.push(plain("default".to_owned(), matches::all(None), itself, &operation));
    }
    routes.extend(of_all.into_iter().map(of_entry));
    RouteConfiguration {
        name: route_config(hostname, port),
        virtual_hosts: vec![VirtualHost {
            name: format!("inbound|http|{port}"),
            domains: vec!["*".to_owned()],
            routes,
            ..VirtualHost::default()
        }],
        validate_clusters: boolean(false),
        max_direct_response_body_size_bytes: uint32(MAX_DIRECT_BODY),
        ..RouteConfiguration::default()
    }
}

fn route(entry: &HttpEntry, port: u16, operation: &str, cluster_of: &ClusterOf<'_>) -> Route {
    let rule = &entry.rule;
    let wanted = matches::requests(&entry.matches, entry.client_namespace.as_deref());
    let action = action::of_rule(rule, &entry.matches, port, cluster_of);
    let (request_headers_to_add, request_headers_to_remove) = headers::edits(&rule.request_headers);
    let (response_headers_to_add, response_headers_to_remove) = headers::edits(&rule.response_headers);
    let cors = rule.cors.as_ref().filter(|_| rule.broken.is_none());
    Route {
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config: cors
            .map(|cors| (CORS_FILTER.to_owned(), pack(&cors::policy(cors))))
            .into_iter()
            .collect(),
        ..plain(name(&rule.origin), wanted, action, operation)
    }
}

/// As Istio writes it in logs: `namespace.name.rule`.
fn name(origin: &Origin) -> String {
    let route = &origin.route;
    match &origin.name {
        Some(rule) => format!("{}.{}.{rule}", route.namespace, route.name),
        None => format!("{}.{}.{}", route.namespace, route.name, origin.rule),
    }
}

fn plain(name: String, wanted: RouteMatch, action: Action, operation: &str) -> Route {
    Route {
        name,
        r#match: Some(wanted),
        decorator: Some(Decorator { operation: operation.to_owned(), propagate: None }),
        action: Some(action),
        ..Route::default()
    }
}
