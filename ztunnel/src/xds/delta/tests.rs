// SPDX-License-Identifier: Apache-2.0
//! The protocol in virtual time.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

fn connected() -> (Delta, Instant, StdRng) {
    let now = Instant::now();
    let mut delta = Delta::new(now, Node { id: "n".into(), ..Default::default() });
    assert_eq!(delta.handle_timeout(now), [Action::Connect { id: 1 }]);
    let requests = sent(delta.handle_connected());
    let types: Vec<_> = requests.iter().map(|request| request.type_url.as_str()).collect();
    assert_eq!(types, [contract::type_url::ADDRESS, contract::type_url::AUTHORIZATION]);
    (delta, now, StdRng::seed_from_u64(3))
}

fn sent(actions: Vec<Action>) -> Vec<DeltaDiscoveryRequest> {
    actions
        .into_iter()
        .filter_map(|action| match action {
            Action::Send(request) => Some(*request),
            Action::Connect { .. } | Action::Apply(..) | Action::Synced => None,
        })
        .collect()
}

fn response(kind: Kind, nonce: &str, resources: &[(&str, &str)], removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.type_url().into(),
        nonce: nonce.into(),
        resources: resources
            .iter()
            .map(|(name, version)| Resource {
                name: (*name).into(),
                version: (*version).into(),
                resource: Some(Any::default()),
                ..Default::default()
            })
            .collect(),
        removed_resources: removed.iter().map(|name| (*name).into()).collect(),
        ..Default::default()
    }
}

/// Give a response and apply it, rejecting some names.
fn push(delta: &mut Delta, response: DeltaDiscoveryResponse, rejected: &[&str]) -> Vec<Action> {
    let mut actions = delta.handle_response(response);
    let Some(Action::Apply(receipt, _)) = actions.pop() else { panic!("nothing to apply") };
    let rejected: Vec<_> =
        rejected.iter().map(|name| Rejected { name: (*name).into(), reason: "bad".into() }).collect();
    delta.handle_applied(receipt, &rejected)
}

fn reconnect(delta: &mut Delta, now: Instant, rng: &mut StdRng) -> Vec<DeltaDiscoveryRequest> {
    delta.handle_ended(now, Ended::Complete, rng);
    let now = delta.next_deadline().unwrap();
    assert_eq!(delta.handle_timeout(now).len(), 1);
    sent(delta.handle_connected())
}

#[test]
fn the_gate_opens_when_both_types_were_applied_once() {
    let (mut delta, ..) = connected();
    let actions = push(&mut delta, response(Kind::Address, "1", &[("a", "v1")], &[]), &[]);
    assert!(!actions.contains(&Action::Synced));
    let actions = push(&mut delta, response(Kind::Authorization, "2", &[], &[]), &[]);
    assert!(actions.contains(&Action::Synced));
    let actions = push(&mut delta, response(Kind::Address, "3", &[], &[]), &[]);
    assert!(!actions.contains(&Action::Synced), "once");
}

#[test]
fn a_nack_names_each_resource_and_does_not_keep_the_gate_closed() {
    let (mut delta, ..) = connected();
    push(&mut delta, response(Kind::Address, "1", &[], &[]), &[]);
    let first = response(Kind::Authorization, "2", &[("x", "1"), ("y", "1"), ("z", "1")], &[]);
    let actions = push(&mut delta, first, &["x", "z"]);
    assert!(actions.contains(&Action::Synced));
    let requests = sent(actions);
    assert_eq!(requests[0].response_nonce, "2");
    assert!(requests[0].node.is_none());
    assert_eq!(requests[0].error_detail.as_ref().unwrap().message, "x: bad; z: bad");
}

