// SPDX-License-Identifier: Apache-2.0
//! Whatever a person writes, Envoy takes what we make of it. Many routes are put into one bootstrap; when it is refused, the guilty one is looked for.
//! `ENVOY_ROUTES` sets how many are tried, `ENVOY_SEED` (0 to 255) which.

use envoy_types::pb::envoy::config::{bootstrap::v3::Bootstrap, route::v3::RouteConfiguration};
use proptest::{
    prelude::*,
    sample::select,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};

use super::{
    bootstrap::{bootstrap, listener},
    envoy, mesh,
};

/// Names, values and expressions: sound ones, and such as only a tired or hostile person writes.
fn text() -> BoxedStrategy<String> {
    let odd = select(vec![
        "",
        " ",
        "%",
        "%%",
        "%REQ(x)%",
        "%FOO%",
        "\\1",
        "\\",
        "{",
        "}",
        "*",
        "**",
        "?",
        "#",
        "\n",
        "\r\n",
        "\0",
        "\t",
        "ä",
        "💥",
        "\"",
        "'",
        "$",
        "&",
        "a:b",
        "[",
        "]",
        "host",
        "Host",
        ":path",
        ":authority",
        "content-length",
        "te",
        "connection",
        "x-envoy-retry-on",
        "..",
        "a..b",
        "-",
    ])
    .prop_map(str::to_owned);
    prop_oneof![
        4 => "[a-z][a-z0-9-]{0,8}".boxed(),
        2 => odd,
        1 => ".{0,12}".boxed(),
        1 => (1_usize..6000).prop_map(|length| "x".repeat(length)),
    ]
    .boxed()
}

fn path() -> BoxedStrategy<String> {
    prop_oneof![
        3 => "(/[a-z0-9._~%41-]{0,4}){1,4}/?".boxed(),
        1 => text(),
        1 => text().prop_map(|text| format!("/{text}")),
    ]
    .boxed()
}

/// Expressions made of the pieces that RE2 and others read differently.
fn regex() -> BoxedStrategy<String> {
    let piece = select(vec![
        "a",
        "/",
        "[0-9]",
        "[^/]",
        ".",
        "\\d",
        "\\D",
        "\\w",
        "\\s",
        "\\pL",
        "\\p{Lu}",
        "\\P{Nd}",
        "\\PL",
        "\\p{^Lu}",
        "\\p{Greek}",
        "[[:alpha:]]",
        "[[:^alpha:]]",
        "(?i)",
        "(?s)",
        "(?m)",
        "(?U)",
        "(?x)",
        "(?-i)",
        "(?i:a)",
        "(",
        ")",
        "(?:",
        "(?P<a>",
        "(?<b>",
        "|",
        "*",
        "+",
        "?",
        "{2}",
        "{2,}",
        "{,2}",
        "{2,4}",
        "{1000}",
        "{1001}",
        "{ 2 }",
        "^",
        "$",
        "\\b",
        "\\B",
        "\\A",
        "\\z",
        "\\Z",
        "\\x41",
        "\\x{1F600}",
        "\\x{110000}",
        "\\u0041",
        "\\101",
        "\\1",
        "\\Q",
        "\\E",
        "\\C",
        "\\_",
        "\\-",
        "\\ ",
        "\\<",
        "\\>",
        "\\b{start}",
        "\\/",
        "\\\"",
        "\\@",
        "\\~",
        "\\`",
        "[",
        "]",
        "[]a]",
        "[^]a]",
        "[a-]",
        "[-a]",
        "[a-z",
        "[z-a]",
        "[a&&b]",
        "[a--b]",
        "[a~~b]",
        "[a[b]]",
        "[\\w-z]",
        "[a-\\d]",
        "[\\x00-\\x{10FFFF}]",
        "[^\\x00-\\x{10FFFF}]",
        "\\a",
        "\\f",
        "\\v",
        "\\t",
        "\\n",
        "\\r",
        "\\e",
        "\\cA",
        "\\G",
        "\\K",
        "\\R",
        "\\X",
        "\\h",
        "ä",
        "💥",
        "[ä-ü]",
        "\\ä",
        "[[:foo:]]",
        "[[.a.]]",
        "[\\b]",
        "[\\pL]",
        "[\\]]",
        "\\p{Any}",
        "\\p{L}",
        "\\p{LC}",
        "\\p{Cn}",
        "\\p{Lu&}",
        "(?#a)",
        "(?=a)",
        "(?!a)",
        "(?<=a)",
        "(?>a)",
        "(?i",
        "(?P=a)",
        "(?P>a)",
        "-",
        "]",
        "}",
        "{",
        "{a}",
        "\0",
        "\n",
    ]);
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat()).boxed()
}

