// SPDX-License-Identifier: Apache-2.0
//! The filters of a rule or a backend. Called by `route`, on plain values.

use std::collections::BTreeSet;

use super::{
    route::{backend_port, reference, url_path},
    value::{At, header_name, header_value, hostname, length, refuse, shown},
};
use crate::api::object::ObjectError;

/// The filters at one place; a prefix may be replaced only where the rule has one.
pub(super) fn filters(at: &At<'_>, rule: &At<'_>) -> Result<(), ObjectError> {
    at.count("filters", 16)?;
    let mut seen = BTreeSet::new();
    for filter in at.list("filters") {
        let kind = filter.text("type").unwrap_or_default();
        let repeatable = matches!(kind, "RequestMirror" | "ExtensionRef");
        if !seen.insert(kind) && !repeatable {
            return refuse(filter.path_of("type"), format!("{} is there already", shown(kind)));
        }
        let wanted = FIELDS.iter().find(|(one, _)| *one == kind).map(|(_, field)| *field);
        for (other, field) in FIELDS {
            match filter.has(field) {
                true if Some(field) != wanted => {
                    return refuse(filter.path_of(field), format!("goes with type {other}, not with {}", shown(kind)));
                }
                false if Some(field) == wanted => {
                    return refuse(filter.path_of(field), format!("is missing, though the type is {kind}"));
                }
                _ => {}
            }
        }
        one(&filter, rule)?;
    }
    match seen.contains("RequestRedirect") && seen.contains("URLRewrite") {
        true => refuse(at.path_of("filters"), "RequestRedirect and URLRewrite exclude each other"),
        false => Ok(()),
    }
}

fn one(filter: &At<'_>, rule: &At<'_>) -> Result<(), ObjectError> {
    for name in ["requestHeaderModifier", "responseHeaderModifier"] {
        filter.field(name).map_or(Ok(()), |edits| header_edits(&edits))?;
    }
    for name in ["requestRedirect", "urlRewrite"] {
        let Some(change) = filter.field(name) else { continue };
        change.checked("hostname", |path, text| hostname(path, text, false))?;
        change.within("port", 1, 65535)?;
        change.field("path").map_or(Ok(()), |path| new_path(&path, rule))?;
        if let Some(code) = change.number("statusCode")
            && !matches!(code, 301 | 302 | 303 | 307 | 308)
        {
            return refuse(change.path_of("statusCode"), format!("{code} is none of 301, 302, 303, 307, 308"));
        }
    }
    filter.field("requestMirror").map_or(Ok(()), |mirror| copies(&mirror))?;
    filter.field("cors").map_or(Ok(()), |rules| cors(&rules))
}

fn header_edits(edits: &At<'_>) -> Result<(), ObjectError> {
    for list in ["set", "add"] {
        edits.count(list, 16)?;
        let mut seen = BTreeSet::new();
        for header in edits.list(list) {
            header.checked("name", header_name)?;
            header.checked("value", header_value)?;
            let name = header.text("name").unwrap_or_default().to_ascii_lowercase();
            if !seen.insert(name) {
                return refuse(header.path_of("name"), "is there already");
            }
        }
    }
    edits.count("remove", 16)?;
    edits.list("remove").try_for_each(|name| header_name(&name.path, name.value.as_str().unwrap_or_default()))
}

fn new_path(path: &At<'_>, rule: &At<'_>) -> Result<(), ObjectError> {
    let (wanted, other) = match path.text("type") {
        Some("ReplacePrefixMatch") => ("replacePrefixMatch", "replaceFullPath"),
        _ => ("replaceFullPath", "replacePrefixMatch"),
    };
    if !path.has(wanted) || path.has(other) {
        return refuse(path.path_of(wanted), "is what this type needs, and nothing else");
    }
    for field in [wanted, other] {
        path.checked(field, |path, text| match text {
            "" => Ok(()),
            _ => url_path(path, text.split('?').next().unwrap_or_default())
                .and_then(|()| length(path, text, 0, 1024))
                .and_then(|()| match text.bytes().all(|byte| byte.is_ascii_graphic()) {
                    true => Ok(()),
                    false => refuse(path, "has bytes that are escaped (%20) in a path"),
                }),
        })?;
    }
    let mut matches = rule.list("matches").map(|one| {
        let path = one.field("path");
        path.is_none_or(|path| matches!(path.text("type"), None | Some("PathPrefix")))
    });
    match wanted == "replacePrefixMatch" && !matches.all(|is_prefix| is_prefix) {
        true => refuse(path.path_of("type"), "ReplacePrefixMatch needs matches of type PathPrefix only"),
        false => Ok(()),
    }
}

fn copies(mirror: &At<'_>) -> Result<(), ObjectError> {
    if let Some(backend) = mirror.field("backendRef") {
        reference(&backend)?;
        backend_port(&backend)?;
    }
    mirror.within("percent", 0, 100)?;
    let Some(fraction) = mirror.field("fraction") else { return Ok(()) };
    if mirror.has("percent") {
        return refuse(fraction.path, "goes not together with percent; use one of the two");
    }
    fraction.within("denominator", 1, i64::from(i32::MAX))?;
    fraction.within("numerator", 0, fraction.number("denominator").unwrap_or(100))
}

fn cors(rules: &At<'_>) -> Result<(), ObjectError> {
    for (list, most) in [("allowOrigins", 64), ("allowHeaders", 64), ("exposeHeaders", 64), ("allowMethods", 9)] {
        rules.count(list, most)?;
        for entry in rules.list(list) {
            let text = entry.value.as_str().unwrap_or_default();
            match (list, text) {
                (_, "*") => {}
                ("allowOrigins", _) => origin(&entry.path, text)?,
                _ => header_name(&entry.path, text)?,
            }
        }
        let count = rules.list(list).count();
        let any = rules.list(list).any(|entry| entry.value.as_str() == Some("*"));
        if any && count > 1 {
            return refuse(rules.path_of(list), "has `*` beside others; `*` means all of them");
        }
    }
    rules.within("maxAge", 1, i64::from(i32::MAX))
}

/// `scheme://host`, with a port if need be; one wildcard may stand for the beginning of the host.
fn origin(path: &str, text: &str) -> Result<(), ObjectError> {
    length(path, text, 1, 253)?;
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "80"));
    let scheme_fits = scheme.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let host_fits = !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte))
        && host.matches('*').count() <= 1;
    match scheme_fits && host_fits && port.parse::<u16>().is_ok_and(|port| port > 0) {
        true => Ok(()),
        false => refuse(path, format!("{} is not an origin like https://example.com", shown(text))),
    }
}

/// Types of filters and the field each of them needs.
const FIELDS: [(&str, &str); 8] = [
    ("RequestHeaderModifier", "requestHeaderModifier"),
    ("ResponseHeaderModifier", "responseHeaderModifier"),
    ("RequestRedirect", "requestRedirect"),
    ("URLRewrite", "urlRewrite"),
    ("RequestMirror", "requestMirror"),
    ("CORS", "cors"),
    ("ExtensionRef", "extensionRef"),
    ("ExternalAuth", "externalAuth"),
];
