// SPDX-License-Identifier: Apache-2.0
//! Files good and bad, document by document.

use proptest::prelude::*;

use super::*;

/// One line per object or mistake, in the order of the file.
fn read(text: &str) -> Vec<String> {
    let reading = Reading::of(text.as_bytes(), Role::Objects);
    let entries = reading.entries.iter().map(|entry| {
        let end = entry.object.as_ref().map_or_else(ToString::to_string, |_| "ok".to_owned());
        (entry.line, format!("{} {}: {end}", entry.line, entry.key))
    });
    let broken =
        reading.broken.iter().map(|broken| (broken.line, format!("{} broken: {}", broken.line, broken.reason)));
    let mut all: Vec<_> = entries.chain(broken).collect();
    all.sort();
    all.into_iter().map(|(_, text)| text).collect()
}

/// What is wrong with the only object of a file.
fn fault(text: &str) -> String {
    let found = read(text);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn policy(spec: &str) -> String {
    fault(&format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{namespace: d, name: p}}\nspec:\n  {spec}\n"
    ))
}

#[test]
fn documents_stand_for_themselves() {
    let text = "\
# a comment
---
apiVersion: v1
kind: Namespace
metadata: {name: a}
--- # with a remark
apiVersion: v1
kind: Namespace
metadata: {name: b
---
apiVersion: v1
kind: Namespace
metadata:
  name: c
  annotations:
    text: |
      ---
      looks like a marker, but is indented
...
%YAML 1.2
---
{apiVersion: v1, kind: Namespace, metadata: {name: d}}
---
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: not-ours}
--- {apiVersion: v1, kind: Namespace, metadata: {name: e}}
";
    let found = read(text);
    assert_eq!(found[0], "3 Namespace a: ok");
    assert!(found[1].starts_with("9 broken: ") && found[1].contains("line 9"), "{}", found[1]);
    assert_eq!(found[2..], ["11 Namespace c: ok", "22 Namespace d: ok", "28 Namespace e: ok"]);
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_are_read() {
    let text = "\u{feff}apiVersion: v1\r\nkind: Namespace\r\nmetadata: {name: a}\r\n---\r\napiVersion: v1\r\nkind: Namespace\r\nmetadata: {name: b}\r\n";
    assert_eq!(read(text), ["1 Namespace a: ok", "5 Namespace b: ok"]);
}

#[test]
fn json_and_lists_of_kubectl_are_read() {
    let text = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "managedFields": [{"anything": "goes"}], "creationTimestamp": null}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "not-ours"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodName": "n"}}]}"#;
    assert_eq!(
        read(text),
        [
            "1 Namespace a: ok",
            "1 Pod default/p: spec.nodName: there is no such field; check its spelling and indentation"
        ]
    );
}

#[test]
fn a_wrong_field_is_named_with_its_path() {
    assert_eq!(
        policy("rules: [{from: [{source: {namespace: [a]}}]}]"),
        "1 AuthorizationPolicy d/p: spec.rules[0].from[0].source.namespace: there is no such field; check its spelling and indentation"
    );
    assert_eq!(
        policy("rules: [{to: [{operation: {ports: [80]}}]}]"),
        "1 AuthorizationPolicy d/p: spec.rules[0].to[0].operation.ports[0]: invalid type: integer `80`, expected a string"
    );
    assert_eq!(
        policy("action: PERMIT"),
        "1 AuthorizationPolicy d/p: spec.action: unknown variant `PERMIT`, expected one of `ALLOW`, `DENY`, `AUDIT`, `CUSTOM`"
    );
    assert_eq!(
        policy("rules: [{from: [{source: {ipBlocks: [10.0.0.0/8, 10.0.0.0/40]}}]}]"),
        "1 AuthorizationPolicy d/p: spec.rules[0].from[0].source.ipBlocks[1]: \"10.0.0.0/40\" is neither an address nor a range like 10.0.0.0/8"
    );
    assert_eq!(
        policy("rules: [{when: [{key: destination.port, values: [http]}]}]"),
        "1 AuthorizationPolicy d/p: spec.rules[0].when[0].values[0]: \"http\" is not a port number from 1 to 65535"
    );
    assert_eq!(
        policy("rules: [{from: [{source: {}}]}]"),
        "1 AuthorizationPolicy d/p: spec.rules[0].from[0].source: is empty: leave `from` out to mean anybody"
    );
    assert_eq!(
        policy("{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Gateway, name: g}]}"),
        "1 AuthorizationPolicy d/p: spec: selector and targetRefs exclude each other: one is for node proxies, the other for waypoints"
    );
}

