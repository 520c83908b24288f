// SPDX-License-Identifier: Apache-2.0
//! Cases a real Envoy must take.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use waypoint_config::{
    api::{Key, KeySource, Kind},
    envoy::{
        About, Flavour, Notice, format,
        input::{
            AccessLog, Authorizer, AuthorizerProtocol, Destination, Endpoints, LogFormat, NamedEndpoint, Serving,
            Settings, Tracing, Upstream,
        },
    },
    view::{
        AppProtocol, Name, Tunnel,
        rule::{Backend, HeaderEdits, Origin, PortRules, Target, TcpRule},
        waypoint::Access,
    },
};

use crate::{
    judge::{envoy, profile, refusal},
    mesh::{add, authentication, authorization, empty, rendered, service, workload},
};

const ALL: [(u16, AppProtocol); 6] = [
    (80, AppProtocol::Http11),
    (81, AppProtocol::Http2),
    (82, AppProtocol::Grpc),
    (83, AppProtocol::Tcp),
    (84, AppProtocol::Tls),
    (85, AppProtocol::Unknown),
];

fn accepted(name: &str, serving: &Serving) {
    let renderer = rendered(serving, profile());
    if envoy().is_some() {
        assert_eq!(refusal(name, renderer.resources()), None, "{name}");
    }
}

fn notices(serving: &Serving) -> Vec<Notice> {
    rendered(serving, profile()).said().into_iter().map(|said| said.notice.clone()).collect()
}

fn one_service() -> (Serving, Name) {
    let mut serving = empty();
    let name = add(&mut serving, service("cart", "10.96.0.10", &ALL), "10.0.0.10");
    (serving, name)
}

#[test]
fn a_waypoint_that_serves_nothing() {
    accepted("nothing", &empty());
}

#[test]
fn every_protocol() {
    accepted("protocols", &one_service().0);
}

#[test]
fn a_service_without_address_or_port() {
    let mut serving = empty();
    let mut headless = service("db", "10.96.0.11", &[(5432, AppProtocol::Tcp)]);
    headless.addresses.clear();
    add(&mut serving, headless, "10.0.0.11");
    add(&mut serving, service("bare", "10.96.0.12", &[]), "10.0.0.12");
    accepted("headless", &serving);
}

#[test]
fn two_services_that_claim_the_same_address() {
    let mut serving = empty();
    add(&mut serving, service("one", "10.96.0.10", &[(80, AppProtocol::Http11), (81, AppProtocol::Tcp)]), "10.0.0.1");
    add(&mut serving, service("two", "10.96.0.10", &[(80, AppProtocol::Tcp), (82, AppProtocol::Tcp)]), "10.0.0.2");
    accepted("same-address", &serving);
}

#[test]
fn workloads_addressed_by_themselves() {
    let (mut serving, name) = one_service();
    let cart = &serving.services[&name].destination.service;
    let tunnelled = workload(cart, "cart-1", "10.0.0.10");
    let mut six = workload(cart, "cart-2", "fd00::10");
    six.service_account = "other".into();
    let mut plain = workload(cart, "cart-3", "10.0.0.12");
    plain.tunnel = Tunnel::Plain;
    serving.workloads = vec![Arc::new(tunnelled), Arc::new(six), Arc::new(plain)];
    accepted("workloads", &serving);
}

#[test]
fn a_destination_known_by_name_only() {
    let (mut serving, _) = one_service();
    let host = NamedEndpoint { host: "example.com".into(), ports: BTreeMap::from([(80, 8080)]) };
    let endpoints = Endpoints::Names(vec![host]);
    let service = Arc::new(service("outside", "240.240.0.1", &ALL));
    serving.others.insert(Name::new("shop", "outside"), Destination { service, endpoints });
    accepted("names", &serving);
}

#[test]
fn shares_of_connections() {
    let (mut serving, name) = one_service();
    let other = add(&mut serving, service("other", "10.96.0.20", &ALL), "10.0.0.20");
    let backend = |target: Target, weight: u32| Backend {
        target,
        weight,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
    };
    let to = |service: &Name, port: u16| Target::Service { service: service.clone(), port };
    let rule = TcpRule {
        origin: Origin {
            route: Key { kind: Kind::Service, namespace: "shop".into(), name: "split".into() },
            rule: 0,
            name: None,
        },
        backends: vec![
            backend(to(&name, 83), u32::MAX),
            backend(to(&other, 80), u32::MAX),
            backend(to(&other, 9), 0),
            backend(Target::Invalid { reason: "there is none".into() }, 3),
        ],
    };
    let rules = PortRules { http: Vec::new(), tcp: Some(Arc::new(rule)) };
    serving.services.get_mut(&name).unwrap().rules = BTreeMap::from([(83, rules.clone()), (85, rules)]);
    accepted("shares", &serving);
}

