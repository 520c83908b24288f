// SPDX-License-Identifier: Apache-2.0
//! The parts put together.

use serde_json::{Value, json};

use super::input::Bootstrap;
use super::{discovery, limits, listener, node};

/// The bootstrap.
#[must_use]
pub fn render(of: &Bootstrap) -> Value {
    json!({
        "node": node::node(of),
        "admin": listener::admin(),
        "dynamic_resources": discovery::dynamic_resources(),
        "static_resources": {
            "listeners": listener::listeners(&of.node),
            "clusters": [discovery::cluster(of), listener::cluster()],
        },
        "bootstrap_extensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
                "buffer_size_kb": 64,
            },
        }],
        "overload_manager": limits::overload_manager(&of.limits),
        "layered_runtime": limits::layered_runtime(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::waypoint::bootstrap::{Limits, Node};

    /// Written anew with `LATEEN_GOLDEN=write`.
    fn holds(name: &str, input: &Bootstrap) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let text = format!("{:#}\n", render(input));
        if std::env::var_os("LATEEN_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        pretty_eq(&text, &std::fs::read_to_string(path).unwrap_or_default());
    }

    fn pretty_eq(ours: &str, golden: &str) {
        let differs = ours.lines().zip(golden.lines().chain(std::iter::repeat(""))).find(|(one, other)| one != other);
        assert!(ours == golden, "differs from the golden file: {differs:?}");
    }

    fn waypoint() -> Bootstrap {
        let labels = [("app", "shop"), ("gateway.networking.k8s.io/gateway-name", "another")];
        Bootstrap {
            node: Node {
                gateway: "waypoint".to_owned(),
                pod: "waypoint-0".to_owned(),
                namespace: "shop".to_owned(),
                service_account: "waypoint".to_owned(),
                addresses: vec!["10.244.1.7".parse().unwrap()],
                node: "n1".to_owned(),
                network: String::new(),
                cluster_id: "Kubernetes".to_owned(),
                cluster_domain: "cluster.local".to_owned(),
                labels: BTreeMap::from(labels.map(|(key, value)| (key.to_owned(), value.to_owned()))),
            },
            discovery: "istiod.istio-system.svc:15012".parse().unwrap(),
            certificate: "/etc/istio/proxy/secrets/default.json".into(),
            roots: "/etc/istio/proxy/secrets/ROOTCA.json".into(),
            discovery_roots: "/etc/istio/proxy/secrets/discovery.json".into(),
            limits: Limits { heap: Some(900 << 20), connections: 100_000 },
        }
    }

    #[test]
    fn a_waypoint_starts_with_what_it_must_know_before_discovery() {
        holds("bootstrap.json", &waypoint());
    }

    #[test]
    fn a_pod_with_ipv6_listens_on_both_and_an_address_of_discovery_has_no_server_name() {
        let mut input = waypoint();
        input.node.addresses.push("fd00::7".parse().unwrap());
        input.node.network = "east".to_owned();
        input.discovery = "[fd00::1]:15012".parse().unwrap();
        input.limits.heap = None;
        holds("bootstrap-ipv6.json", &input);
    }
}
