// SPDX-License-Identifier: Apache-2.0
//! The verdict against a second reading of the rules (ztunnel.md §9.1-9.2), written from the text alone and without a
//! thought for speed.

use std::net::SocketAddr;

use mesh_proto::spiffe::Identity;
use proptest::prelude::*;

use super::super::{DenyReason, Inquiry, authz};
use crate::mesh::{
    Action, Change, Clause, Kind, Match, Policy, PolicyScope, Rule, ServiceAccount, Store, StringMatch, Workload,
};

#[derive(Debug)]
struct Connection {
    identity: Option<Identity>,
    source: SocketAddr,
    destination: SocketAddr,
}

fn string(wanted: &StringMatch, text: &str) -> bool {
    match wanted {
        StringMatch::Exact(exact) => text == exact.as_str(),
        StringMatch::Prefix(prefix) => text.starts_with(prefix.as_str()),
        StringMatch::Suffix(suffix) => text.ends_with(suffix.as_str()),
        StringMatch::Presence() => !text.is_empty(),
    }
}

/// For each field: how many values match, how many there are, how many forbidden ones match, how many there are.
fn tally(one: &Match, connection: &Connection) -> Vec<[usize; 4]> {
    fn count<T>(list: &[T], is: impl Fn(&T) -> bool) -> [usize; 2] {
        [list.iter().filter(|value| is(value)).count(), list.len()]
    }
    fn field<T>(any: &[T], none: &[T], is: impl Fn(&T) -> bool) -> [usize; 4] {
        let ([a, b], [c, d]) = (count(any, &is), count(none, &is));
        [a, b, c, d]
    }
    let namespace = connection.identity.as_ref().map(|id| id.namespace().to_owned()).unwrap_or_default();
    let principal = connection.identity.as_ref().map(|id| id.as_uri().replace("spiffe://", ""));
    let account = connection.identity.as_ref().map(|id| (id.namespace().to_owned(), id.service_account().to_owned()));
    let is_account =
        |wanted: &ServiceAccount| account == Some((wanted.namespace.to_string(), wanted.service_account.to_string()));
    vec![
        field(&one.namespaces, &one.not_namespaces, |wanted| string(wanted, &namespace)),
        field(&one.principals, &one.not_principals, |wanted| {
            principal.as_ref().is_some_and(|text| string(wanted, text))
        }),
        field(&one.source_ips, &one.not_source_ips, |net| net.contains(&connection.source.ip())),
        field(&one.destination_ips, &one.not_destination_ips, |net| net.contains(&connection.destination.ip())),
        field(&one.destination_ports, &one.not_destination_ports, |&port| port == connection.destination.port()),
        field(&one.service_accounts, &one.not_service_accounts, is_account),
    ]
}

fn match_matches(one: &Match, connection: &Connection) -> bool {
    let fields = tally(one, connection);
    if fields.iter().all(|[_, values, _, forbidden]| values + forbidden == 0) {
        return false;
    }
    fields.iter().all(|&[hits, values, bad, _]| (values == 0 || hits > 0) && bad == 0)
}

fn policy_matches(policy: &Policy, connection: &Connection) -> bool {
    let mut matched = false;
    for Rule(clauses) in &policy.rules {
        let mut rule = true;
        for Clause(matches) in clauses {
            let mut clause = matches.is_empty();
            for one in matches {
                clause |= match_matches(one, connection);
            }
            rule &= clause;
        }
        matched |= rule;
    }
    matched
}

/// None: admitted.
fn verdict(policies: &[Policy], connection: &Connection) -> Option<&'static str> {
    let enforced: Vec<_> = policies.iter().filter(|policy| !policy.dry_run).collect();
    if enforced.iter().any(|policy| policy.action == Action::Deny && policy_matches(policy, connection)) {
        return Some("denied");
    }
    let mut allows = enforced.iter().filter(|policy| policy.action == Action::Allow).peekable();
    if allows.peek().is_none() || allows.any(|policy| policy_matches(policy, connection)) {
        return None;
    }
    Some("not allowed")
}

fn string_match(texts: &'static [&'static str]) -> impl Strategy<Value = StringMatch> {
    (0..4u8, proptest::sample::select(texts)).prop_map(|(kind, text)| match kind {
        0 => StringMatch::Exact(text.into()),
        1 => StringMatch::Prefix(text[..text.len() / 2].into()),
        2 => StringMatch::Suffix(text[text.len() / 2..].into()),
        _ => StringMatch::Presence(),
    })
}

fn few<S: Strategy>(values: S) -> impl Strategy<Value = Vec<S::Value>>
where
    S::Value: Clone,
{
    prop_oneof![3 => Just(Vec::new()), 1 => proptest::collection::vec(values, 1..3)]
}

