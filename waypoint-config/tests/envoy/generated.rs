// SPDX-License-Identifier: Apache-2.0
//! Whatever a person writes, Envoy takes what we make of it. Many routes are put into one bootstrap; when it is refused, the guilty one is looked for.
//! `ENVOY_ROUTES` sets how many are tried, `ENVOY_SEED` (0 to 255) which.

use std::{collections::BTreeMap, path::Path};

use envoy_types::pb::envoy::config::{
    bootstrap::v3::Bootstrap,
    route::v3::{
        Route, RouteAction, RouteConfiguration, RouteMatch, route::Action, route_action::ClusterSpecifier,
        route_match::PathSpecifier,
    },
};
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

/// What is sound nineteen times out of twenty, or else something that only a tired or hostile person writes.
fn mostly<T: std::fmt::Debug + 'static>(
    sound: impl Strategy<Value = T> + 'static,
    odd: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    prop_oneof![19 => sound, 1 => odd].boxed()
}

/// One of these, and sometimes one of those.
fn one_of<T: Clone + std::fmt::Debug + 'static>(sound: &[T], odd: &[T]) -> BoxedStrategy<T> {
    mostly(select(sound.to_vec()), select(odd.to_vec()))
}

fn odd() -> BoxedStrategy<String> {
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
        "transfer-encoding",
        "x-forwarded-proto",
    ])
    .prop_map(str::to_owned);
    prop_oneof![
        4 => odd,
        2 => ".{0,12}",
        1 => (1_usize..6000).prop_map(|length| "x".repeat(length)),
    ]
    .boxed()
}

fn name() -> BoxedStrategy<String> {
    mostly("[a-zA-Z][a-zA-Z0-9_-]{0,8}", odd())
}

/// Most odd texts are sound values.
fn text() -> BoxedStrategy<String> {
    prop_oneof![2 => "[ -~]{1,8}", 1 => "[%{}\\\\$()a-z]{1,8}", 1 => odd()].boxed()
}

fn host() -> BoxedStrategy<String> {
    mostly("[a-z]{1,5}(\\.[a-z0-9]{1,5}){0,2}", odd())
}

fn path() -> BoxedStrategy<String> {
    let sound = prop_oneof![3 => "(/[a-zA-Z0-9_~!$&'()*+,;=:@-]{1,4}){1,4}/?", 1 => Just("/".to_owned()), 1 => "/%[0-9A-E][0-9A-E]"];
    mostly(
        sound,
        prop_oneof![odd(), odd().prop_map(|text| format!("/{text}")), ".{0,5}".prop_map(|text| format!("/{text}"))],
    )
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
    let value = |(name, value)| json!({"name": name, "value": value});
    let pattern = |(name, value)| json!({"name": name, "type": "RegularExpression", "value": value});
    prop_oneof![2 => (name(), text()).prop_map(value), 1 => (name(), regex()).prop_map(pattern)].boxed()
}

fn http_match() -> BoxedStrategy<Value> {
    let path = prop_oneof![
        2 => path().prop_map(|path| json!({"type": "PathPrefix", "value": path})),
        2 => path().prop_map(|path| json!({"type": "Exact", "value": path})),
        1 => regex().prop_map(|pattern| json!({"type": "RegularExpression", "value": pattern})),
    ];
    let method = select(vec!["GET", "CONNECT", "OPTIONS"]);
    let values = || prop::collection::vec(value_match(), 0..2);
    (prop::option::of(path), prop::option::of(method), values(), values())
        .prop_map(|(path, method, headers, query)| {
            without_nulls(json!({"path": path, "method": method, "headers": headers, "queryParams": query}))
        })
        .boxed()
}

/// Matches by which prefixes can be replaced.
fn prefixes() -> BoxedStrategy<Vec<Value>> {
    prop::collection::vec(path().prop_map(|path| json!({"path": {"type": "PathPrefix", "value": path}})), 0..3).boxed()
}

fn edits() -> BoxedStrategy<Value> {
    let header = || (name(), text()).prop_map(|(name, value)| json!({"name": name, "value": value}));
    let headers = move || prop::collection::vec(header(), 0..3);
    (headers(), headers(), prop::collection::vec(name(), 0..3))
        .prop_map(|(set, add, remove)| json!({"set": set, "add": add, "remove": remove}))
        .boxed()
}

