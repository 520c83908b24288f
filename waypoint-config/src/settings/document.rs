// SPDX-License-Identifier: Apache-2.0
//! The fields of Istio's `MeshConfig` that mean something to a waypoint of ours, as they are written (istio.io/api `mesh/v1alpha1`). Called by `read`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// A mesh configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct MeshConfig {
    pub(super) trust_domain_aliases: Vec<String>,
    pub(super) connect_timeout: Option<String>,
    pub(super) protocol_detection_timeout: Option<String>,
    pub(super) access_log_file: String,
    pub(super) access_log_format: String,
    pub(super) access_log_encoding: Encoding,
    pub(super) enable_tracing: Option<bool>,
    pub(super) default_config: ProxyConfig,
    pub(super) default_providers: DefaultProviders,
    pub(super) extension_providers: Vec<ExtensionProvider>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Encoding {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ProxyConfig {
    pub(super) tracing: Option<ProxyTracing>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ProxyTracing {
    pub(super) sampling: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DefaultProviders {
    pub(super) tracing: Vec<String>,
    pub(super) access_logging: Vec<String>,
    /// An empty list: none are kept beside Envoy's own.
    pub(super) metrics: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ExtensionProvider {
    pub(super) name: String,
    pub(super) envoy_ext_authz_http: Option<AuthzHttp>,
    pub(super) envoy_ext_authz_grpc: Option<AuthzGrpc>,
    pub(super) opentelemetry: Option<OpenTelemetry>,
    pub(super) envoy_file_access_log: Option<FileAccessLog>,
    pub(super) prometheus: Option<Map<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AuthzHttp {
    pub(super) service: String,
    pub(super) port: u32,
    pub(super) timeout: Option<String>,
    pub(super) path_prefix: String,
    pub(super) fail_open: bool,
    pub(super) status_on_error: Option<Status>,
    pub(super) include_headers_in_check: Vec<String>,
    pub(super) include_request_headers_in_check: Vec<String>,
    pub(super) include_additional_headers_in_check: BTreeMap<String, String>,
    pub(super) include_request_body_in_check: Option<Body>,
    pub(super) headers_to_upstream_on_allow: Vec<String>,
    pub(super) headers_to_downstream_on_deny: Vec<String>,
    pub(super) headers_to_downstream_on_allow: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AuthzGrpc {
    pub(super) service: String,
    pub(super) port: u32,
    pub(super) timeout: Option<String>,
    pub(super) fail_open: bool,
    pub(super) status_on_error: Option<Status>,
    pub(super) include_request_body_in_check: Option<Body>,
}

/// A text in Istio, where people write a number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Status {
    Number(u16),
    Text(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Body {
    pub(super) max_request_bytes: u32,
    pub(super) allow_partial_message: bool,
    pub(super) pack_as_bytes: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct OpenTelemetry {
    pub(super) service: String,
    pub(super) port: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct FileAccessLog {
    pub(super) path: String,
    pub(super) log_format: FileLogFormat,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct FileLogFormat {
    pub(super) text: String,
    pub(super) labels: Map<String, Value>,
}
