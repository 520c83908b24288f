// SPDX-License-Identifier: Apache-2.0
//! Valid YAML that is nonsense: each such object is refused with its path and a reason, and nothing else is.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use waypoint_config::api::{Kind, Object};

/// What is wrong with an object of this kind and spec; empty if nothing is.
fn fault(kind: Kind, api_version: &str, spec: Value) -> String {
    let mut metadata = json!({"name": "x"});
    if kind.is_namespaced() {
        metadata["namespace"] = json!("d");
    }
    let value = json!({"apiVersion": api_version, "kind": kind.name(), "metadata": metadata, "spec": spec});
    Object::read(kind, value).err().map(|error| error.to_string()).unwrap_or_default()
}

fn http(rule: Value) -> String {
    fault(
        Kind::HttpRoute,
        GATEWAY,
        json!({"parentRefs": [{"group": "", "kind": "Service", "name": "s"}], "rules": [rule]}),
    )
}

fn filter(filter: Value) -> String {
    http(json!({"filters": [filter]}))
}

/// Every line: what is found begins with this.
fn all_are(cases: Vec<(String, &str)>) {
    let wrong: Vec<_> = cases
        .iter()
        .filter(|(found, wanted)| !found.starts_with(wanted) || wanted.is_empty() && !found.is_empty())
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const GATEWAY: &str = "gateway.networking.k8s.io/v1";
const NETWORKING: &str = "networking.istio.io/v1";
const SECURITY: &str = "security.istio.io/v1";

#[test]
fn good_routes_are_read_in_every_version() {
    let backend = json!({"name": "s", "port": 80, "weight": 1});
    let rule = json!({
        "name": "r",
        "matches": [
            {"path": {"value": "/a"}, "method": "GET", "headers": [{"name": "x-y", "value": "z"}], "queryParams": [{"name": "q", "type": "RegularExpression", "value": "a+"}]},
            {"path": {"type": "PathPrefix", "value": "/b/"}},
        ],
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": "b"}], "remove": ["c"]}},
            {"type": "URLRewrite", "urlRewrite": {"hostname": "h", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": ""}}},
            {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "m", "port": 80}, "fraction": {"numerator": 1, "denominator": 3}}},
            {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "m", "port": 81}, "percent": 0}},
            {"type": "CORS", "cors": {"allowOrigins": ["https://*.example.com:8443"], "allowMethods": ["*"], "maxAge": 5}},
        ],
        "timeouts": {"request": "10s", "backendRequest": "1s500ms"},
        "retry": {"codes": [503], "attempts": 2, "backoff": "100ms"},
        "backendRefs": [backend],
    });
    all_are(vec![
        (http(rule), ""),
        (fault(Kind::HttpRoute, "gateway.networking.k8s.io/v1beta1", json!({})), ""),
        (
            fault(
                Kind::GrpcRoute,
                GATEWAY,
                json!({"rules": [{"matches": [{"method": {"service": "a.b.C", "method": "D"}}]}]}),
            ),
            "",
        ),
        (
            fault(
                Kind::TcpRoute,
                "gateway.networking.k8s.io/v1alpha2",
                json!({"rules": [{"backendRefs": [{"name": "s", "port": 1}]}]}),
            ),
            "",
        ),
        (fault(Kind::TlsRoute, "gateway.networking.k8s.io/v1alpha2", json!({"rules": [{"backendRefs": []}]})), ""),
        (fault(Kind::TlsRoute, GATEWAY, json!({"rules": [{"backendRefs": []}]})), "spec: missing field `hostnames`"),
        (fault(Kind::HttpRoute, GATEWAY, json!({"rulez": []})), "spec.rulez: there is no such field"),
        (
            fault(Kind::HttpRoute, GATEWAY, json!({"rules": [{"timeout": "1s"}]})),
            "spec.rules[0].timeout: there is no such field",
        ),
        (http(json!({"filters": [{"type": "Magic"}]})), "spec.rules[0].filters[0].type: unknown variant `Magic`"),
    ]);
}

