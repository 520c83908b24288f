// SPDX-License-Identifier: Apache-2.0
//! What rules of an HTTPRoute become.

use std::time::Duration;

use super::*;
use crate::view::rule::{HeaderEdits, PathRewrite, Pattern, Redirect, Retry, ValueMatch};

const V1: &str = "backendRefs: [{name: v1, port: 80}]";

#[test]
fn more_exact_matches_come_first_whatever_their_order() {
    let found = entries(&http(
        "[{matches: [{path: {type: PathPrefix, value: /}}, {path: {type: RegularExpression, value: '/x.*'}},
           {path: {type: PathPrefix, value: /a/}}, {path: {type: PathPrefix, value: /a/b/}}, {path: {type: Exact, value: /a/}}]}]",
    ));
    assert_eq!(paths(&found), ["=/a/", "/a/b*", "/a*", "~/x.*", "/*"]);
}

#[test]
fn with_equal_paths_method_then_headers_then_queries_decide_then_the_order_written() {
    let found = entries(&http(
        "[{name: plain, matches: [{path: {value: /a}}]}, {name: query, matches: [{path: {value: /a}, queryParams: [{name: q, value: '1'}]}]},
          {name: headers, matches: [{path: {value: /a}, headers: [{name: x, value: '1'}, {name: y, value: '2'}]}]},
          {name: header, matches: [{path: {value: /a}, headers: [{name: x, value: '1'}]}]}, {name: method, matches: [{path: {value: /a}, method: GET}]},
          {name: again, matches: [{path: {value: /a}}]}]",
    ));
    let names: Vec<&str> = found.iter().filter_map(|entry| entry.rule.origin.name.as_deref()).collect();
    assert_eq!(names, ["method", "headers", "header", "query", "plain", "again"]);
}

#[test]
fn the_older_route_comes_first_then_the_name() {
    let dated = |name: &str, time: &str| {
        document("HTTPRoute", "shop", name, "[{}]")
            .replace("namespace: shop}\n", &format!("namespace: shop, creationTimestamp: '{time}'}}\n"))
    };
    let yaml =
        [dated("c", "2024-01-02T00:00:00Z"), dated("b", "2024-01-02T00:00:00Z"), dated("z", "2024-01-01T00:00:00Z")];
    let found = entries(&yaml.join("\n---\n"));
    let names: Vec<&str> = found.iter().map(|entry| &*entry.rule.origin.route.name).collect();
    assert_eq!(names, ["z", "b", "c"]);
}

#[test]
fn of_conditions_on_one_header_the_first_counts() {
    let found = entries(&http(
        "[{matches: [{headers: [{name: X-A, value: '1'}, {name: x-a, value: '2'}, {name: b, type: RegularExpression, value: 'c.*'}]}]}]",
    ));
    assert_eq!(
        found[0].matches.headers,
        [
            ValueMatch { name: "x-a".to_owned(), value: Pattern::Exact("1".to_owned()) },
            ValueMatch { name: "b".to_owned(), value: Pattern::Regex("c.*".to_owned()) },
        ]
    );
}

#[test]
fn a_route_without_rules_or_matches_means_every_request() {
    let found = entries(&http("[{}]"));
    assert_eq!(paths(&found), ["any"]);
    let none = http("[{}]").replace("  rules: [{}]\n", "");
    assert_eq!(paths(&entries(&none)), ["any"]);
    assert!(entries(&none)[0].rule.backends.is_empty());
}

#[test]
fn headers_are_changed_at_the_rule_and_at_the_backend() {
    let rule = rule(
        "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: a}, {name: x-set, value: b}], add: [{name: x-add, value: b}], remove: [X-Gone]}},
                    {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [server]}}],
          backendRefs: [{name: v1, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x-to, value: v1}]}}]}]}",
    );
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        rule.request_headers,
        HeaderEdits { set: vec![pair("x-set", "a")], add: vec![pair("x-add", "b")], remove: vec!["x-gone".to_owned()] }
    );
    assert_eq!(rule.response_headers.remove, ["server"]);
    assert_eq!(rule.backends[0].request_headers.add, [pair("x-to", "v1")]);
}

#[test]
fn setting_the_host_is_a_rewrite_of_the_authority() {
    let rule = rule(
        "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: other.example}]}}]}",
    );
    assert_eq!(rule.rewrite.host.as_deref(), Some("other.example"));
    assert!(rule.request_headers.is_empty());
}

#[test]
fn a_redirect_has_all_its_parts() {
    let rule = rule(
        "{matches: [{path: {value: /old}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: a.example, port: 8443, statusCode: 308,
          path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]}",
    );
    let expected = Redirect {
        scheme: Some("https".to_owned()),
        host: Some("a.example".to_owned()),
        port: Some(8443),
        path: Some(PathRewrite::Prefix("/new".to_owned())),
        status: 308,
    };
    assert_eq!(rule.redirect, Some(expected));
    let plain = super::rule("{filters: [{type: RequestRedirect, requestRedirect: {hostname: a.example}}]}");
    assert_eq!(plain.redirect.unwrap().status, 301);
}

#[test]
fn host_and_path_are_rewritten() {
    let rule = rule(
        "{filters: [{type: URLRewrite, urlRewrite: {hostname: b.example, path: {type: ReplaceFullPath, replaceFullPath: /all}}}], backendRefs: [{name: v1, port: 80}]}",
    );
    assert_eq!(rule.rewrite.host.as_deref(), Some("b.example"));
    assert_eq!(rule.rewrite.path, Some(PathRewrite::Full("/all".to_owned())));
}

