// SPDX-License-Identifier: Apache-2.0
//! Which waypoint a discovery client is, and what kind of Envoy it runs. The namespace and the service account are proven; the name is the client's own
//! word, and counts only if the pods of that Gateway run as this account. Pure.

use mesh_proto::contract::{label, node_metadata};
use mesh_proto::discovery::{Node, Value, string_field, value};
use mesh_proto::spiffe::Identity;
use thiserror::Error;

use crate::envoy::{Flavour, Profile, Secrets, Viewer};
use crate::fleet;
use crate::view::{Name, Snapshot};

/// The types of nodes that are waypoints.
pub(super) const KINDS: [&str; 2] = ["waypoint", "router"];

/// Why a client is no waypoint.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum ClaimError {
    /// There is none of that name.
    #[error("there is no Gateway {0} with an address: see its spec.addresses and status.addresses")]
    NoGateway(Name),
    /// It is somebody else's.
    #[error(
        "no pod of Gateway {waypoint} runs as {caller}: see the label gateway.networking.k8s.io/gateway-name and the service account of its pods"
    )]
    NotYours {
        /// The Gateway.
        waypoint: Name,
        /// Who asks.
        caller: Identity,
    },
}

/// What a client that proved to be `caller` is to be sent.
pub(super) fn claim(node: &Node, caller: &Identity, snapshot: &Snapshot) -> Result<fleet::Key, ClaimError> {
    let name = gateway_label(node).or_else(|| metadata(node, node_metadata::GATEWAY_NAME));
    let waypoint = Name::new(caller.namespace(), name.unwrap_or_else(|| caller.service_account()));
    let Some(found) = snapshot.waypoints.get(&waypoint) else { return Err(ClaimError::NoGateway(waypoint)) };
    if !found.identities.contains(caller) {
        return Err(ClaimError::NotYours { waypoint, caller: caller.clone() });
    }
    Ok(fleet::Key { waypoint, profile: profile(node) })
}

/// The kind of Envoy that a node says it is.
fn profile(node: &Node) -> Profile {
    let flavour = Flavour::of(node.extensions.iter().map(|extension| extension.name.as_str()));
    let files = metadata(node, node_metadata::CERTIFICATE_FILE).zip(metadata(node, node_metadata::ROOTS_FILE));
    let secrets =
        files.map(|(certificate, roots)| Secrets::Files { certificate: certificate.into(), roots: roots.into() });
    let place = node.locality.clone().unwrap_or_default();
    let addresses = metadata(node, node_metadata::INSTANCE_IPS).unwrap_or_default();
    Profile {
        flavour,
        secrets: secrets.unwrap_or_default(),
        viewer: Viewer {
            region: place.region,
            zone: place.zone,
            subzone: place.sub_zone,
            node: metadata(node, node_metadata::NODE_NAME).unwrap_or_default().to_owned(),
        },
        ipv6: addresses.contains(':'),
    }
}

fn metadata<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    string_field(node.metadata.as_ref()?, key).filter(|text| !text.is_empty() && text.len() <= MAX_TEXT)
}

fn gateway_label(node: &Node) -> Option<&str> {
    let labels: &Value = node.metadata.as_ref()?.fields.get(node_metadata::LABELS)?;
    let Some(value::Kind::StructValue(labels)) = &labels.kind else { return None };
    string_field(labels, label::GATEWAY_NAME).filter(|name| !name.is_empty())
}

/// No path or name is longer.
const MAX_TEXT: usize = 4096;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use mesh_proto::discovery::{Struct, string_value};

    use super::*;
    use crate::view::waypoint::{Admits, TrafficType, Waypoint};

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (namespace, name, account) in
            [("shop", "waypoint", "waypoint"), ("shop", "other", "other"), ("bank", "waypoint", "waypoint")]
        {
            let identity: Identity = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}").parse().unwrap();
            let waypoint = Waypoint {
                name: Name::new(namespace, name),
                class: "istio-waypoint".into(),
                traffic: TrafficType::Service,
                hostname: None,
                addresses: Vec::new(),
                network: "".into(),
                admits: Admits::Same,
                identities: BTreeSet::from([identity]),
                inbound: None,
            };
            snapshot.waypoints.insert_mut(waypoint.name.clone(), Arc::new(waypoint));
        }
        snapshot
    }

    fn node(metadata: &[(&str, &str)], labelled: Option<&str>) -> Node {
        let mut fields: std::collections::HashMap<_, _> =
            metadata.iter().map(|(key, value)| ((*key).to_owned(), string_value(*value))).collect();
        if let Some(name) = labelled {
            let labels = Struct { fields: [(label::GATEWAY_NAME.to_owned(), string_value(name))].into() };
            fields.insert(node_metadata::LABELS.to_owned(), Value { kind: Some(value::Kind::StructValue(labels)) });
        }
        Node { metadata: Some(Struct { fields }), ..Default::default() }
    }

    fn waypoint() -> Identity {
        "spiffe://cluster.local/ns/shop/sa/waypoint".parse().unwrap()
    }

    #[test]
    fn a_waypoint_is_known_by_its_label_or_its_name_or_its_account() {
        for node in [node(&[], Some("waypoint")), node(&[("GATEWAY_NAME", "waypoint")], None), node(&[], None)] {
            let key = claim(&node, &waypoint(), &snapshot()).unwrap();
            assert_eq!(key.waypoint, Name::new("shop", "waypoint"));
        }
    }

    #[test]
    fn nobody_gets_what_is_of_another_gateway_or_namespace() {
        let other = claim(&node(&[], Some("other")), &waypoint(), &snapshot());
        assert!(matches!(other, Err(ClaimError::NotYours { .. })), "{other:?}");
        // Of the other namespace it cannot even ask.
        let stranger: Identity = "spiffe://cluster.local/ns/street/sa/waypoint".parse().unwrap();
        let none = claim(&node(&[("NAMESPACE", "bank")], Some("waypoint")), &stranger, &snapshot());
        assert_eq!(none, Err(ClaimError::NoGateway(Name::new("street", "waypoint"))));
        let alien: Identity = "spiffe://elsewhere/ns/shop/sa/waypoint".parse().unwrap();
        assert!(matches!(claim(&node(&[], None), &alien, &snapshot()), Err(ClaimError::NotYours { .. })));
    }

    #[test]
    fn the_kind_of_envoy_is_told_by_its_node() {
        assert_eq!(profile(&node(&[], None)), Profile::default());
        let files = node(
            &[("LATEEN_CERTIFICATE_FILE", "/c"), ("LATEEN_ROOTS_FILE", "/r"), ("INSTANCE_IPS", "10.0.0.1,fd00::1")],
            None,
        );
        let profile = profile(&files);
        assert_eq!(profile.secrets, Secrets::Files { certificate: "/c".into(), roots: "/r".into() });
        assert!(profile.ipv6);
    }
}
