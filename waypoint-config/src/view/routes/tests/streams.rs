// SPDX-License-Identifier: Apache-2.0
//! Routes of gRPC, TCP and TLS.

use super::*;

fn grpc(rules: &str) -> Vec<HttpEntry> {
    entries(&document("GRPCRoute", "shop", "route", rules))
}

#[test]
fn methods_of_grpc_are_paths() {
    let found = grpc(
        "[{matches: [{method: {service: a.B, method: C}}, {method: {service: a.B}}, {method: {method: C}}, {}]},
          {matches: [{method: {type: RegularExpression, service: 'a.(B|C)', method: 'D|E'}}, {method: {type: RegularExpression, service: x}}]}]",
    );
    assert_eq!(paths(&found), ["=/a.B/C", "/a.B*", "~/(?:a.(B|C))/(?:D|E)", "~/(?:x)/[^/]+", "~/[^/]+/C", "any"]);
    assert!(found.iter().all(|entry| entry.rule.is_grpc));
}

#[test]
fn a_method_of_grpc_that_is_none_is_told() {
    let yaml = document("GRPCRoute", "shop", "route", "[{matches: [{method: {service: 'a/b', method: C}}]}, {}]");
    assert_eq!(
        told(&yaml),
        ["Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs PartiallyInvalid=True/UnsupportedValue"]
    );
}

#[test]
fn connections_are_split_by_weight_on_tcp_ports() {
    let yaml = document(
        "TCPRoute",
        "shop",
        "tcp",
        "[{backendRefs: [{name: v1, port: 9000, weight: 9}, {name: v2, port: 9000}]}]",
    );
    let (ports, statuses) = resolved(&yaml);
    assert_eq!(ports.keys().copied().collect::<Vec<_>>(), [8080, 9000, 9443]);
    let rule = ports[&9000].tcp.as_ref().unwrap();
    assert_eq!(rule.backends[0].target, service("shop", "v1", 9000));
    assert_eq!((rule.backends[0].weight, rule.backends[1].weight), (9, 1));
    assert_eq!(short(&statuses[0]), FINE);
}

#[test]
fn a_tls_route_goes_before_a_tcp_route_and_the_loser_is_told() {
    let yaml = [
        document("TCPRoute", "shop", "a", "[{backendRefs: [{name: v1, port: 9000}]}]"),
        document("TLSRoute", "shop", "b", "[{backendRefs: [{name: v2, port: 9000}]}]"),
    ];
    let (ports, statuses) = resolved(&yaml.join("\n---\n"));
    assert_eq!(&*ports[&9443].tcp.as_ref().unwrap().origin.route.name, "b");
    assert_eq!(short(&statuses[0]), FINE);
    assert_eq!(short(&statuses[1]), "Accepted=False/Conflicted ResolvedRefs=True/ResolvedRefs");
}

#[test]
fn a_tls_route_for_another_name_is_not_taken() {
    let yaml = document("TLSRoute", "shop", "b", "[{backendRefs: [{name: v2, port: 9000}]}]")
        .replace("hostnames: [web", "hostnames: [other");
    let (ports, statuses) = resolved(&yaml);
    assert!(ports.is_empty());
    assert!(short(&statuses[0]).starts_with("Accepted=False/NoMatchingListenerHostname"), "{statuses:?}");
}

#[test]
fn a_tcp_route_of_clients_is_refused() {
    let yaml = document("TCPRoute", "client", "a", "[{backendRefs: [{name: local, port: 9000}]}]");
    let (ports, statuses) = resolved(&yaml);
    assert!(ports.is_empty());
    assert!(short(&statuses[0]).starts_with("Accepted=False/UnsupportedValue"), "{statuses:?}");
}