const EVERYTHING: &str = r#"
  action: ACTION
  rules:
  - {}
  - from:
    - source: {principals: ["*", "cluster.local/ns/a/sa/b", "*/sa/c", "cluster.local/ns/a/*"], notPrincipals: ["x.y/ns/a/sa/z"]}
    - source: {namespaces: ["a", "b*", "*c", "*"], notNamespaces: ["d.e+(f"]}
    - source: {serviceAccounts: ["a/b", "c"], trustDomains: ["cluster.local", "*.b"]}
    - source: {ipBlocks: ["10.0.0.0/8", "fd00::1"], notIpBlocks: ["10.1.1.1"], remoteIpBlocks: ["1.2.3.4"], notRemoteIpBlocks: ["1.2.3.0/24"]}
    - source: {requestPrincipals: ["*", "https://a.b/c/sub", "https://a*", "*/sub", "iss/*"], notRequestPrincipals: ["x/y"]}
    to:
    - operation: {hosts: ["a.b", "*.b", "a*", "*"], notHosts: ["C.d:80"], methods: ["GET", "P*"], notMethods: ["PUT"]}
    - operation: {paths: ["/a", "/a/*", "*.js", "*", "/a/{*}/b/{**}", "/{**}/x"], notPaths: ["/ü/\"quoted\""], ports: ["80"], notPorts: ["81"]}
    when:
    - {key: "request.headers[X-Thing]", values: ["*", "a", "b*"], notValues: ["c"]}
    - {key: "request.auth.claims[a][b]", values: ["x", "*y"]}
    - {key: "request.auth.claims[groups]", notValues: ["x"]}
    - {key: request.auth.principal, values: ["a/b"]}
    - {key: request.auth.audiences, values: ["a"]}
    - {key: request.auth.presenter, values: ["a"]}
    - {key: source.ip, values: ["10.0.0.1"]}
    - {key: remote.ip, values: ["10.0.0.1"]}
    - {key: source.namespace, values: ["a"]}
    - {key: source.principal, notValues: ["a/ns/b/sa/c"]}
    - {key: source.serviceAccount, values: ["a"]}
    - {key: destination.ip, values: ["10.96.0.0/16"]}
    - {key: destination.port, values: ["80"]}
    - {key: "experimental.envoy.filters.network.mysql_proxy[db.table]", values: ["[update]", "a"]}
"#;

#[test]
fn every_attribute_of_every_action() {
    let (mut serving, name) = one_service();
    let settings = Settings {
        authorizers: authorizers("authz.example.com"),
        access_log: Some("/dev/stdout".into()),
        ..Settings::default()
    };
    serving.settings = Arc::new(settings);
    for action in ["ALLOW", "DENY", "AUDIT"] {
        let text = EVERYTHING.replace("ACTION", action);
        serving.access.authorization.push(authorization(&action.to_lowercase(), &text));
        serving.access.authorization.push(authorization(&format!("dry-{}", action.to_lowercase()), &text));
    }
    for provider in ["grpc", "http"] {
        let custom = EVERYTHING.replace("ACTION", &format!("CUSTOM\n  provider: {{name: {provider}}}"));
        serving.services.get_mut(&name).unwrap().access.authorization = vec![authorization("custom", &custom)];
        accepted(&format!("attributes-{provider}"), &serving);
    }
}

pub(crate) fn authorizers(host: &str) -> BTreeMap<String, Authorizer> {
    let of = |speaks: AuthorizerProtocol| Authorizer {
        upstream: Upstream { host: host.into(), port: 9000 },
        speaks,
        timeout: Duration::from_secs(600),
        fail_open: false,
        status_on_error: 403,
        body_bytes: 1024,
        body_partial: true,
        body_as_bytes: false,
    };
    let http = AuthorizerProtocol::Http {
        path_prefix: "/check".into(),
        include_request_headers: vec!["authorization".into(), "x-*".into()],
        additional_headers: BTreeMap::from([("x-from".into(), "a %REQ(X)% value".into())]),
        headers_to_upstream: vec!["x-user".into()],
        headers_to_client_on_allow: vec!["x-allowed".into()],
        headers_to_client_on_deny: vec!["*".into()],
    };
    let odd = Authorizer { status_on_error: 299, ..of(AuthorizerProtocol::Grpc) };
    BTreeMap::from([("grpc".into(), of(AuthorizerProtocol::Grpc)), ("http".into(), of(http)), ("odd".into(), odd)])
}