fn value_match() -> BoxedStrategy<Value> {
    prop_oneof![
        2 => (text(), text()).prop_map(|(name, value)| json!({"name": name, "value": value})),
        1 => ("[a-z]{1,4}", regex()).prop_map(|(name, value)| json!({"name": name, "type": "RegularExpression", "value": value})),
    ]
    .boxed()
}

fn http_match() -> BoxedStrategy<Value> {
    let path = prop_oneof![
        path().prop_map(|path| json!({"type": "PathPrefix", "value": path})),
        path().prop_map(|path| json!({"type": "Exact", "value": path})),
        regex().prop_map(|pattern| json!({"type": "RegularExpression", "value": pattern})),
    ];
    let method = select(vec!["GET", "CONNECT", "OPTIONS"]);
    (
        prop::option::of(path),
        prop::option::of(method),
        prop::collection::vec(value_match(), 0..3),
        prop::collection::vec(value_match(), 0..3),
    )
        .prop_map(|(path, method, headers, query)| {
            without_nulls(json!({"path": path, "method": method, "headers": headers, "queryParams": query}))
        })
        .boxed()
}

fn edits() -> BoxedStrategy<Value> {
    let header = || {
        prop::collection::vec((text(), text()).prop_map(|(name, value)| json!({"name": name, "value": value})), 0..3)
    };
    let sound = || {
        prop::collection::vec(
            ("[a-zA-Z-]{1,6}", text()).prop_map(|(name, value)| json!({"name": name, "value": value})),
            0..3,
        )
    };
    prop_oneof![
        1 => (header(), header(), prop::collection::vec(text(), 0..3)).prop_map(|(set, add, remove)| json!({"set": set, "add": add, "remove": remove})),
        2 => (sound(), sound()).prop_map(|(set, add)| json!({"set": set, "add": add})),
    ]
    .boxed()
}

fn reference() -> BoxedStrategy<Value> {
    (select(vec!["v1", "v2", "nobody"]), select(vec![80, 81, 0, -1, 70000]))
        .prop_map(|(name, port)| json!({"name": name, "port": port}))
        .boxed()
}

