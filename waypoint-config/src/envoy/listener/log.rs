// SPDX-License-Identifier: Apache-2.0
//! The access log of a waypoint: one line of JSON or text per request, or per connection where nothing is known of requests. Called by the files that make chains.

use envoy_types::pb::envoy::{
    config::{
        accesslog::v3::{
            AccessLog, AccessLogFilter, MetadataFilter, ResponseFlagFilter, access_log::ConfigType,
            access_log_filter::FilterSpecifier,
        },
        core::v3::{DataSource, SubstitutionFormatString, data_source::Specifier, substitution_format_string::Format},
    },
    extensions::access_loggers::file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
    r#type::matcher::v3::{
        MetadataMatcher, ValueMatcher,
        metadata_matcher::{PathSegment, path_segment::Segment},
        value_matcher::MatchPattern,
    },
};
use mesh_proto::discovery::{Struct, Value, value};

use super::state::IDENTITY;
use crate::envoy::{
    encode::{flag, pack, structure, text},
    input::{AccessLog as To, LogFormat, Settings},
    names::PEER_PRINCIPAL,
};

/// Of requests and connections to services. When the mesh keeps no log, what an AUDIT policy asks for still goes to standard output.
pub(super) fn of_services(settings: &Settings, audited: bool) -> Vec<AccessLog> {
    match (&settings.access_log, audited) {
        (Some(to), _) => vec![log(to, None)],
        (None, true) => vec![log(&STDOUT.into(), Some(FilterSpecifier::MetadataFilter(audit_hint())))],
        (None, false) => Vec::new(),
    }
}

/// Of tunnels: only those that fail.
pub(super) fn of_tunnels(settings: &Settings) -> Vec<AccessLog> {
    let failed = || Some(FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter::default()));
    settings.access_log.iter().map(|to| log(to, failed())).collect()
}

fn log(to: &To, filter: Option<FilterSpecifier>) -> AccessLog {
    let line = |text: String| {
        Format::TextFormatSource(DataSource { specifier: Some(Specifier::InlineString(text)), ..Default::default() })
    };
    let format = match &to.format {
        LogFormat::Fields => Format::JsonFormat(structure(fields().map(|(name, value)| (name, text(value))))),
        LogFormat::Json(fields) => Format::JsonFormat(json(fields)),
        LogFormat::Line => line(usual_line()),
        LogFormat::Text(text) => line(text.clone()),
    };
    let format = SubstitutionFormatString { format: Some(format), ..Default::default() };
    let file = FileAccessLog { path: to.path.clone(), access_log_format: Some(AccessLogFormat::LogFormat(format)) };
    AccessLog {
        name: "envoy.access_loggers.file".into(),
        filter: filter.map(|specifier| AccessLogFilter { filter_specifier: Some(specifier) }),
        config_type: Some(ConfigType::TypedConfig(pack(&file))),
    }
}

/// What is neither text nor nested is left out: Envoy's formats are texts.
fn json(fields: &serde_json::Map<String, serde_json::Value>) -> Struct {
    let value = |value: &serde_json::Value| match value {
        serde_json::Value::String(format) => Some(text(format)),
        serde_json::Value::Object(inner) => Some(Value { kind: Some(value::Kind::StructValue(json(inner))) }),
        _ => None,
    };
    structure(fields.iter().filter_map(|(name, format)| Some((name, value(format)?))))
}

/// Istio's line, with who both sides are and the trace behind it.
fn usual_line() -> String {
    let [source, destination] = identities();
    format!("{LINE} \"{}\" \"{}\" \"%REQ(TRACEPARENT)%\"\n", source.1, destination.1)
}

fn identities() -> [(&'static str, String); 2] {
    [
        ("source_identity", format!("%FILTER_STATE({PEER_PRINCIPAL}:PLAIN)%")),
        ("destination_identity", format!("%UPSTREAM_METADATA({}:{})%", IDENTITY.filter, IDENTITY.key)),
    ]
}

fn fields() -> impl Iterator<Item = (&'static str, String)> {
    let plain = FIELDS.iter().map(|(name, value)| (*name, (*value).to_owned()));
    plain.chain(identities())
}

fn audit_hint() -> MetadataFilter {
    let segment = PathSegment { segment: Some(Segment::Key("access_log_hint".into())) };
    MetadataFilter {
        matcher: Some(MetadataMatcher {
            filter: "envoy.common".into(),
            path: vec![segment],
            value: Some(ValueMatcher { match_pattern: Some(MatchPattern::BoolMatch(true)) }),
            ..Default::default()
        }),
        match_if_key_not_found: flag(false),
    }
}

/// Istio's names and Istio's order of meaning.
const FIELDS: [(&str, &str); 28] = [
    ("authority", "%REQ(:AUTHORITY)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("filter_chain", "%FILTER_CHAIN_NAME%"),
    ("grpc_status", "%GRPC_STATUS%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("shadow_allow", "%DYNAMIC_METADATA(envoy.filters.http.rbac:istio_dry_run_allow_shadow_engine_result)%"),
    ("shadow_deny", "%DYNAMIC_METADATA(envoy.filters.http.rbac:istio_dry_run_deny_shadow_engine_result)%"),
    ("start_time", "%START_TIME%"),
    ("trace_id", "%TRACE_ID%"),
    ("traceparent", "%REQ(TRACEPARENT)%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
];
/// Istio's line of text (`EnvoyTextLogFormat`), without its end.
const LINE: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% \
    %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \
    \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% \
    %REQUESTED_SERVER_NAME% %ROUTE_NAME%";
const STDOUT: &str = "/dev/stdout";