#[test]
fn half_a_policy_is_none() {
    let found = policy("");
    assert!(found.contains("AuthorizationPolicy d/p: ") && found.contains("missing field `spec`"), "{found}");
    let found =
        fault("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {namespace: d, name: p}\nsp");
    assert!(found.starts_with("4 broken: "), "{found}");
}

#[test]
fn ports_of_a_peer_authentication_are_numbers_and_need_a_selector() {
    let peer = |spec: &str| {
        fault(&format!(
            "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata: {{namespace: d, name: p}}\nspec: {spec}\n"
        ))
    };
    assert_eq!(
        peer("{selector: {matchLabels: {a: b}}, portLevelMtls: {8080: {mode: STRICT}, \"9\": {mode: UNSET}}}"),
        "1 PeerAuthentication d/p: ok"
    );
    assert_eq!(
        peer("{portLevelMtls: {8080: {mode: STRICT}}}"),
        "1 PeerAuthentication d/p: spec.portLevelMtls: needs a selector: ports belong to workloads"
    );
    let found = peer("{selector: {matchLabels: {a: b}}, portLevelMtls: {web: {mode: STRICT}}}");
    assert!(found.starts_with("1 PeerAuthentication d/p: spec.portLevelMtls"), "{found}");
    let found = peer("{mtls: {mode: strict}}");
    assert!(found.starts_with("1 PeerAuthentication d/p: spec.mtls.mode: unknown variant `strict`"), "{found}");
}

#[test]
fn names_and_numbers_an_api_server_would_refuse_are_refused() {
    let of = |text: &str| fault(&format!("apiVersion: {text}"));
    assert_eq!(
        of("v1\nkind: Pod\nmetadata: {namespace: d, name: Not_DNS}"),
        "1 Pod d/Not_DNS: metadata.name: \"Not_DNS\" is not a DNS name: small letters, digits and `-`"
    );
    assert_eq!(
        of("v1\nkind: Namespace\nmetadata: {namespace: d, name: n}"),
        "1 Namespace n: metadata.namespace: a Namespace lives in no namespace, but \"d\" is given"
    );
    assert_eq!(
        of("v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}, {port: 70000}]}"),
        "1 Service default/s: spec.ports[1].port: 70000 is not a port number from 1 to 65535"
    );
    assert_eq!(
        of("v1\nkind: Pod\nmetadata: {name: p}\nstatus: {podIPs: [{ip: 10.0.0.256}]}"),
        "1 Pod default/p: status.podIPs[0].ip: \"10.0.0.256\" is not an IP address"
    );
    assert_eq!(
        of(
            "discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: e}\naddressType: IPv6\nendpoints: [{addresses: [10.0.0.1]}]"
        ),
        "1 EndpointSlice default/e: endpoints[0].addresses[0]: 10.0.0.1 is not of addressType IPv6"
    );
}

#[test]
fn what_is_no_object_says_so() {
    assert_eq!(read("just text"), ["1 broken: kind: is missing or no text; an object begins with apiVersion and kind"]);
    assert_eq!(read("- a\n- b"), ["1 broken: kind: is missing or no text; an object begins with apiVersion and kind"]);
    assert_eq!(
        read("kind: Pod\nmetadata: {name: x}"),
        ["1 broken: apiVersion: is missing or no text; an object begins with apiVersion and kind"]
    );
    assert_eq!(read("apiVersion: v1\nkind: Pod"), ["1 broken: metadata: is missing; which Pod is it?"]);
    assert_eq!(
        read("apiVersion: v1\nkind: Pod\nmetadata: {name: 7}"),
        ["1 broken: metadata.name: is missing or no text; which Pod is it?"]
    );
    assert_eq!(read(""), [""; 0]);
    assert_eq!(read("# nothing\n---\n...\n"), [""; 0]);
}

#[test]
fn a_key_given_twice_is_a_mistake() {
    let found = policy("{action: DENY, action: ALLOW}");
    assert!(found.contains(" broken: ") && found.contains("duplicate mapping key: action"), "{found}");
}

