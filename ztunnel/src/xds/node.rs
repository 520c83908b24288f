// SPDX-License-Identifier: Apache-2.0
//! Who this ztunnel says it is to the control plane. Pure.

use std::net::IpAddr;

use mesh_proto::contract::node_metadata;
use mesh_proto::discovery::{ListValue, Node, Struct, Value, string_value, value};

/// The parts of the node id and its metadata.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// This pod's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its address.
    pub ip: IpAddr,
    /// The Kubernetes node.
    pub node_name: String,
    /// More metadata: `ISTIO_META_*` and `proxyMetadata`.
    pub metadata: Vec<(String, String)>,
    /// More metadata as JSON: `ISTIO_METAJSON_*`.
    pub json_metadata: Vec<(String, serde_json::Value)>,
}

impl NodeOptions {
    /// As the protocol carries it. The suffix is literal, whatever the cluster's domain is.
    pub fn node(&self) -> Node {
        let Self { name, namespace, ip, .. } = self;
        let fixed = [
            (node_metadata::NAME, name.clone()),
            (node_metadata::NAMESPACE, namespace.clone()),
            (node_metadata::INSTANCE_IPS, ip.to_string()),
            (node_metadata::NODE_NAME, self.node_name.clone()),
        ];
        let fixed = fixed.into_iter().map(|(key, text)| (key.to_owned(), string_value(text)));
        let texts = self.metadata.iter().map(|(key, text)| (key.clone(), string_value(text)));
        let values = self.json_metadata.iter().map(|(key, json)| (key.clone(), from_json(json)));
        Node {
            id: format!("ztunnel~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local"),
            metadata: Some(Struct { fields: fixed.chain(texts).chain(values).collect() }),
            ..Default::default()
        }
    }
}

fn from_json(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    use value::Kind;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(bool) => Kind::BoolValue(*bool),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(from_json).collect() }),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(key, json)| (key.clone(), from_json(json))).collect();
            Kind::StructValue(Struct { fields })
        }
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use mesh_proto::discovery::DeltaDiscoveryRequest;
    use prost::Message as _;

    use super::*;

    #[test]
    fn the_node_is_the_one_a_recorded_ztunnel_sent() {
        let ours = NodeOptions {
            name: "ztunnel-node1".into(),
            namespace: "istio-system".into(),
            ip: "172.30.77.1".parse().unwrap(),
            node_name: "node1".into(),
            metadata: Vec::new(),
            json_metadata: Vec::new(),
        };
        let recorded = include_str!("../../tests/wire/xds-ztunnel.jsonl")
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .find(|record| record["who"] == "DeltaDiscoveryRequest")
            .unwrap();
        let hex = recorded["hex"].as_str().unwrap().as_bytes();
        let bytes: Vec<u8> =
            hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
        let request = DeltaDiscoveryRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!(request.node.unwrap(), ours.node());
    }

    #[test]
    fn extra_metadata_keeps_its_shape() {
        let json = serde_json::json!({"a": [1, true, null, "x"]});
        let Some(value::Kind::StructValue(fields)) = from_json(&json).kind else { panic!() };
        let Some(value::Kind::ListValue(list)) = &fields.fields["a"].kind else { panic!() };
        assert_eq!(list.values.len(), 4);
        assert_eq!(list.values[3], string_value("x"));
    }
}
