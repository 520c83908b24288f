// SPDX-License-Identifier: Apache-2.0
//! From the bytes of a mesh configuration file to what waypoints are made from. Pure. Called by `file`.
//!
//! Whatever Envoy would refuse is refused here, with the field: Envoy would refuse every listener for it. Fields that mean nothing here are told and passed
//! over, so that the file of an Istio mesh can be used as it is.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::document::{
    AuthzGrpc, AuthzHttp, Body, Encoding, ExtensionProvider, FileAccessLog, MeshConfig, OpenTelemetry, Status,
};
use crate::{
    api::{is_dns_subdomain, is_header_name},
    envoy::{
        format,
        input::{AccessLog, Authorizer, AuthorizerProtocol, LogFormat, Settings, Tracing, Upstream},
    },
};

/// What a file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The settings.
    pub settings: Settings,
    /// What was passed over, and why.
    pub notes: Vec<String>,
}

/// What is wrong, with the field in front.
type Read<T> = Result<T, String>;

/// Reads a file, YAML or JSON. An empty one means that everything is as it is without one, see [`without`].
///
/// # Errors
/// Says which field is wrong, and what to write instead.
pub fn read(bytes: &[u8]) -> Result<Reading, String> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| format!("is not UTF-8 from byte {} on", error.valid_up_to()))?;
    let value = parse(text)?;
    if value.get("kind").is_some() && value.get("metadata").is_some() {
        return Err("is an object of Kubernetes; the file holds what stands below its `data.mesh`".to_owned());
    }
    let mut notes = Vec::new();
    let config = typed(value, &mut notes)?;
    let settings = settings(&config, &mut notes)?;
    Ok(Reading { settings, notes })
}

/// What holds without a file.
pub fn without() -> Settings {
    Settings { metrics: true, ..Settings::default() }
}

fn parse(text: &str) -> Read<Value> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 32, max_anchors: 100 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
    };
    if text.trim().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    let value: Value = serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())?;
    match value {
        Value::Null => Ok(Value::Object(Map::new())),
        Value::Object(_) => Ok(value),
        _ => Err("is no mapping; write fields as `name: value`".to_owned()),
    }
}

fn typed(mut value: Value, notes: &mut Vec<String>) -> Read<MeshConfig> {
    drop_nulls(&mut value);
    let mut note = |path: serde_ignored::Path<'_>| notes.push(format!("{path}: means nothing here and is passed over"));
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    MeshConfig::deserialize(serde_ignored::Deserializer::new(tracked, &mut note))
        .map_err(|error| format!("{}: {error}", track.path()))
}

/// As in Istio, `null` means absent.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn settings(config: &MeshConfig, notes: &mut Vec<String>) -> Read<Settings> {
    let usual = Settings::default();
    let mut authorizers = BTreeMap::new();
    let mut providers: BTreeMap<&str, &ExtensionProvider> = BTreeMap::new();
    for (i, provider) in config.extension_providers.iter().enumerate() {
        let at = format!("extensionProviders[{i}]");
        if provider.name.is_empty() {
            return Err(format!("{at}.name: is missing"));
        }
        if providers.insert(&provider.name, provider).is_some() {
            return Err(format!("{at}.name: another provider is called {:?}, too", provider.name));
        }
        if let Some(authorizer) = authorizer(&at, provider)? {
            authorizers.insert(provider.name.clone(), authorizer);
        }
    }
    Ok(Settings {
        trust_domain_aliases: config.trust_domain_aliases.clone(),
        connect_timeout: duration("connectTimeout", config.connect_timeout.as_deref(), usual.connect_timeout, true)?,
        detection_timeout: duration(
            "protocolDetectionTimeout",
            config.protocol_detection_timeout.as_deref(),
            usual.detection_timeout,
            false,
        )?,
        access_log: access_log(config, &providers, notes)?,
        metrics: config.default_providers.metrics.as_ref().is_none_or(|named| !named.is_empty()),
        tracing: tracing(config, &providers, notes)?,
        authorizers,
    })
}

