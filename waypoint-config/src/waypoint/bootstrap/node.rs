// SPDX-License-Identifier: Apache-2.0
//! As whom Envoy introduces itself to discovery (control-plane.md §2.7).

use std::collections::BTreeMap;

use mesh_proto::contract::{label, node_metadata};
use serde_json::{Value, json};

use super::input::{Bootstrap, Node};

/// The node.
pub(super) fn node(of: &Bootstrap) -> Value {
    let Node { gateway, pod, namespace, cluster_domain, .. } = &of.node;
    let address = of.node.addresses.first().map(ToString::to_string).unwrap_or_default();
    json!({
        "id": format!("waypoint~{address}~{pod}.{namespace}~{namespace}.svc.{cluster_domain}"),
        "cluster": format!("{gateway}.{namespace}"),
        "metadata": metadata(of),
    })
}

fn metadata(of: &Bootstrap) -> Value {
    let node = &of.node;
    let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
    let mut labels = node.labels.clone();
    labels.insert(label::GATEWAY_NAME.to_owned(), node.gateway.clone());
    let mut metadata = json!({
        node_metadata::NAME: node.pod,
        node_metadata::NAMESPACE: node.namespace,
        node_metadata::SERVICE_ACCOUNT: node.service_account,
        node_metadata::INSTANCE_IPS: addresses.join(","),
        node_metadata::CLUSTER_ID: node.cluster_id,
        node_metadata::ISTIO_VERSION: ISTIO_VERSION,
        node_metadata::LABELS: labels,
        node_metadata::CERTIFICATE_FILE: of.certificate,
        node_metadata::ROOTS_FILE: of.roots,
    });
    for (key, value) in [(node_metadata::NODE_NAME, &node.node), (node_metadata::NETWORK, &node.network)] {
        if !value.is_empty() {
            metadata[key] = value.as_str().into();
        }
    }
    metadata
}

/// Labels as Kubernetes writes them into a volume: `key="value"` by lines, the value escaped as Go does. A line that is none is left out.
#[must_use]
pub fn labels(text: &str) -> BTreeMap<String, String> {
    let label = |line: &str| {
        let (key, value) = line.split_once('=')?;
        // Values of labels hold nothing that Go and JSON escape in different ways.
        Some((key.to_owned(), serde_json::from_str(value.trim()).ok()?))
    };
    text.lines().filter_map(label).collect()
}

/// The release whose protocol is spoken.
const ISTIO_VERSION: &str = "1.28.0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_kubernetes_writes_them() {
        let read = labels("a.b/c=\"d\"\nempty=\"\"\nnonsense\nopen=\"x\n=\n\n");
        let expected = [("a.b/c", "d"), ("empty", "")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(read, BTreeMap::from(expected));
    }
}