#[test]
fn copies_go_to_several_by_percent_and_fraction() {
    let rule = rule(
        "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: v1, port: 80}}},
                    {type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 80}, percent: 25}},
                    {type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 8080}, fraction: {numerator: 1, denominator: 3}}}]}",
    );
    let parts: Vec<u32> = rule.mirrors.iter().map(|mirror| mirror.parts_per_million).collect();
    assert_eq!(parts, [1_000_000, 250_000, 333_333]);
    assert_eq!(rule.mirrors[2].target, service("shop", "v2", 8080));
}

#[test]
fn cors_timeouts_and_retries_are_taken_over() {
    let rule = rule(
        "{filters: [{type: CORS, cors: {allowOrigins: ['https://*.example.com'], allowMethods: [GET, '*'], allowHeaders: [x], exposeHeaders: [y], maxAge: 60, allowCredentials: true}}],
          timeouts: {request: 10s, backendRequest: 500ms}, retry: {attempts: 3, codes: [500, 503], backoff: 100ms}, backendRefs: [{name: v1, port: 80}]}",
    );
    let cors = rule.cors.unwrap();
    assert_eq!((cors.max_age, cors.allow_credentials), (Some(Duration::from_secs(60)), true));
    assert_eq!(rule.timeout, Some(Duration::from_secs(10)));
    assert_eq!(rule.backend_timeout, Some(Duration::from_millis(500)));
    let expected = Retry { attempts: 3, codes: vec![500, 503], backoff: Some(Duration::from_millis(100)) };
    assert_eq!(rule.retry, Some(expected));
    let short = super::rule("{retry: {}}").retry.unwrap();
    assert_eq!((short.attempts, short.codes.len()), (2, 0));
}

#[test]
fn weights_default_to_one_and_zero_stays_zero() {
    let rule = rule(
        "{backendRefs: [{name: v1, port: 80, weight: 90}, {name: v2, port: 80}, {name: web, port: 8080, weight: 0}]}",
    );
    let weights: Vec<u32> = rule.backends.iter().map(|backend| backend.weight).collect();
    assert_eq!(weights, [90, 1, 0]);
    assert_eq!(rule.backends[2].target, service("shop", "web", 8080));
}

#[test]
fn an_invalid_backend_keeps_its_share() {
    let rule = rule("{backendRefs: [{name: v1, port: 80, weight: 3}, {name: nobody, port: 80, weight: 1}]}");
    assert_eq!(rule.backends[0].target, service("shop", "v1", 80));
    assert_eq!(rule.backends[1].weight, 1);
    assert!(matches!(rule.backends[1].target, Target::Invalid { .. }));
    assert_eq!(rule.broken, None);
}

#[test]
fn a_mesh_host_name_is_a_backend() {
    let rule = rule("{backendRefs: [{group: networking.istio.io, kind: Hostname, name: api.example.com, port: 80}]}");
    assert_eq!(rule.backends[0].target, service("shop", "entry/api.example.com", 80));
}

#[test]
fn routes_stand_on_the_http_ports_unless_they_name_one() {
    let (all, _) = resolved(&http(&format!("[{{{V1}}}]")));
    assert_eq!(all.keys().copied().collect::<Vec<_>>(), [80, 8080]);
    let (one, _) =
        resolved(&http(&format!("[{{{V1}}}]")).replace("namespace: shop}]", "namespace: shop, port: 8080}]"));
    assert_eq!(one.keys().copied().collect::<Vec<_>>(), [8080]);
    let (named, _) =
        resolved(&http(&format!("[{{{V1}}}]")).replace("namespace: shop}]", "namespace: shop, sectionName: http}]"));
    assert_eq!(named.keys().copied().collect::<Vec<_>>(), [80]);
}

#[test]
fn a_route_that_names_a_service_twice_stands_there_once() {
    let twice = http("[{}]").replace("parentRefs: [", "parentRefs: [{group: '', kind: Service, name: web}, ");
    let (ports, statuses) = resolved(&twice);
    assert_eq!(ports[&80].http.len(), 1);
    assert_eq!(statuses.len(), 2);
}

#[test]
fn routes_of_clients_come_first_and_name_their_namespace() {
    let yaml =
        [http("[{matches: [{path: {type: Exact, value: /a}}]}]"), document("HTTPRoute", "client", "theirs", "[{}]")];
    let found = entries(&yaml.join("\n---\n"));
    let whose: Vec<Option<&str>> = found.iter().map(|entry| entry.client_namespace.as_deref()).collect();
    assert_eq!(whose, [Some("client"), None]);
}

#[test]
fn a_service_entry_is_a_parent() {
    let parent = ParentService {
        kind: ParentKind::ServiceEntry,
        object: Name::new("shop", "entry"),
        service: Name::new("shop", "entry/api.example.com"),
        hostname: "api.example.com".into(),
        ports: vec![ParentPort { port: 80, name: None, protocol: AppProtocol::Http11 }],
    };
    let yaml = http("[{}]").replace(
        "{group: '', kind: Service, name: web, namespace: shop}",
        "{group: networking.istio.io, kind: ServiceEntry, name: entry}",
    );
    assert_eq!(resolve_for(&parent, &yaml).0[&80].http.len(), 1);
    assert!(resolved(&yaml).0.is_empty());
}
