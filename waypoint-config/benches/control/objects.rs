// SPDX-License-Identifier: Apache-2.0
//! The objects of the meshes that are measured: a waypoint, and services with a pod and two routes each.

use serde_json::{Value, json};

pub(crate) fn waypoint() -> Vec<Value> {
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"namespace": "shop", "name": "waypoint"},
        "spec": {"gatewayClassName": "istio-waypoint", "addresses": [{"value": "10.95.0.1"}],
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
    });
    let instance = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "waypoint-1", "uid": "uid-waypoint-1",
            "labels": {"gateway.networking.k8s.io/gateway-name": "waypoint"}},
        "spec": {"serviceAccountName": "waypoint", "containers": []}, "status": {"podIP": "10.255.0.9"},
    });
    vec![gateway, instance]
}

/// A service and its routes, the first of them for this path.
pub(crate) fn service(number: u32, path: &str) -> Vec<Value> {
    let name = format!("s{number}");
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": name, "labels": {"istio.io/use-waypoint": "waypoint"}},
        "spec": {"clusterIP": format!("10.96.{}.{}", number / 250, number % 250 + 1), "selector": {"app": name},
            "ports": [{"name": "http", "port": 80}]},
    });
    let route = |which: &str, path: &str| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"namespace": "shop", "name": format!("{name}-{which}")},
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": name}],
                "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": path}}],
                    "backendRefs": [{"name": name, "port": 80}]}],
            },
        })
    };
    vec![service, route("a", path), route("b", "/b")]
}

/// The pod of a service, at one of its addresses.
pub(crate) fn pod(number: u32, which: u32) -> Value {
    let address = format!("10.{which}.{}.{}", number / 250, number % 250 + 1);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": format!("s{number}-0"), "uid": format!("uid-s{number}-0"),
            "labels": {"app": format!("s{number}")}, "annotations": {"ambient.istio.io/redirection": "enabled"}},
        "spec": {"serviceAccountName": format!("s{number}"), "containers": []},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}]},
    })
}