fn authorizer(at: &str, of: &ExtensionProvider) -> Read<Option<Authorizer>> {
    let kinds = [
        of.envoy_ext_authz_http.is_some(),
        of.envoy_ext_authz_grpc.is_some(),
        of.opentelemetry.is_some(),
        of.envoy_file_access_log.is_some(),
        of.prometheus.is_some(),
    ];
    if kinds.iter().filter(|is| **is).count() > 1 {
        return Err(format!("{at}: is of more than one kind; a provider is of one"));
    }
    match (&of.envoy_ext_authz_http, &of.envoy_ext_authz_grpc) {
        (Some(http), _) => asked_by_http(&format!("{at}.envoyExtAuthzHttp"), http).map(Some),
        (None, Some(grpc)) => asked_by_grpc(&format!("{at}.envoyExtAuthzGrpc"), grpc).map(Some),
        (None, None) => Ok(None),
    }
}

fn asked_by_http(at: &str, of: &AuthzHttp) -> Read<Authorizer> {
    if !of.path_prefix.is_empty() && !of.path_prefix.starts_with('/') {
        return Err(format!("{at}.pathPrefix: {:?} does not begin with a slash", of.path_prefix));
    }
    if of.path_prefix.contains(|letter: char| letter.is_control() || letter == '?' || letter == '#') {
        return Err(format!("{at}.pathPrefix: {:?} is no path", of.path_prefix));
    }
    let lists = [
        ("includeHeadersInCheck", &of.include_headers_in_check),
        ("includeRequestHeadersInCheck", &of.include_request_headers_in_check),
        ("headersToUpstreamOnAllow", &of.headers_to_upstream_on_allow),
        ("headersToDownstreamOnDeny", &of.headers_to_downstream_on_deny),
        ("headersToDownstreamOnAllow", &of.headers_to_downstream_on_allow),
    ];
    for (field, names) in lists {
        for (i, name) in names.iter().enumerate() {
            let stem = name.trim_matches('*');
            if name.is_empty() || !stem.is_empty() && !is_header_name(stem) {
                return Err(format!(
                    "{at}.{field}[{i}]: {name:?} is not the name of a header; `*` may stand at one end"
                ));
            }
        }
    }
    for (name, value) in &of.include_additional_headers_in_check {
        if !is_header_name(name) || value.chars().any(char::is_control) {
            return Err(format!("{at}.includeAdditionalHeadersInCheck: {name:?} with {value:?} is no header"));
        }
        // Envoy takes it for a format.
        format::check(value).map_err(|reason| format!("{at}.includeAdditionalHeadersInCheck.{name}: {reason}"))?;
    }
    let seen = of.include_headers_in_check.iter().chain(&of.include_request_headers_in_check).cloned();
    let speaks = AuthorizerProtocol::Http {
        path_prefix: of.path_prefix.clone(),
        include_request_headers: seen.collect(),
        additional_headers: of.include_additional_headers_in_check.clone(),
        headers_to_upstream: of.headers_to_upstream_on_allow.clone(),
        headers_to_client_on_allow: of.headers_to_downstream_on_allow.clone(),
        headers_to_client_on_deny: of.headers_to_downstream_on_deny.clone(),
    };
    let rest = (&of.timeout, of.fail_open, &of.status_on_error, &of.include_request_body_in_check);
    asked(at, (&of.service, of.port), speaks, rest)
}

fn asked_by_grpc(at: &str, of: &AuthzGrpc) -> Read<Authorizer> {
    let rest = (&of.timeout, of.fail_open, &of.status_on_error, &of.include_request_body_in_check);
    asked(at, (&of.service, of.port), AuthorizerProtocol::Grpc, rest)
}

