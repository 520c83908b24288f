// SPDX-License-Identifier: Apache-2.0
//! What is to hold for whatever a node proxy says: the body of the fuzz target `agent`, here because the session is nobody else's. Built in tests, where
//! it is a bounded property, and by `cargo fuzz` (tests/fuzz). A plain function: it panics where something does not hold.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use mesh_proto::zds::MAX_PACKET;
use prost::Message as _;

use super::session::{Action, Order, PodInfo, Session};

/// Packets of a proxy, orders, and time that passes. One message is under way at a time and fits into a packet, every order is answered at most once and
/// in turn, and a proxy that broke the rules is told nothing more.
pub fn agent(input: &[u8]) {
    let mut now = Instant::now();
    let mut world = World::default();
    let mut session = Session::<u8>::new(now);
    let mut rest = input;
    while let [kind, argument, after @ ..] = rest {
        rest = after;
        let was_closed = world.closed;
        let actions = match kind % 8 {
            0..4 => {
                let (packet, later) = after.split_at(after.len().min(usize::from(*argument)));
                rest = later;
                session.handle_packet(now, packet)
            }
            4 | 5 => {
                let order = world.order(kind >> 3, *argument);
                session.push(now, order)
            }
            6 => {
                now += Duration::from_millis(u64::from(*argument) * 40);
                session.handle_timeout(now)
            }
            _ => {
                now = now.max(session.next_deadline().unwrap_or(now));
                session.handle_timeout(now)
            }
        };
        assert!(!was_closed || actions.is_empty(), "after the end: {actions:?}");
        world.obey(actions);
        assert!(world.closed || session.next_deadline().is_some() == (world.under_way || !session.is_greeted()));
    }
}

/// What the shell knows.
#[derive(Default)]
struct World {
    tokens: u64,
    /// Orders without an answer, in turn.
    open: VecDeque<u64>,
    answered: BTreeSet<u64>,
    under_way: bool,
    closed: bool,
}

impl World {
    fn order(&mut self, kind: u8, argument: u8) -> Order<u8> {
        // Now and then one that fits into no packet.
        let uid = "u".repeat(if argument > 250 { 2000 } else { usize::from(argument) });
        if kind % 4 == 3 {
            return Order::SnapshotSent;
        }
        self.tokens += 1;
        let token = self.tokens;
        self.open.push_back(token);
        match kind % 4 {
            0 => {
                let info = PodInfo { name: uid.clone(), namespace: "n".to_owned(), service_account: "s".to_owned() };
                Order::Add { uid, info, netns: 7, token }
            }
            1 => Order::Keep { uid, token },
            _ => Order::Delete { uid, token },
        }
    }

    fn obey(&mut self, actions: Vec<Action<u8>>) {
        for action in actions {
            assert!(!self.closed, "after the end");
            match action {
                Action::Send { message, netns } => {
                    assert!(!std::mem::replace(&mut self.under_way, true), "two messages at a time");
                    assert!((1..=MAX_PACKET).contains(&message.encoded_len()));
                    let adds = matches!(message.payload, Some(mesh_proto::zds::workload_request::Payload::Add(_)));
                    assert_eq!(netns.is_some(), adds);
                }
                Action::Answered { token, result } => {
                    assert!(self.answered.insert(token), "answered twice");
                    assert_eq!(self.open.pop_front(), Some(token), "answered out of turn");
                    // What could not be sent is answered without having been under way.
                    assert!(self.under_way || result.is_err());
                    self.under_way = false;
                }
                Action::Listed => assert!(std::mem::take(&mut self.under_way)),
                Action::Close { .. } => self.closed = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_proto::zds::{Version, WorkloadResponse, ZdsHello};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_seeds_of_the_target_hold() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/agent");
        let mut count = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            agent(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "no seeds in {}", folder.display());
    }

    fn packet(bytes: Vec<u8>) -> Vec<u8> {
        [vec![0, bytes.len() as u8], bytes].concat()
    }

    proptest! {
        #[test]
        fn whatever_a_proxy_says_orders_are_answered_once_and_in_turn(
            records in prop::collection::vec(
                prop_oneof![
                    6 => Just(packet(WorkloadResponse::done().encode_to_vec())),
                    2 => Just(packet(WorkloadResponse::failed("no").encode_to_vec())),
                    6 => (0..4u8, any::<u8>()).prop_map(|(kind, argument)| vec![kind << 3 | 4, argument]),
                    2 => (6..8u8, any::<u8>()).prop_map(|(kind, argument)| vec![kind, argument]),
                    1 => prop::collection::vec(any::<u8>(), 0..8),
                ],
                0..40,
            )
        ) {
            let hello = packet(ZdsHello { version: Version::V1.into() }.encode_to_vec());
            agent(&[hello, records.concat()].concat());
        }
    }
}