fn reference() -> BoxedStrategy<Value> {
    (one_of(&["v1", "v2"], &["nobody"]), one_of(&[80], &[81, 0, -1, 70000]))
        .prop_map(|(name, port)| json!({"name": name, "port": port}))
        .boxed()
}

fn rewritten() -> BoxedStrategy<Value> {
    prop_oneof![
        1 => path().prop_map(|path| json!({"type": "ReplaceFullPath", "replaceFullPath": path})),
        2 => path().prop_map(|path| json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": path})),
    ]
    .boxed()
}

fn redirect() -> BoxedStrategy<Value> {
    (
        prop::option::of(host()),
        prop::option::of(rewritten()),
        prop::option::of(one_of(&[80, 443, 8443, 65535], &[0, 70000])),
        prop::option::of(one_of(&[301, 302, 303, 307, 308], &[400])),
        prop::option::of(select(vec!["http", "https"])),
    )
        .prop_map(|(host, path, port, status, scheme)| {
            let redirect =
                json!({"hostname": host, "path": path, "port": port, "statusCode": status, "scheme": scheme});
            json!({"type": "RequestRedirect", "requestRedirect": without_nulls(redirect)})
        })
        .boxed()
}

fn filter() -> BoxedStrategy<Value> {
    let edits_of =
        |kind: &'static str, field: &'static str| edits().prop_map(move |edits| json!({"type": kind, field: edits}));
    let share = || one_of(&[0, 1, 50, 100], &[-1, 101, i32::MAX]);
    let names = || prop::collection::vec(mostly("[A-Za-z-]{1,6}|[*]", odd()), 0..3);
    let origin = mostly("https?://([*][.])?[a-z]{1,5}(:[0-9]{2})?|[*]", odd());
    prop_oneof![
        edits_of("RequestHeaderModifier", "requestHeaderModifier"),
        edits_of("ResponseHeaderModifier", "responseHeaderModifier"),
        (reference(), prop::option::of(share())).prop_map(|(backend, percent)| {
            let mirror = without_nulls(json!({"backendRef": backend, "percent": percent}));
            json!({"type": "RequestMirror", "requestMirror": mirror})
        }),
        (reference(), share()).prop_map(|(backend, numerator)| {
            let fraction = json!({"numerator": numerator, "denominator": 1000});
            json!({"type": "RequestMirror", "requestMirror": {"backendRef": backend, "fraction": fraction}})
        }),
        (prop::option::of(host()), prop::option::of(rewritten())).prop_map(|(host, path)| {
            json!({"type": "URLRewrite", "urlRewrite": without_nulls(json!({"hostname": host, "path": path}))})
        }),
        (prop::collection::vec(origin, 0..3), names(), names(), share()).prop_map(|(origins, methods, headers, age)| {
            let cors = json!({"allowOrigins": origins, "allowMethods": methods, "allowHeaders": headers, "exposeHeaders": headers, "maxAge": age, "allowCredentials": age == 1});
            json!({"type": "CORS", "cors": cors})
        }),
    ]
    .boxed()
}

fn rule() -> BoxedStrategy<Value> {
    let matches = || prop_oneof![prefixes(), prop::collection::vec(http_match(), 0..3)];
    let redirects =
        (matches(), redirect()).prop_map(|(matches, filter)| json!({"matches": matches, "filters": [filter]}));
    prop_oneof![4 => forwarding(matches().boxed()), 1 => redirects].boxed()
}

fn forwarding(matches: BoxedStrategy<Vec<Value>>) -> BoxedStrategy<Value> {
    let duration = || prop::option::of(one_of(&["0s", "1ms", "10s", "99999h"], &["1.5s", "-1s", ""]));
    let weight = one_of(&[0, 1, 1_000_000], &[-1, i32::MAX]);
    let header_filter =
        edits().prop_map(|edits| json!({"type": "RequestHeaderModifier", "requestHeaderModifier": edits}));
    let filters =
        prop_oneof![3 => prop::collection::vec(header_filter, 0..2), 1 => prop::collection::vec(filter(), 0..2)];
    let backend = (reference(), weight, filters).prop_map(|(mut reference, weight, filters)| {
        reference["weight"] = json!(weight);
        reference["filters"] = json!(filters);
        reference
    });
    let attempts = one_of(&[0_i64, 1, 100], &[-1, i64::MAX]);
    let retry =
        (attempts, one_of(&[400_i64, 503, 599], &[200, 600, -1]), duration()).prop_map(|(attempts, code, backoff)| {
            without_nulls(json!({"attempts": attempts, "codes": [code], "backoff": backoff}))
        });
    (
        matches,
        prop::collection::vec(filter(), 0..3),
        prop::collection::vec(backend, 0..4),
        duration(),
        prop::option::of(one_of(&["0s", "1ms"], &["11s", "x"])),
        prop::option::of(retry),
    )
        .prop_map(|(matches, filters, backends, request, backend, retry)| {
            let timeouts = without_nulls(json!({"request": request, "backendRequest": backend}));
            without_nulls(json!({"matches": matches, "filters": filters, "backendRefs": backends, "timeouts": timeouts, "retry": retry}))
        })
        .boxed()
}

fn grpc_rule() -> BoxedStrategy<Value> {
    let part = || prop::option::of(prop_oneof![3 => name(), 1 => odd(), 1 => regex()]);
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

fn runner() -> TestRunner {
    let rng = match number("ENVOY_SEED").and_then(|seed| u8::try_from(seed).ok()) {
        Some(seed) => TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]),
        None => TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    };
    TestRunner::new_with_rng(Config::default(), rng)
}

