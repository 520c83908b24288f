// SPDX-License-Identifier: Apache-2.0
//! Istio's metrics of requests on stock Envoy: its logger of statistics counts every request under labels that are format strings. Called by `chain`.
//!
//! Labels come from TLS, from the endpoint and from what we know of the service, never from what a client writes. Who the client is, is its identity; the
//! names of its workload are not known here. Envoy writes `envoy_` before the names, which the waypoint's own page of metrics takes away again.

use envoy_types::pb::{
    envoy::{
        config::accesslog::v3::{AccessLog, access_log::ConfigType},
        extensions::access_loggers::stats::v3::{
            Config,
            config::{Counter, Histogram, Stat, Tag, histogram::Unit},
        },
        r#type::v3::Scope,
    },
    google::protobuf::UInt64Value,
};

use super::state::IDENTITY;
use crate::{
    envoy::{
        Flavour, Profile,
        encode::{number, pack},
        input::Serving,
        names::PEER_PRINCIPAL,
    },
    view::{AppProtocol, Service},
};

/// Where the metadata of an endpoint says which workload it is: `workload` and `namespace`.
pub(in crate::envoy) const DESCRIBED: &str = "lateen.telemetry";

/// Whether requests are counted so: Istio's build has a filter of its own for it.
pub(in crate::envoy) fn are_kept(serving: &Serving, profile: &Profile) -> bool {
    serving.settings.metrics && profile.flavour == Flavour::Stock
}

/// Of the requests to one port of a service.
pub(super) fn of_requests(
    serving: &Serving,
    profile: &Profile,
    service: &Service,
    protocol: AppProtocol,
) -> Option<AccessLog> {
    let labels = labels(service, protocol);
    let stat = |name: &str| Some(Stat { name: name.to_owned(), tags: labels.clone() });
    let counter = Counter {
        stat: stat("istio_requests_total"),
        value_fixed: Some(UInt64Value { value: 1 }),
        ..Default::default()
    };
    let histogram = Histogram {
        stat: stat("istio_request_duration_milliseconds"),
        unit: Unit::Milliseconds.into(),
        value_format: "%DURATION%".into(),
    };
    let config = Config {
        // Beyond that more is not counted, rather than Envoy's memory eaten up. Not shared: Envoy 1.40 ends in a fault then.
        stats_scope: Some(Scope {
            max_counters: number(MAX_LABEL_SETS),
            max_histograms: number(MAX_LABEL_SETS),
            ..Default::default()
        }),
        counters: vec![counter],
        histograms: vec![histogram],
        ..Default::default()
    };
    are_kept(serving, profile).then(|| AccessLog {
        name: "envoy.access_loggers.stats".into(),
        filter: None,
        config_type: Some(ConfigType::TypedConfig(pack(&config))),
    })
}

fn labels(service: &Service, protocol: AppProtocol) -> Vec<Tag> {
    let spoken = if protocol == AppProtocol::Grpc { "grpc" } else { "http" };
    let mut labels = vec![
        ("reporter", "waypoint".to_owned()),
        ("source_principal", format!("%FILTER_STATE({PEER_PRINCIPAL}:PLAIN)%")),
        ("destination_principal", format!("%UPSTREAM_METADATA({}:{})%", IDENTITY.filter, IDENTITY.key)),
        ("destination_workload", format!("%UPSTREAM_METADATA({DESCRIBED}:workload)%")),
        ("destination_workload_namespace", format!("%UPSTREAM_METADATA({DESCRIBED}:namespace)%")),
        ("destination_service", service.hostname.to_string()),
        ("destination_service_name", service.name.to_string()),
        ("destination_service_namespace", service.namespace.to_string()),
        ("request_protocol", spoken.to_owned()),
        ("response_code", "%RESPONSE_CODE%".to_owned()),
        ("response_flags", "%RESPONSE_FLAGS%".to_owned()),
        ("connection_security_policy", "mutual_tls".to_owned()),
    ];
    if protocol == AppProtocol::Grpc {
        labels.push(("grpc_response_status", "%GRPC_STATUS_NUMBER%".to_owned()));
    }
    let is_said = |(_, value): &(&str, String)| !value.is_empty();
    let tag = |(name, value_format): (&str, String)| Tag { name: name.to_owned(), value_format, rules: None };
    labels.into_iter().filter(is_said).map(tag).collect()
}

/// Per port of a service.
const MAX_LABEL_SETS: u32 = 2000;
