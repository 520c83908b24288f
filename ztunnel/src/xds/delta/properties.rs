// SPDX-License-Identifier: Apache-2.0
//! What holds after any sequence of responses and losses.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    /// A response: for policies or not, resources with version and whether they are understood, removals.
    Response(bool, Vec<(u8, u8, bool)>, Vec<u8>),
    Ended(Ended),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let resources = prop::collection::vec((0..6_u8, any::<u8>(), prop::bool::weighted(0.8)), 0..5);
    let ended = prop::sample::select(vec![Ended::ConnectionError, Ended::Error, Ended::Reconnect, Ended::Complete]);
    let event = prop_oneof![
        4 => (any::<bool>(), resources, prop::collection::vec(0..6_u8, 0..3))
            .prop_map(|(policies, resources, removed)| Event::Response(policies, resources, removed)),
        1 => ended.prop_map(Event::Ended),
    ];
    prop::collection::vec(event, 0..60)
}

proptest! {
    /// After a reconnect a server knows exactly what we hold, and what it has to send again.
    #[test]
    fn every_response_is_answered_once_and_the_versions_are_those_in_force(events in events()) {
        let mut now = Instant::now();
        let mut rng = StdRng::seed_from_u64(1);
        let mut delta = Delta::new(now, Node::default());
        delta.handle_timeout(now);
        delta.handle_connected();
        let mut held: [BTreeMap<String, String>; 2] = Default::default();
        for (nonce, event) in events.into_iter().enumerate() {
            match event {
                Event::Response(policies, resources, removed) => {
                    let kind = Kind::ALL[usize::from(policies)];
                    let response = DeltaDiscoveryResponse {
                        type_url: kind.type_url().into(),
                        nonce: nonce.to_string(),
                        resources: resources
                            .iter()
                            .map(|(name, version, _)| Resource {
                                name: name.to_string(),
                                version: version.to_string(),
                                ..Default::default()
                            })
                            .collect(),
                        removed_resources: removed.iter().map(ToString::to_string).collect(),
                        ..Default::default()
                    };
                    let mut actions = delta.handle_response(response);
                    let Some(Action::Apply(receipt, update)) = actions.pop() else { panic!("nothing to apply") };
                    prop_assert!(actions.is_empty());
                    prop_assert_eq!(update.resources.len(), resources.len());
                    let bad: HashSet<_> = resources.iter().filter(|(_, _, good)| !good).map(|(name, ..)| name).collect();
                    let rejected: Vec<_> = bad.iter().map(|name| Rejected { name: name.to_string(), reason: "x".into() }).collect();
                    let actions = delta.handle_applied(receipt, &rejected);
                    let Some(Action::Send(answer)) = actions.first() else { panic!("no answer") };
                    prop_assert_eq!(&answer.response_nonce, &nonce.to_string());
                    prop_assert_eq!(answer.error_detail.is_some(), !rejected.is_empty());
                    for (name, version, _) in &resources {
                        let version = if bad.contains(name) { REFUSED.to_owned() } else { version.to_string() };
                        held[usize::from(policies)].insert(name.to_string(), version);
                    }
                    for name in removed {
                        held[usize::from(policies)].remove(&name.to_string());
                    }
                }
                Event::Ended(ended) => {
                    delta.handle_ended(now, ended, &mut rng);
                    now = delta.next_deadline().unwrap();
                    prop_assert_eq!(delta.handle_timeout(now).len(), 1);
                    prop_assert_eq!(delta.next_deadline(), None);
                    for (action, held) in delta.handle_connected().iter().zip(&held) {
                        let Action::Send(request) = action else { panic!("no request") };
                        let said: BTreeMap<_, _> = request.initial_resource_versions.clone().into_iter().collect();
                        prop_assert_eq!(&said, held);
                    }
                }
            }
        }
    }
}
