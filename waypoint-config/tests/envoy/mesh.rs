// SPDX-License-Identifier: Apache-2.0
//! A few services, and their routes from YAML to Envoy's form.

use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use gateway_api::experimental::{grpcroutes::GrpcRoute, httproutes::HttpRoute};
use waypoint_config::{
    api::{Key, Kind},
    envoy::{
        names,
        route::{Protocol, route_configuration},
    },
    view::{
        AppProtocol, Name,
        routes::{AnyRoute, Found, Lookup, ParentKind, ParentPort, ParentService, RouteRef, resolve},
    },
};

/// The services of the namespace `shop`. All are served here.
pub(crate) const SERVICES: &[&str] = &["web", "v1", "v2", "slow", "flaky", "spy"];

struct Mesh;

impl Lookup for Mesh {
    fn service(&self, name: &Name) -> Option<Found> {
        let known = &*name.namespace == "shop" && SERVICES.contains(&&*name.name);
        known.then(|| Found { service: name.clone(), ports: vec![(80, AppProtocol::Http11)] })
    }

    fn hostname(&self, _: &str, _: &str) -> Option<Found> {
        None
    }

    fn is_granted(&self, _: &str, _: &str, _: &Name) -> bool {
        true
    }
}

/// What `web` is told on a port, given routes as documents.
pub(crate) fn routes(documents: &[serde_json::Value], port: u16) -> RouteConfiguration {
    let http: Vec<HttpRoute> = of_kind(documents, "HTTPRoute");
    let grpc: Vec<GrpcRoute> = of_kind(documents, "GRPCRoute");
    let key = |metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        Key::new(
            Kind::Service,
            metadata.namespace.as_deref().unwrap_or("shop"),
            metadata.name.as_deref().unwrap_or("route"),
        )
    };
    let http = http.iter().map(|route| RouteRef { key: key(&route.metadata), route: AnyRoute::Http(route) });
    let grpc = grpc.iter().map(|route| RouteRef { key: key(&route.metadata), route: AnyRoute::Grpc(route) });
    let all: Vec<RouteRef<'_>> = http.chain(grpc).collect();
    let web = ParentService {
        kind: ParentKind::Service,
        object: Name::new("shop", "web"),
        service: Name::new("shop", "web"),
        hostname: "web".into(),
        ports: vec![ParentPort { port, name: None, protocol: AppProtocol::Http11 }],
    };
    let (mut ports, _) = resolve(&web, &all, &Mesh);
    let cluster_of = |service: &Name, port: u16, _: Protocol| Some(names::inbound_http(&service.name, port));
    route_configuration("web", port, &ports.remove(&port).unwrap_or_default(), &cluster_of)
}

fn of_kind<T: serde::de::DeserializeOwned>(documents: &[serde_json::Value], kind: &str) -> Vec<T> {
    let wanted = documents.iter().filter(|document| document["kind"] == kind);
    wanted.map(|document| serde_json::from_value(document.clone()).unwrap()).collect()
}

/// A route for `web`, of that namespace, with rules as YAML.
pub(crate) fn document(kind: &str, namespace: &str, rules: &str) -> serde_json::Value {
    let rules: serde_json::Value = serde_saphyr::from_str(rules).unwrap_or_else(|error| panic!("{rules}: {error}"));
    serde_json::json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"name": "route", "namespace": namespace},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web", "namespace": "shop"}], "rules": rules},
    })
}
