// SPDX-License-Identifier: Apache-2.0
//! One rule of a route: what its author wrote -> what is done. A rule that cannot be carried out keeps its matches and answers 500.

use std::{sync::Arc, time::Duration};

use super::{
    backends::Asking,
    draft::{DraftBackend, DraftRetry, DraftRule},
    filters, matches,
    status::{Findings, Problem, Reason},
    syntax::duration,
};
use crate::view::rule::{Backend, HeaderEdits, HttpMatch, HttpRule, Origin, Retry, Rewrite, Target, TcpRule};

/// The most receivers of a rule.
const MAX_BACKENDS: usize = 64;
/// The largest weight of one.
const MAX_WEIGHT: i32 = 1_000_000;
/// The most retries.
const MAX_ATTEMPTS: i64 = 100;
/// The most status codes after which a request is tried again.
const MAX_CODES: usize = 64;

/// A rule of an HTTPRoute or GRPCRoute, and the matches that lead to it.
pub(super) fn http(
    draft: &DraftRule,
    origin: Origin,
    is_grpc: bool,
    asking: &Asking<'_>,
    findings: &mut Findings,
) -> (Vec<HttpMatch>, Arc<HttpRule>) {
    let (matches, wrong) = matches::read(&draft.matches);
    let before = findings.problems.len();
    findings.problems.extend(wrong.into_iter().map(|text| Problem::new(Reason::UnsupportedValue, text)));
    let rule = match carried_out(draft, &origin, is_grpc, &matches, asking, &mut findings.problems) {
        Ok(rule) => rule,
        Err(problem) => {
            let broken = Some(problem.text.clone());
            findings.problems.push(problem);
            HttpRule { broken, ..empty(origin.clone(), is_grpc) }
        }
    };
    let place = place(&origin);
    for problem in findings.problems.iter_mut().skip(before) {
        problem.text.insert_str(0, &place);
    }
    findings.has_sound_rule |= rule.broken.is_none() && !matches.is_empty();
    (matches, Arc::new(rule))
}

/// A rule of a TCPRoute or TLSRoute.
pub(super) fn tcp(draft: &DraftRule, origin: Origin, asking: &Asking<'_>, findings: &mut Findings) -> TcpRule {
    let before = findings.problems.len();
    let backends = backends(&draft.backends, asking, &mut findings.problems).unwrap_or_else(|problem| {
        findings.problems.push(problem);
        Vec::new()
    });
    let place = place(&origin);
    for problem in findings.problems.iter_mut().skip(before) {
        problem.text.insert_str(0, &place);
    }
    findings.has_sound_rule = true;
    TcpRule { origin, backends }
}

fn place(origin: &Origin) -> String {
    match &origin.name {
        Some(name) => format!("rule {}: ", super::syntax::quoted(name)),
        None => format!("rules[{}]: ", origin.rule),
    }
}

fn empty(origin: Origin, is_grpc: bool) -> HttpRule {
    HttpRule {
        origin,
        is_grpc,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        redirect: None,
        rewrite: Rewrite::default(),
        mirrors: Vec::new(),
        cors: None,
        timeout: None,
        backend_timeout: None,
        retry: None,
        backends: Vec::new(),
        broken: None,
    }
}

fn carried_out(
    draft: &DraftRule,
    origin: &Origin,
    is_grpc: bool,
    matches: &[HttpMatch],
    asking: &Asking<'_>,
    problems: &mut Vec<Problem>,
) -> Result<HttpRule, Problem> {
    // References first: their problems are told even when something else breaks the rule.
    let backends = backends(&draft.backends, asking, problems)?;
    let filters = filters::of_rule(&draft.filters, matches, asking, problems)?;
    if draft.has_session_persistence {
        return Err(unsupported("sessionPersistence is not supported: leave it out"));
    }
    if filters.redirect.is_some() && !backends.is_empty() {
        return Err(Problem::new(
            Reason::IncompatibleFilters,
            "a rule redirects and has backendRefs: leave out one of them",
        ));
    }
    let (timeout, backend_timeout) = timeouts(draft)?;
    Ok(HttpRule {
        request_headers: filters.request_headers,
        response_headers: filters.response_headers,
        redirect: filters.redirect,
        rewrite: filters.rewrite,
        mirrors: filters.mirrors,
        cors: filters.cors,
        timeout,
        backend_timeout,
        retry: draft.retry.as_ref().map(retry).transpose()?,
        backends,
        ..empty(origin.clone(), is_grpc)
    })
}

fn unsupported(text: impl Into<String>) -> Problem {
    Problem::new(Reason::UnsupportedValue, text)
}

fn timeouts(draft: &DraftRule) -> Result<(Option<Duration>, Option<Duration>), Problem> {
    let read = |text: &Option<String>| text.as_deref().map(duration).transpose().map_err(unsupported);
    let (request, backend) = (read(&draft.request_timeout)?, read(&draft.backend_timeout)?);
    let is_bounded = request.is_some_and(|request| !request.is_zero());
    if is_bounded && backend > request {
        return Err(unsupported("timeouts.backendRequest is longer than timeouts.request"));
    }
    Ok((request, backend))
}

fn retry(wanted: &DraftRetry) -> Result<Retry, Problem> {
    const DEFAULT_ATTEMPTS: i64 = 2;
    let attempts = wanted.attempts.unwrap_or(DEFAULT_ATTEMPTS);
    let attempts = u32::try_from(attempts)
        .ok()
        .filter(|_| attempts <= MAX_ATTEMPTS)
        .ok_or_else(|| unsupported(format!("retry.attempts is {attempts}: write 0 to {MAX_ATTEMPTS}")))?;
    if wanted.codes.len() > MAX_CODES {
        return Err(unsupported(format!("retry.codes has more than {MAX_CODES} entries")));
    }
    let code = |code: &i64| {
        u16::try_from(*code)
            .ok()
            .filter(|code| (400..600).contains(code))
            .ok_or_else(|| unsupported(format!("retry.codes has {code}: write 400 to 599")))
    };
    Ok(Retry {
        attempts,
        codes: wanted.codes.iter().map(code).collect::<Result<_, _>>()?,
        backoff: wanted.backoff.as_deref().map(duration).transpose().map_err(unsupported)?,
    })
}

/// Every reference is looked at, so that its author hears of all at once.
fn backends(
    drafts: &[DraftBackend],
    asking: &Asking<'_>,
    problems: &mut Vec<Problem>,
) -> Result<Vec<Backend>, Problem> {
    if drafts.len() > MAX_BACKENDS {
        return Err(unsupported(format!("a rule has {} backendRefs, more than {MAX_BACKENDS}", drafts.len())));
    }
    let mut found = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let weight = draft.weight.unwrap_or(1);
        let weight = u32::try_from(weight)
            .ok()
            .filter(|_| weight <= MAX_WEIGHT)
            .ok_or_else(|| unsupported(format!("a backend has the weight {weight}: write 0 to {MAX_WEIGHT}")))?;
        let mut target = asking.target(&draft.reference, problems);
        let (request_headers, response_headers) = filters::of_backend(&draft.filters).unwrap_or_else(|problem| {
            target = Target::Invalid { reason: problem.text.clone() };
            problems.push(problem);
            Default::default()
        });
        found.push(Backend { target, weight, request_headers, response_headers });
    }
    Ok(found)
}
