// SPDX-License-Identifier: Apache-2.0
//! What is to hold for whatever is read from the kernel: the body of the fuzz target `rules`, here because what reads it is nobody else's. Built in tests,
//! where it is a bounded property, and by `cargo fuzz` (tests/fuzz). A plain function: it panics where something does not hold.

use super::attributes::Attributes;
use super::codec::{decode, encode};
use super::compare::judge;
use super::expression::Expression;
use super::foreign::Foreign;
use super::netlink::split;
use super::plan::{Options, Plan};
use super::routes::{self, FoundRoutes};
use super::ruleset::{FoundChain, FoundRule, FoundTable, RULE_HANDLE, Ruleset, generation};
use super::sockets::Socket;
use super::transaction::{release, removal};

/// A datagram of netlink messages. Each is understood or an error; rules that are understood are written as they were read; and whatever stands in a pod
/// can be judged and taken out.
pub fn rules(datagram: &[u8]) {
    let mut answers = Vec::new();
    let _ = split(datagram, &mut answers);
    let plan = Plan::new(&Options::default());
    let mut found = Ruleset::default();
    for answer in &answers {
        let payload = &answer.payload[..];
        match i32::from(answer.kind & 0xff) {
            libc::NFT_MSG_NEWTABLE => found.tables.extend(FoundTable::parse(payload).ok()),
            libc::NFT_MSG_NEWCHAIN => found.chains.extend(FoundChain::parse(payload).ok()),
            libc::NFT_MSG_NEWRULE => {
                // What is recorded from our own transactions lacks the handle, which the kernel gives.
                let handle = Attributes::default().long(RULE_HANDLE, 7);
                let handled = [payload, handle.as_bytes()].concat();
                let rule = FoundRule::parse(payload).or_else(|_| FoundRule::parse(&handled));
                found.rules.extend(rule.ok());
            }
            libc::NFT_MSG_NEWGEN => _ = generation(payload),
            _ => {
                let _ = answer.outcome("try");
                let _ = Socket::parse(payload);
                routes::is_ours(payload, &plan.policy_route);
                routes::is_local_default(payload, &plan.policy_route, 1);
            }
        }
    }
    for rule in &found.rules {
        let again = rewritten(&rule.expressions);
        assert_eq!(again.len(), rule.expressions.len());
        for (one, again) in rule.expressions.iter().zip(&again) {
            // Of one that we never write, flags and padding are not kept when it is written anew.
            assert!(matches!(one, Expression::Other { .. }) || one == again, "{one} became {again}");
        }
        assert_eq!(rewritten(&again), again);
    }
    let _ = judge(&plan, &found, &FoundRoutes::default());
    let foreign = Foreign::find(&found);
    for batch in [release(&found, foreign.as_ref()), removal(&found, foreign.as_ref())] {
        let (bytes, purposes) = batch.finish();
        let mut sent = Vec::new();
        split(&bytes, &mut sent).expect("what was written can be read");
        // The end of a transaction has no purpose.
        assert_eq!(sent.len(), purposes.len() + 1);
    }
}

fn rewritten(expressions: &[Expression]) -> Vec<Expression> {
    decode(encode(expressions).as_bytes()).expect("what was written can be read")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::transaction::replacement;
    use super::*;

    #[test]
    fn the_seeds_of_the_target_hold() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/rules");
        let mut count = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            rules(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "no seeds in {}", folder.display());
    }

    proptest! {
        #[test]
        fn a_datagram_with_any_bytes_changed_is_understood_or_refused(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12)
        ) {
            let (mut datagram, _) = replacement(&Plan::new(&Options::default()), None).finish();
            for (at, byte) in changes {
                let at = at.index(datagram.len());
                datagram[at] = byte;
            }
            rules(&datagram);
        }
    }
}
