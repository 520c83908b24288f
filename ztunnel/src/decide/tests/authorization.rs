// SPDX-License-Identifier: Apache-2.0
//! Verdicts.

use mesh_proto::spiffe::Identity;
use mesh_proto::{security, workload as proto};
use prost::Message;

use super::super::{Admitted, Denied, DenyReason, DryRun, Inquiry, authz};
use crate::mesh::sample::{address_of, changes, changes_of, mesh, pod, recorded};
use crate::mesh::{Change, Kind, PodName, Snapshot, Store};

const SERVER: &str = "workloads: [{uid: s, name: server, namespace: d, serviceAccount: server, workloadIps: [10.0.2.2], protocol: HBONE, authorizationPolicies: [d/listed]}]";
/// A listed policy that has nothing to say.
const SILENT: &str = "- {name: listed, namespace: d, scope: WorkloadSelector, action: Deny}";

/// The verdict on a connection to port 80 of the server, of `td/ns/<namespace>/sa/<account>`, or of nobody.
fn judge(snapshot: &Snapshot, from: Option<(&str, &str)>) -> Result<Admitted, Denied> {
    let identity = from.map(|(namespace, account)| Identity::new("td", namespace, account).unwrap());
    let inquiry = Inquiry {
        pod: &server(),
        source: "10.0.1.1:33333".parse().unwrap(),
        destination: "10.0.2.2:80".parse().unwrap(),
        identity: identity.as_ref(),
    };
    authz(snapshot, &inquiry)
}

fn server() -> PodName {
    PodName { name: "server".into(), namespace: "d".into(), service_account: "server".into() }
}

fn with_policies(policies: &str) -> Snapshot {
    mesh(&format!("{SERVER}\npolicies:\n{SILENT}\n{policies}"))
}

fn reason(snapshot: &Snapshot, from: Option<(&str, &str)>) -> DenyReason {
    judge(snapshot, from).expect_err("admitted").reason
}

const CLIENT: Option<(&str, &str)> = Some(("d", "client"));
const OTHER: Option<(&str, &str)> = Some(("e", "other"));

#[test]
fn without_policies_everybody_is_admitted() {
    let admitted = judge(&with_policies(""), None).unwrap();
    assert_eq!((admitted.destination().to_string().as_str(), admitted.by()), ("10.0.2.2:80", None));
    assert_eq!(admitted.dry_run(), []);
}

