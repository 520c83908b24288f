// SPDX-License-Identifier: Apache-2.0
//! The filters of rules and of backends. What cannot be carried out as written breaks the rule, and the author is told; nothing is left out silently.

use super::{
    backends::Asking,
    draft::{DraftMirror, DraftRedirect, DraftRewrite, Filter},
    status::{Problem, Reason},
    syntax::{host, new_path, port, quoted, token, value},
};
use crate::view::rule::{Cors, HeaderEdits, HttpMatch, Mirror, PathMatch, PathRewrite, Redirect, Rewrite};

/// The most entries of one list in a filter.
const MAX_LIST: usize = 64;
/// The most receivers of copies.
const MAX_MIRRORS: usize = 16;

/// What the filters of a rule say together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Filters {
    pub(super) request_headers: HeaderEdits,
    pub(super) response_headers: HeaderEdits,
    pub(super) redirect: Option<Redirect>,
    pub(super) rewrite: Rewrite,
    pub(super) mirrors: Vec<Mirror>,
    pub(super) cors: Option<Cors>,
}

/// The filters of a rule; an error breaks the rule. Mirrors to nobody only lose their copies.
pub(super) fn of_rule(
    filters: &[Filter],
    matches: &[HttpMatch],
    asking: &Asking<'_>,
    problems: &mut Vec<Problem>,
) -> Result<Filters, Problem> {
    let mut read = Filters::default();
    let mut seen = Vec::new();
    for filter in filters {
        let kind = std::mem::discriminant(filter);
        if seen.contains(&kind) && !matches!(filter, Filter::Mirror(_)) {
            return Err(Problem::new(Reason::IncompatibleFilters, "a filter stands twice in a rule: put it into one"));
        }
        seen.push(kind);
        match filter {
            Filter::RequestHeaders(wanted) => read.request_headers = edits(wanted, true)?,
            Filter::ResponseHeaders(wanted) => read.response_headers = edits(wanted, false)?,
            Filter::Mirror(wanted) if read.mirrors.len() < MAX_MIRRORS => {
                read.mirrors.push(mirror(wanted, asking, problems)?);
            }
            Filter::Mirror(_) => return Err(unsupported(format!("a rule has more than {MAX_MIRRORS} mirrors"))),
            Filter::Redirect(wanted) => read.redirect = Some(redirect(wanted, matches)?),
            Filter::Rewrite { host: name, path } => read.rewrite = rewrite(name.as_deref(), path.as_ref(), matches)?,
            Filter::Cors(wanted) => read.cors = Some(cors(wanted)?),
            Filter::Extension { .. } | Filter::ExternalAuth | Filter::Empty => return Err(unknown(filter)),
        }
    }
    let rewrites = read.rewrite != Rewrite::default();
    if read.redirect.is_some() && (rewrites || !read.mirrors.is_empty()) {
        return Err(Problem::new(
            Reason::IncompatibleFilters,
            "a RequestRedirect answers, so there is nothing left for URLRewrite and RequestMirror to do",
        ));
    }
    // A new value of Host is a new authority.
    if let Some(at) = read.request_headers.set.iter().position(|(name, _)| name == "host") {
        let (_, name) = read.request_headers.set.remove(at);
        if read.rewrite.host.is_some() {
            return Err(Problem::new(
                Reason::IncompatibleFilters,
                "both URLRewrite and RequestHeaderModifier set the host",
            ));
        }
        read.rewrite.host = Some(name);
    }
    Ok(read)
}

/// The filters of one backend: of the request's headers and of the response's.
pub(super) fn of_backend(filters: &[Filter]) -> Result<(HeaderEdits, HeaderEdits), Problem> {
    let (mut request, mut response) = (None, None);
    for filter in filters {
        let slot = match filter {
            Filter::RequestHeaders(wanted) => request.replace(edits(wanted, true)?),
            Filter::ResponseHeaders(wanted) => response.replace(edits(wanted, false)?),
            Filter::Mirror(_) | Filter::Redirect(_) | Filter::Rewrite { .. } | Filter::Cors(_) => {
                return Err(unsupported(
                    "a backend may have filters that change headers only: move the others to the rule".to_owned(),
                ));
            }
            Filter::Extension { .. } | Filter::ExternalAuth | Filter::Empty => return Err(unknown(filter)),
        };
        if slot.is_some() {
            return Err(Problem::new(
                Reason::IncompatibleFilters,
                "a filter stands twice at a backend: put it into one",
            ));
        }
    }
    let request = request.unwrap_or_default();
    if request.set.iter().any(|(name, _)| name == "host") {
        return Err(unsupported("the host cannot be set for one backend: use URLRewrite in the rule".to_owned()));
    }
    Ok((request, response.unwrap_or_default()))
}

fn unsupported(text: String) -> Problem {
    Problem::new(Reason::UnsupportedValue, text)
}

fn unknown(filter: &Filter) -> Problem {
    match filter {
        Filter::Extension { group, kind, name } => Problem::new(
            Reason::InvalidFilter,
            format!(
                "the ExtensionRef to {} {} of {} names nothing that is supported",
                quoted(kind),
                quoted(name),
                quoted(group)
            ),
        ),
        Filter::ExternalAuth => unsupported(
            "the filter ExternalAuth is not supported: an AuthorizationPolicy with action CUSTOM is".to_owned(),
        ),
        _ => unsupported("a filter lacks the field that its type names".to_owned()),
    }
}

