// SPDX-License-Identifier: Apache-2.0
//! The three transactions: put the plan in place, take the redirects out, take everything out. Data in, one [`Batch`] out.
//!
//! Replacing is deleting and adding within one transaction. So nothing is ever half there, whatever stood in our tables before is gone whoever wrote it,
//! and NAT stays hooked in throughout, without which every redirected connection would break (cni-agent.md X-2).

use super::attributes::Attributes;
use super::batch::{Batch, Command};
use super::codec::encode;
use super::expression::lower;
use super::foreign::Foreign;
use super::plan::{NAT_TABLE, OUR_TABLES, OUTPUT, PREROUTING, Plan};
use super::rule::{Base, Chain, ChainKind, Hook, Table};
use super::ruleset::{
    CHAIN_HOOK, CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, CHAIN_TYPE, HOOK_NUMBER, HOOK_PRIORITY, RULE_CHAIN,
    RULE_EXPRESSIONS, RULE_HANDLE, RULE_TABLE, Ruleset, TABLE_FLAGS, TABLE_NAME,
};

/// Puts the plan in the place of whatever stands in our tables, and takes out what an Istio agent left elsewhere.
pub(super) fn replacement(plan: &Plan, foreign: Option<&Foreign>) -> Batch {
    let mut batch = Batch::new();
    for name in OUR_TABLES {
        drop_table(&mut batch, name);
        if let Some(table) = plan.tables.iter().find(|table| table.name == name) {
            add_table(&mut batch, table);
        }
    }
    if let Some(foreign) = foreign {
        drop_foreign(&mut batch, foreign);
    }
    batch
}

/// Takes out the redirects, and leaves what open connections live on.
pub(super) fn release(found: &Ruleset, foreign: Option<&Foreign>) -> Batch {
    let mut batch = Batch::new();
    // Istio's agent has the same names.
    for chain in found.chains_of(INET, NAT_TABLE).filter(|chain| [PREROUTING, OUTPUT].contains(&chain.name.as_str())) {
        flush(&mut batch, INET, NAT_TABLE, &chain.name);
    }
    for chain in foreign.iter().flat_map(|foreign| &foreign.chains).filter(|chain| chain.table == "nat") {
        flush(&mut batch, chain.family, &chain.table, &chain.name);
    }
    batch
}

/// Takes out everything that is there. A transaction costs the kernel milliseconds, so there is none when nothing is.
pub(super) fn removal(found: &Ruleset, foreign: Option<&Foreign>) -> Batch {
    let mut batch = Batch::new();
    for name in OUR_TABLES.into_iter().filter(|name| found.table(INET, name).is_some()) {
        drop_table(&mut batch, name);
    }
    if let Some(foreign) = foreign {
        drop_foreign(&mut batch, foreign);
    }
    batch
}

/// Adding first makes deleting succeed whether or not the table was there.
fn drop_table(batch: &mut Batch, name: &str) {
    batch.push(
        NEW_TABLE,
        INET,
        &Attributes::default().text(TABLE_NAME, name),
        format!("make sure of table inet {name}"),
    );
    batch.push(DELETE_TABLE, INET, &Attributes::default().text(TABLE_NAME, name), format!("delete table inet {name}"));
}

fn add_table(batch: &mut Batch, table: &Table) {
    let attributes = Attributes::default().text(TABLE_NAME, table.name).number(TABLE_FLAGS, 0);
    batch.push(NEW_TABLE, INET, &attributes, format!("add table inet {}", table.name));
    // Chains that are jumped to must exist before the jump.
    for chain in &table.chains {
        let attributes = chain_attributes(table.name, chain);
        batch.push(NEW_CHAIN, INET, &attributes, format!("add chain inet {} {}", table.name, chain.name));
    }
    for chain in &table.chains {
        for rule in &chain.rules {
            let attributes = Attributes::default()
                .text(RULE_TABLE, table.name)
                .text(RULE_CHAIN, chain.name)
                .nested(RULE_EXPRESSIONS, &encode(&lower(rule)));
            batch.push(NEW_RULE, INET, &attributes, format!("add rule inet {} {} {rule}", table.name, chain.name));
        }
    }
}

fn chain_attributes(table: &str, chain: &Chain) -> Attributes {
    let named = Attributes::default().text(CHAIN_TABLE, table).text(CHAIN_NAME, chain.name);
    let Some(base) = &chain.base else { return named };
    let hook = Attributes::default()
        .number(HOOK_NUMBER, hook_number(base))
        .number(HOOK_PRIORITY, base.priority.cast_unsigned());
    named.nested(CHAIN_HOOK, &hook).number(CHAIN_POLICY, ACCEPT).text(CHAIN_TYPE, kind_name(base))
}

/// The kernel's number of the hook.
pub(super) fn hook_number(base: &Base) -> u32 {
    match base.hook {
        Hook::Prerouting => libc::NF_INET_PRE_ROUTING as u32,
        Hook::Output => libc::NF_INET_LOCAL_OUT as u32,
    }
}

/// The kernel's name of the kind of chain.
pub(super) fn kind_name(base: &Base) -> &'static str {
    match base.kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
        ChainKind::Route => "route",
    }
}