#[test]
fn a_deny_that_matches_wins_over_an_allow() {
    let snapshot = with_policies("
- {name: all, namespace: d, scope: Namespace, action: Allow, rules: [[]]}
- {name: not-client, namespace: d, scope: Namespace, action: Deny, rules: [[[{principals: [{Exact: td/ns/d/sa/client}]}]]]}
");
    let denied = judge(&snapshot, CLIENT).unwrap_err();
    assert_eq!(denied.to_string(), "explicitly denied by: d/not-client");
    assert_eq!(denied.policy().unwrap(), "d/not-client");
    assert!(!denied.is_provisional());
    assert_eq!(judge(&snapshot, OTHER).unwrap().by().unwrap(), "d/all");
}

#[test]
fn with_an_allow_what_none_matches_is_denied() {
    let snapshot = with_policies(
        "
- {name: b, namespace: d, scope: Namespace, action: Allow, rules: [[[{namespaces: [{Exact: d}]}]]]}
- {name: a, namespace: root, scope: Global, action: Allow, rules: [[[{destinationPorts: [81]}]]]}
",
    );
    assert!(judge(&snapshot, CLIENT).is_ok());
    let reason = reason(&snapshot, OTHER);
    assert_eq!(reason.to_string(), "allow policies exist, but none allowed (candidates: d/b, root/a)");
    assert!(judge(&snapshot, None).is_err(), "nobody is in no namespace");
}

#[test]
fn a_policy_applies_to_its_namespace_or_everybody_or_who_lists_it() {
    let deny = |namespace: &str, scope: &str| {
        format!("- {{name: p, namespace: {namespace}, scope: {scope}, action: Deny, rules: [[]]}}")
    };
    let denies = |policy: &str| judge(&with_policies(policy), CLIENT).is_err();
    assert!(denies(&deny("d", "Namespace")));
    assert!(!denies(&deny("e", "Namespace")));
    assert!(denies(&deny("e", "Global")));
    assert!(!denies(&deny("d", "WorkloadSelector")), "not listed");
    assert!(denies("- {name: listed, namespace: d, scope: WorkloadSelector, action: Deny, rules: [[]]}"));
}

#[test]
fn what_is_empty_matches_as_it_must() {
    let matches = |rules: &str| {
        let policy = format!("- {{name: p, namespace: d, scope: Namespace, action: Deny, rules: {rules}}}");
        judge(&with_policies(&policy), CLIENT).is_err()
    };
    assert!(!matches("[]"), "no rules: never");
    assert!(matches("[[]]"), "a rule without clauses: always");
    assert!(matches("[[[]]]"), "a clause without matches: always");
    assert!(!matches("[[[{}]]]"), "a match without fields: never");
    assert!(!matches("[[[], [{}]]]"), "all clauses must match");
    assert!(matches("[[[{}, {destinationPorts: [80]}]]]"), "one match of a clause is enough");
    assert!(matches("[[[{}]], []]"), "one rule is enough");
    let allow_nobody = with_policies("- {name: p, namespace: d, scope: Namespace, action: Allow}");
    assert!(judge(&allow_nobody, CLIENT).is_err(), "an ALLOW without rules denies all");
}

#[test]
fn every_field_matches_and_its_negation_does_not() {
    let fields = [
        ("namespaces", "{Exact: d}", "{Exact: x}"),
        ("namespaces", "{Presence: []}", "{Prefix: x}"),
        ("principals", "{Exact: td/ns/d/sa/client}", "{Exact: td/ns/d/sa/server}"),
        ("principals", "{Exact: 'spiffe://td/ns/d/sa/client'}", "{Exact: 'spiffe://td/ns/d/sa/x'}"),
        ("principals", "{Prefix: td/ns/d/}", "{Prefix: td/ns/e/}"),
        ("principals", "{Prefix: 'spiffe://td/'}", "{Prefix: 'spiffe://other/'}"),
        ("principals", "{Suffix: /sa/client}", "{Suffix: /sa/x}"),
        ("principals", "{Presence: []}", "{Exact: ''}"),
        ("serviceAccounts", "{namespace: d, serviceAccount: client}", "{namespace: e, serviceAccount: client}"),
        ("sourceIps", "10.0.0.0/8", "fd00::/8"),
        ("sourceIps", "10.0.1.1/32", "10.0.1.2/32"),
        ("destinationIps", "10.0.2.2/32", "10.0.2.3/32"),
        ("destinationPorts", "80", "81"),
    ];
    let denied = |body: &str| {
        let policy = format!("- {{name: p, namespace: d, scope: Namespace, action: Deny, rules: [[[{{{body}}}]]]}}");
        judge(&with_policies(&policy), CLIENT).is_err()
    };
    for (field, hit, miss) in fields {
        let not = format!("not{}{}", field[..1].to_uppercase(), &field[1..]);
        assert!(denied(&format!("{field}: [{hit}]")), "{field} {hit}");
        assert!(!denied(&format!("{field}: [{miss}]")), "{field} {miss}");
        assert!(denied(&format!("{field}: [{miss}, {hit}]")), "{field}: one value is enough");
        assert!(!denied(&format!("{not}: [{hit}]")), "{not} {hit}");
        assert!(denied(&format!("{not}: [{miss}]")), "{not} {miss}");
        assert!(!denied(&format!("{not}: [{miss}, {hit}]")), "{not}: none may match");
        assert!(!denied(&format!("{field}: [{hit}], {not}: [{hit}]")), "{field} and {not}");
        let other = if field == "destinationPorts" { "sourceIps: [9.9.9.9/32]" } else { "destinationPorts: [81]" };
        assert!(!denied(&format!("{field}: [{hit}], {other}")), "{field}: all fields must match");
    }
}

#[test]
fn who_has_no_identity_matches_no_criterion_of_identity_and_every_negation() {
    let denied = |body: &str| {
        let policy = format!("- {{name: p, namespace: d, scope: Namespace, action: Deny, rules: [[[{{{body}}}]]]}}");
        judge(&with_policies(&policy), None).is_err()
    };
    assert!(!denied("principals: [{Presence: []}]") && denied("notPrincipals: [{Presence: []}]"));
    assert!(!denied("principals: [{Prefix: ''}]"), "not even by an empty prefix");
    assert!(!denied("namespaces: [{Presence: []}]") && denied("notNamespaces: [{Exact: d}]"));
    assert!(denied("notServiceAccounts: [{namespace: d, serviceAccount: client}]"));
    assert!(denied("sourceIps: [10.0.0.0/8]"));
}

#[test]
fn a_v4_client_of_a_dual_stack_socket_is_matched_by_v4_ranges() {
    let snapshot = with_policies(
        "- {name: p, namespace: d, scope: Namespace, action: Deny, rules: [[[{sourceIps: [10.0.1.0/24], destinationIps: [10.0.2.2/32]}]]]}",
    );
    let inquiry = Inquiry {
        pod: &server(),
        source: "[::ffff:10.0.1.1]:1".parse().unwrap(),
        destination: "[::ffff:10.0.2.2]:80".parse().unwrap(),
        identity: None,
    };
    assert!(authz(&snapshot, &inquiry).is_err());
}

#[test]
fn policies_on_trial_are_reported_and_change_nothing() {
    let rules = "rules: [[[{namespaces: [{Exact: d}]}]]]";
    let snapshot = with_policies(&format!(
        "
- {{name: deny, namespace: d, scope: Namespace, action: Deny, dryRun: true, {rules}}}
- {{name: allow, namespace: d, scope: Namespace, action: Allow, dryRun: true, {rules}}}
"
    ));
    let admitted = judge(&snapshot, CLIENT).unwrap();
    let texts: Vec<_> = admitted.dry_run().iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2);
    assert!(texts.contains(&"dry-run: deny policy match: d/deny".to_owned()));
    assert!(texts.contains(&"dry-run: allow policy match: d/allow".to_owned()));
    assert_eq!(judge(&snapshot, OTHER).unwrap().dry_run(), [DryRun::NotAllowed]);

    let enforced = "- {name: enforced, namespace: d, scope: Namespace, action: Allow}";
    let both = with_policies(&format!(
        "{enforced}\n- {{name: allow, namespace: d, scope: Namespace, action: Allow, dryRun: true, {rules}}}"
    ));
    let denied = judge(&both, OTHER).unwrap_err();
    assert_eq!(denied.dry_run, [], "with an enforced ALLOW the trial says nothing about default deny");
    assert_eq!(denied.reason, DenyReason::NotAllowed { candidates: vec!["d/enforced".into()] });
}

