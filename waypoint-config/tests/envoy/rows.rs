// SPDX-License-Identifier: Apache-2.0
//! Every row of the table of routes, as a client sees it.

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use waypoint_config::envoy::names;

use super::{
    bootstrap::{bootstrap, cluster, echo, listener},
    envoy, mesh,
    upstream::{ask, flaky, slow, spy},
};

/// A request, the status it gets, and what the answer has.
type Ask = (&'static str, u16, &'static [&'static str]);

/// A rule or several, and what comes of requests: the request, the status, and what the answer has.
struct Row {
    name: &'static str,
    kind: &'static str,
    port: u16,
    rules: &'static str,
    asks: &'static [Ask],
}

const fn row(name: &'static str, rules: &'static str, asks: &'static [Ask]) -> Row {
    Row { name, kind: "HTTPRoute", port: 80, rules, asks }
}

const ROWS: &[Row] = &[
    row(
        "the most exact path wins",
        "[{matches: [{path: {value: /}}], backendRefs: [{name: web, port: 80}]},
          {matches: [{path: {value: /a}}, {path: {type: RegularExpression, value: '/r/[0-9]+'}}], backendRefs: [{name: v1, port: 80}]},
          {matches: [{path: {type: Exact, value: /a}}], backendRefs: [{name: v2, port: 80}]}]",
        &[
            ("GET /a", 200, &["v2 GET /a "]),
            ("GET /a?x=1", 200, &["v2 GET /a?x=1 "]),
            ("GET /a/b", 200, &["v1 GET /a/b "]),
            ("GET /ab", 200, &["web GET /ab "]),
            ("GET /r/12", 200, &["v1 "]),
            ("GET /r/12x", 200, &["web "]),
        ],
    ),
    row(
        "what matches nothing is not found",
        "[{matches: [{path: {value: /a}}], backendRefs: [{name: v1, port: 80}]}]",
        &[("GET /b", 404, &[]), ("GET /ab", 404, &[])],
    ),
    row(
        "method, headers and query parameters",
        "[{matches: [{method: POST, headers: [{name: X-A, value: b}], queryParams: [{name: q, type: RegularExpression, value: '[0-9]+'}]}], backendRefs: [{name: v1, port: 80}]},
          {matches: [{headers: [{name: Host, value: other.example}]}], backendRefs: [{name: v2, port: 80}]}]",
        &[
            ("POST /?q=12\nx-a: b\ncontent-length: 0", 200, &["v1 POST"]),
            ("POST /?q=x\nx-a: b\ncontent-length: 0", 404, &[]),
            ("GET /?q=12\nx-a: b", 404, &[]),
            ("GET /\nhost: other.example", 200, &["v2 "]),
        ],
    ),
    row(
        "headers are changed, and % is only a character",
        "[{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: '100%REQ(x)%'}], add: [{name: x-add, value: two}], remove: [x-gone]}},
                     {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: x-back, value: '5%'}], remove: [x-powered-by]}}],
           backendRefs: [{name: v1, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-to, value: v1}]}}]}]}]",
        &[(
            "GET /\nx-set: old\nx-gone: here",
            200,
            &["set=[100%REQ(x)%]", "add=[two]", "gone=[-]", "to=[v1]", "x-back: 5%"],
        )],
    ),
    row(
        "a host is rewritten by a filter or by its header",
        "[{matches: [{path: {value: /f}}], filters: [{type: URLRewrite, urlRewrite: {hostname: f.example}}], backendRefs: [{name: v1, port: 80}]},
          {filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: h.example}]}}], backendRefs: [{name: v1, port: 80}]}]",
        &[("GET /f", 200, &["host=f.example"]), ("GET /", 200, &["host=h.example"])],
    ),
    row(
        "a prefix is replaced without doubled slashes",
        "[{matches: [{path: {value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b/}}}], backendRefs: [{name: v1, port: 80}]},
          {matches: [{path: {value: /c.d/}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}], backendRefs: [{name: v1, port: 80}]},
          {filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /e}}}], backendRefs: [{name: v1, port: 80}]}]",
        &[
            ("GET /a", 200, &[" /b "]),
            ("GET /a/", 200, &[" /b/ "]),
            ("GET /a/x?y=1", 200, &[" /b/x?y=1 "]),
            ("GET /c.d", 200, &[" / "]),
            ("GET /c.d/", 200, &[" / "]),
            ("GET /c.d/x/y?z", 200, &[" /x/y?z "]),
            ("GET /c.d?z=1", 200, &[" /?z=1 "]),
            ("GET /cxd/x", 200, &[" /e/cxd/x "]),
            ("GET /", 200, &[" /e/ "]),
        ],
    ),
    row(
        "a whole path is replaced, the query stays",
        "[{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: '/new\\1'}}}], backendRefs: [{name: v1, port: 80}]}]",
        &[("GET /a/b/c?x=y", 200, &[" /new\\1?x=y "])],
    ),
    row(
        "redirects change what they name",
        "[{matches: [{path: {value: /s}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]},
          {matches: [{path: {value: /h}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: a.example, statusCode: 302}}]},
          {matches: [{path: {value: /p}}], filters: [{type: RequestRedirect, requestRedirect: {port: 8443, scheme: https, statusCode: 307}}]},
          {matches: [{path: {value: /o}}], filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /n/}, statusCode: 308}}]},
          {matches: [{path: {value: /r}}], filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}, statusCode: 303}}]},
          {matches: [{path: {value: /f}}], filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /full}}}]}]",
        &[
            ("GET /s/x?y", 301, &["location: https://web/s/x?y\r"]),
            ("GET /h", 302, &["location: http://a.example/h\r"]),
            ("GET /p", 307, &["location: https://web:8443/p\r"]),
            ("GET /o/x?y=1", 308, &["location: http://web/n/x?y=1\r"]),
            ("GET /r/x", 303, &["location: http://web/x\r"]),
            ("GET /f/x", 301, &["location: http://web/full\r"]),
        ],
    ),
    Row {
        port: 8080,
        ..row(
            "redirects on another port than 80",
            "[{matches: [{path: {value: /s}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]},
              {matches: [{path: {value: /h}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: a.example}}]},
              {matches: [{path: {value: /t}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: a.example, scheme: https}}]},
              {filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /x}}}]}]",
            &[
                ("GET /s\nhost: web:8080", 301, &["location: https://web:443/s\r"]),
                ("GET /h\nhost: web:8080", 301, &["location: http://a.example:8080/h\r"]),
                ("GET /t\nhost: web:8080", 301, &["location: https://a.example/t\r"]),
                ("GET /\nhost: web:8080", 301, &["location: http://web:8080/x\r"]),
            ],
        )
    },
    row(
        "origins that are allowed are answered, others are not",
        "[{filters: [{type: CORS, cors: {allowOrigins: ['https://*.example.com', 'https://a.test'], allowMethods: [GET, PUT], allowHeaders: [x-a], exposeHeaders: [x-b], maxAge: 30, allowCredentials: true}}],
           backendRefs: [{name: v1, port: 80}]}]",
        &[
            (
                "OPTIONS /\norigin: https://www.example.com\naccess-control-request-method: PUT",
                200,
                &["access-control-allow-origin: https://www.example.com", "access-control-allow-methods: GET,PUT", "access-control-max-age: 30", "access-control-allow-credentials: true"],
            ),
            ("GET /\norigin: https://a.test", 200, &["access-control-allow-origin: https://a.test", "access-control-expose-headers: x-b", "v1 "]),
        ],
    ),
    row(
        "an invalid backend answers its share, and so do rules without a backend",
        "[{matches: [{path: {value: /all}}], backendRefs: [{name: nobody, port: 80}]},
          {matches: [{path: {value: /none}}]}, {matches: [{path: {value: /zero}}], backendRefs: [{name: v1, port: 80, weight: 0}]},
          {matches: [{path: {value: /broken}}], sessionPersistence: {}, backendRefs: [{name: v1, port: 80}]},
          {matches: [{path: {value: /rest}}], backendRefs: [{name: nobody, port: 80, weight: 0}, {name: v2, port: 80}]}]",
        &[
            ("GET /all", 500, &[]),
            ("GET /none", 500, &["shop/route: rules[1] has no backend"]),
            ("GET /zero", 500, &[]),
            ("GET /broken", 500, &["cannot be carried out"]),
            ("GET /rest", 200, &["v2 "]),
        ],
    ),
    row(
        "a request that takes too long is ended, and so is a try",
        "[{matches: [{path: {value: /r}}], timeouts: {request: 50ms}, backendRefs: [{name: slow, port: 80}]},
          {matches: [{path: {value: /t}}], timeouts: {backendRequest: 50ms}, backendRefs: [{name: slow, port: 80}]},
          {matches: [{path: {value: /o}}], timeouts: {backendRequest: 50ms}, retry: {attempts: 0}, backendRefs: [{name: slow, port: 80}]}]",
        &[("GET /r", 504, &[]), ("GET /t", 504, &[]), ("GET /o", 504, &[])],
    ),
    row(
        "a retry hides a failure, and 0 attempts do not",
        "[{matches: [{path: {value: /r}}], retry: {attempts: 2, codes: [503], backoff: 1ms}, backendRefs: [{name: flaky, port: 80}]},
          {matches: [{path: {value: /o}}], retry: {attempts: 0, codes: [503]}, backendRefs: [{name: flaky, port: 80}]}]",
        &[("GET /r", 200, &[]), ("GET /r", 200, &[]), ("GET /o", 503, &[])],
    ),
    Row {
        kind: "GRPCRoute",
        ..row(
            "methods of gRPC, and failures told its way",
            "[{matches: [{method: {service: a.B, method: C}}], backendRefs: [{name: v1, port: 80}]}, {matches: [{method: {service: a.B}}], backendRefs: [{name: v2, port: 80}]},
              {matches: [{method: {method: D}}], backendRefs: [{name: nobody, port: 80}]}, {matches: [{method: {type: RegularExpression, service: 'x|y', method: 'E.*'}}]}]",
            &[
                ("POST /a.B/C\ncontent-type: application/grpc\ncontent-length: 0", 200, &["grpc-status: ", "content-type: application/grpc"]),
                ("POST /a.B/C\ncontent-length: 0", 200, &["v1 "]),
                ("POST /a.B/X\ncontent-length: 0", 200, &["v2 "]),
                ("POST /f.G/D\ncontent-type: application/grpc\ncontent-length: 0", 200, &["grpc-status: 14"]),
                ("POST /y/Ex\ncontent-type: application/grpc\ncontent-length: 0", 200, &["grpc-status: 14"]),
                ("POST /f.G/H\ncontent-type: application/grpc\ncontent-length: 0", 200, &["grpc-status: 12"]),
            ],
        )
    },
];

