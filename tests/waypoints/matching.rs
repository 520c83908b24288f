// SPDX-License-Identifier: Apache-2.0
//! Which rule a request meets: path, headers, query, method, and who goes first.

use anyhow::{Result, ensure};
use harness::Bed;

use super::cases::{check, hold, http_route, mark, marked, row, with_marked, with_objects};

const OK: &str = "HTTP/1.1 200";
const ONE: &str = "one through";
const TWO: &str = "two through";

/// A rule with these matches that leads to `two`; everything else goes to `web`.
fn chosen(matches: &str) -> String {
    format!(
        "[{{matches: [{matches}], backendRefs: [{{name: two, port: 80}}]}}, {{backendRefs: [{{name: web, port: 80}}]}}]"
    )
}

pub(crate) fn paths(bed: &mut Bed) -> Result<()> {
    hold(
        bed,
        &chosen("{path: {type: Exact, value: /exact}}"),
        &[
            row("/exact", &[OK, TWO]),
            row("/exact?query=1", &[OK, TWO]),
            row("/exact/", &[OK, ONE]),
            row("/exact/more", &[OK, ONE]),
            row("/Exact", &[OK, ONE]),
        ],
    )?;
    hold(
        bed,
        &chosen("{path: {type: PathPrefix, value: /a/b/}}, {path: {type: PathPrefix, value: /c}}"),
        &[
            row("/a/b", &[TWO]),
            row("/a/b/", &[TWO]),
            row("/a/b/c?d", &[TWO]),
            row("/a/bc", &[ONE]),
            row("/a", &[ONE]),
            row("/c", &[TWO]),
            row("/cc", &[ONE]),
            // What the server would take for the same path must not slip through.
            row("--path-as-is /x/../c/y", &[TWO]),
        ],
    )?;
    hold(
        bed,
        &chosen("{path: {type: RegularExpression, value: '/v[0-9]+/(get|list)'}}"),
        &[
            row("/v1/get", &[TWO]),
            row("/v22/list?x=/v1", &[TWO]),
            row("/v1/get/more", &[ONE]),
            row("/prefix/v1/get", &[ONE]),
            row("/v/get", &[ONE]),
        ],
    )
}

pub(crate) fn values(bed: &mut Bed) -> Result<()> {
    hold(
        bed,
        &chosen("{headers: [{name: X-Exact, value: a}, {name: x-regex, type: RegularExpression, value: 'b+'}]}"),
        &[
            row("-H x-exact:a -H x-regex:bbb /", &[TWO]),
            row("-H X-EXACT:a -H X-Regex:b /", &[TWO]),
            row("-H x-exact:a /", &[ONE]),
            row("-H x-exact:A -H x-regex:b /", &[ONE]),
            row("-H x-exact:a -H x-regex:abba /", &[ONE]),
        ],
    )?;
    hold(
        bed,
        &chosen("{queryParams: [{name: exact, value: a}, {name: regex, type: RegularExpression, value: 'b+'}]}"),
        &[
            row("/?exact=a&regex=bb", &[TWO]),
            row("/any?x=y&regex=b&exact=a", &[TWO]),
            row("/?exact=a", &[ONE]),
            row("/?exact=a&regex=c", &[ONE]),
            row("/?exact=ab&regex=b", &[ONE]),
        ],
    )?;
    hold(
        bed,
        &chosen("{method: DELETE}, {method: PUT, path: {type: PathPrefix, value: /put}}"),
        &[
            row("-X DELETE /", &[TWO]),
            row("-X PUT /put/it", &[TWO]),
            row("-X PUT /", &[ONE]),
            row("/", &[ONE]),
            row("--head /", &[OK]),
        ],
    )
}

/// Each rule but the last is more special than the next in one way, and they are written in the order that would hide it.
pub(crate) fn precedence(bed: &mut Bed) -> Result<()> {
    let answering = |matches: &str, code: u16| {
        format!(
            "{{matches: [{matches}], filters: [{{type: RequestRedirect, requestRedirect: {{statusCode: {code}}}}}]}}"
        )
    };
    let rules = [
        answering("{path: {value: /}}", 301),
        answering("{path: {value: /p}}", 302),
        answering("{path: {value: /p}, headers: [{name: x-a, value: a}]}", 303),
        answering("{path: {value: /p}, method: PUT}", 307),
        answering("{path: {value: /p/longer}}", 308),
        "{matches: [{path: {type: Exact, value: /p/longer/exact}}], backendRefs: [{name: two, port: 80}]}".to_owned(),
    ];
    hold(
        bed,
        &format!("[{}]", rules.join(", ")),
        &[
            row("/", &["HTTP/1.1 301"]),
            row("/p", &["HTTP/1.1 302"]),
            row("-H x-a:a /p", &["HTTP/1.1 303"]),
            row("-X PUT -H x-a:a /p", &["HTTP/1.1 307"]),
            row("-X PUT -H x-a:a /p/longer/than", &["HTTP/1.1 308"]),
            row("/p/longer/exact", &[OK, TWO]),
        ],
    )
}

