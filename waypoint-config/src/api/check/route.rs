// SPDX-License-Identifier: Apache-2.0
//! Routes of all four kinds: what their definitions in Kubernetes demand, plus what Envoy would refuse. Called by `object`, on plain values.

use std::collections::BTreeSet;

use gateway_api::Duration;
use serde_json::Value;

use super::{
    filter::filters,
    pattern::regex_fault,
    value::{At, at_most, header_name, header_value, hostname, is_dns_label, is_dns_subdomain, length, refuse, shown},
};
use crate::api::object::{Kind, ObjectError};

pub(super) fn route(kind: Kind, value: &Value) -> Result<(), ObjectError> {
    let Some(spec) = At::root(value).field("spec") else { return Ok(()) };
    spec.count("parentRefs", 32)?;
    spec.list("parentRefs").try_for_each(|parent| reference(&parent))?;
    spec.count("hostnames", 16)?;
    for host in spec.list("hostnames") {
        hostname(&host.path, host.value.as_str().unwrap_or_default(), true)?;
    }
    let count = spec.count("rules", 16)?;
    if count == 0 && matches!(kind, Kind::TcpRoute | Kind::TlsRoute) {
        return refuse("spec.rules", "is empty");
    }
    let (mut matches, mut names) = (0, BTreeSet::new());
    for rule in spec.list("rules") {
        if let Some(name) = rule.text("name")
            && !names.insert(name)
        {
            return refuse(rule.path_of("name"), format!("{} is there already", shown(name)));
        }
        matches += rule.count("matches", 64)?;
        rule.list("matches").try_for_each(|one| match kind {
            Kind::GrpcRoute => grpc_match(&one),
            _ => http_match(&one),
        })?;
        rule_of(&rule)?;
    }
    at_most("spec.rules", matches, MAX_MATCHES).map_err(|error| ObjectError {
        reason: format!("{matches} matches in all; at most {MAX_MATCHES} are allowed"),
        ..error
    })
}

fn rule_of(rule: &At<'_>) -> Result<(), ObjectError> {
    rule.count("backendRefs", 16)?;
    for backend in rule.list("backendRefs") {
        reference(&backend)?;
        backend_port(&backend)?;
        backend.within("weight", 0, 1_000_000)?;
        filters(&backend, rule)?;
    }
    filters(rule, rule)?;
    let redirects = rule.list("filters").any(|filter| filter.has("requestRedirect"));
    if redirects && rule.list("backendRefs").next().is_some() {
        return refuse(rule.path_of("backendRefs"), "a rule that redirects sends nothing on; leave them out");
    }
    if let Some(timeouts) = rule.field("timeouts") {
        let request = duration(&timeouts, "request")?;
        let backend = duration(&timeouts, "backendRequest")?;
        if let (Some(request), Some(backend)) = (request, backend)
            && request != 0
            && backend > request
        {
            return refuse(timeouts.path_of("backendRequest"), "is longer than the whole request may take");
        }
    }
    if let Some(retry) = rule.field("retry") {
        for code in retry.list("codes") {
            if !code.value.as_i64().is_some_and(|code| (400..=599).contains(&code)) {
                return refuse(code.path, "is no status code from 400 to 599");
            }
        }
        retry.count("codes", 64)?;
        retry.within("attempts", 0, 1000)?;
        duration(&retry, "backoff")?;
    }
    Ok(())
}

/// In milliseconds.
fn duration(at: &At<'_>, name: &str) -> Result<Option<u128>, ObjectError> {
    let Some(text) = at.text(name) else { return Ok(None) };
    match text.parse::<Duration>() {
        Ok(duration) => Ok(Some(duration.as_millis())),
        Err(_) => refuse(at.path_of(name), format!("{} is not a duration like 1h, 5m, 10s or 250ms", shown(text)))
            .map(|()| None),
    }
}

