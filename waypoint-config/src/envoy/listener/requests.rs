// SPDX-License-Identifier: Apache-2.0
//! A chain that speaks HTTP, with its filters in Istio's order (control-plane.md §5.1.3). Called by `chain`.

use envoy_types::pb::envoy::{
    config::{
        accesslog::v3::AccessLog,
        core::v3::{
            GrpcService, Http2ProtocolOptions,
            grpc_service::{EnvoyGrpc, TargetSpecifier},
        },
        listener::v3::{Filter, FilterChain},
        trace::v3::{OpenTelemetryConfig, tracing},
    },
    extensions::{
        filters::{
            http::{
                cors::v3::Cors, fault::v3::HttpFault, grpc_stats::v3::FilterConfig as GrpcStats, router::v3::Router,
            },
            network::http_connection_manager::v3::{
                HttpConnectionManager, HttpFilter, RequestIdExtension,
                http_connection_manager::{
                    ForwardClientCertDetails, RouteSpecifier, ServerHeaderTransformation, Tracing, UpgradeConfig,
                },
            },
        },
        request_id::uuid::v3::UuidRequestIdConfig,
    },
    r#type::v3::Percent,
};
use mesh_proto::discovery::Value;

use super::{
    log,
    part::{http_filter, network_filter},
    terminate::SERVER,
};
use crate::{
    envoy::{
        Flavour, Profile,
        access::{self, Said},
        cluster,
        encode::{boolean, flag, list, nested, pack, seconds, structure, text},
        input::{Serving, Upstream},
        message::TypedStruct,
        names::CORS_FILTER,
    },
    view::waypoint::Access,
};

/// What tells one such chain from another.
pub(super) struct HttpChain<'a> {
    /// Its name.
    pub(super) name: String,
    /// What its statistics are called.
    pub(super) stat_prefix: String,
    /// Its routes, or where they are found.
    pub(super) routes: RouteSpecifier,
    /// The policies that hold for it.
    pub(super) access: &'a [&'a Access],
    /// What is counted of requests.
    pub(super) metrics: Option<AccessLog>,
    /// What stands before HTTP.
    pub(super) before: Vec<Filter>,
}

/// The chain, and what must be said about its policies.
pub(super) fn chain(serving: &Serving, profile: &Profile, of: HttpChain<'_>) -> (FilterChain, Vec<Said>) {
    let guards = access::of_requests(serving, of.access);
    let settings = &serving.settings;
    let manager = HttpConnectionManager {
        stat_prefix: of.stat_prefix,
        route_specifier: Some(of.routes),
        access_log: log::of_services(settings, guards.is_audited).into_iter().chain(of.metrics).collect(),
        http_filters: guards.filters.into_iter().chain(telemetry(profile.flavour)).chain([router()]).collect(),
        tracing: tracing(serving),
        http2_protocol_options: Some(Http2ProtocolOptions::default()),
        server_name: SERVER.into(),
        server_header_transformation: ServerHeaderTransformation::AppendIfAbsent.into(),
        // The address of the client is that of the connection; what it says of others is for the workload to judge.
        use_remote_address: flag(false),
        forward_client_cert_details: ForwardClientCertDetails::Sanitize.into(),
        preserve_external_request_id: true,
        proxy_100_continue: true,
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".into(), ..Default::default() }],
        stream_idle_timeout: seconds(0),
        // Policies and routes must see the path the workload will see.
        normalize_path: flag(true),
        request_id_extension: Some(RequestIdExtension {
            typed_config: Some(pack(&UuidRequestIdConfig {
                use_request_id_for_trace_sampling: flag(true),
                ..Default::default()
            })),
        }),
        ..Default::default()
    };
    let http = network_filter("envoy.filters.network.http_connection_manager", pack(&manager));
    let filters = of.before.into_iter().chain([http]).collect();
    (FilterChain { name: of.name, filters, ..Default::default() }, guards.said)
}

fn telemetry(flavour: Flavour) -> Vec<HttpFilter> {
    let grpc = GrpcStats { emit_filter_state: true, ..Default::default() };
    let common = [
        http_filter("envoy.filters.http.grpc_stats", pack(&grpc)),
        http_filter("envoy.filters.http.fault", pack(&HttpFault::default())),
        http_filter(CORS_FILTER, pack(&Cors::default())),
    ];
    let peer = peer_metadata(flavour, "waypoint_upstream_peer_metadata", "upstream_discovery");
    common.into_iter().chain(peer).chain(stats(flavour)).collect()
}

/// Who the other side is, for Istio's telemetry.
pub(super) fn peer_metadata(flavour: Flavour, name: &str, side: &str) -> Option<HttpFilter> {
    let discovery = list(vec![nested([("workload_discovery", nested::<&str>([]))])]);
    let is_downstream = side == "downstream_discovery";
    let fields = [(side, discovery), ("shared_with_upstream", boolean(is_downstream))];
    istio(flavour, name, "io.istio.http.peer_metadata.Config", fields)
}

fn stats(flavour: Flavour) -> Option<HttpFilter> {
    let fields = [("reporter", text("SERVER_GATEWAY")), ("disable_host_header_fallback", boolean(true))];
    istio(flavour, "istio.stats", "stats.PluginConfig", fields)
}

fn istio<const N: usize>(
    flavour: Flavour,
    name: &str,
    message: &str,
    fields: [(&str, Value); N],
) -> Option<HttpFilter> {
    let config = TypedStruct { type_url: format!("type.googleapis.com/{message}"), value: Some(structure(fields)) };
    (flavour != Flavour::Stock).then(|| http_filter(name, pack(&config)))
}

pub(super) fn router() -> HttpFilter {
    http_filter("envoy.filters.http.router", pack(&Router::default()))
}

/// Where spans go, if anywhere: `render` makes its cluster.
pub(in crate::envoy) fn tracing_upstream(serving: &Serving) -> Option<&Upstream> {
    serving.settings.tracing.as_ref().map(|tracing| &tracing.collector)
}

fn tracing(serving: &Serving) -> Option<Tracing> {
    let asked = serving.settings.tracing.as_ref()?;
    let percent = |value: f64| Some(Percent { value: value.clamp(0.0, 100.0) });
    let grpc = EnvoyGrpc {
        cluster_name: cluster::upstream_name(&asked.collector, true),
        // Else the name of the cluster, which is no host: collectors refuse such requests.
        authority: asked.collector.host.clone(),
        ..Default::default()
    };
    let service = GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(grpc)),
        timeout: seconds(10),
        ..Default::default()
    };
    let waypoint = &serving.waypoint.name;
    let exporter = OpenTelemetryConfig {
        grpc_service: Some(service),
        service_name: format!("{}.{}", waypoint.name, waypoint.namespace),
        ..Default::default()
    };
    Some(Tracing {
        client_sampling: percent(100.0),
        random_sampling: percent(if asked.sampling.is_finite() { asked.sampling } else { 0.0 }),
        overall_sampling: percent(100.0),
        provider: Some(tracing::Http {
            name: "envoy.tracers.opentelemetry".into(),
            config_type: Some(tracing::http::ConfigType::TypedConfig(pack(&exporter))),
        }),
        ..Default::default()
    })
}