fn asked(
    at: &str,
    (service, port): (&str, u32),
    speaks: AuthorizerProtocol,
    (timeout, fail_open, status, body): (&Option<String>, bool, &Option<Status>, &Option<Body>),
) -> Read<Authorizer> {
    let body_at = format!("{at}.includeRequestBodyInCheck.maxRequestBytes");
    if body.as_ref().is_some_and(|body| body.max_request_bytes == 0) {
        return Err(format!("{body_at}: must be above 0; leave the body out by leaving out includeRequestBodyInCheck"));
    }
    Ok(Authorizer {
        upstream: upstream(at, service, port)?,
        speaks,
        // As in Istio: an authorizer that is slow is waited for.
        timeout: duration(&format!("{at}.timeout"), timeout.as_deref(), Duration::from_secs(600), true)?,
        fail_open,
        status_on_error: status_of(&format!("{at}.statusOnError"), status.as_ref())?,
        body_bytes: body.as_ref().map_or(0, |body| body.max_request_bytes),
        body_partial: body.as_ref().is_some_and(|body| body.allow_partial_message),
        body_as_bytes: body.as_ref().is_some_and(|body| body.pack_as_bytes),
    })
}

fn status_of(at: &str, status: Option<&Status>) -> Read<u16> {
    let code = match status {
        None => return Ok(403),
        Some(Status::Number(code)) => *code,
        Some(Status::Text(text)) => text.trim().parse().unwrap_or_default(),
    };
    match code {
        200..=599 => Ok(code),
        _ => Err(format!("{at}: is no status from 200 to 599; write for example \"503\"")),
    }
}

/// `[namespace/]host`. The namespace only says whose service is meant when several have one host.
fn upstream(at: &str, service: &str, port: u32) -> Read<Upstream> {
    let host = service.split_once('/').map_or(service, |(_, host)| host);
    let is_host = is_dns_subdomain(host) || host.parse::<std::net::IpAddr>().is_ok();
    if !is_host {
        return Err(format!("{at}.service: {service:?} is no host; write for example authz.auth.svc.cluster.local"));
    }
    match u16::try_from(port) {
        Ok(port @ 1..) => Ok(Upstream { host: host.to_owned(), port }),
        _ => Err(format!("{at}.port: {port} is not a port number from 1 to 65535")),
    }
}

fn access_log(
    config: &MeshConfig,
    providers: &BTreeMap<&str, &ExtensionProvider>,
    notes: &mut Vec<String>,
) -> Read<Option<AccessLog>> {
    let at = "defaultProviders.accessLogging";
    let of_file = match config.access_log_file.as_str() {
        "" => None,
        path => {
            let written = config.access_log_format.as_str();
            let format = match (config.access_log_encoding, written) {
                (Encoding::Text, "") => LogFormat::Line,
                (Encoding::Text, text) => text_format("accessLogFormat", text)?,
                (Encoding::Json, "") => LogFormat::Fields,
                (Encoding::Json, text) => {
                    let fields = serde_json::from_str::<Map<String, Value>>(text);
                    let fields = fields.map_err(|error| {
                        format!("accessLogFormat: with accessLogEncoding JSON it is a JSON object of formats: {error}")
                    })?;
                    json_format("accessLogFormat", &fields)?
                }
            };
            Some(AccessLog { path: path.to_owned(), format })
        }
    };
    let named = config.default_providers.access_logging.iter().map(|name| (name, providers.get(name.as_str())));
    let mut chosen = None;
    for (name, provider) in named {
        let Some(log) = provider.and_then(|provider| provider.envoy_file_access_log.as_ref()) else {
            return Err(format!("{at}: there is no provider {name:?} of the kind envoyFileAccessLog"));
        };
        match chosen {
            None => chosen = Some(file_log(&format!("extensionProviders {name:?}"), log)?),
            Some(_) => notes.push(format!("{at}: only the first one is used, and {name:?} is passed over")),
        }
    }
    if chosen.is_some() && of_file.is_some() {
        notes.push(format!("accessLogFile: is passed over, because {at} names another log"));
    }
    // Those that are not chosen must be right, too: they will be.
    for (name, provider) in providers {
        if let Some(log) = &provider.envoy_file_access_log {
            file_log(&format!("extensionProviders {name:?}"), log)?;
        }
    }
    Ok(chosen.or(of_file))
}

