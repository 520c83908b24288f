// SPDX-License-Identifier: Apache-2.0
//! What routes change on the way, answer by themselves, or copy.

use anyhow::{Context, Result, ensure};
use harness::{Bed, wait};

use super::cases::{Row, hold, row, with_rules};

const OK: &str = "HTTP/1.1 200";

pub(crate) fn headers(bed: &mut Bed) -> Result<()> {
    let edits = "{set: [{name: X-Set, value: '100%'}], add: [{name: X-Added, value: b}], remove: [X-Gone, x-secret]}";
    let of_request = format!("{{type: RequestHeaderModifier, requestHeaderModifier: {edits}}}");
    let of_response =
        format!("{{type: ResponseHeaderModifier, responseHeaderModifier: {}}}", edits.replace("X-Set", "X-Own"));
    let asks = "-H x-set:old -H x-added:a -H x-gone:1 -H x-kept:1 /";
    let rows = |to: &'static str| -> [Row; 2] {
        let brings: &[&str] = match to {
            "one" => &[
                OK,
                "one through",
                "> x-set: 100%\n",
                "> x-kept: 1",
                "> x-added: a\n",
                "> x-added: b\n",
                "!> x-gone",
                "!> x-set: old",
            ],
            _ => &[
                OK,
                "two through",
                "> x-set: 100%\n",
                "> x-kept: 1",
                "> x-added: a\n",
                "> x-added: b\n",
                "!> x-gone",
                "!> x-set: old",
            ],
        };
        [row(asks, brings), row("/", &[OK, "x-own: 100%\r\n", "x-added: b\r\n", "!x-secret", "!x-own: server"])]
    };
    hold(
        bed,
        &format!("[{{filters: [{of_request}, {of_response}], backendRefs: [{{name: web, port: 80}}]}}]"),
        &rows("one"),
    )?;
    hold(
        bed,
        &format!("[{{backendRefs: [{{name: two, port: 80, filters: [{of_request}, {of_response}]}}]}}]"),
        &rows("two"),
    )?;
    // At one of two backends, only on the way to that one.
    let at_one =
        format!("[{{backendRefs: [{{name: two, port: 80, filters: [{of_request}]}}, {{name: web, port: 80}}]}}]");
    with_rules(bed, &at_one, |bed| {
        let mut seen = (false, false);
        for _ in 0..60 {
            let answer = super::cases::ask(bed, "demo/client", asks)?;
            match (answer.contains("two through"), answer.contains("> x-set: 100%\n")) {
                (true, true) => seen.0 = true,
                (false, false) => seen.1 = true,
                _ => anyhow::bail!("the header of the other backend in {answer}"),
            }
            if seen == (true, true) {
                return Ok(());
            }
        }
        anyhow::bail!("60 requests went to one of two backends of equal weight")
    })
}

pub(crate) fn redirects(bed: &mut Bed) -> Result<()> {
    let to = |matches: &str, redirect: &str| {
        format!("{{matches: [{matches}], filters: [{{type: RequestRedirect, requestRedirect: {{{redirect}}}}}]}}")
    };
    let rules = [
        to("{path: {value: /plain}}", ""),
        to("{path: {value: /scheme}}", "scheme: https"),
        to("{path: {value: /host}}", "hostname: other.example, statusCode: 302"),
        to("{path: {value: /port}}", "port: 8080, statusCode: 303"),
        to("{path: {value: /all}}", "scheme: https, hostname: other.example, port: 8443, statusCode: 307"),
        to("{path: {value: /full}}", "path: {type: ReplaceFullPath, replaceFullPath: /new}, statusCode: 308"),
        to("{path: {value: /prefix}}", "path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}"),
        to("{path: {value: /gone}}", "path: {type: ReplacePrefixMatch, replacePrefixMatch: /}"),
    ];
    hold(
        bed,
        &format!("[{}]", rules.join(", ")),
        &[
            row("/plain/a?b=c", &["HTTP/1.1 301", "location: http://web.demo/plain/a?b=c\r\n"]),
            row("/scheme", &["HTTP/1.1 301", "location: https://web.demo/scheme\r\n"]),
            row("/host/a", &["HTTP/1.1 302", "location: http://other.example/host/a\r\n"]),
            row("/port", &["HTTP/1.1 303", "location: http://web.demo:8080/port\r\n"]),
            row("/all", &["HTTP/1.1 307", "location: https://other.example:8443/all\r\n"]),
            row("/full/a?b=c", &["HTTP/1.1 308", "location: http://web.demo/new?b=c\r\n"]),
            row("/prefix/a?b=c", &["HTTP/1.1 301", "location: http://web.demo/new/a?b=c\r\n"]),
            row("/prefix", &["location: http://web.demo/new\r\n"]),
            row("/gone/a", &["location: http://web.demo/a\r\n"]),
            row("/gone", &["location: http://web.demo/\r\n"]),
        ],
    )
}

