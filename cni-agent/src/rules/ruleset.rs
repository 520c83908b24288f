// SPDX-License-Identifier: Apache-2.0
//! What stands in a namespace's nf_tables, as values: the kernel's messages parsed.
//!
//! `nft` reads them, `compare` and `foreign` judge them. Numbers stay the kernel's; whatever family, table or kind of chain it may be, it is kept.

use super::codec::{Fields, decode};
use super::error::RulesError;
use super::expression::Expression;

/// Everything in one namespace, as of one generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ruleset {
    pub(super) tables: Vec<FoundTable>,
    pub(super) chains: Vec<FoundChain>,
    /// In the order in which the kernel goes through them, chain by chain.
    pub(super) rules: Vec<FoundRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundTable {
    pub(super) family: u8,
    pub(super) name: String,
    /// Dormant, owned by a process, ...
    pub(super) flags: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundChain {
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) name: String,
    pub(super) base: Option<FoundBase>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundBase {
    pub(super) kind: String,
    pub(super) hook: u32,
    pub(super) priority: i32,
    pub(super) policy: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundRule {
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) chain: String,
    pub(super) handle: u64,
    pub(super) expressions: Vec<Expression>,
}

impl Ruleset {
    pub(super) fn table(&self, family: u8, name: &str) -> Option<&FoundTable> {
        self.tables.iter().find(|table| table.family == family && table.name == name)
    }

    pub(super) fn chains_of<'a>(&'a self, family: u8, table: &'a str) -> impl Iterator<Item = &'a FoundChain> {
        self.chains.iter().filter(move |chain| chain.family == family && chain.table == table)
    }

    pub(super) fn rules_of<'a>(
        &'a self,
        family: u8,
        table: &'a str,
        chain: &'a str,
    ) -> impl Iterator<Item = &'a FoundRule> {
        self.rules.iter().filter(move |rule| rule.family == family && rule.table == table && rule.chain == chain)
    }
}

impl FoundTable {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, RulesError> {
        let (family, fields) = open(payload)?;
        Ok(Self {
            family,
            name: required(&fields, TABLE_NAME)?,
            flags: fields.number(TABLE_FLAGS)?.unwrap_or_default(),
        })
    }
}

impl FoundChain {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, RulesError> {
        let (family, fields) = open(payload)?;
        let base = match fields.bytes(CHAIN_HOOK) {
            Some(hook) => {
                let hook = Fields::read(hook)?;
                Some(FoundBase {
                    kind: required(&fields, CHAIN_TYPE)?,
                    hook: hook.number(HOOK_NUMBER)?.ok_or(INCOMPLETE)?,
                    priority: hook.number(HOOK_PRIORITY)?.ok_or(INCOMPLETE)?.cast_signed(),
                    policy: fields.number(CHAIN_POLICY)?.unwrap_or(ACCEPT),
                })
            }
            None => None,
        };
        Ok(Self { family, table: required(&fields, CHAIN_TABLE)?, name: required(&fields, CHAIN_NAME)?, base })
    }
}

impl FoundRule {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, RulesError> {
        let (family, fields) = open(payload)?;
        let handle = super::attributes::long(fields.bytes(RULE_HANDLE).ok_or(INCOMPLETE)?)?;
        let expressions = decode(fields.bytes(RULE_EXPRESSIONS).unwrap_or_default())?;
        Ok(Self {
            family,
            table: required(&fields, RULE_TABLE)?,
            chain: required(&fields, RULE_CHAIN)?,
            handle,
            expressions,
        })
    }
}

/// The generation of the rules: it changes with every transaction.
pub(super) fn generation(payload: &[u8]) -> Result<u32, RulesError> {
    let (_, fields) = open(payload)?;
    fields.number(GENERATION_ID)?.ok_or(INCOMPLETE)
}

/// The address family from the header, and the attributes behind it.
fn open(payload: &[u8]) -> Result<(u8, Fields<'_>), RulesError> {
    let Some((header, list)) = payload.split_first_chunk::<4>() else { return Err(INCOMPLETE) };
    Ok((header[0], Fields::read(list)?))
}

fn required(fields: &Fields<'_>, kind: u16) -> Result<String, RulesError> {
    fields.text(kind).ok_or(INCOMPLETE)
}

const INCOMPLETE: RulesError = RulesError::Malformed { what: "an nf_tables message that lacks something" };
const ACCEPT: u32 = libc::NF_ACCEPT as u32;

// Numbers of the kernel's include/uapi/linux/netfilter/nf_tables.h, without the prefix NFTA.
pub(super) const TABLE_NAME: u16 = 1;
pub(super) const TABLE_FLAGS: u16 = 2;
pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
pub(super) const CHAIN_TYPE: u16 = 7;
pub(super) const HOOK_NUMBER: u16 = 1;
pub(super) const HOOK_PRIORITY: u16 = 2;
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_HANDLE: u16 = 3;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
const GENERATION_ID: u16 = 1;

#[cfg(test)]
mod tests {
    use super::super::attributes::Attributes;
    use super::*;

    #[test]
    fn the_generation_is_the_number_the_kernel_gives() {
        let told = |kind| {
            let told = Attributes::default().number(kind, 70_000);
            generation(&[&[0; 4], told.as_bytes()].concat())
        };
        assert_eq!(told(GENERATION_ID).unwrap(), 70_000);
        assert!(told(GENERATION_ID + 1).is_err());
    }
}