#[test]
fn a_reconnect_names_what_is_held_and_what_was_refused_but_not_what_was_removed() {
    let (mut delta, now, mut rng) = connected();
    push(&mut delta, response(Kind::Address, "1", &[("a", "v1"), ("b", "v1"), ("bad", "v1")], &[]), &["bad"]);
    push(&mut delta, response(Kind::Address, "2", &[("a", "v2")], &["b", "never-had"]), &[]);
    let requests = reconnect(&mut delta, now, &mut rng);
    let held = [("a", "v2"), ("bad", "refused")].map(|(name, version)| (name.to_owned(), version.to_owned()));
    assert_eq!(requests[0].initial_resource_versions, HashMap::from(held));
    assert!(requests[0].node.is_some());
    assert!(requests[0].resource_names_subscribe.is_empty(), "legacy wildcard");
    assert!(requests[1].initial_resource_versions.is_empty());
}

#[test]
fn what_was_refused_is_asked_for_again_whatever_came_before_it() {
    let (mut delta, now, mut rng) = connected();
    push(&mut delta, response(Kind::Authorization, "1", &[("p", "v1")], &[]), &[]);
    push(&mut delta, response(Kind::Authorization, "2", &[("p", "v2")], &[]), &["p"]);
    let requests = reconnect(&mut delta, now, &mut rng);
    assert_eq!(requests[1].initial_resource_versions["p"], "refused", "the refusal has replaced v1");
    push(&mut delta, response(Kind::Authorization, "3", &[], &["p"]), &[]);
    let requests = reconnect(&mut delta, now, &mut rng);
    assert!(requests[1].initial_resource_versions.is_empty());
}

#[test]
fn an_unknown_type_is_refused_without_being_applied() {
    let (mut delta, ..) = connected();
    let actions = delta.handle_response(DeltaDiscoveryResponse {
        type_url: "type.googleapis.com/x".into(),
        nonce: "9".into(),
        ..Default::default()
    });
    let requests = sent(actions);
    assert_eq!(requests[0].response_nonce, "9");
    assert!(requests[0].error_detail.is_some());
}

#[test]
fn failures_back_off_with_jitter_and_a_stream_that_worked_resets() {
    let (mut delta, mut now, mut rng) = connected();
    let mut delays = Vec::new();
    for ended in [Ended::Complete, Ended::Error, Ended::ConnectionError, Ended::Reconnect].into_iter().cycle().take(16)
    {
        delays.push(delta.handle_ended(now, ended, &mut rng));
        now = delta.next_deadline().unwrap();
        delta.handle_timeout(now);
        delta.handle_connected();
    }
    assert!(delays[0] <= Duration::from_millis(24));
    assert!(delays[15] >= Duration::from_secs(12), "{delays:?}");
    push(&mut delta, response(Kind::Address, "1", &[], &[]), &[]);
    assert!(delta.handle_ended(now, Ended::Reconnect, &mut rng) <= Duration::from_millis(30));
}

#[test]
fn responses_after_the_end_change_nothing() {
    let (mut delta, now, mut rng) = connected();
    delta.handle_ended(now, Ended::Error, &mut rng);
    assert!(delta.handle_response(response(Kind::Address, "1", &[("a", "1")], &[])).is_empty());
}