#[test]
fn strict_mutual_tls_as_istiod_sends_it() {
    let mut store = Store::new("n2");
    for response in recorded(include_str!("../../../tests/wire/istiod-responses.jsonl")) {
        store.apply(changes_of(&response));
    }
    let snapshot = store.apply([Change::Received(Kind::Addresses), Change::Received(Kind::Policies)]).snapshot;
    let server = snapshot.workload_at("", "10.244.2.5".parse().unwrap()).unwrap().pod_name();
    let judge = |account: Option<&str>, source: &str, port: u16| {
        let identity = account.map(|account| format!("spiffe://cluster.local/ns/{account}").parse().unwrap());
        let inquiry = Inquiry {
            pod: &server,
            source: source.parse().unwrap(),
            destination: format!("10.244.2.5:{port}").parse().unwrap(),
            identity: identity.as_ref(),
        };
        authz(&snapshot, &inquiry).map(|admitted| admitted.by().map(ToString::to_string))
    };
    let pod = "10.244.1.5:3333";
    assert_eq!(judge(Some("demo/sa/client"), pod, 8080), Ok(Some("demo/only-client".into())));
    let text = judge(None, pod, 8080).unwrap_err().to_string();
    assert_eq!(
        text,
        "explicitly denied by: istio-system/istio_converted_static_strict (mutual TLS is required here; is the client in the mesh?)"
    );
    let not_client = judge(Some("demo/sa/other"), pod, 8080).unwrap_err().reason;
    assert_eq!(not_client, DenyReason::NotAllowed { candidates: vec!["demo/only-client".into()] });
    // Port 9999, if also from another namespace and from 10.0.0.0/8.
    let explicit = judge(Some("default/sa/client"), pod, 9999).unwrap_err();
    assert_eq!(explicit.policy().unwrap(), "demo/ports");
    assert!(judge(Some("demo/sa/client"), pod, 9999).is_ok());
    assert!(judge(Some("default/sa/client"), "192.168.0.1:1", 9999).unwrap_err().to_string().contains("none allowed"));
}