fn http_match(one: &At<'_>) -> Result<(), ObjectError> {
    if let Some(path) = one.field("path") {
        let text = path.text("value").unwrap_or("/");
        let at = path.path_of("value");
        match path.text("type") {
            Some("RegularExpression") => regex(&at, text)?,
            _ => url_path(&at, text)?,
        }
    }
    header_matches(one)?;
    one.count("queryParams", 16)?;
    for query in one.list("queryParams") {
        query.checked("name", header_name)?;
        match query.text("type") {
            Some("RegularExpression") => query.checked("value", regex)?,
            _ => query.checked("value", |path, text| length(path, text, 1, 1024))?,
        }
    }
    Ok(())
}

fn grpc_match(one: &At<'_>) -> Result<(), ObjectError> {
    header_matches(one)?;
    let Some(method) = one.field("method") else { return Ok(()) };
    if !method.has("service") && !method.has("method") {
        return refuse(method.path, "needs service, method, or both");
    }
    if method.text("type") == Some("RegularExpression") {
        method.checked("service", regex)?;
        return method.checked("method", regex);
    }
    method.checked("service", |path, text| {
        identifiers(path, text, text.strip_prefix('.').unwrap_or(text).split('.').all(is_identifier))
    })?;
    method.checked("method", |path, text| identifiers(path, text, is_identifier(text)))
}

fn identifiers(path: &str, text: &str, fits: bool) -> Result<(), ObjectError> {
    match fits && text.len() <= 1024 {
        true => Ok(()),
        false => refuse(path, format!("{} is no name of a gRPC service or method", shown(text))),
    }
}

fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn header_matches(one: &At<'_>) -> Result<(), ObjectError> {
    one.count("headers", 16)?;
    for header in one.list("headers") {
        header.checked("name", header_name)?;
        match header.text("type") {
            Some("RegularExpression") => header.checked("value", regex)?,
            _ => header.checked("value", header_value)?,
        }
    }
    Ok(())
}

/// A path to be compared with: absolute, and in the one spelling requests are brought into.
pub(super) fn url_path(path: &str, text: &str) -> Result<(), ObjectError> {
    length(path, text, 1, 1024)?;
    let fault = if !text.starts_with('/') {
        "does not begin with /"
    } else if ["//", "/./", "/../"].iter().any(|part| text.contains(part))
        || text.ends_with("/..")
        || text.ends_with("/.")
    {
        "is no plain path: no //, no parts . and .."
    } else if text.contains("%2f") || text.contains("%2F") {
        "has an escaped /"
    } else if text.contains(['#', '?']) {
        "has a ? or #, which are not part of a path"
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        "has bytes that are escaped (%20) in a path"
    } else {
        return Ok(());
    };
    refuse(path, format!("{} {fault}", shown(text)))
}

pub(super) fn regex(path: &str, text: &str) -> Result<(), ObjectError> {
    match regex_fault(text) {
        None => Ok(()),
        Some(fault) => refuse(path, format!("{} {fault}", shown(text))),
    }
}

/// A parent or a backend.
pub(super) fn reference(at: &At<'_>) -> Result<(), ObjectError> {
    at.checked("name", |path, text| match is_dns_subdomain(text) {
        true => Ok(()),
        false => refuse(path, format!("{} is not a DNS name", shown(text))),
    })?;
    at.checked("namespace", |path, text| match is_dns_label(text) {
        true => Ok(()),
        false => refuse(path, format!("{} is not a DNS label", shown(text))),
    })?;
    at.checked("kind", |path, text| length(path, text, 1, 63))?;
    at.checked("group", |path, text| length(path, text, 0, 253))?;
    at.within("port", 1, 65535)
}

/// A Service does nothing without a port.
pub(super) fn backend_port(at: &At<'_>) -> Result<(), ObjectError> {
    let is_service = at.text("kind").is_none_or(|kind| kind == "Service") && at.text("group").is_none_or(str::is_empty);
    match is_service && !at.has("port") {
        true => refuse(at.path_of("port"), "is missing: which port of the Service?"),
        false => Ok(()),
    }
}

/// Of all rules of a route, as the Gateway API has it.
const MAX_MATCHES: usize = 128;