pub(crate) fn rewrites(bed: &mut Bed) -> Result<()> {
    let to = |matches: &str, rewrite: &str| {
        format!(
            "{{matches: [{matches}], filters: [{{type: URLRewrite, urlRewrite: {{{rewrite}}}}}], backendRefs: [{{name: two, port: 80}}]}}"
        )
    };
    let rules = [
        to("{path: {value: /host}}", "hostname: other.example"),
        to("{path: {value: /full}}", "path: {type: ReplaceFullPath, replaceFullPath: '/new\\1%'}"),
        to("{path: {value: /prefix}}", "path: {type: ReplacePrefixMatch, replacePrefixMatch: /new/}"),
        to("{path: {value: /gone}}", "path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}"),
        to(
            "{path: {value: /both}}",
            "hostname: other.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}",
        ),
        to(
            "{path: {value: /}, headers: [{name: x-all, value: a}]}",
            "path: {type: ReplacePrefixMatch, replacePrefixMatch: /all}",
        ),
        "{backendRefs: [{name: web, port: 80}]}".to_owned(),
    ];
    hold(
        bed,
        &format!("[{}]", rules.join(", ")),
        &[
            row("/host/a", &[OK, "two through", "> GET /host/a\n", "> host: other.example\n"]),
            row("/full/a?b=c", &[OK, "> GET /new\\1%?b=c\n", "> host: web.demo\n"]),
            row("/prefix/a?b=c", &["> GET /new/a?b=c\n"]),
            row("/prefix", &["> GET /new\n"]),
            row("/prefixes", &["one through", "> GET /prefixes\n"]),
            row("/gone/a", &["> GET /a\n"]),
            row("/gone", &["> GET /\n"]),
            row("/both/a", &["> GET /new/a\n", "> host: other.example\n"]),
            row("-H x-all:a /a", &["two through", "> GET /all/a\n"]),
        ],
    )
}

/// How many requests with `word` in them a server has heard, copies included.
fn heard(bed: &Bed, server: &str, word: &str) -> Result<u32> {
    let url = format!("{}heard/{word}", bed.pod(server)?.url(8080));
    bed.pod("demo/client")?.run(&["curl", "-sS", "--max-time", "10", &url])?.good()?.trim().parse().context("a number")
}

/// Sends 200 requests with `word` in them, which are all answered by `web`, and waits until `two` has heard as many as `enough` wants and `three` all of them.
fn mirrored(bed: &mut Bed, word: &str, filters: &str, enough: impl Fn(u32) -> bool) -> Result<()> {
    let rules = format!("[{{filters: [{filters}], backendRefs: [{{name: web, port: 80}}]}}]");
    with_rules(bed, &rules, |bed| {
        let line = ["curl", "-sS", "--max-time", "10", &format!("http://web.demo/{word}?[1-200]")];
        let said = bed.pod("demo/client")?.run_for(&line, wait::LONG_PATIENCE)?.good()?;
        let answers = said.lines().filter(|line| *line == "one through").count();
        ensure!(answers == 200, "{answers} of 200 requests were answered by web");
        super::eventually("the copies", || {
            let (one, two, three) =
                (heard(bed, "demo/web", word)?, heard(bed, "demo/two", word)?, heard(bed, "demo/three", word)?);
            ensure!(one == 200 && three == 200 && enough(two), "{one} and copies {two}, {three}");
            Ok(())
        })
    })
}

