// SPDX-License-Identifier: Apache-2.0
//! What is taken off a value before it is read: of the status, everything but what the mesh is built from. Called by `object`.
//!
//! Status is written by controllers, of other versions too, and more often than anything else: read whole it would make good objects unreadable and
//! every heartbeat a change. What remains: the addresses of a Gateway and of a ServiceEntry, the health of a WorkloadEntry.

use serde_json::{Value, json};

use super::object::Kind;

pub(super) fn shape(kind: Kind, value: &mut Value) {
    let Some(fields) = value.as_object_mut() else { return };
    let kept = match kind {
        Kind::Gateway | Kind::ServiceEntry => Some("addresses"),
        Kind::WorkloadEntry => Some("conditions"),
        Kind::GatewayClass
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TcpRoute
        | Kind::TlsRoute
        | Kind::ReferenceGrant
        | Kind::RequestAuthentication
        | Kind::AuthorizationPolicy
        | Kind::PeerAuthentication => None,
        // Kubernetes' own: their status is what the mesh is made of.
        _ => return,
    };
    let mut status = fields.remove("status").and_then(|mut status| status.get_mut(kept?).map(Value::take));
    if kind == Kind::WorkloadEntry {
        for condition in status.iter_mut().filter_map(Value::as_array_mut).flatten().filter_map(Value::as_object_mut) {
            condition.retain(|field, _| field == "type" || field == "status");
        }
    }
    if let (Some(kept), Some(status)) = (kept, status) {
        fields.insert("status".into(), json!({ kept: status }));
    }
    if kind == Kind::TlsRoute
        && fields.get("apiVersion") != Some(&json!("gateway.networking.k8s.io/v1"))
        && let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut)
    {
        // Optional until v1.
        spec.entry("hostnames").or_insert_with(|| json!([]));
    }
    if is_gateway_kind(kind) {
        // The types of the `gateway-api` crate do not have these two; they were read to find the kind.
        fields.remove("apiVersion");
        fields.remove("kind");
    }
}

fn is_gateway_kind(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::GatewayClass
            | Kind::Gateway
            | Kind::HttpRoute
            | Kind::GrpcRoute
            | Kind::TcpRoute
            | Kind::TlsRoute
            | Kind::ReferenceGrant
    )
}