fn bootstrap_of(folder: &Path, routes: &[RouteConfiguration]) -> Bootstrap {
    let listeners = routes.iter().enumerate();
    let listeners = listeners.map(|(index, routes)| listener(&folder.join(index.to_string()), None, routes.clone()));
    bootstrap(listeners.collect(), Vec::new())
}

#[test]
fn envoy_takes_whatever_is_made_of_routes() {
    let Some(envoy) = envoy() else { return };
    let count: usize = number("ENVOY_ROUTES").unwrap_or(400);
    let folder = tempfile::tempdir().unwrap();
    let mut runner = runner();
    let strategy = prop::collection::vec(document(), 1..3);
    let documents: Vec<Vec<Value>> = (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
    let routes: Vec<RouteConfiguration> = documents.iter().map(|documents| mesh::routes(documents, 80)).collect();
    let seen = seen(&routes);
    assert!(count < 400 || seen.values().all(|times| *times >= 5), "hardly anything was asked: {seen:?}");
    const TOGETHER: usize = 100;
    for (batch, documents) in routes.chunks(TOGETHER).zip(documents.chunks(TOGETHER)) {
        if envoy.takes(folder.path(), &bootstrap_of(folder.path(), batch)).is_ok() {
            continue;
        }
        for (one, documents) in batch.iter().zip(documents) {
            let judged = envoy.takes(folder.path(), &bootstrap_of(folder.path(), std::slice::from_ref(one)));
            assert_eq!(judged, Ok(()), "{}", documents.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"));
        }
        panic!("refused together, taken one by one");
    }
}

/// How often what may be refused was there at all.
fn seen(configs: &[RouteConfiguration]) -> BTreeMap<&'static str, usize> {
    let routes = || configs.iter().flat_map(|config| &config.virtual_hosts).flat_map(|host| &host.routes);
    let count = |is: &dyn Fn(&Route) -> bool| routes().filter(|route| is(route)).count();
    let sent = |is: &dyn Fn(&RouteAction) -> bool| {
        count(&|route| matches!(&route.action, Some(Action::Route(action)) if is(action)))
    };
    let wanted = |is: &dyn Fn(&RouteMatch) -> bool| count(&|route| route.r#match.as_ref().is_some_and(is));
    let of_path =
        |is: &dyn Fn(&PathSpecifier) -> bool| wanted(&|wanted| wanted.path_specifier.as_ref().is_some_and(is));
    BTreeMap::from([
        ("sent", sent(&|_| true)),
        (
            "several clusters",
            sent(&|action| matches!(action.cluster_specifier, Some(ClusterSpecifier::WeightedClusters(_)))),
        ),
        ("mirrors", sent(&|action| !action.request_mirror_policies.is_empty())),
        ("new prefix", sent(&|action| !action.prefix_rewrite.is_empty())),
        ("new path", sent(&|action| action.regex_rewrite.is_some())),
        ("new host", sent(&|action| action.host_rewrite_specifier.is_some())),
        ("no retry", sent(&|action| action.retry_policy.is_none())),
        ("redirect", count(&|route| matches!(route.action, Some(Action::Redirect(_))))),
        ("answer", count(&|route| matches!(route.action, Some(Action::DirectResponse(_))))),
        ("cors", count(&|route| !route.typed_per_filter_config.is_empty())),
        ("request headers", count(&|route| !route.request_headers_to_add.is_empty())),
        ("response headers", count(&|route| !route.response_headers_to_add.is_empty())),
        ("headers", wanted(&|wanted| !wanted.headers.is_empty())),
        ("query", wanted(&|wanted| !wanted.query_parameters.is_empty())),
        ("clients", wanted(&|wanted| !wanted.filter_state.is_empty())),
        ("regex", of_path(&|path| matches!(path, PathSpecifier::SafeRegex(_)))),
        ("path", of_path(&|path| matches!(path, PathSpecifier::Path(_)))),
        ("prefix", of_path(&|path| matches!(path, PathSpecifier::PathSeparatedPrefix(_)))),
    ])
}

#[test]
fn re2_compiles_every_expression_that_is_accepted() {
    let Some(envoy) = envoy() else { return };
    let count: usize = number("ENVOY_ROUTES").unwrap_or(400) * 10;
    let folder = tempfile::tempdir().unwrap();
    let mut runner = runner();
    let strategy = prop_oneof![6 => regex(), 1 => large()];
    let patterns: Vec<String> = (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
    let routes = |patterns: &[String]| {
        let matches: Vec<Value> = patterns
            .iter()
            .map(|pattern| json!({"matches": [{"path": {"type": "RegularExpression", "value": pattern}}]}))
            .collect();
        let mut document = mesh::document("HTTPRoute", "shop", "[]");
        document["spec"]["rules"] = Value::Array(matches);
        mesh::routes(&[document], 80)
    };
    let batches: Vec<RouteConfiguration> = patterns.chunks(200).map(routes).collect();
    let accepted: usize = batches.iter().map(|config| config.virtual_hosts[0].routes.len()).sum();
    assert!(accepted > count / 10, "{accepted} of {count} are too few to show anything");
    if envoy.takes(folder.path(), &bootstrap_of(folder.path(), &batches)).is_ok() {
        return;
    }
    for batch in patterns.chunks(200) {
        if envoy.takes(folder.path(), &bootstrap_of(folder.path(), &[routes(batch)])).is_ok() {
            continue;
        }
        for pattern in batch {
            let judged =
                envoy.takes(folder.path(), &bootstrap_of(folder.path(), &[routes(std::slice::from_ref(pattern))]));
            assert_eq!(judged, Ok(()), "{pattern:?}");
        }
    }
    panic!("refused together, taken one by one");
}

/// Expressions whose programs are large.
fn large() -> BoxedStrategy<String> {
    let piece = select(vec![
        "a",
        ".",
        "[^/]",
        "\\pL",
        "\\PL",
        "[a-z\\pN]",
        "(?i:q)",
        "(?:ab|cd|ef)",
        "\\W",
        "(a|b)",
        "ä",
        "[[:^alpha:]]",
        "(?i:k)",
    ]);
    let times = select(vec!["", "*", "{2}", "{10}", "{100}", "{300}", "{0,500}", "{999}", "{1000}", "{500,}"]);
    let part = (piece, times).prop_map(|(piece, times)| format!("{piece}{times}"));
    (prop::collection::vec(part, 1..8), 1_usize..40).prop_map(|(parts, times)| parts.concat().repeat(times)).boxed()
}