/// The recording holds two ztunnels' conversations with one stand-in control plane; nonces say what answers what.
#[test]
fn a_recorded_conversation_is_answered_as_the_recorded_ztunnel_answered() {
    let records: Vec<(String, Vec<u8>)> = include_str!("../../../tests/wire/xds-ztunnel.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|record| (record["who"].as_str().unwrap().to_owned(), bytes(record["hex"].as_str().unwrap())))
        .collect();
    let requests: Vec<_> = records
        .iter()
        .filter(|(who, _)| who == "DeltaDiscoveryRequest")
        .map(|(_, bytes)| DeltaDiscoveryRequest::decode(bytes.as_slice()).unwrap())
        .collect();
    let node = requests[0].node.clone().unwrap();

    let now = Instant::now();
    let mut delta = Delta::new(now, node.clone());
    delta.handle_timeout(now);
    let mut ours = sent(delta.handle_connected());
    let mut nonces = HashSet::new();
    for (_, bytes) in records.iter().filter(|(who, _)| who == "DeltaDiscoveryResponse") {
        let response = DeltaDiscoveryResponse::decode(bytes.as_slice()).unwrap();
        if nonces.insert(response.nonce.clone()) {
            ours.extend(sent(push(&mut delta, response, &[])));
        }
    }
    let theirs: Vec<_> =
        requests.iter().filter(|request| request.node.as_ref().is_none_or(|other| *other == node)).collect();
    assert_eq!(ours.len(), 9);
    for request in &ours {
        assert!(theirs.contains(&request), "no ztunnel sent {request:?}");
    }
    for request in theirs {
        assert!(ours.contains(request), "we did not send {request:?}");
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn a_refusal_of_very_many_resources_can_be_read_by_any_server() {
    let (mut delta, ..) = connected();
    let names: Vec<String> = (0..100_000).map(|number| format!("{number}-{}", "x".repeat(200))).collect();
    let resources: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
    let mut actions = delta.handle_response(response(Kind::Address, "1", &resources, &[]));
    let Some(Action::Apply(receipt, _)) = actions.pop() else { panic!("nothing to apply") };
    let reason = "\u{e9}".repeat(10_000);
    let rejected: Vec<_> = names.iter().map(|name| Rejected { name: name.clone(), reason: reason.clone() }).collect();
    let answer = sent(delta.handle_applied(receipt, &rejected)).remove(0);
    let text = answer.error_detail.unwrap().message;
    assert!(text.len() < 16 << 10, "{}", text.len());
    assert!(text.starts_with(&format!("{}: \u{e9}", names[0])) && text.contains("...; 1-xxx"), "{text}");
    let (_, more) = text.rsplit_once("; and ").unwrap();
    let more: usize = more.strip_suffix(" more").unwrap().parse().unwrap();
    assert_eq!(text.matches("...").count() + more, 100_000);
}

#[test]
fn a_mesh_too_large_to_list_is_asked_for_anew_and_what_is_gone_is_removed() {
    let (mut delta, now, mut rng) = connected();
    let names: Vec<String> = (0..50_000).map(|number| format!("cluster//Pod/shop/{number:060}")).collect();
    let resources: Vec<_> = names.iter().map(|name| (name.as_str(), "0123456789abcdef")).collect();
    push(&mut delta, response(Kind::Address, "1", &resources, &[]), &[]);
    push(&mut delta, response(Kind::Authorization, "2", &[("p", "v")], &[]), &[]);
    let requests = reconnect(&mut delta, now, &mut rng);
    assert!(requests.iter().all(|request| request.encoded_len() < 4 << 20));
    assert!(requests[0].initial_resource_versions.is_empty());
    assert_eq!(requests[1].initial_resource_versions.len(), 1, "the other type is not concerned");

    let actions = delta.handle_response(response(Kind::Address, "3", &resources[1..], &[]));
    let [Action::Apply(receipt, update)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(update.removed, [names[0].clone()]);
    delta.handle_applied(receipt.clone(), &[]);
    // From then on a response names what has changed, and nothing else.
    let actions = delta.handle_response(response(Kind::Address, "4", &resources[1..2], &[]));
    assert!(matches!(&actions[..], [Action::Apply(_, update)] if update.removed.is_empty()));
    let actions = delta.handle_response(response(Kind::Authorization, "5", &[], &[]));
    assert!(matches!(&actions[..], [Action::Apply(_, update)] if update.removed.is_empty()));
}

#[test]
fn a_resource_that_is_sent_and_removed_in_one_push_is_gone() {
    let (mut delta, now, mut rng) = connected();
    push(&mut delta, response(Kind::Address, "1", &[("a", "1"), ("a", "2"), ("b", "1")], &["b", "never"]), &[]);
    let requests = reconnect(&mut delta, now, &mut rng);
    assert_eq!(requests[0].initial_resource_versions, HashMap::from([("a".to_owned(), "2".to_owned())]));
}
