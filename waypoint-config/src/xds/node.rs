// SPDX-License-Identifier: Apache-2.0
//! Who a discovery client says it is, checked against who it proved to be.
//!
//! A node id reads `<type>~<ip>~<pod>.<namespace>~<namespace>.svc.<domain>`. The namespace it claims, and the service
//! account if it claims one, must be those of the caller's identity.

use mesh_proto::contract::node_metadata;
use mesh_proto::discovery::{Node, string_field};
use mesh_proto::spiffe::Identity;
use thiserror::Error;

/// A client as its log lines name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientName {
    /// `ztunnel`, `waypoint`, ...
    pub kind: String,
    /// `<pod>.<namespace>`.
    pub name: String,
}

/// Why a node is not accepted.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum NodeError {
    /// No node, or one without an id.
    #[error("the first request must carry node.id")]
    Missing,
    /// Not Istio's form.
    #[error("node id `{0}` is not <type>~<ip>~<pod>.<namespace>~<domain>")]
    Form(String),
    /// The claim and the proof differ.
    #[error("node `{id}` claims {claim} `{claimed}`, and its caller proved to be {proved}")]
    NotYours {
        /// The node id.
        id: String,
        /// What is claimed.
        claim: &'static str,
        /// The value claimed.
        claimed: String,
        /// The proven identity.
        proved: Identity,
    },
}

/// Checks `node` against the caller's identity.
pub(super) fn check_node(node: Option<&Node>, caller: &Identity) -> Result<ClientName, NodeError> {
    let node = node.filter(|node| !node.id.is_empty()).ok_or(NodeError::Missing)?;
    let parts: Vec<&str> = node.id.split('~').collect();
    let [kind, _address, name, domain] = parts[..] else { return Err(NodeError::Form(node.id.clone())) };
    let metadata = |key| node.metadata.as_ref().and_then(|metadata| string_field(metadata, key));
    let namespace = metadata(node_metadata::NAMESPACE)
        .or_else(|| domain.split('.').next().filter(|namespace| !namespace.is_empty()))
        .ok_or_else(|| NodeError::Form(node.id.clone()))?;
    let check = |claim, claimed: &str, proved: &str| {
        if claimed == proved {
            return Ok(());
        }
        Err(NodeError::NotYours { id: node.id.clone(), claim, claimed: claimed.to_owned(), proved: caller.clone() })
    };
    check("namespace", namespace, caller.namespace())?;
    if let Some(account) = metadata(node_metadata::SERVICE_ACCOUNT) {
        check("service account", account, caller.service_account())?;
    }
    Ok(ClientName { kind: kind.to_owned(), name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use mesh_proto::discovery::{Struct, string_value};

    use super::*;

    fn node(id: &str, metadata: &[(&str, &str)]) -> Node {
        let fields = metadata.iter().map(|(key, value)| ((*key).to_owned(), string_value(*value))).collect();
        Node { id: id.to_owned(), metadata: Some(Struct { fields }), ..Default::default() }
    }

    fn caller() -> Identity {
        "spiffe://cluster.local/ns/istio-system/sa/ztunnel".parse().unwrap()
    }

    const ID: &str = "ztunnel~10.0.0.1~ztunnel-x.istio-system~istio-system.svc.cluster.local";

    #[test]
    fn a_node_is_who_its_caller_proved_to_be() {
        let name = check_node(Some(&node(ID, &[("NAMESPACE", "istio-system")])), &caller()).unwrap();
        assert_eq!(name, ClientName { kind: "ztunnel".into(), name: "ztunnel-x.istio-system".into() });
        assert!(check_node(Some(&node(ID, &[])), &caller()).is_ok());
    }

    #[test]
    fn a_claim_of_another_namespace_or_account_is_refused() {
        for metadata in [("NAMESPACE", "shop"), ("SERVICE_ACCOUNT", "admin")] {
            let refused = check_node(Some(&node(ID, &[metadata])), &caller());
            assert!(matches!(refused, Err(NodeError::NotYours { .. })), "{metadata:?}");
        }
        let other = "ztunnel~10.0.0.1~x.shop~shop.svc.cluster.local";
        assert!(matches!(check_node(Some(&node(other, &[])), &caller()), Err(NodeError::NotYours { .. })));
    }

    #[test]
    fn a_node_without_a_proper_id_is_refused() {
        assert_eq!(check_node(None, &caller()), Err(NodeError::Missing));
        assert_eq!(check_node(Some(&node("", &[])), &caller()), Err(NodeError::Missing));
        for id in ["x", "a~b~c", "a~b~c~d~e", "a~b~c~"] {
            assert!(matches!(check_node(Some(&node(id, &[])), &caller()), Err(NodeError::Form(_))), "{id}");
        }
    }
}
