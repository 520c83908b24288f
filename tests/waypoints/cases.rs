// SPDX-License-Identifier: Apache-2.0
//! Cases in the shape of a table: rules of a route, requests, and what each must bring.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use harness::{Bed, objects};

use super::{curl, eventually};

/// A request and what must be found in the answer.
pub(crate) struct Row {
    /// Arguments of curl, with blanks between; the last one is the path.
    pub(crate) asks: &'static str,
    /// Each must stand in the answer, or behind an `!` must not: status line, headers in lower case, then the body.
    pub(crate) brings: &'static [&'static str],
}

/// A row of a table.
pub(crate) const fn row(asks: &'static str, brings: &'static [&'static str]) -> Row {
    Row { asks, brings }
}

/// With these rules in force for `web`, each request brings what its row says.
pub(crate) fn hold(bed: &mut Bed, rules: &str, rows: &[Row]) -> Result<()> {
    with_rules(bed, rules, |bed| rows.iter().try_for_each(|row| check(bed, "demo/client", row)))
}

/// With these rules in force for `web`.
pub(crate) fn with_rules(bed: &mut Bed, rules: &str, check: impl FnOnce(&Bed) -> Result<()>) -> Result<()> {
    let mark = mark();
    let rules = rules.trim().strip_prefix('[').context("rules are a list")?;
    let yaml = http_route("demo", "case", &format!("[{}, {rules}", marked(&mark)));
    with_marked(bed, "demo/client", &mark, &yaml, check)
}

/// With routes of `web` in force, one of them with that mark, from the first moment that client sees it until none does.
pub(crate) fn with_marked(
    bed: &mut Bed,
    client: &str,
    mark: &str,
    yaml: &str,
    check: impl FnOnce(&Bed) -> Result<()>,
) -> Result<()> {
    let answers = |bed: &Bed, is_marked: bool| {
        eventually(if is_marked { "the route to be in force" } else { "the route to be gone" }, || {
            let said = curl(bed, client, &[&url(mark)])?;
            ensure!(said.trim_end().ends_with("302") == is_marked, "{said}");
            Ok(())
        })
    };
    let checked = with_objects(bed, yaml, |bed| {
        answers(bed, true)?;
        check(bed)
    });
    // Even after a failure, for the cases behind this one.
    let gone = answers(bed, false);
    checked.and(gone)
}

/// A path of its own for every route: once it is answered, the route is in force.
pub(crate) fn mark() -> String {
    static CASES: AtomicU32 = AtomicU32::new(0);
    format!("/case-{}", CASES.fetch_add(1, Ordering::Relaxed))
}

/// The rule that answers it.
pub(crate) fn marked(mark: &str) -> String {
    format!(
        "{{matches: [{{path: {{type: Exact, value: {mark}}}}}], \
         filters: [{{type: RequestRedirect, requestRedirect: {{statusCode: 302, hostname: marked.example}}}}]}}"
    )
}

/// A route of the service `web` of the namespace `demo`.
pub(crate) fn http_route(namespace: &str, name: &str, rules: &str) -> String {
    format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{namespace: {namespace}, name: {name}}}, \
         spec: {{parentRefs: [{{group: '', kind: Service, name: web, namespace: demo}}], rules: {rules}}}}}"
    )
}

/// With objects in force for the length of `check`, which waits for them.
pub(crate) fn with_objects(bed: &mut Bed, yaml: &str, check: impl FnOnce(&Bed) -> Result<()>) -> Result<()> {
    let objects = objects::parse(yaml)?;
    for object in &objects {
        bed.world.put(object.clone())?;
    }
    let checked = check(bed);
    for object in &objects {
        let (kind, namespace, name) = objects::key(object)?;
        bed.world.objects.remove(&kind, &namespace, &name)?;
    }
    checked
}

/// One request, and what its answer must hold.
pub(crate) fn check(bed: &Bed, from: &str, row: &Row) -> Result<()> {
    let answer = ask(bed, from, row.asks)?;
    for wanted in row.brings {
        let holds = match wanted.strip_prefix('!') {
            Some(unwanted) => !answer.contains(unwanted),
            None => answer.contains(wanted),
        };
        ensure!(holds, "{}: expected {wanted:?} in\n{answer}", row.asks);
    }
    Ok(())
}

/// What a request that asks to be shown brings: status line, headers, body.
pub(crate) fn ask(bed: &Bed, from: &str, asks: &str) -> Result<String> {
    let (arguments, path) = asks.rsplit_once(' ').unwrap_or(("", asks));
    let url = url(path);
    let line: Vec<&str> = ["curl", "-sS", "-i", "--max-time", "20", "-H", "x-show: yes"]
        .into_iter()
        .chain(arguments.split_whitespace())
        .chain([url.as_str()])
        .collect();
    bed.pod(from)?.run(&line)?.good()
}

fn url(path: &str) -> String {
    format!("http://web.demo{path}")
}