#[test]
fn a_listed_policy_that_nobody_sent_denies_until_it_comes() {
    let snapshot = mesh(SERVER);
    let denied = judge(&snapshot, CLIENT).unwrap_err();
    assert_eq!(denied.reason, DenyReason::PolicyMissing { policy: "d/listed".into() });
    assert!(denied.is_provisional(), "policies are sent after workloads");
    assert!(judge(&with_policies(""), CLIENT).is_ok());
}

#[test]
fn a_deny_that_is_certain_comes_before_what_is_not() {
    let snapshot = mesh(&format!(
        "{SERVER}\npolicies: [{{name: all, namespace: d, scope: Namespace, action: Deny, rules: [[]]}}]"
    ));
    assert_eq!(reason(&snapshot, CLIENT), DenyReason::Explicit { policy: "d/all".into() });
}

/// The mesh after a policy was sent that is not understood for a port that is none.
fn with_refused(scope: security::Scope, action: security::Action, dry_run: bool, others: &str) -> Snapshot {
    let mut store = Store::new("");
    store.apply(changes(&format!("{SERVER}\npolicies:\n{SILENT}\n{others}")));
    let odd = security::Match { destination_ports: vec![99999], ..Default::default() };
    let message = security::Authorization {
        name: "listed".into(),
        namespace: "d".into(),
        scope: scope.into(),
        action: action.into(),
        dry_run,
        rules: vec![security::Rule { clauses: vec![security::Clause { matches: vec![odd] }] }],
        ..Default::default()
    };
    let name = if scope == security::Scope::WorkloadSelector { "d/listed" } else { "d/odd" };
    let changes = [
        Change::authorization(name, &message.encode_to_vec()),
        Change::Received(Kind::Policies),
        Change::Received(Kind::Addresses),
    ];
    Snapshot::clone(&store.apply(changes).snapshot)
}

#[test]
fn a_deny_that_was_not_understood_denies_everybody_it_may_be_meant_for() {
    use security::{Action, Scope};
    for scope in [Scope::WorkloadSelector, Scope::Namespace, Scope::Global] {
        let snapshot = with_refused(scope, Action::Deny, false, "");
        let denied = judge(&snapshot, CLIENT).unwrap_err();
        assert!(matches!(denied.reason, DenyReason::NotUnderstood { .. }), "{scope:?}: {denied}");
        assert!(denied.to_string().contains("99999") && !denied.is_provisional(), "{denied}");
    }
    let elsewhere = with_refused(Scope::WorkloadSelector, Action::Deny, false, "");
    assert!(judge(&elsewhere, CLIENT).is_err());
}

