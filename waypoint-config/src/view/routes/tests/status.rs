// SPDX-License-Identifier: Apache-2.0
//! What authors hear, and what happens to rules that are wrong.

use super::*;

/// The conditions of a route with one rule, and why the rule is broken.
fn outcome(rule: &str) -> (String, Option<String>) {
    let (ports, statuses) = resolved(&http(&format!("[{rule}]")));
    let broken = ports.get(&80).and_then(|port| port.http.first()).and_then(|entry| entry.rule.broken.clone());
    (short(&statuses[0]), broken)
}

#[test]
fn what_is_not_supported_breaks_the_rule_and_is_told() {
    for rule in [
        "{sessionPersistence: {}}",
        "{filters: [{type: ExternalAuth}]}",
        "{filters: [{type: CORS}]}",
        "{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 418}}]}",
        "{filters: [{type: RequestRedirect, requestRedirect: {port: 70000}}]}",
        "{filters: [{type: URLRewrite, urlRewrite: {hostname: 'a b'}}]}",
        "{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}",
        "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replacePrefixMatch: /b}}}]}",
        "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: ':path', value: b}]}}]}",
        "{filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: host, value: b}]}}]}",
        "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [Host]}}]}",
        "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: v1, port: 80}, percent: 101}}]}",
        "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: v1, port: 80}, fraction: {numerator: 2, denominator: 1}}}]}",
        "{timeouts: {request: 1s, backendRequest: 2s}}",
        "{timeouts: {request: soon}}",
        "{retry: {attempts: -1}}",
        "{retry: {codes: [200]}}",
        "{backendRefs: [{name: v1, port: 80, weight: -1}]}",
    ] {
        let (conditions, broken) = outcome(rule);
        assert!(conditions.starts_with("Accepted=False/UnsupportedValue"), "{rule}: {conditions}");
        assert!(broken.is_some(), "{rule}");
    }
}

#[test]
fn filters_that_exclude_each_other_break_the_rule() {
    for rule in [
        "{filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {hostname: a.example}}]}",
        "{filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: v1, port: 80}]}",
        "{filters: [{type: RequestRedirect, requestRedirect: {}}, {type: RequestRedirect, requestRedirect: {}}]}",
    ] {
        let (conditions, broken) = outcome(rule);
        assert!(conditions.starts_with("Accepted=False/IncompatibleFilters"), "{rule}: {conditions}");
        assert!(broken.is_some(), "{rule}");
    }
}

#[test]
fn an_extension_that_does_not_exist_is_an_unresolved_reference() {
    let (conditions, broken) =
        outcome("{filters: [{type: ExtensionRef, extensionRef: {group: a.example, kind: B, name: c}}]}");
    assert_eq!(conditions, "Accepted=True/Accepted ResolvedRefs=False/InvalidFilter");
    assert!(broken.is_some());
}

#[test]
fn each_way_a_backend_can_be_wrong_has_its_reason() {
    for (backend, reason) in [
        ("{name: nobody, port: 80}", "BackendNotFound"),
        ("{name: v1, port: 81}", "BackendNotFound"),
        ("{group: networking.istio.io, kind: Hostname, name: b.example, port: 80}", "BackendNotFound"),
        ("{name: v1}", "InvalidDestination"),
        ("{name: v1, port: 0}", "InvalidDestination"),
        (
            "{group: networking.istio.io, kind: Hostname, name: api.example.com, namespace: shop, port: 80}",
            "InvalidDestination",
        ),
        ("{group: multicluster.x-k8s.io, kind: ServiceImport, name: v1, port: 80}", "InvalidKind"),
        ("{kind: ConfigMap, name: v1, port: 80}", "InvalidKind"),
        ("{name: safe, namespace: bank, port: 80}", "RefNotPermitted"),
        ("{name: v1, port: 9000}", "UnsupportedProtocol"),
    ] {
        let (conditions, broken) = outcome(&format!("{{backendRefs: [{backend}]}}"));
        assert_eq!(conditions, format!("Accepted=True/Accepted ResolvedRefs=False/{reason}"), "{backend}");
        assert_eq!(broken, None, "{backend}");
    }
}

#[test]
fn a_backend_in_another_namespace_needs_a_grant_there() {
    let route = http("[{backendRefs: [{name: safe, namespace: bank, port: 80}]}]");
    let grant = |namespace: &str, from: &str, name: &str| {
        format!(
            "kind: ReferenceGrant\napiVersion: gateway.networking.k8s.io/v1\nmetadata: {{name: g, namespace: {namespace}}}\nspec: {{from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: {from}}}], to: [{{group: '', kind: Service, name: {name}}}]}}\n"
        )
    };
    let with = |grant: String| told(&format!("{route}\n---\n{grant}"));
    assert_eq!(with(grant("bank", "shop", "safe")), [FINE]);
    for other in [grant("shop", "shop", "safe"), grant("bank", "other", "safe"), grant("bank", "shop", "other")] {
        assert_eq!(with(other), ["Accepted=True/Accepted ResolvedRefs=False/RefNotPermitted"]);
    }
}