const NAMESPACES: &[&str] = &["a", "ab"];
const PRINCIPALS: &[&str] = &["td/ns/a/sa/x", "td/ns/ab/sa/x", "td/ns/a/sa/y"];
const RANGES: &[&str] = &["10.0.0.0/8", "10.0.0.1/32", "10.0.0.2/31", "fd00::/16", "0.0.0.0/0"];

fn range() -> impl Strategy<Value = ipnet::IpNet> {
    proptest::sample::select(RANGES).prop_map(|text| text.parse().unwrap())
}

fn account() -> impl Strategy<Value = ServiceAccount> {
    (proptest::sample::select(NAMESPACES), "[xy]")
        .prop_map(|(namespace, name)| ServiceAccount { namespace: namespace.into(), service_account: name.into() })
}

fn one_match() -> impl Strategy<Value = Match> {
    let strings = (
        few(string_match(NAMESPACES)),
        few(string_match(NAMESPACES)),
        few(string_match(PRINCIPALS)),
        few(string_match(PRINCIPALS)),
    );
    let ranges = (few(range()), few(range()), few(range()), few(range()));
    (strings, ranges, few(80..83u16), few(80..83u16), few(account()), few(account())).prop_map(
        |(
            (namespaces, not_namespaces, principals, not_principals),
            ranges,
            ports,
            not_ports,
            accounts,
            not_accounts,
        )| {
            let (source_ips, not_source_ips, destination_ips, not_destination_ips) = ranges;
            Match {
                namespaces,
                not_namespaces,
                principals,
                not_principals,
                source_ips,
                not_source_ips,
                destination_ips,
                not_destination_ips,
                destination_ports: ports,
                not_destination_ports: not_ports,
                service_accounts: accounts,
                not_service_accounts: not_accounts,
            }
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let clause = proptest::collection::vec(one_match(), 0..3).prop_map(Clause);
    let rule = proptest::collection::vec(clause, 0..3).prop_map(Rule);
    (proptest::collection::vec(rule, 0..3), any::<bool>(), 0..3u8, proptest::bool::weighted(0.2)).prop_map(
        |(rules, deny, scope, dry_run)| Policy {
            name: "to be numbered".into(),
            namespace: "d".into(),
            scope: [PolicyScope::Global, PolicyScope::Namespace, PolicyScope::WorkloadSelector][usize::from(scope)],
            action: if deny { Action::Deny } else { Action::Allow },
            rules,
            dry_run,
        },
    )
}

fn connection() -> impl Strategy<Value = Connection> {
    let ip = proptest::sample::select(&["10.0.0.1", "10.0.0.2", "192.168.0.1", "fd00::1"][..]);
    let identity = proptest::option::weighted(0.7, proptest::sample::select(PRINCIPALS));
    (identity, ip.clone(), ip, 80..83u16).prop_map(|(identity, source, destination, port)| Connection {
        identity: identity.map(|text| format!("spiffe://{text}").parse().unwrap()),
        source: SocketAddr::new(source.parse().unwrap(), 1000),
        destination: SocketAddr::new(destination.parse().unwrap(), port),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_verdict_is_that_of_the_reference(
        policies in proptest::collection::vec(policy(), 0..5),
        connections in proptest::collection::vec(connection(), 1..6),
    ) {
        let policies: Vec<_> = policies
            .into_iter()
            .enumerate()
            .map(|(number, policy)| Policy { name: format!("p{number}").into(), ..policy })
            .collect();
        let listed = policies.iter().filter(|policy| policy.scope == PolicyScope::WorkloadSelector);
        let listed: Vec<_> = listed.map(|policy| policy.key().to_string()).collect();
        let yaml = format!("{{name: s, namespace: d, workloadIps: [], authorizationPolicies: [{}]}}", listed.join(", "));
        let workload: Workload = serde_saphyr::from_str(&yaml).unwrap();
        let workload = workload.complete().unwrap();
        let pod = workload.pod_name();
        let mut store = Store::new("");
        store.apply(policies.iter().cloned().map(Change::from));
        let snapshot = store.apply([workload.into(), Change::Received(Kind::Policies)]).snapshot;
        for connection in &connections {
            let inquiry = Inquiry {
                pod: &pod,
                source: connection.source,
                destination: connection.destination,
                identity: connection.identity.as_ref(),
            };
            let found = match authz(&snapshot, &inquiry).map_err(|denied| denied.reason) {
                Ok(_) => None,
                Err(DenyReason::Explicit { .. }) => Some("denied"),
                Err(DenyReason::NotAllowed { .. }) => Some("not allowed"),
                Err(other) => panic!("{other}"),
            };
            prop_assert_eq!(found, verdict(&policies, connection));
        }
    }
}