#[test]
fn matches_say_what_envoy_can_compare() {
    let path = |kind: &str, value: &str| http(json!({"matches": [{"path": {"type": kind, "value": value}}]}));
    let at = "spec.rules[0].matches[0].path.value: ";
    for (kind, value) in [
        ("PathPrefix", "a"),
        ("Exact", "/a//b"),
        ("Exact", "/a/../b"),
        ("Exact", "/a/.."),
        ("PathPrefix", "/%2f"),
        ("Exact", "/a?b"),
        ("Exact", "/a b"),
        ("Exact", ""),
        ("RegularExpression", "("),
        ("RegularExpression", "(?!x)"),
        ("RegularExpression", ""),
    ] {
        let found = path(kind, value);
        assert!(found.starts_with(at), "{kind} {value}: {found}");
    }
    let grpc = |method: Value| fault(Kind::GrpcRoute, GATEWAY, json!({"rules": [{"matches": [{"method": method}]}]}));
    all_are(vec![
        (path("Exact", &"/a".repeat(600)), at),
        (
            http(json!({"matches": [{"headers": [{"name": "a b", "value": "c"}]}]})),
            "spec.rules[0].matches[0].headers[0].name: ",
        ),
        (
            http(json!({"matches": [{"headers": [{"name": "a", "value": "c\nd"}]}]})),
            "spec.rules[0].matches[0].headers[0].value: has control",
        ),
        (
            http(json!({"matches": [{"headers": [{"name": "a", "value": "x".repeat(5 << 20)}]}]})),
            "spec.rules[0].matches[0].headers[0].value: is 5242880 bytes long",
        ),
        (
            http(json!({"matches": [{"queryParams": [{"name": "a", "type": "RegularExpression", "value": "["}]}]})),
            "spec.rules[0].matches[0].queryParams[0].value: ",
        ),
        (http(json!({"matches": vec![json!({}); 65]})), "spec.rules[0].matches: has 65 entries"),
        (fault(Kind::HttpRoute, GATEWAY, json!({"rules": vec![json!({}); 17]})), "spec.rules: has 17 entries"),
        (
            fault(Kind::HttpRoute, GATEWAY, json!({"rules": vec![json!({"matches": vec![json!({}); 64]}); 3]})),
            "spec.rules: 192 matches in all",
        ),
        (fault(Kind::HttpRoute, GATEWAY, json!({"hostnames": ["-x"]})), "spec.hostnames[0]: "),
        (fault(Kind::HttpRoute, GATEWAY, json!({"parentRefs": [{"name": "S"}]})), "spec.parentRefs[0].name: "),
        (fault(Kind::HttpRoute, GATEWAY, json!({"rules": [{"name": "a"}, {"name": "a"}]})), "spec.rules[1].name: "),
        (grpc(json!({})), "spec.rules[0].matches[0].method: needs"),
        (grpc(json!({"service": "a-b"})), "spec.rules[0].matches[0].method.service: "),
        (grpc(json!({"method": "1"})), "spec.rules[0].matches[0].method.method: "),
        (grpc(json!({"type": "RegularExpression", "method": "a**"})), "spec.rules[0].matches[0].method.method: "),
    ]);
}