#[test]
fn clients_may_name_the_service_itself_without_a_grant() {
    let yaml = document("HTTPRoute", "client", "theirs", "[{backendRefs: [{name: web, namespace: shop, port: 80}]}]");
    assert_eq!(told(&yaml), [FINE]);
    let other = document("HTTPRoute", "client", "theirs", "[{backendRefs: [{name: v1, namespace: shop, port: 80}]}]");
    assert_eq!(told(&other), ["Accepted=True/Accepted ResolvedRefs=False/RefNotPermitted"]);
}

#[test]
fn a_match_that_cannot_be_is_left_out_and_the_others_stand() {
    let yaml = http(
        "[{matches: [{path: {type: RegularExpression, value: '('}}, {path: {value: /a}}]}, {matches: [{path: {value: 'b'}}]}]",
    );
    assert_eq!(paths(&entries(&yaml)), ["/a*"]);
    assert_eq!(told(&yaml), [format!("{FINE} PartiallyInvalid=True/UnsupportedValue")]);
}

#[test]
fn a_parent_without_that_port_or_with_another_protocol_does_not_match() {
    for reference in ["port: 81", "port: 9000", "sectionName: nothing", "port: -1"] {
        let yaml = http("[{}]").replace("namespace: shop}]", &format!("namespace: shop, {reference}}}]"));
        let (ports, statuses) = resolved(&yaml);
        assert!(ports.is_empty(), "{reference}");
        assert!(short(&statuses[0]).starts_with("Accepted=False/NoMatchingParent"), "{reference}: {statuses:?}");
    }
}

#[test]
fn a_route_for_other_services_is_nobodys_here() {
    let yaml = http("[{}]").replace("name: web, namespace", "name: other, namespace");
    assert_eq!(resolved(&yaml), (BTreeMap::new(), Vec::new()));
}

#[test]
fn ten_thousand_rules_are_refused_and_other_routes_stand() {
    let many = document("HTTPRoute", "shop", "many", &format!("[{}]", "{},".repeat(10_000)));
    let (ports, statuses) = resolved(&[many, http("[{}]")].join("\n---\n"));
    assert_eq!(ports[&80].http.len(), 1);
    assert!(short(&statuses[0]).starts_with("Accepted=False/UnsupportedValue"));
    assert_eq!(short(&statuses[1]), FINE);
}

#[test]
fn a_huge_value_gets_a_short_message_and_breaks_only_its_rule() {
    let huge = "x".repeat(1_000_000);
    let yaml = http(&format!(
        "[{{filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: a, value: {huge}}}]}}}}]}}, {{}}]"
    ));
    let (ports, statuses) = resolved(&yaml);
    let broken: Vec<bool> = ports[&80].http.iter().map(|entry| entry.rule.broken.is_some()).collect();
    assert_eq!(broken, [true, false]);
    assert!(statuses[0].conditions.iter().all(|condition| condition.message.len() < 500));
}

#[test]
fn messages_name_the_rule() {
    let (_, statuses) =
        resolved(&http("[{}, {name: canary, backendRefs: [{name: nobody, port: 80}]}, {retry: {attempts: -1}}]"));
    let messages: Vec<&str> = statuses[0].conditions.iter().map(|condition| condition.message.as_str()).collect();
    assert_eq!(messages[1], "rule \"canary\": there is no service \"shop/nobody\"");
    assert!(messages[2].starts_with("rules[2]: retry.attempts is -1"), "{messages:?}");
}

#[test]
fn parents_and_backends_can_be_asked_for() {
    let yaml = http(
        "[{backendRefs: [{name: v1, port: 80}, {group: networking.istio.io, kind: Hostname, name: a.example, port: 80}],
           filters: [{type: RequestMirror, requestMirror: {backendRef: {name: safe, namespace: bank, port: 80}}}]}]",
    );
    let value: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
    let route: HttpRoute = serde_json::from_value(value).unwrap();
    let held = Held::Http(route);
    let reference = held.reference();
    assert_eq!(reference.parents().into_iter().collect::<Vec<_>>(), [(ParentKind::Service, Name::new("shop", "web"))]);
    let (services, hostnames) = reference.backends();
    assert_eq!(services.into_iter().collect::<Vec<_>>(), [Name::new("bank", "safe"), Name::new("shop", "v1")]);
    assert_eq!(hostnames.into_iter().collect::<Vec<_>>(), ["a.example".into()]);
    let orphaned = reference.orphaned(&|_, _| false);
    assert!(short(&orphaned[0]).starts_with("Accepted=False/NoMatchingParent"));
    assert!(reference.orphaned(&|_, _| true).is_empty());
}