#[test]
fn an_allow_that_was_not_understood_admits_nobody_but_leaves_the_others_their_say() {
    use security::{Action, Scope};
    let alone = with_refused(Scope::Namespace, Action::Allow, false, "");
    assert_eq!(reason(&alone, CLIENT), DenyReason::NotAllowed { candidates: vec!["d/odd".into()] });
    let another =
        "- {name: ok, namespace: d, scope: Namespace, action: Allow, rules: [[[{namespaces: [{Exact: d}]}]]]}";
    let both = with_refused(Scope::Namespace, Action::Allow, false, another);
    assert!(judge(&both, CLIENT).is_ok() && judge(&both, OTHER).is_err());
}

#[test]
fn a_trial_that_was_not_understood_has_no_effect() {
    let snapshot = with_refused(security::Scope::Global, security::Action::Deny, true, "");
    assert!(judge(&snapshot, CLIENT).is_ok());
}

#[test]
fn a_refused_policy_of_another_namespace_denies_nobody_here() {
    let mut store = Store::new("");
    store.apply(changes(&format!("{SERVER}\npolicies: [{}]", &SILENT[2..])));
    let message = security::Authorization {
        name: "p".into(),
        namespace: "e".into(),
        scope: security::Scope::Namespace.into(),
        action: 9,
        ..Default::default()
    };
    let changes = [Change::authorization("e/p", &message.encode_to_vec()), Change::Received(Kind::Policies)];
    assert!(judge(&store.apply(changes).snapshot, CLIENT).is_ok());
}

#[test]
fn nobody_is_admitted_before_the_policies_are_known() {
    let mut store = Store::new("");
    let early = store.apply(changes(&format!("{SERVER}\npolicies:\n{SILENT}"))).snapshot;
    let denied = judge(&early, CLIENT).unwrap_err();
    assert_eq!((denied.reason.clone(), denied.is_provisional()), (DenyReason::PoliciesMissing, true));
    let later = store.apply([Change::Received(Kind::Policies)]);
    assert!(later.changed.must_judge_again());
    assert!(judge(&later.snapshot, CLIENT).is_ok());
}

#[test]
fn a_pod_without_a_record_admits_nobody() {
    let mut store = Store::new("");
    store.apply(changes(&format!("{SERVER}\npolicies:\n{SILENT}")));
    store.apply([Change::Received(Kind::Policies)]);
    let odd = proto::Workload { uid: "s".into(), tunnel_protocol: 9, namespace: "d".into(), ..Default::default() };
    let snapshot = store.apply([Change::address("s", &address_of(odd))]).snapshot;
    let denied = judge(&snapshot, CLIENT).unwrap_err();
    assert_eq!(denied.reason, DenyReason::WorkloadMissing(server()));
    assert!(denied.to_string().contains("pod d/server"));
}

#[test]
fn attaching_a_policy_by_the_workload_alone_changes_the_verdict() {
    let deny = "policies: [{name: p, namespace: d, scope: WorkloadSelector, action: Deny, rules: [[]]}]";
    let workload = |listed: &str| {
        format!(
            "workloads: [{{uid: s, name: server, namespace: d, serviceAccount: server, workloadIps: [], authorizationPolicies: [{listed}]}}]"
        )
    };
    let mut store = Store::new("");
    store.apply(changes(&format!("{}\n{deny}", workload(""))));
    let before = store.apply([Change::Received(Kind::Policies)]).snapshot;
    assert_eq!(pod(&before, "server"), server());
    assert!(judge(&before, CLIENT).is_ok());
    let after = store.apply(changes(&workload("d/p")));
    assert!(after.changed.must_judge_again() && !after.changed.policies);
    assert!(judge(&after.snapshot, CLIENT).is_err());
}