/// Shares of a half: outside of these bounds in fewer than one of a million runs.
pub(crate) fn mirrors(bed: &mut Bed) -> Result<()> {
    let to = |name: &str, share: &str| {
        format!("{{type: RequestMirror, requestMirror: {{backendRef: {{name: {name}, port: 80}}{share}}}}}")
    };
    let three = to("three", "");
    let with = |share: &str| format!("{}, {three}", to("two", share));
    mirrored(bed, "mirror-all", &with(""), |heard| heard == 200)?;
    mirrored(bed, "mirror-none", &with(", percent: 0"), |heard| heard == 0)?;
    mirrored(bed, "mirror-half", &with(", percent: 50"), |heard| (65..=135).contains(&heard))?;
    mirrored(bed, "mirror-part", &with(", fraction: {numerator: 1, denominator: 2}"), |heard| {
        (65..=135).contains(&heard)
    })?;
    // To nobody: no copies, and nothing else is the worse for it.
    mirrored(bed, "mirror-nobody", &format!("{}, {three}", to("nobody", "")), |heard| heard == 0)
}

pub(crate) fn cors(bed: &mut Bed) -> Result<()> {
    let filter = "{type: CORS, cors: {allowOrigins: ['https://a.example', 'https://*.b.example'], allowMethods: [GET, PUT], \
                   allowHeaders: [x-one, x-two], exposeHeaders: [x-three], maxAge: 60, allowCredentials: true}}";
    let rules = format!("[{{filters: [{filter}], backendRefs: [{{name: web, port: 80}}]}}]");
    hold(
        bed,
        &rules,
        &[
            row(
                "-X OPTIONS -H origin:https://a.example -H access-control-request-method:PUT /",
                &[
                    OK,
                    "access-control-allow-origin: https://a.example\r\n",
                    "access-control-allow-methods: GET,PUT\r\n",
                    "access-control-allow-headers: x-one,x-two\r\n",
                    "access-control-max-age: 60\r\n",
                    "access-control-allow-credentials: true\r\n",
                    "!one through",
                ],
            ),
            row(
                "-X OPTIONS -H origin:https://evil.example -H access-control-request-method:PUT /",
                &["!access-control-allow-origin", "!one through"],
            ),
            row(
                "-H origin:https://any.b.example /",
                &[
                    OK,
                    "one through",
                    "access-control-allow-origin: https://any.b.example\r\n",
                    "access-control-expose-headers: x-three\r\n",
                ],
            ),
            row("-H origin:https://evil.example /", &[OK, "one through", "!access-control-allow-origin"]),
            row("-H origin:https://b.example.evil.example /", &["!access-control-allow-origin"]),
            row("/", &[OK, "one through", "!access-control"]),
            // No preflight: an ordinary request with that method.
            row("-X OPTIONS /", &[OK, "one through"]),
        ],
    )?;
    let any = "[{filters: [{type: CORS, cors: {allowOrigins: ['*'], allowMethods: ['*'], allowHeaders: ['*']}}], \
                backendRefs: [{name: web, port: 80}]}]";
    hold(
        bed,
        any,
        &[row(
            "-X OPTIONS -H origin:http://any.example:81 -H access-control-request-method:DELETE -H access-control-request-headers:x-a /",
            &[
                OK,
                "access-control-allow-origin: http://any.example:81\r\n",
                "access-control-allow-methods: DELETE\r\n",
                "access-control-allow-headers: x-a\r\n",
                "!credentials",
            ],
        )],
    )
}