/// Jumps first, then what the chains hold, then the chains: none may be deleted while another refers to it.
fn drop_foreign(batch: &mut Batch, foreign: &Foreign) {
    for jump in &foreign.jumps {
        let attributes = Attributes::default()
            .text(RULE_TABLE, &jump.table)
            .text(RULE_CHAIN, &jump.chain)
            .long(RULE_HANDLE, jump.handle);
        batch.push(DELETE_RULE, jump.family, &attributes, format!("delete a jump from {} {}", jump.table, jump.chain));
    }
    for chain in &foreign.chains {
        flush(batch, chain.family, &chain.table, &chain.name);
    }
    for chain in &foreign.chains {
        let attributes = Attributes::default().text(CHAIN_TABLE, &chain.table).text(CHAIN_NAME, &chain.name);
        batch.push(DELETE_CHAIN, chain.family, &attributes, format!("delete chain {} {}", chain.table, chain.name));
    }
}

/// Deleting rules without naming one empties the chain.
fn flush(batch: &mut Batch, family: u8, table: &str, chain: &str) {
    let attributes = Attributes::default().text(RULE_TABLE, table).text(RULE_CHAIN, chain);
    batch.push(DELETE_RULE, family, &attributes, format!("empty chain {table} {chain}"));
}

/// Our tables' address family: both IPv4 and IPv6.
pub(super) const INET: u8 = libc::NFPROTO_INET as u8;
pub(super) const ACCEPT: u32 = libc::NF_ACCEPT as u32;
const CREATE: u16 = libc::NLM_F_CREATE as u16;
const APPEND: u16 = libc::NLM_F_APPEND as u16;
const NEW_TABLE: Command = Command { message: libc::NFT_MSG_NEWTABLE as u16, flags: CREATE };
const DELETE_TABLE: Command = Command { message: libc::NFT_MSG_DELTABLE as u16, flags: 0 };
const NEW_CHAIN: Command = Command { message: libc::NFT_MSG_NEWCHAIN as u16, flags: CREATE };
const DELETE_CHAIN: Command = Command { message: libc::NFT_MSG_DELCHAIN as u16, flags: 0 };
const NEW_RULE: Command = Command { message: libc::NFT_MSG_NEWRULE as u16, flags: CREATE | APPEND };
const DELETE_RULE: Command = Command { message: libc::NFT_MSG_DELRULE as u16, flags: 0 };

#[cfg(test)]
mod tests {
    use super::super::foreign::{ForeignChain, ForeignJump};
    use super::super::plan::DELIVERY_TABLE;
    use super::super::ruleset::{FoundChain, FoundTable};
    use super::*;

    const IPV4: u8 = libc::NFPROTO_IPV4 as u8;

    fn chain(table: &str, name: &str) -> FoundChain {
        FoundChain { family: INET, table: table.to_owned(), name: name.to_owned(), base: None }
    }

    fn istio_s() -> Foreign {
        let chain =
            |table: &str| ForeignChain { family: IPV4, table: table.to_owned(), name: "ISTIO_OUTPUT".to_owned() };
        let (table, from) = ("nat".to_owned(), "OUTPUT".to_owned());
        Foreign {
            tables: false,
            chains: vec![chain("nat"), chain("mangle")],
            jumps: vec![ForeignJump { family: IPV4, table, chain: from, handle: 9 }],
        }
    }

    /// What a transaction does, without its begin.
    fn purposes(batch: Batch) -> Vec<String> {
        batch.finish().1.split_off(1)
    }

    #[test]
    fn a_release_empties_the_redirects_ours_and_istio_s_and_nothing_else() {
        let chains = vec![
            chain(NAT_TABLE, "first-output"),
            chain(NAT_TABLE, OUTPUT),
            chain(NAT_TABLE, PREROUTING),
            chain("istio-ambient-mangle", OUTPUT),
            chain("theirs", OUTPUT),
        ];
        let found = Ruleset { chains, ..Ruleset::default() };
        let emptied = ["istio-ambient-nat istio-output", "istio-ambient-nat istio-prerouting", "nat ISTIO_OUTPUT"];
        assert_eq!(purposes(release(&found, Some(&istio_s()))), emptied.map(|chain| format!("empty chain {chain}")));
        assert!(release(&Ruleset::default(), None).is_empty());
    }

    #[test]
    fn a_removal_takes_what_is_there_and_asks_nothing_of_a_clean_pod() {
        let table = |name: &str| FoundTable { family: INET, name: name.to_owned(), flags: 0 };
        let tables = vec![table("theirs"), table(DELIVERY_TABLE), FoundTable { family: IPV4, ..table(NAT_TABLE) }];
        let found = Ruleset { tables, ..Ruleset::default() };
        assert_eq!(
            purposes(removal(&found, Some(&istio_s()))),
            [
                "make sure of table inet lateen-delivery",
                "delete table inet lateen-delivery",
                "delete a jump from nat OUTPUT",
                "empty chain nat ISTIO_OUTPUT",
                "empty chain mangle ISTIO_OUTPUT",
                "delete chain nat ISTIO_OUTPUT",
                "delete chain mangle ISTIO_OUTPUT",
            ]
        );
        assert!(!removal(&found, None).is_empty());
        assert!(removal(&Ruleset::default(), None).is_empty());
    }
}