#[test]
fn filters_and_backends_are_bounded() {
    let at = "spec.rules[0].filters[0].";
    let modifier = |edits: Value| filter(json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": edits}));
    let mirror = |more: Value| {
        let mut mirror = json!({"backendRef": {"name": "m", "port": 80}});
        mirror.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        filter(json!({"type": "RequestMirror", "requestMirror": mirror}))
    };
    let redirect = |redirect: Value| filter(json!({"type": "RequestRedirect", "requestRedirect": redirect}));
    let prefix = json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"});
    let cases = vec![
        (filter(json!({"type": "RequestRedirect"})), "requestRedirect: is missing"),
        (filter(json!({"type": "URLRewrite", "urlRewrite": {}, "cors": {}})), "cors: goes with type CORS"),
        (
            modifier(json!({"set": [{"name": "a", "value": "x".repeat(5 << 20)}]})),
            "responseHeaderModifier.set[0].value: is 5242880 bytes long",
        ),
        (modifier(json!({"add": [{"name": ":path", "value": "x"}]})), "responseHeaderModifier.add[0].name: "),
        (
            modifier(json!({"set": [{"name": "a", "value": "x"}, {"name": "A", "value": "y"}]})),
            "responseHeaderModifier.set[1].name: is there already",
        ),
        (modifier(json!({"remove": ["a:b"]})), "responseHeaderModifier.remove[0]: "),
        (mirror(json!({"percent": 101})), "requestMirror.percent: 101 is not between 0 and 100"),
        (mirror(json!({"fraction": {"numerator": 2, "denominator": 1}})), "requestMirror.fraction.numerator: "),
        (mirror(json!({"fraction": {"numerator": 1, "denominator": 0}})), "requestMirror.fraction.denominator: "),
        (mirror(json!({"fraction": {"numerator": 1}, "percent": 1})), "requestMirror.fraction: goes not together"),
        (redirect(json!({"statusCode": 418})), "requestRedirect.statusCode: "),
        (redirect(json!({"port": 0})), "requestRedirect.port: "),
        (redirect(json!({"hostname": "*.x"})), "requestRedirect.hostname: "),
        (
            redirect(json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "x"}})),
            "requestRedirect.path.replaceFullPath: ",
        ),
        (redirect(json!({"path": {"type": "ReplaceFullPath"}})), "requestRedirect.path.replaceFullPath: "),
        (filter(json!({"type": "CORS", "cors": {"allowOrigins": ["example.com"]}})), "cors.allowOrigins[0]: "),
        (filter(json!({"type": "CORS", "cors": {"allowMethods": ["*", "GET"]}})), "cors.allowMethods: "),
    ];
    all_are(
        cases
            .into_iter()
            .map(|(found, wanted)| (found.strip_prefix(at).unwrap_or(&found).to_owned(), wanted))
            .collect(),
    );
    let rewrite = json!({"type": "URLRewrite", "urlRewrite": {"path": prefix}});
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {}});
    let backend = |backend: Value| http(json!({"backendRefs": [backend]}));
    all_are(vec![
        (http(json!({"filters": [rewrite, redirect]})), "spec.rules[0].filters: RequestRedirect and URLRewrite"),
        (http(json!({"filters": [redirect, redirect]})), "spec.rules[0].filters[1].type: "),
        (
            http(json!({"filters": [redirect], "backendRefs": [{"name": "s", "port": 80}]})),
            "spec.rules[0].backendRefs: ",
        ),
        (
            http(json!({"matches": [{"path": {"type": "Exact", "value": "/"}}], "filters": [rewrite]})),
            "spec.rules[0].filters[0].urlRewrite.path.type: ",
        ),
        (backend(json!({"name": "s"})), "spec.rules[0].backendRefs[0].port: is missing"),
        (backend(json!({"name": "s", "port": 65536})), "spec.rules[0].backendRefs[0].port: 65536 is not"),
        (backend(json!({"name": "s", "port": 1, "weight": 1_000_001})), "spec.rules[0].backendRefs[0].weight: "),
        (backend(json!({"name": "s", "port": 1, "weight": -1})), "spec.rules[0].backendRefs[0].weight: "),
        (backend(json!({"group": "example.com", "kind": "Odd", "name": "s"})), ""),
        (http(json!({"timeouts": {"request": "1"}})), "spec.rules[0].timeouts.request: "),
        (
            http(json!({"timeouts": {"request": "1s", "backendRequest": "2s"}})),
            "spec.rules[0].timeouts.backendRequest: ",
        ),
        (http(json!({"retry": {"codes": [200]}})), "spec.rules[0].retry.codes[0]: "),
        (http(json!({"retry": {"attempts": -1}})), "spec.rules[0].retry.attempts: "),
        (http(json!({"backendRefs": vec![json!({"name": "s", "port": 1}); 17]})), "spec.rules[0].backendRefs: has 17"),
    ]);
}

#[test]
fn gateways_are_checked() {
    let gateway =
        |listeners: Value| fault(Kind::Gateway, GATEWAY, json!({"gatewayClassName": "c", "listeners": listeners}));
    let one = json!({"name": "a", "port": 15008, "protocol": "HBONE"});
    let selecting = |selector: Value| {
        gateway(
            json!([{"name": "a", "port": 1, "protocol": "HBONE", "allowedRoutes": {"namespaces": {"from": "Selector", "selector": selector}}}]),
        )
    };
    let grant =
        json!({"from": [{"group": "", "kind": "X", "namespace": "a b"}], "to": [{"group": "", "kind": "Service"}]});
    all_are(vec![
        (gateway(json!([one])), ""),
        (gateway(json!([])), "spec.listeners: is empty"),
        (gateway(json!([one, one])), "spec.listeners[1].name: "),
        (gateway(json!([{"name": "a", "port": 0, "protocol": "HBONE"}])), "spec.listeners[0].port: "),
        (selecting(Value::Null), "spec.listeners[0].allowedRoutes.namespaces.selector: is missing"),
        (
            selecting(json!({"matchExpressions": [{"key": "a", "operator": "Is"}]})),
            "spec.listeners[0].allowedRoutes.namespaces.selector.matchExpressions[0].operator: ",
        ),
        (
            selecting(json!({"matchExpressions": [{"key": "a", "operator": "In"}]})),
            "spec.listeners[0].allowedRoutes.namespaces.selector.matchExpressions[0].values: ",
        ),
        (
            fault(
                Kind::Gateway,
                GATEWAY,
                json!({"gatewayClassName": "c", "listeners": [one], "addresses": [{"value": "x"}]}),
            ),
            "spec.addresses[0].value: ",
        ),
        (fault(Kind::GatewayClass, GATEWAY, json!({"controllerName": "x"})), "spec.controllerName: "),
        (fault(Kind::ReferenceGrant, GATEWAY, grant), "spec.from[0].namespace: "),
    ]);
}

