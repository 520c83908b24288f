// SPDX-License-Identifier: Apache-2.0
//! Files as people write them for Istio, and wrong ones.

use super::*;

fn good(text: &str) -> Reading {
    read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\nin {text}"))
}

fn wrong(text: &str, field: &str) {
    let error = read(text.as_bytes()).expect_err(text);
    assert!(error.contains(field), "expected {field:?} in {error:?} of {text}");
}

const WHOLE: &str = r#"
accessLogFile: /dev/stdout
accessLogEncoding: JSON
trustDomainAliases: [old.domain]
connectTimeout: 2.5s
protocolDetectionTimeout: 100ms
rootNamespace: istio-system
enableTracing: true
defaultConfig:
  discoveryAddress: istiod.istio-system.svc:15012
  tracing: {sampling: 12.5}
defaultProviders:
  metrics: [prometheus]
extensionProviders:
- name: prometheus
  prometheus: {}
- name: by-http
  envoyExtAuthzHttp:
    service: auth/ext-authz.auth.svc.cluster.local
    port: 8000
    timeout: 2s
    pathPrefix: /check
    failOpen: true
    statusOnError: "503"
    clearRouteCache: true
    includeRequestHeadersInCheck: [x-ext-authz, "x-b3-*"]
    includeAdditionalHeadersInCheck: {x-from: waypoint}
    includeRequestBodyInCheck: {maxRequestBytes: 4096, allowPartialMessage: true}
    headersToUpstreamOnAllow: [authorization]
    headersToDownstreamOnDeny: [content-type, set-cookie]
    headersToDownstreamOnAllow: [x-allowed]
- name: by-grpc
  envoyExtAuthzGrpc: {service: ext-authz.auth.svc.cluster.local, port: 9000, statusOnError: 500}
- name: otel
  opentelemetry: {service: collector.telemetry.svc.cluster.local, port: 4317, maxTagLength: 10}
- name: old
  zipkin: {service: zipkin, port: 9411}
"#;

#[test]
fn a_file_of_an_istio_mesh_is_used_as_it_is_and_what_means_nothing_is_told() {
    let Reading { settings, notes } = good(WHOLE);
    assert_eq!(settings.access_log, Some(AccessLog::from("/dev/stdout")));
    assert_eq!(settings.trust_domain_aliases, ["old.domain"]);
    assert_eq!(settings.connect_timeout, Duration::from_millis(2500));
    assert_eq!(settings.detection_timeout, Duration::from_millis(100));
    let tracing = settings.tracing.expect("the only collector");
    assert_eq!((tracing.collector.port, tracing.sampling), (4317, 12.5));
    let http = &settings.authorizers["by-http"];
    assert_eq!(http.upstream, Upstream { host: "ext-authz.auth.svc.cluster.local".into(), port: 8000 });
    assert_eq!((http.status_on_error, http.fail_open, http.timeout), (503, true, Duration::from_secs(2)));
    assert_eq!((http.body_bytes, http.body_partial, http.body_as_bytes), (4096, true, false));
    let AuthorizerProtocol::Http { include_request_headers, additional_headers, .. } = &http.speaks else {
        panic!("{http:?}")
    };
    assert_eq!(include_request_headers, &["x-ext-authz", "x-b3-*"]);
    assert_eq!(additional_headers["x-from"], "waypoint");
    let grpc = &settings.authorizers["by-grpc"];
    assert_eq!(
        (&grpc.speaks, grpc.status_on_error, grpc.fail_open, grpc.timeout),
        (&AuthorizerProtocol::Grpc, 500, false, Duration::from_secs(600))
    );
    for passed_over in ["rootNamespace", "clearRouteCache", "maxTagLength", "zipkin", "discoveryAddress"] {
        assert!(notes.iter().any(|note| note.contains(passed_over)), "{passed_over} in {notes:?}");
    }
    assert_eq!(notes.len(), 5, "{notes:?}");
}

#[test]
fn an_empty_file_is_as_good_as_none() {
    for text in ["", "\n# nothing\n", "{}", "accessLogFile: ''", "extensionProviders: null"] {
        assert_eq!(good(text), Reading { settings: without(), notes: Vec::new() }, "{text}");
    }
}

#[test]
fn metrics_are_kept_unless_nobody_is_named_for_them() {
    assert!(good("").settings.metrics && good("defaultProviders: {metrics: [prometheus]}").settings.metrics);
    assert!(!good("defaultProviders: {metrics: []}").settings.metrics);
}

