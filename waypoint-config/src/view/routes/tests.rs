// SPDX-License-Identifier: Apache-2.0
//! Every row of the table of routes, from YAML.

mod http;
mod status;
mod streams;

use std::collections::BTreeMap;

use gateway_api::experimental::{
    grpcroutes::GrpcRoute, httproutes::HttpRoute, referencegrants::ReferenceGrant, tcproutes::TcpRoute,
    tlsroutes::TlsRoute,
};
use serde::de::DeserializeOwned;

use super::*;
use crate::{
    api::{Key, Kind},
    view::{
        AppProtocol, Name,
        rule::{HttpEntry, HttpRule, PathMatch, PortRules, Target},
    },
};

/// A few services, and what grants the YAML has.
#[derive(Default)]
struct World {
    grants: Vec<ReferenceGrant>,
}

impl Lookup for World {
    fn service(&self, name: &Name) -> Option<Found> {
        let known = [("shop", "web"), ("shop", "v1"), ("shop", "v2"), ("bank", "safe"), ("client", "local")];
        known.iter().any(|known| *known == (&*name.namespace, &*name.name)).then(|| Found {
            service: name.clone(),
            ports: vec![(80, AppProtocol::Http11), (8080, AppProtocol::Unknown), (9000, AppProtocol::Tcp)],
        })
    }

    fn hostname(&self, hostname: &str, _: &str) -> Option<Found> {
        (hostname == "api.example.com").then(|| Found {
            service: Name::new("shop", "entry/api.example.com"),
            ports: vec![(80, AppProtocol::Http11)],
        })
    }

    fn is_granted(&self, kind: &str, from: &str, to: &Name) -> bool {
        self.grants.iter().any(|grant| permits(grant, kind, from, to))
    }
}

fn web() -> ParentService {
    let port = |port, name: &str, protocol| ParentPort { port, name: Some(name.into()), protocol };
    ParentService {
        kind: ParentKind::Service,
        object: Name::new("shop", "web"),
        service: Name::new("shop", "web"),
        hostname: "web.shop.svc.cluster.local".into(),
        ports: vec![
            port(80, "http", AppProtocol::Http11),
            port(8080, "any", AppProtocol::Unknown),
            port(9000, "redis", AppProtocol::Tcp),
            port(9443, "tls", AppProtocol::Tls),
        ],
    }
}

enum Held {
    Http(HttpRoute),
    Grpc(GrpcRoute),
    Tcp(TcpRoute),
    Tls(TlsRoute),
}

impl Held {
    fn reference(&self) -> RouteRef<'_> {
        let (route, metadata) = match self {
            Self::Http(route) => (AnyRoute::Http(route), &route.metadata),
            Self::Grpc(route) => (AnyRoute::Grpc(route), &route.metadata),
            Self::Tcp(route) => (AnyRoute::Tcp(route), &route.metadata),
            Self::Tls(route) => (AnyRoute::Tls(route), &route.metadata),
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        // Which kind does not matter here.
        RouteRef { key: Key::new(Kind::Service, &text(&metadata.namespace), &text(&metadata.name)), route }
    }
}

type Resolved = (BTreeMap<u16, PortRules>, Vec<RouteStatus>);

fn resolve_for(parent: &ParentService, yaml: &str) -> Resolved {
    let mut held = Vec::new();
    let mut world = World::default();
    for document in yaml.split("\n---\n") {
        let value: serde_json::Value = serde_saphyr::from_str(document).unwrap();
        fn typed<T: DeserializeOwned>(value: serde_json::Value) -> T {
            serde_json::from_value(value).unwrap()
        }
        match value["kind"].as_str().unwrap() {
            "HTTPRoute" => held.push(Held::Http(typed(value))),
            "GRPCRoute" => held.push(Held::Grpc(typed(value))),
            "TCPRoute" => held.push(Held::Tcp(typed(value))),
            "TLSRoute" => held.push(Held::Tls(typed(value))),
            "ReferenceGrant" => world.grants.push(typed(value)),
            other => panic!("{other}"),
        }
    }
    let routes: Vec<RouteRef<'_>> = held.iter().map(Held::reference).collect();
    resolve(parent, &routes, &world)
}

fn resolved(yaml: &str) -> Resolved {
    resolve_for(&web(), yaml)
}

/// A document of that kind for `shop/web`, with these rules.
fn document(kind: &str, namespace: &str, name: &str, rules: &str) -> String {
    let version = if kind == "TCPRoute" { "v1alpha2" } else { "v1" };
    format!(
        "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  parentRefs: [{{group: '', kind: Service, name: web, namespace: shop}}]\n  hostnames: [web.shop.svc.cluster.local]\n  rules: {rules}\n"
    )
}

fn http(rules: &str) -> String {
    document("HTTPRoute", "shop", "route", rules)
}

/// The only rule on port 80 of a route with this rule.
fn rule(rule: &str) -> HttpRule {
    let (ports, _) = resolved(&http(&format!("[{rule}]")));
    (*ports[&80].http[0].rule).clone()
}

fn entries(yaml: &str) -> Vec<HttpEntry> {
    resolved(yaml).0.remove(&80).unwrap_or_default().http
}

/// `Accepted=True/Accepted ...` of each status.
fn told(yaml: &str) -> Vec<String> {
    resolved(yaml).1.iter().map(short).collect()
}

fn short(status: &RouteStatus) -> String {
    let shown = |condition: &RouteCondition| {
        let truth = if condition.is_true { "True" } else { "False" };
        format!("{}={truth}/{}", condition.kind, condition.reason)
    };
    status.conditions.iter().map(shown).collect::<Vec<_>>().join(" ")
}

fn service(namespace: &str, name: &str, port: u16) -> Target {
    Target::Service { service: Name::new(namespace, name), port }
}

/// What the paths of entries look like.
fn paths(entries: &[HttpEntry]) -> Vec<String> {
    let shown = |entry: &HttpEntry| match &entry.matches.path {
        None => "any".to_owned(),
        Some(PathMatch::Exact(path)) => format!("={path}"),
        Some(PathMatch::Prefix(path)) => format!("{path}*"),
        Some(PathMatch::Regex(pattern)) => format!("~{pattern}"),
    };
    entries.iter().map(shown).collect()
}

const FINE: &str = "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs";