#[test]
fn entries_are_checked() {
    let entry = |spec: Value| fault(Kind::ServiceEntry, NETWORKING, spec);
    let host = |host: &str| entry(json!({"hosts": [host]}));
    let port = |port: Value| entry(json!({"hosts": ["a.b"], "ports": [port]}));
    let endpoint = |resolution: &str, endpoint: Value| {
        entry(
            json!({"hosts": ["a.b"], "resolution": resolution, "ports": [{"number": 1, "name": "p"}], "endpoints": [endpoint]}),
        )
    };
    all_are(vec![
        (host("a.b"), ""),
        (host("*.b"), ""),
        (entry(json!({"hosts": []})), "spec.hosts: is empty"),
        (host("a"), "spec.hosts[0]: "),
        (host("10.0.0.1"), "spec.hosts[0]: "),
        (host("a.*.b"), "spec.hosts[0]: "),
        (entry(json!({"hosts": ["*.b"], "resolution": "DNS"})), "spec.hosts[0]: a wildcard"),
        (entry(json!({"hosts": ["a.b"], "resolution": "DYNAMIC_DNS"})), "spec.hosts[0]: resolution"),
        (entry(json!({"hosts": ["a.b"], "resolution": "MAGIC"})), "spec.resolution: unknown variant"),
        (entry(json!({"hosts": ["a.b"], "addresses": ["x"]})), "spec.addresses[0]: "),
        (
            entry(json!({"hosts": ["a.b"], "addresses": ["10.0.0.0/8"], "resolution": "DNS"})),
            "spec.addresses[0]: a range",
        ),
        (port(json!({"number": 0, "name": "p"})), "spec.ports[0].number: "),
        (port(json!({"number": 1, "name": ""})), "spec.ports[0].name: "),
        (port(json!({"number": 1, "name": "p", "protocol": "UDP"})), "spec.ports[0].protocol: "),
        (port(json!({"number": 1, "name": "p", "port": 2})), "spec.ports[0].port: there is no such field"),
        (endpoint("STATIC", json!({"address": "10.0.0.1", "ports": {"p": 2}})), ""),
        (endpoint("STATIC", json!({"address": "10.0.0.1", "ports": {"q": 2}})), "spec.endpoints[0].ports: "),
        (endpoint("STATIC", json!({"address": "a.b"})), "spec.endpoints[0].address: "),
        (endpoint("DNS", json!({"address": "a.b"})), ""),
        (endpoint("DNS", json!({"address": "unix:///x"})), "spec.endpoints[0].address: "),
        (endpoint("NONE", json!({"address": "10.0.0.1"})), "spec.endpoints: "),
        (fault(Kind::WorkloadEntry, NETWORKING, json!({})), "spec.address: is missing"),
        (fault(Kind::WorkloadEntry, NETWORKING, json!({"address": "10.0.0.1", "ports": {"a": 0}})), "spec.ports.a: "),
    ]);
}

#[test]
fn policies_are_attached_to_what_waypoints_serve() {
    let policy = |spec: Value| fault(Kind::AuthorizationPolicy, SECURITY, spec);
    let target = |target: Value| policy(json!({"targetRefs": [target]}));
    let jwt = |rule: Value| fault(Kind::RequestAuthentication, SECURITY, json!({"jwtRules": [rule]}));
    all_are(vec![
        (target(json!({"kind": "Service", "name": "s"})), ""),
        (target(json!({"group": "networking.istio.io", "kind": "ServiceEntry", "name": "s"})), ""),
        (target(json!({"kind": "Pod", "name": "s"})), "spec.targetRefs[0]: "),
        (target(json!({"kind": "Service", "name": ""})), "spec.targetRefs[0].name: "),
        (target(json!({"kind": "Service", "name": "s", "namespace": "x"})), "spec.targetRefs[0].namespace: "),
        (
            policy(
                json!({"targetRef": {"kind": "Service", "name": "s"}, "targetRefs": [{"kind": "Service", "name": "s"}]}),
            ),
            "spec.targetRef: ",
        ),
        (policy(json!({"rules": vec![json!({}); 10_000]})), "spec.rules: has 10000 entries"),
        (
            policy(json!({"rules": [{"to": [{"operation": {"paths": ["x".repeat(5 << 20)]}}]}]})),
            "spec.rules[0].to[0].operation.paths[0]: is 5242880",
        ),
        (jwt(json!({"issuer": "x", "jwksUri": "https://x"})), ""),
        (jwt(json!({})), "spec.jwtRules[0].issuer: "),
        (jwt(json!({"issuer": "x", "jwksUri": "file:///x"})), "spec.jwtRules[0].jwksUri: "),
        (jwt(json!({"issuer": "x", "jwks": "{}"})), "spec.jwtRules[0].jwks: "),
        (jwt(json!({"issuer": "x", "fromHeaders": [{"name": "a b"}]})), "spec.jwtRules[0].fromHeaders[0].name: "),
        (
            jwt(json!({"issuer": "x", "outputClaimToHeaders": [{"header": "a"}]})),
            "spec.jwtRules[0].outputClaimToHeaders[0].claim: ",
        ),
    ]);
}