/// Names in lower case. Of a name that is set or added twice the first counts for `set`; `add` may repeat.
fn edits(wanted: &HeaderEdits, are_of_request: bool) -> Result<HeaderEdits, Problem> {
    if [wanted.set.len(), wanted.add.len(), wanted.remove.len()].iter().any(|length| *length > MAX_LIST) {
        return Err(unsupported(format!("a filter changes more than {MAX_LIST} headers in one way")));
    }
    let entry = |(name, text): &(String, String), may_be_host: bool| {
        token(name).and_then(|()| value(text)).map_err(unsupported)?;
        let name = name.to_ascii_lowercase();
        if name == "host" {
            if !may_be_host {
                return Err(unsupported("the header Host can only be set, and only of requests".to_owned()));
            }
            host(text).map_err(unsupported)?;
        }
        Ok((name, text.clone()))
    };
    let mut set: Vec<(String, String)> = Vec::with_capacity(wanted.set.len());
    for header in &wanted.set {
        let header = entry(header, are_of_request)?;
        if set.iter().all(|(name, _)| *name != header.0) {
            set.push(header);
        }
    }
    let add = wanted.add.iter().map(|header| entry(header, false)).collect::<Result<_, _>>()?;
    let removed = |name: &String| entry(&(name.clone(), String::new()), false).map(|(name, _)| name);
    let remove = wanted.remove.iter().map(removed).collect::<Result<_, _>>()?;
    Ok(HeaderEdits { set, add, remove })
}

fn mirror(wanted: &DraftMirror, asking: &Asking<'_>, problems: &mut Vec<Problem>) -> Result<Mirror, Problem> {
    let parts = match (wanted.percent, wanted.fraction) {
        (None, None) => Some(1_000_000),
        (Some(percent), None) => parts_per_million(percent, 100),
        (None, Some((numerator, denominator))) => parts_per_million(numerator, denominator.unwrap_or(100)),
        (Some(_), Some(_)) => None,
    };
    let parts_per_million = parts.ok_or_else(|| {
        unsupported("a mirror has percent from 0 to 100, or a fraction of at most 1, not both".to_owned())
    })?;
    Ok(Mirror { target: asking.target(&wanted.backend, problems), parts_per_million })
}

fn parts_per_million(numerator: i32, denominator: i32) -> Option<u32> {
    let (numerator, denominator) = (u64::try_from(numerator).ok()?, u64::try_from(denominator).ok()?);
    if denominator == 0 || numerator > denominator {
        return None;
    }
    u32::try_from(numerator * 1_000_000 / denominator).ok()
}

fn redirect(wanted: &DraftRedirect, matches: &[HttpMatch]) -> Result<Redirect, Problem> {
    let status = match wanted.status {
        None => 301,
        Some(301) => 301,
        Some(302) => 302,
        Some(303) => 303,
        Some(307) => 307,
        Some(308) => 308,
        Some(other) => {
            return Err(unsupported(format!("{other} is no status of a redirect: 301, 302, 303, 307, 308 are")));
        }
    };
    if let Some(name) = &wanted.host {
        host(name).map_err(unsupported)?;
    }
    Ok(Redirect {
        scheme: wanted.scheme.map(str::to_owned),
        host: wanted.host.clone(),
        port: wanted.port.map(port).transpose().map_err(unsupported)?,
        path: wanted.path.as_ref().map(|path| rewritten(path, matches)).transpose()?,
        status,
    })
}

fn rewrite(name: Option<&str>, path: Option<&DraftRewrite>, matches: &[HttpMatch]) -> Result<Rewrite, Problem> {
    if let Some(name) = name {
        host(name).map_err(unsupported)?;
    }
    Ok(Rewrite { host: name.map(str::to_owned), path: path.map(|path| rewritten(path, matches)).transpose()? })
}

fn rewritten(wanted: &DraftRewrite, matches: &[HttpMatch]) -> Result<PathRewrite, Problem> {
    match wanted {
        DraftRewrite::Full(path) => {
            new_path(path).map_err(unsupported)?;
            Ok(PathRewrite::Full(if path.is_empty() { "/" } else { path }.to_owned()))
        }
        DraftRewrite::Prefix(path) => {
            new_path(path).map_err(unsupported)?;
            let has_prefix = |wanted: &HttpMatch| matches!(wanted.path, None | Some(PathMatch::Prefix(_)));
            if !matches.iter().all(has_prefix) {
                return Err(unsupported(
                    "ReplacePrefixMatch needs matches of type PathPrefix in the same rule".to_owned(),
                ));
            }
            Ok(PathRewrite::Prefix(path.clone()))
        }
        DraftRewrite::Empty => Err(unsupported("a new path lacks the field that its type names".to_owned())),
    }
}

fn cors(wanted: &Cors) -> Result<Cors, Problem> {
    let lists = [&wanted.allow_origins, &wanted.allow_methods, &wanted.allow_headers, &wanted.expose_headers];
    if lists.iter().any(|list| list.len() > MAX_LIST) {
        return Err(unsupported(format!("a list of the CORS filter has more than {} entries", MAX_LIST)));
    }
    let is_origin = |origin: &&String| {
        let legal = |byte: u8| byte.is_ascii_graphic() && !b"\"'<>\\".contains(&byte);
        origin.len() <= 512 && !origin.is_empty() && origin.bytes().all(legal)
    };
    if let Some(wrong) = wanted.allow_origins.iter().find(|origin| !is_origin(origin)) {
        return Err(unsupported(format!("{} is no origin like https://*.example.com", quoted(wrong))));
    }
    for name in lists.into_iter().skip(1).flatten() {
        token(name).map_err(unsupported)?;
    }
    Ok(wanted.clone())
}
