// SPDX-License-Identifier: Apache-2.0
//! What Envoy may take, and what it does near the limit: give memory back first, then refuse requests; no more connections than allowed.

use serde_json::{Value, json};

use super::input::Limits;
use crate::{envoy::RUNTIME, view::routes::MAX_PROGRAM_SIZE};

/// The overload manager.
pub(super) fn overload_manager(limits: &Limits) -> Value {
    let mut monitors = vec![json!({
        "name": CONNECTIONS,
        "typed_config": {
            "@type": format!("{TYPES}.downstream_connections.v3.DownstreamConnectionsConfig"),
            "max_active_downstream_connections": limits.connections,
        },
    })];
    let mut actions = vec![];
    if let Some(bytes) = limits.heap {
        monitors.push(json!({
            "name": HEAP,
            "typed_config": { "@type": format!("{TYPES}.fixed_heap.v3.FixedHeapConfig"), "max_heap_size_bytes": bytes },
        }));
        let at = |action: &str, share: f64| {
            let trigger = json!({ "name": HEAP, "threshold": { "value": share } });
            json!({ "name": format!("envoy.overload_actions.{action}"), "triggers": [trigger] })
        };
        actions = vec![
            at("shrink_heap", 0.9),
            at("disable_http_keepalive", 0.92),
            at("stop_accepting_requests", 0.95),
            at("stop_accepting_connections", 0.98),
        ];
    }
    json!({ "refresh_interval": "0.25s", "resource_monitors": monitors, "actions": actions })
}

/// Settings Envoy keeps beside its configuration.
pub(super) fn layered_runtime() -> Value {
    let mut settings = json!({
        // What the control plane lets pass as a regular expression is smaller than this.
        "re2.max_program_size.error_level": MAX_PROGRAM_SIZE,
        "re2.max_program_size.warn_level": MAX_PROGRAM_SIZE,
    });
    for (setting, value) in RUNTIME {
        settings[setting] = json!(value);
    }
    json!({ "layers": [
        { "name": "lateen", "static_layer": settings },
        // Changes an operator makes by POST /runtime_modify.
        { "name": "admin", "admin_layer": {} },
    ] })
}

const CONNECTIONS: &str = "envoy.resource_monitors.global_downstream_max_connections";
const HEAP: &str = "envoy.resource_monitors.fixed_heap";
const TYPES: &str = "type.googleapis.com/envoy.extensions.resource_monitors";
