// SPDX-License-Identifier: Apache-2.0
//! Recognises what an Istio agent left in a pod: its nftables tables, or its iptables chains written through nf_tables.
//!
//! Chains written through iptables-legacy cannot be seen over nf_tables, so such a pod looks as if nothing were there (cni-agent.md X-6). Chains of a
//! sidecar are not touched: a pod with a sidecar is never enrolled.

use std::fmt;

use super::expression::{Expression, Verdict};
use super::plan::NAT_TABLE;
use super::ruleset::Ruleset;
use super::transaction::INET;

/// What was found. Writing a plan takes it over: the tables are replaced, the chains deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// Our tables' names, with Istio's base chains in them.
    pub(super) tables: bool,
    pub(super) chains: Vec<ForeignChain>,
    pub(super) jumps: Vec<ForeignJump>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ForeignChain {
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) name: String,
}

/// A rule that leads to such a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ForeignJump {
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) chain: String,
    pub(super) handle: u64,
}

impl Foreign {
    /// Looks for Istio's traces.
    pub(super) fn find(found: &Ruleset) -> Option<Self> {
        let istio_base = ["prerouting", "output"];
        let tables = found
            .chains_of(INET, NAT_TABLE)
            .any(|chain| chain.base.is_some() && istio_base.contains(&chain.name.as_str()));
        // A sidecar has an ISTIO_OUTPUT too; only the ambient set has an ISTIO_PRERT beside it.
        let chains: Vec<ForeignChain> = found
            .chains
            .iter()
            .filter(|chain| IPTABLES_FAMILIES.contains(&chain.family) && IPTABLES_CHAINS.contains(&chain.name.as_str()))
            .filter(|chain| found.chains_of(chain.family, &chain.table).any(|beside| beside.name == IPTABLES_CHAINS[0]))
            .map(|chain| ForeignChain { family: chain.family, table: chain.table.clone(), name: chain.name.clone() })
            .collect();
        let leads_there = |family: u8, table: &str, expressions: &[Expression]| {
            expressions.iter().any(|expression| match expression {
                Expression::Verdict(Verdict::Jump(to) | Verdict::Other { chain: Some(to), .. }) => {
                    chains.iter().any(|chain| chain.family == family && chain.table == table && chain.name == *to)
                }
                _ => false,
            })
        };
        let jumps = found
            .rules
            .iter()
            .filter(|rule| leads_there(rule.family, &rule.table, &rule.expressions))
            .map(|rule| ForeignJump {
                family: rule.family,
                table: rule.table.clone(),
                chain: rule.chain.clone(),
                handle: rule.handle,
            })
            .collect();
        (tables || !chains.is_empty()).then_some(Self { tables, chains, jumps })
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.tables {
            parts.push(format!("table inet {NAT_TABLE} in Istio's form"));
        }
        for chain in &self.chains {
            let family = if chain.family == IPTABLES_FAMILIES[0] { "ip" } else { "ip6" };
            parts.push(format!("iptables chain {family} {} {}", chain.table, chain.name));
        }
        write!(f, "{}", parts.join(", "))
    }
}

const IPTABLES_FAMILIES: [u8; 2] = [libc::NFPROTO_IPV4 as u8, libc::NFPROTO_IPV6 as u8];
const IPTABLES_CHAINS: [&str; 2] = ["ISTIO_PRERT", "ISTIO_OUTPUT"];

#[cfg(test)]
mod tests;
