// SPDX-License-Identifier: Apache-2.0
//! nf_tables of the calling thread's network namespace: read all of it, or send one transaction.
//!
//! `pod` calls this on a thread that has entered the pod.

use super::batch::{Batch, SUBSYSTEM};
use super::error::RulesError;
use super::netlink::{Answer, Netlink, READINGS};
use super::ruleset::{FoundChain, FoundRule, FoundTable, Ruleset, generation};

/// Reads everything that stands here, as of one moment.
pub(super) fn read() -> Result<Ruleset, RulesError> {
    let netlink = Netlink::open(libc::NETLINK_NETFILTER)?;
    for _ in 0..READINGS {
        let before = current(&netlink)?;
        let tables = dump(&netlink, libc::NFT_MSG_GETTABLE, FoundTable::parse)?;
        let chains = dump(&netlink, libc::NFT_MSG_GETCHAIN, FoundChain::parse)?;
        let rules = dump(&netlink, libc::NFT_MSG_GETRULE, FoundRule::parse)?;
        if let (Some(tables), Some(chains), Some(rules)) = (tables, chains, rules)
            && current(&netlink)? == before
        {
            return Ok(Ruleset { tables, chains, rules });
        }
    }
    Err(RulesError::Unsettled)
}

/// Sends a transaction, unless there is nothing in it.
pub(super) fn write(batch: Batch) -> Result<(), RulesError> {
    if batch.is_empty() {
        return Ok(());
    }
    Netlink::open(libc::NETLINK_NETFILTER)?.transact(batch)
}

fn current(netlink: &Netlink) -> Result<u32, RulesError> {
    let answer = netlink.ask(number(libc::NFT_MSG_GETGEN), &ANY_FAMILY, "tell the rules' generation")?;
    generation(&answer.payload)
}

fn dump<T>(
    netlink: &Netlink,
    kind: i32,
    parse: fn(&[u8]) -> Result<T, RulesError>,
) -> Result<Option<Vec<T>>, RulesError> {
    let Some(answers) = netlink.dump(number(kind), &ANY_FAMILY, "list the rules")? else { return Ok(None) };
    answers.iter().map(|answer: &Answer| parse(&answer.payload)).collect::<Result<_, _>>().map(Some)
}

/// A message number within the subsystem.
fn number(kind: i32) -> u16 {
    SUBSYSTEM << 8 | kind as u16
}

/// The header of an nf_tables message that concerns every address family.
const ANY_FAMILY: [u8; 4] = [libc::NFPROTO_UNSPEC as u8, 0, 0, 0];