#[test]
fn an_authorizer_that_cannot_be_asked_means_that_everything_is_refused() {
    let (mut serving, _) = one_service();
    serving.settings = Arc::new(Settings { authorizers: authorizers("authz.example.com"), ..Settings::default() });
    for provider in ["none", "http", "odd"] {
        let text = format!("{{action: CUSTOM, provider: {{name: {provider}}}, rules: [{{}}]}}");
        serving.access.authorization = vec![authorization("custom", &text)];
        accepted(&format!("provider-{provider}"), &serving);
    }
    serving.access.authorization =
        vec![authorization("custom", "{action: CUSTOM, provider: {name: none}, rules: [{}]}")];
    let [Notice::NoProvider { provider, .. }] = &notices(&serving)[..] else { panic!("{:?}", notices(&serving)) };
    assert_eq!(provider, "none");
}

#[test]
fn http_attributes_on_bytes_allow_less_or_deny_more_and_are_told() {
    let mut serving = empty();
    let name = add(&mut serving, service("db", "10.96.0.11", &[(5432, AppProtocol::Tcp)]), "10.0.0.11");
    let access = &mut serving.services.get_mut(&name).unwrap().access;
    access.authorization = vec![
        authorization("allow", "{rules: [{to: [{operation: {methods: [GET]}}]}]}"),
        authorization("deny", "{action: DENY, rules: [{to: [{operation: {paths: [/a], ports: [\"5432\"]}}]}]}"),
    ];
    accepted("bytes", &serving);
    let found = notices(&serving);
    assert!(found.contains(&Notice::AllowsLess { attributes: vec!["methods".into()] }), "{found:?}");
    assert!(found.contains(&Notice::DeniesMore { attributes: vec!["paths".into()] }), "{found:?}");
}