fn rewritten() -> BoxedStrategy<Value> {
    prop_oneof![
        path().prop_map(|path| json!({"type": "ReplaceFullPath", "replaceFullPath": path})),
        path().prop_map(|path| json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": path})),
    ]
    .boxed()
}

fn filter() -> BoxedStrategy<Value> {
    let number = || select(vec![-1, 0, 1, 50, 100, 101, i32::MAX]);
    let names = || prop::collection::vec(text(), 0..3);
    prop_oneof![
        edits().prop_map(|edits| json!({"type": "RequestHeaderModifier", "requestHeaderModifier": edits})),
        edits().prop_map(|edits| json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": edits})),
        (reference(), prop::option::of(number())).prop_map(|(backend, percent)| {
            without_nulls(json!({"type": "RequestMirror", "requestMirror": without_nulls(json!({"backendRef": backend, "percent": percent}))}))
        }),
        (reference(), number(), number()).prop_map(|(backend, numerator, denominator)| {
            json!({"type": "RequestMirror", "requestMirror": {"backendRef": backend, "fraction": {"numerator": numerator, "denominator": denominator}}})
        }),
        (prop::option::of(text()), prop::option::of(rewritten()), prop::option::of(select(vec![0, 80, 8443, 70000])), prop::option::of(select(vec![301, 303, 400])), prop::option::of(select(vec!["http", "https"])))
            .prop_map(|(host, path, port, status, scheme)| {
                json!({"type": "RequestRedirect", "requestRedirect": without_nulls(json!({"hostname": host, "path": path, "port": port, "statusCode": status, "scheme": scheme}))})
            }),
        (prop::option::of(text()), prop::option::of(rewritten())).prop_map(|(host, path)| json!({"type": "URLRewrite", "urlRewrite": without_nulls(json!({"hostname": host, "path": path}))})),
        (names(), names(), names(), number()).prop_map(|(origins, methods, headers, age)| {
            json!({"type": "CORS", "cors": {"allowOrigins": origins, "allowMethods": methods, "allowHeaders": headers, "exposeHeaders": headers, "maxAge": age, "allowCredentials": true}})
        }),
    ]
    .boxed()
}

fn rule() -> BoxedStrategy<Value> {
    let duration = || prop::option::of(select(vec!["0s", "1ms", "10s", "99999h", "1.5s", "-1s", ""]));
    let backend = (reference(), select(vec![-1, 0, 1, 1_000_000, i32::MAX]), prop::collection::vec(filter(), 0..2))
        .prop_map(|(mut reference, weight, filters)| {
            reference["weight"] = json!(weight);
            reference["filters"] = json!(filters);
            reference
        });
    let retry = (select(vec![-1_i64, 0, 1, 100, i64::MAX]), select(vec![200_i64, 400, 503, 599, 600, -1]), duration())
        .prop_map(|(attempts, code, backoff)| {
            without_nulls(json!({"attempts": attempts, "codes": [code], "backoff": backoff}))
        });
    (
        prop::collection::vec(http_match(), 0..3),
        prop::collection::vec(filter(), 0..3),
        prop::collection::vec(backend, 0..3),
        duration(),
        duration(),
        prop::option::of(retry),
    )
        .prop_map(|(matches, filters, backends, request, backend, retry)| {
            let timeouts = without_nulls(json!({"request": request, "backendRequest": backend}));
            without_nulls(json!({"matches": matches, "filters": filters, "backendRefs": backends, "timeouts": timeouts, "retry": retry}))
        })
        .boxed()
}

fn grpc_rule() -> BoxedStrategy<Value> {
    let part = || prop::option::of(prop_oneof![text(), regex()]);
    (part(), part(), any::<bool>(), prop::collection::vec(value_match(), 0..2))
        .prop_map(|(service, method, is_regex, headers)| {
            let kind = if is_regex { "RegularExpression" } else { "Exact" };
            json!({"matches": [{"method": without_nulls(json!({"service": service, "method": method, "type": kind})), "headers": headers}]})
        })
        .boxed()
}

fn document() -> BoxedStrategy<Value> {
    let of = |kind: &'static str, rules: Vec<Value>, namespace: &str| {
        let mut document = mesh::document(kind, namespace, "[]");
        document["spec"]["rules"] = Value::Array(rules);
        document
    };
    prop_oneof![
        4 => (prop::collection::vec(rule(), 0..4), select(vec!["shop", "client"])).prop_map(move |(rules, namespace)| of("HTTPRoute", rules, namespace)),
        1 => prop::collection::vec(grpc_rule(), 0..4).prop_map(move |rules| of("GRPCRoute", rules, "shop")),
    ]
    .boxed()
}

fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        map.retain(|_, value| !value.is_null());
    }
    value
}

fn number(name: &str) -> Option<usize> {
    std::env::var_os(name)?.to_str()?.parse().ok()
}

#[test]
fn envoy_takes_whatever_is_made_of_routes() {
    let Some(envoy) = envoy() else { return };
    let count: usize = number("ENVOY_ROUTES").unwrap_or(400);
    let folder = tempfile::tempdir().unwrap();
    let rng = match number("ENVOY_SEED").and_then(|seed| u8::try_from(seed).ok()) {
        Some(seed) => TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]),
        None => TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    };
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = prop::collection::vec(document(), 1..3);
    let documents: Vec<Vec<Value>> = (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
    let routes: Vec<RouteConfiguration> = documents.iter().map(|documents| mesh::routes(documents, 80)).collect();
    let bootstrap_of = |routes: &[RouteConfiguration]| -> Bootstrap {
        let listeners = routes.iter().enumerate();
        let listeners =
            listeners.map(|(index, routes)| listener(&folder.path().join(index.to_string()), None, routes.clone()));
        bootstrap(listeners.collect(), Vec::new())
    };
    const TOGETHER: usize = 100;
    for (batch, documents) in routes.chunks(TOGETHER).zip(documents.chunks(TOGETHER)) {
        if envoy.takes(folder.path(), &bootstrap_of(batch)).is_ok() {
            continue;
        }
        for (one, documents) in batch.iter().zip(documents) {
            let judged = envoy.takes(folder.path(), &bootstrap_of(std::slice::from_ref(one)));
            assert_eq!(judged, Ok(()), "{}", documents.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"));
        }
        panic!("refused together, taken one by one");
    }
}