#[test]
fn bombs_are_refused_quickly() {
    let start = std::time::Instant::now();
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for i in 1..12 {
        let inner = vec![format!("*a{}", i - 1); 9].join(", ");
        laughs += &format!("a{i}: &a{i} [{inner}]\n");
    }
    let bombs = [
        laughs,
        "[".repeat(1_000_000),
        "{a: ".repeat(200_000),
        "- ".repeat(500_000),
        (0..5000).map(|i| format!("{}a:\n", " ".repeat(i))).collect(),
        format!("a: &x [{}]\nb: [{}]", "1,".repeat(5000), "*x,".repeat(900)),
        "? ".repeat(200_000),
        "&a ".repeat(100_000),
        "!!binary ".repeat(100_000),
    ];
    for bomb in bombs {
        let found = read(&bomb);
        assert!(
            found.len() == 1 && found[0].contains("broken"),
            "{}...: {:?}",
            &bomb[..20],
            found.iter().map(|f| &f[..f.len().min(200)]).collect::<Vec<_>>()
        );
    }
    assert!(start.elapsed().as_secs() < 30, "took {:?}", start.elapsed());
}

#[test]
fn an_observation_holds_nothing_but_what_is_observed() {
    let read = |text: &str| {
        let reading = Reading::of(text.as_bytes(), Role::Observations);
        match (reading.entries.as_slice(), reading.broken.as_slice()) {
            ([entry], []) => entry.object.as_ref().map_or_else(ToString::to_string, |_| "ok".to_owned()),
            ([], [broken]) => broken.reason.clone(),
            other => panic!("{other:?}"),
        }
    };
    let pod = |rest: &str| read(&format!("apiVersion: v1\nkind: Pod\n{rest}"));
    assert_eq!(
        pod(
            "metadata: {namespace: d, name: p, uid: u, annotations: {a: b}}\nspec: {nodeName: n}\nstatus: {podIP: 10.0.0.1}"
        ),
        "ok"
    );
    assert_eq!(pod("metadata: {namespace: d, name: p}"), "ok");
    assert_eq!(
        pod("metadata: {namespace: d, name: p, labels: {a: b}}"),
        "metadata.labels: is not for observations; it belongs into the object itself"
    );
    assert_eq!(
        pod("metadata: {namespace: d, name: p}\nspec: {serviceAccountName: root}"),
        "spec.serviceAccountName: is not for observations; it belongs into the object itself"
    );
    assert_eq!(
        pod("metadata: {namespace: d, name: p}\nstatus: {podIP: x}"),
        "status.podIP: \"x\" is not an IP address"
    );
    assert_eq!(
        pod("metadata: {namespace: d, name: p}\nextra: 1"),
        "extra: is not for observations; it belongs into the object itself"
    );
    assert_eq!(read("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: 10.0.0.1}"), "ok");
    assert_eq!(
        read("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {a: b}}"),
        "spec.selector: is not for observations; it belongs into the object itself"
    );
    assert_eq!(read("apiVersion: v1\nkind: Node\nmetadata: {name: n}"), "kind: nothing is observed of a Node");
    assert_eq!(read("apiVersion: v1\nkind: Secret\nmetadata: {name: n}"), "kind: nothing is observed of a Secret");
}

const WHOLE: &str = "\
apiVersion: v1
kind: Pod
metadata:
  namespace: demo
  name: p
  labels: {app: web, \"quoted: key\": 'it''s'}
spec:
  nodeName: n1
  containers:
  - name: c
    command: [\"sh\", \"-c\", \"echo \\u00e9\"]
    args:
    - |
      a block
      ---
status: {podIPs: [{ip: 10.0.0.1}, {ip: \"fd00::1\"}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {namespace: demo, name: p}
spec:
  action: DENY
  rules:
  - from:
    - source: {notPrincipals: [\"*\"]}
";

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Reading::of(&bytes, Role::Objects);
    }

    #[test]
    fn no_mutilated_file_is_too_strange(cut in 0..WHOLE.len(), at in 0..WHOLE.len(), with in "[-a-z:{}\\[\\]&*!|>'\"%@`# \n\t0-9]{0,6}", role in any::<bool>()) {
        let mut text: String = WHOLE.chars().take(cut).collect();
        let at = text.char_indices().map(|(i, _)| i).nth(at % text.len().max(1)).unwrap_or_default();
        text.insert_str(at, &with);
        let role = if role { Role::Objects } else { Role::Observations };
        let _ = Reading::of(text.as_bytes(), role);
    }

    /// A file cut off anywhere: the first object is as it was, or not there, or a mistake; never another one.
    #[test]
    fn a_file_cut_off_never_makes_another_object_of_one_that_was_whole(cut in WHOLE.find("---\napiVersion: security").unwrap() + 4..WHOLE.len()) {
        let whole = Reading::of(WHOLE.as_bytes(), Role::Objects);
        let half = Reading::of(&WHOLE.as_bytes()[..cut], Role::Objects);
        prop_assert_eq!(&half.entries[0], &whole.entries[0]);
    }
}