#[test]
fn values_nobody_can_read_make_policies_stricter_and_are_told() {
    let (mut serving, _) = one_service();
    serving.access.authorization = vec![
        authorization("allow", r#"{rules: [{from: [{source: {ipBlocks: ["x"]}}]}]}"#),
        authorization(
            "deny",
            r#"{action: DENY, rules: [{when: [{key: "request.headers[a b]", values: [x]}, {key: connection.sni, values: [y]}, {key: "request.auth.claims[]", values: [z]}]}]}"#,
        ),
    ];
    accepted("unreadable", &serving);
    let found = notices(&serving);
    assert!(found.contains(&Notice::AllowsLess { attributes: vec!["ipBlocks".into()] }), "{found:?}");
    let attributes = ["request.headers[a b]", "connection.sni", "request.auth.claims[]"].map(String::from).to_vec();
    assert!(found.contains(&Notice::DeniesMore { attributes }), "{found:?}");
}

#[test]
fn tokens_of_every_kind_of_issuer() {
    let (mut serving, _) = one_service();
    let key = r#"{"keys":[{"kty":"RSA","e":"AQAB","kid":"a","n":"xAE7eB6qugXyCAG3yhh7pkDkT65pHymX-P7KfIupjf59vsdo91bSP9C8H07pSAGQO1MV_xFj9VswgsCg4R6otmg5PV2He95lZdHtOcU5DXIg_pbhLdKXbi66GlVeK6ABZOUW3WYtnNHD-91gVuoeJT_DwtGGcp4ignkgXfkiEm4sw-4sfb4qdt5oLbyVpmW6x9cfa7vs2WTfURiCrBoUqgBo_-4WTiULmmHSGZHOjzwa8WtrtOQGsAFjIbno85jp6MnGGGZPYZbDAa_b3y5u-YpW7ypZrvD8BgtKVjgtQgZhLAGezMt0ua3DRrWnKqTZ0BJ_EyxOGuHJrLsn00fnMQ"}]}"#;
    let keys = [
        ("https://good/keys".to_owned(), Ok(Arc::from(key))),
        ("https://junk/keys".to_owned(), Ok(Arc::from("<html>"))),
        ("https://empty/keys".to_owned(), Ok(Arc::from("{\"keys\":[]}"))),
        ("https://odd/keys".to_owned(), Ok(Arc::from("{\"keys\":[{\"kty\":\"RSA\",\"n\":\"!\"}]}"))),
        ("https://failed/keys".to_owned(), Err("connection refused".into())),
    ];
    serving.keys = Arc::new(keys.into_iter().map(|(url, keys)| (KeySource::Url(url), keys)).collect());
    let text = format!(
        r#"
  jwtRules:
  - {{issuer: inline, jwks: '{key}', audiences: [a, ""], forwardOriginalToken: true, outputPayloadToHeader: x-payload}}
  - {{issuer: good, jwksUri: "https://good/keys", fromHeaders: [{{name: x-token, prefix: "Token "}}], fromParams: [t], fromCookies: [c]}}
  - {{issuer: good, jwksUri: "https://good/keys", outputClaimToHeaders: [{{header: x-sub, claim: sub}}, {{header: "x y", claim: a.b}}]}}
  - {{issuer: junk, jwksUri: "https://junk/keys"}}
  - {{issuer: empty, jwksUri: "https://empty/keys"}}
  - {{issuer: odd, jwksUri: "https://odd/keys"}}
  - {{issuer: failed, jwksUri: "https://failed/keys", fromHeaders: [{{name: "x y"}}]}}
  - {{issuer: unknown, jwksUri: "https://unknown/keys", spaceDelimitedClaims: [scp, scope]}}
  - {{issuer: ""}}
"#
    );
    serving.access.authentication = vec![authentication("tokens", &text)];
    accepted("tokens", &serving);
    let said = rendered(&serving, profile()).said().len();
    assert_eq!(said, 5 + 2, "five issuers without keys, two headers that are none");
    let about = About::Authentication(Name::new("shop", "tokens"));
    assert!(rendered(&serving, profile()).said().iter().all(|said| said.about == about));
}

#[test]
fn spans_logs_and_metrics() {
    let (mut serving, _) = one_service();
    let tracing = Tracing { collector: Upstream { host: "collector.example.com".into(), port: 4317 }, sampling: 250.0 };
    serving.settings = Arc::new(Settings {
        tracing: Some(tracing),
        metrics: true,
        access_log: Some("/dev/stdout".into()),
        trust_domain_aliases: vec!["old.domain".into(), String::new()],
        ..Settings::default()
    });
    accepted("telemetry", &serving);
}

#[test]
fn every_operator_of_a_log_format_that_passes_our_check() {
    let (mut serving, _) = one_service();
    let fields = serde_json::json!({ "a": format::specimen(), "b": { "c": "%PROTOCOL%" } });
    let formats = [
        LogFormat::Line,
        LogFormat::Text(format::specimen()),
        LogFormat::Json(fields.as_object().cloned().unwrap_or_default()),
    ];
    for (number, format) in formats.into_iter().enumerate() {
        let log = AccessLog { path: "/dev/stdout".into(), format };
        serving.settings = Arc::new(Settings { access_log: Some(log), ..Settings::default() });
        accepted(&format!("log-{number}"), &serving);
    }
}

#[test]
fn providers_that_are_services_of_the_mesh() {
    let (mut serving, name) = one_service();
    let host = serving.services[&name].destination.service.hostname.to_string();
    let tracing = Tracing { collector: Upstream { host, port: 82 }, sampling: 1.0 };
    serving.settings = Arc::new(Settings { tracing: Some(tracing), ..Settings::default() });
    accepted("mesh-provider", &serving);
}

#[test]
fn an_address_of_the_second_family() {
    let mut serving = empty();
    let mut dual = service("cart", "10.96.0.10", &ALL);
    dual.addresses.push("fd00:96::10".parse().unwrap());
    add(&mut serving, dual, "fd00::10");
    let renderer = rendered(&serving, waypoint_config::envoy::Profile { ipv6: true, ..profile() });
    if envoy().is_some() {
        assert_eq!(refusal("dual", renderer.resources()), None);
    }
}

#[test]
fn istios_build_gets_its_own_filters_and_stock_envoy_none_of_them() {
    let (mut serving, _) = one_service();
    serving.access = Access::default();
    let flavour = Flavour::Istio { hashable_strings: true };
    let istio = rendered(&serving, waypoint_config::envoy::Profile { flavour, ..profile() });
    let stock = rendered(&serving, profile());
    let has = |renderer: &waypoint_config::envoy::Renderer, text: &str| {
        let listeners = renderer.resources().all(waypoint_config::envoy::Type::Listener);
        listeners.into_iter().any(|one| String::from_utf8_lossy(&one.body.value).contains(text))
    };
    for name in ["io.istio.http.peer_metadata.Config", "stats.PluginConfig", "istio.hashable_string"] {
        assert!(has(&istio, name) && !has(&stock, name), "{name}");
    }
}
