// SPDX-License-Identifier: Apache-2.0
//! What a request must look like, and which of several matches is tried first.

use std::{cmp::Reverse, collections::BTreeSet};

use super::{
    draft::{DraftMatch, DraftPath, DraftValue},
    regex,
    syntax::{path, query_name, quoted, token, value},
};
use crate::view::rule::{HttpMatch, PathMatch, Pattern, ValueMatch};

/// The most headers, and the most query parameters, of a match.
const MAX_VALUES: usize = 16;

/// The matches of a rule; one that matches everything stands for none.
pub(super) fn read(matches: &[DraftMatch]) -> (Vec<HttpMatch>, Vec<String>) {
    if matches.is_empty() {
        return (vec![HttpMatch::default()], Vec::new());
    }
    let mut found = Vec::with_capacity(matches.len());
    let mut problems = Vec::new();
    for wanted in matches {
        match one(wanted) {
            Ok(wanted) => found.push(wanted),
            Err(problem) => problems.push(problem),
        }
    }
    (found, problems)
}

fn one(wanted: &DraftMatch) -> Result<HttpMatch, String> {
    if wanted.headers.len() > MAX_VALUES || wanted.query.len() > MAX_VALUES {
        return Err(format!("a match has more than {MAX_VALUES} headers or query parameters"));
    }
    Ok(HttpMatch {
        path: wanted_path(&wanted.path)?,
        method: wanted.method.map(str::to_owned),
        headers: values(&wanted.headers, true)?,
        query: values(&wanted.query, false)?,
    })
}

fn wanted_path(wanted: &DraftPath) -> Result<Option<PathMatch>, String> {
    Ok(match wanted {
        DraftPath::Any => None,
        DraftPath::Exact(exact) => {
            path(exact)?;
            Some(PathMatch::Exact(exact.clone()))
        }
        DraftPath::Prefix(prefix) => {
            path(prefix)?;
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            Some(PathMatch::Prefix(if prefix.is_empty() { "/" } else { prefix }.to_owned()))
        }
        DraftPath::Regex(pattern) => {
            regex::check(pattern)?;
            Some(PathMatch::Regex(pattern.clone()))
        }
        DraftPath::Grpc { service, method, is_regex } => grpc(service.as_deref(), method.as_deref(), *is_regex)?,
    })
}

/// gRPC has the path `/service/method`.
fn grpc(service: Option<&str>, method: Option<&str>, is_regex: bool) -> Result<Option<PathMatch>, String> {
    let check = |part: &str| if is_regex { regex::check(part) } else { grpc_name(part) };
    [service, method].into_iter().flatten().try_for_each(check)?;
    let regex = |service: &str, method: &str| PathMatch::Regex(format!("/{service}/{method}"));
    // An author's alternatives are kept together.
    let part = |pattern: &str| format!("(?:{pattern})");
    let found = match (service, method) {
        (None, None) => None,
        (Some(service), Some(method)) if is_regex => Some(regex(&part(service), &part(method))),
        (Some(service), None) if is_regex => Some(regex(&part(service), "[^/]+")),
        (None, Some(method)) if is_regex => Some(regex("[^/]+", &part(method))),
        (Some(service), Some(method)) => Some(PathMatch::Exact(format!("/{service}/{method}"))),
        (Some(service), None) => Some(PathMatch::Prefix(format!("/{service}"))),
        (None, Some(method)) => Some(regex("[^/]+", &method.replace('.', "\\."))),
    };
    // Two that are good apart may name the same group.
    if let Some(PathMatch::Regex(pattern)) = &found {
        regex::check(pattern)?;
    }
    Ok(found)
}

/// A service or method: letters, digits and _, of a service with dots between.
fn grpc_name(text: &str) -> Result<(), String> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
    if text.len() > 1024 || text.starts_with('.') || !text.bytes().all(is_legal) {
        return Err(format!("{} is no service or method of gRPC", quoted(text)));
    }
    Ok(())
}

/// Of several conditions on one name the first counts.
fn values(wanted: &[DraftValue], are_headers: bool) -> Result<Vec<ValueMatch>, String> {
    let mut names = BTreeSet::new();
    let mut found = Vec::with_capacity(wanted.len());
    for condition in wanted {
        let name = if are_headers {
            token(&condition.name)?;
            condition.name.to_ascii_lowercase()
        } else {
            query_name(&condition.name)?;
            condition.name.clone()
        };
        value(&condition.value)?;
        let pattern = if condition.is_regex {
            regex::check(&condition.value)?;
            Pattern::Regex(condition.value.clone())
        } else {
            Pattern::Exact(condition.value.clone())
        };
        if names.insert(name.clone()) {
            found.push(ValueMatch { name, value: pattern });
        }
    }
    Ok(found)
}

/// The more exact, the smaller: a whole path, the longest start of one, an expression, no path; then whether a method is named, then more headers, then
/// more query parameters.
pub(super) fn precedence(wanted: &HttpMatch) -> Precedence {
    let (kind, length) = match &wanted.path {
        Some(PathMatch::Exact(path)) => (0, path.len()),
        // Matches what no path matches, and the API fills it in.
        Some(PathMatch::Prefix(path)) if path == "/" => (3, 0),
        Some(PathMatch::Prefix(path)) => (1, path.len()),
        Some(PathMatch::Regex(pattern)) => (2, pattern.len()),
        None => (3, 0),
    };
    (
        kind,
        Reverse(length),
        Reverse(wanted.method.is_some()),
        Reverse(wanted.headers.len()),
        Reverse(wanted.query.len()),
    )
}

pub(super) type Precedence = (u8, Reverse<usize>, Reverse<bool>, Reverse<usize>, Reverse<usize>);