const CLIENT: &str = "spiffe://cluster.local/ns/client/sa/some";
const STRANGER: &str = "spiffe://cluster.local/ns/client-2/sa/some";

#[test]
fn envoy_does_what_each_row_says() {
    let Some(envoy) = envoy() else { return };
    let folder = tempfile::tempdir().unwrap();
    let socket = |name: &str| folder.path().join(name);
    slow(&socket("slow"));
    flaky(&socket("flaky"));
    let copies = spy(&socket("spy"));
    let mut listeners = vec![echo(&socket("web"), "web"), echo(&socket("v1"), "v1"), echo(&socket("v2"), "v2")];
    let clusters = mesh::SERVICES.iter().map(|name| cluster(&names::inbound_http(name, 80), &socket(name))).collect();
    for (index, row) in ROWS.iter().enumerate() {
        let routes = mesh::routes(&[mesh::document(row.kind, "shop", row.rules)], row.port);
        listeners.push(listener(&socket(&index.to_string()), None, routes));
    }
    let canary = mesh::routes(&[mesh::document("HTTPRoute", "shop", CANARY)], 80);
    listeners.push(listener(&socket("canary"), None, canary));
    let mirrors = mesh::routes(&[mesh::document("HTTPRoute", "shop", MIRRORS)], 80);
    listeners.push(listener(&socket("mirrors"), None, mirrors));
    listeners.push(listener(&socket("none"), None, mesh::routes(&[], 80)));
    for (whose, identity) in [("client", Some(CLIENT)), ("stranger", Some(STRANGER)), ("nobody", None)] {
        let theirs = mesh::document(
            "HTTPRoute",
            "client",
            "[{matches: [{path: {value: /a}}], backendRefs: [{name: v1, namespace: shop, port: 80}]}]",
        );
        let ours = mesh::document("HTTPRoute", "shop", "[{backendRefs: [{name: v2, port: 80}]}]");
        listeners.push(listener(&socket(whose), identity, mesh::routes(&[theirs.clone(), ours], 80)));
        listeners.push(listener(&socket(&format!("{whose}-only")), identity, mesh::routes(&[theirs], 80)));
    }
    let sockets: Vec<PathBuf> = listeners.iter().map(|listener| PathBuf::from(&listener.name)).collect();
    let _running = envoy.run(folder.path(), &bootstrap(listeners, clusters), &sockets);

    let mut wrong = Vec::new();
    for (index, row) in ROWS.iter().enumerate() {
        wrong.extend(row.asks.iter().filter_map(|ask| check(row.name, &socket(&index.to_string()), ask)));
    }
    wrong.extend(check("no rules", &socket("none"), &("GET /x", 200, &["web GET /x "])));
    let asks: &[(&str, Ask)] = &[
        ("client", ("GET /a", 200, &["v1 "])),
        ("client", ("GET /b", 404, &["no route of the namespace client"])),
        ("stranger", ("GET /a", 200, &["v2 "])),
        ("nobody", ("GET /a", 200, &["v2 "])),
        ("client-only", ("GET /a", 200, &["v1 "])),
        ("client-only", ("GET /b", 404, &[])),
        ("stranger-only", ("GET /a", 200, &["web "])),
        ("nobody-only", ("GET /b", 200, &["web "])),
    ];
    for (whose, ask) in asks {
        wrong.extend(check(&format!("routes of clients, {whose}"), &socket(whose), ask));
    }
    wrong.extend(shares(&socket("canary")));
    for _ in 0..20 {
        wrong.extend(check("mirrors", &socket("mirrors"), &("GET /all", 200, &["v1 "])));
        wrong.extend(check("mirrors", &socket("mirrors"), &("GET /none", 200, &["v1 "])));
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while copies.load(Ordering::SeqCst) < 20 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    // Two mirrors of half of the requests each would also be near.
    assert_eq!(copies.load(Ordering::SeqCst), 20, "copies of requests to /all, and of no others");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const MIRRORS: &str = "[{matches: [{path: {value: /all}}], filters: [{type: RequestMirror, requestMirror: {backendRef: {name: spy, port: 80}}}, {type: RequestMirror, requestMirror: {backendRef: {name: nobody, port: 80}}}], backendRefs: [{name: v1, port: 80}]},
  {filters: [{type: RequestMirror, requestMirror: {backendRef: {name: spy, port: 80}, percent: 0}}], backendRefs: [{name: v1, port: 80}]}]";

const CANARY: &str = "[{backendRefs: [{name: v1, port: 80, weight: 80}, {name: v2, port: 80, weight: 10}, {name: nobody, port: 80, weight: 10}]}]";

fn shares(socket: &Path) -> Option<String> {
    const ASKED: usize = 600;
    let answers: Vec<String> = (0..ASKED).map(|_| ask(socket, "GET /")).collect();
    let having = |part: &str| answers.iter().filter(|answer| answer.contains(part)).count();
    let (first, second, failed) = (having("v1 GET"), having("v2 GET"), having("HTTP/1.1 500"));
    // Far beyond what chance does: five standard deviations are 49 for the first and 37 for the others.
    let near = |count: usize, percent: usize| count.abs_diff(ASKED * percent / 100) < 50;
    let is_right = first + second + failed == ASKED && near(first, 80) && near(second, 10) && near(failed, 10);
    (!is_right).then(|| format!("80/10/10 became {first}/{second}/{failed} of {ASKED}"))
}

/// What is wrong with the answer.
fn check(row: &str, socket: &Path, (request, status, parts): &Ask) -> Option<String> {
    let answer = ask(socket, request);
    let is_right = answer.starts_with(&format!("HTTP/1.1 {status} ")) && parts.iter().all(|part| answer.contains(part));
    (!is_right).then(|| format!("{row}: {request:?} should give {status} with {parts:?}, and gave:\n{answer}"))
}