fn file_log(at: &str, of: &FileAccessLog) -> Read<AccessLog> {
    let path = if of.path.is_empty() { "/dev/stdout" } else { &of.path };
    let format = match (of.log_format.text.as_str(), of.log_format.labels.is_empty()) {
        ("", true) => LogFormat::Line,
        (text, true) => text_format(&format!("{at}.logFormat.text"), text)?,
        ("", false) => json_format(&format!("{at}.logFormat.labels"), &of.log_format.labels)?,
        (_, false) => return Err(format!("{at}.logFormat: has text and labels; use one of the two")),
    };
    Ok(AccessLog { path: path.to_owned(), format })
}

fn text_format(at: &str, text: &str) -> Read<LogFormat> {
    format::check(text).map_err(|reason| format!("{at}: {reason}"))?;
    // Lines that do not end run into each other.
    let end = if text.ends_with('\n') { "" } else { "\n" };
    Ok(LogFormat::Text(format!("{text}{end}")))
}

fn json_format(at: &str, fields: &Map<String, Value>) -> Read<LogFormat> {
    fn check(at: &str, fields: &Map<String, Value>) -> Read<()> {
        fields.iter().try_for_each(|(name, value)| {
            let at = format!("{at}.{name}");
            match value {
                Value::String(text) => format::check(text).map_err(|reason| format!("{at}: {reason}")),
                Value::Object(inner) => check(&at, inner),
                _ => Err(format!("{at}: is neither a text nor a mapping of texts")),
            }
        })
    }
    check(at, fields)?;
    Ok(LogFormat::Json(fields.clone()))
}

fn tracing(
    config: &MeshConfig,
    providers: &BTreeMap<&str, &ExtensionProvider>,
    notes: &mut Vec<String>,
) -> Read<Option<Tracing>> {
    let sampling = config.default_config.tracing.as_ref().and_then(|tracing| tracing.sampling).unwrap_or(1.0);
    if !(0.0..=100.0).contains(&sampling) {
        return Err(format!("defaultConfig.tracing.sampling: {sampling} is no percentage from 0 to 100"));
    }
    let mut collectors = BTreeMap::new();
    for (name, provider) in providers {
        if let Some(OpenTelemetry { service, port }) = &provider.opentelemetry {
            let at = format!("extensionProviders {name:?}.opentelemetry");
            collectors.insert(*name, upstream(&at, service, *port)?);
        }
    }
    let at = "defaultProviders.tracing";
    let mut named = config.default_providers.tracing.iter();
    let chosen = match (named.next(), config.enable_tracing) {
        (Some(name), _) => match collectors.get(name.as_str()) {
            None => return Err(format!("{at}: there is no provider {name:?} of the kind opentelemetry")),
            Some(collector) => Some(collector),
        },
        (None, Some(true)) if collectors.len() == 1 => collectors.values().next(),
        (None, Some(true)) => {
            notes.push(format!(
                "enableTracing: no spans are made, for {} providers are of the kind opentelemetry; name one in {at}",
                collectors.len()
            ));
            None
        }
        (None, _) => None,
    };
    notes.extend(named.map(|name| format!("{at}: only the first one is used, and {name:?} is passed over")));
    let is_off = config.enable_tracing == Some(false);
    if is_off && chosen.is_some() {
        notes.push(format!("{at}: no spans are made, for enableTracing is false"));
    }
    Ok(chosen.filter(|_| !is_off).map(|collector| Tracing { collector: collector.clone(), sampling }))
}

/// `10s`, `1.5s`, `500ms`, `2m`, `1h`.
fn duration(at: &str, text: Option<&str>, usual: Duration, above_zero: bool) -> Read<Duration> {
    let Some(text) = text else { return Ok(usual) };
    let wrong = || format!("{at}: {text:?} is no duration up to a day; write for example 10s or 500ms");
    let digits = text.find(|letter: char| !(letter.is_ascii_digit() || letter == '.')).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * unit;
    let read = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    match read {
        Duration::ZERO if above_zero => Err(format!("{at}: must be above 0")),
        read if read > Duration::from_secs(86_400) => Err(wrong()),
        read => Ok(read),
    }
}

#[cfg(test)]
mod tests;