#[test]
fn logs_are_text_unless_json_is_asked_for_and_a_named_provider_comes_first() {
    let format = |text: &str| good(text).settings.access_log.expect("a log").format;
    assert_eq!(format("accessLogFile: /dev/stderr"), LogFormat::Line);
    assert_eq!(
        format("{accessLogFile: a, accessLogFormat: '%PROTOCOL% done'}"),
        LogFormat::Text("%PROTOCOL% done\n".into()),
        "a line ends"
    );
    let LogFormat::Json(fields) = format(
        r#"{accessLogFile: a, accessLogEncoding: JSON, accessLogFormat: '{"a": "%PROTOCOL%", "b": {"c": "d"}}'}"#,
    ) else {
        panic!("no JSON")
    };
    assert_eq!(fields["b"]["c"], "d");
    let provider =
        "extensionProviders: [{name: mine, envoyFileAccessLog: {path: /tmp/log, logFormat: {labels: {a: b}}}}]";
    assert_eq!(good(provider).settings.access_log, None, "nobody asks for it");
    let asked = good(&format!("{{{provider}, accessLogFile: a, defaultProviders: {{accessLogging: [mine]}}}}"));
    assert_eq!(asked.settings.access_log.map(|log| log.path).as_deref(), Some("/tmp/log"));
    assert!(asked.notes.iter().any(|note| note.contains("accessLogFile")), "{:?}", asked.notes);
}

#[test]
fn spans_are_made_when_asked_for_and_not_otherwise() {
    let provider = "extensionProviders: [{name: a, opentelemetry: {service: c.d, port: 4317}}, {name: b, opentelemetry: {service: e.f, port: 4317}}]";
    let tracing = |more: &str| good(&format!("{{{provider}, {more}}}")).settings.tracing;
    assert_eq!(tracing("enableTracing: false"), None);
    assert_eq!(tracing("enableTracing: true"), None, "which of the two?");
    let named = tracing("defaultProviders: {tracing: [b]}").expect("spans");
    assert_eq!((named.collector.host.as_str(), named.sampling), ("e.f", 1.0));
    assert_eq!(tracing("enableTracing: false, defaultProviders: {tracing: [b]}"), None);
}

#[test]
fn what_is_wrong_is_refused_with_the_field() {
    let http = |fields: &str| {
        format!("{{extensionProviders: [{{name: a, envoyExtAuthzHttp: {{service: a.b, port: 1, {fields}}}}}]}}")
    };
    let cases = [
        ("- a".to_owned(), "mapping"),
        ("accessLogFile: [a]".to_owned(), "accessLogFile"),
        ("{apiVersion: v1, kind: ConfigMap, metadata: {name: istio}, data: {mesh: ''}}".to_owned(), "data.mesh"),
        ("{connectTimeout: 1s, connectTimeout: 2s}".to_owned(), "connectTimeout"),
        ("connectTimeout: 0s".to_owned(), "connectTimeout"),
        ("connectTimeout: -1s".to_owned(), "connectTimeout"),
        ("connectTimeout: 10".to_owned(), "connectTimeout"),
        ("connectTimeout: 1e99s".to_owned(), "connectTimeout"),
        ("connectTimeout: 25h".to_owned(), "connectTimeout"),
        ("{accessLogFile: a, accessLogFormat: '%NO_SUCH%'}".to_owned(), "NO_SUCH"),
        ("{accessLogFile: a, accessLogEncoding: JSON, accessLogFormat: 'no json'}".to_owned(), "accessLogFormat"),
        ("{accessLogFile: a, accessLogEncoding: JSON, accessLogFormat: '{\"a\": 1}'}".to_owned(), "accessLogFormat.a"),
        ("extensionProviders: [{envoyExtAuthzGrpc: {}}]".to_owned(), "extensionProviders[0].name"),
        ("extensionProviders: [{name: a}, {name: a}]".to_owned(), "extensionProviders[1].name"),
        ("extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: a.b}}]".to_owned(), "envoyExtAuthzGrpc.port"),
        ("extensionProviders: [{name: a, envoyExtAuthzGrpc: {port: 1}}]".to_owned(), "envoyExtAuthzGrpc.service"),
        (
            "extensionProviders: [{name: a, opentelemetry: {service: 'a b', port: 1}}]".to_owned(),
            "opentelemetry.service",
        ),
        ("extensionProviders: [{name: a, prometheus: {}, opentelemetry: {service: a, port: 1}}]".to_owned(), "kind"),
        ("extensionProviders: [{name: a, envoyFileAccessLog: {logFormat: {text: '%'}}}]".to_owned(), "logFormat.text"),
        ("defaultProviders: {tracing: [x]}".to_owned(), "defaultProviders.tracing"),
        ("defaultProviders: {accessLogging: [x]}".to_owned(), "defaultProviders.accessLogging"),
        ("defaultConfig: {tracing: {sampling: 101}}".to_owned(), "sampling"),
        (http("pathPrefix: check"), "pathPrefix"),
        (http("statusOnError: '99'"), "statusOnError"),
        (http("statusOnError: never"), "statusOnError"),
        (http("includeRequestHeadersInCheck: ['a b']"), "includeRequestHeadersInCheck[0]"),
        (http("headersToUpstreamOnAllow: ['']"), "headersToUpstreamOnAllow[0]"),
        (http("includeAdditionalHeadersInCheck: {':path': x}"), "includeAdditionalHeadersInCheck"),
        (http("includeRequestBodyInCheck: {}"), "maxRequestBytes"),
        (http("port: 70000"), "port"),
    ];
    for (text, field) in cases {
        wrong(&text, field);
    }
    assert!(read(b"\xff\xfe").is_err());
}