/// Two routes of one service are one list; of equal matches the older route's counts.
pub(crate) fn several_routes(bed: &mut Bed) -> Result<()> {
    let route = |name: &str, age: &str, rules: &str| {
        http_route("demo", name, rules).replace("metadata: {", &format!("metadata: {{creationTimestamp: '{age}', "))
    };
    let mark = mark();
    let older = format!(
        "[{}, {{matches: [{{path: {{value: /same}}}}], backendRefs: [{{name: web, port: 80}}]}}]",
        marked(&mark)
    );
    let newer =
        "[{matches: [{path: {value: /same}}, {path: {value: /same/and/more}}], backendRefs: [{name: two, port: 80}]}]";
    // By name the newer one would come first.
    let yaml = [route("z-older", "2024-01-01T00:00:00Z", &older), route("a-newer", "2024-01-02T00:00:00Z", newer)];
    with_marked(bed, "demo/client", &mark, &yaml.join("\n---\n"), |bed| {
        super::eventually("the newer route to be in force, too", || {
            check(bed, "demo/client", &row("/same/and/more", &[OK, TWO]))
        })?;
        check(bed, "demo/client", &row("/same", &[OK, ONE]))?;
        check(bed, "demo/client", &row("/other", &["HTTP/1.1 404"]))
    })
}

/// A route in a namespace of clients holds for clients there, and for nobody else.
pub(crate) fn of_clients(bed: &mut Bed) -> Result<()> {
    let mark = mark();
    let rules = format!(
        "[{}, {{filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-whose, value: theirs}}]}}}}], \
         backendRefs: [{{name: web, namespace: demo, port: 80}}]}}]",
        marked(&mark)
    );
    let producer = "[{filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-whose, value: ours}]}}], \
                     backendRefs: [{name: web, port: 80}]}]";
    let yaml = [http_route("clients", "consumer", &rules), http_route("demo", "producer", producer)];
    with_marked(bed, "clients/client", &mark, &yaml.join("\n---\n"), |bed| {
        super::eventually("the producer's route to be in force, too", || {
            check(bed, "demo/client", &row("/", &[OK, ONE, "x-whose: ours"]))
        })?;
        check(bed, "clients/client", &row("/", &[OK, ONE, "x-whose: theirs"]))?;
        let said = super::curl(bed, "demo/client", &[&format!("http://web.demo{mark}")])?;
        ensure!(said.ends_with("200\n"), "a route of another namespace's clients holds for demo/client: {said}");
        Ok(())
    })
}

/// In a mesh the parent says for whom a route is; its host names say nothing.
pub(crate) fn hostnames(bed: &mut Bed) -> Result<()> {
    let mark = mark();
    let yaml = http_route("demo", "case", &format!("[{}, {{backendRefs: [{{name: two, port: 80}}]}}]", marked(&mark)))
        .replace("spec: {", "spec: {hostnames: [a.example, b.example], ");
    with_marked(bed, "demo/client", &mark, &yaml, |bed| {
        for asks in ["/", "-H host:a.example /", "-H host:c.example /"] {
            check(bed, "demo/client", &row(asks, &[OK, TWO]))?;
        }
        Ok(())
    })
}

/// One port of a service has routes, and its neighbour has none. Nothing is declared of either.
pub(crate) fn one_port(bed: &mut Bed) -> Result<()> {
    for (port, by_name) in [("port: 80", false), ("sectionName: any", true)] {
        let yaml =
            http_route("demo", "port", "[{matches: [{path: {value: /routed}}], backendRefs: [{name: two, port: 80}]}]")
                .replace("name: web, namespace: demo}", &format!("name: open, namespace: demo, {port}}}"));
        let answers = |bed: &Bed, wanted: &str| {
            super::eventually(&format!("an answer with {wanted:?}"), || {
                let said = super::curl(bed, "demo/client", &["http://open.demo/routed"])?;
                ensure!(said.contains(wanted), "by name: {by_name}: {said}");
                Ok(())
            })
        };
        answers(bed, ONE)?;
        with_objects(bed, &yaml, |bed| {
            answers(bed, TWO)?;
            let said = super::curl(bed, "demo/client", &["http://open.demo/other"])?;
            ensure!(said.trim_end().ends_with("404"), "{said}");
            let line = ["peer", "grpc", "http://open.demo:90", "test.Echo/Say", "hello"];
            let said = bed.pod("demo/client")?.run(&line)?.good()?;
            ensure!(said.starts_with("one "), "{said}");
            Ok(())
        })?;
        answers(bed, ONE)?;
    }
    Ok(())
}
