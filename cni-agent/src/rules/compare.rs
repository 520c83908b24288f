// SPDX-License-Identifier: Apache-2.0
//! Judges what was read from a namespace against the plan for it.
//!
//! Order counts, the hook counts, whether the table sleeps counts; what a counter has counted does not. Nothing here reads or writes anything.

use std::fmt;

use super::expression::{Expression, Line, lower};
use super::foreign::Foreign;
use super::plan::{NAT_TABLE, OUR_TABLES, OUTPUT, PREROUTING, Plan};
use super::routes::FoundRoutes;
use super::rule::{Base, Chain, Table};
use super::ruleset::{FoundBase, Ruleset};
use super::transaction::{ACCEPT, INET, hook_number, kind_name};

/// What stands in a pod, as compared with its plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// All of it, and nothing else in our tables.
    InPlace,
    /// Nothing of it.
    Missing,
    /// The redirects are out, and what open connections need is still there: the first half of a release.
    Released,
    /// Some of it is wrong, too much, or not there.
    Differs(Vec<Difference>),
    /// An Istio agent's rules stand in the pod, in the place of ours or beside them.
    Foreign(Foreign),
}

/// One way in which a pod does not have what its plan says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A table is not there.
    NoTable {
        /// Its name.
        table: &'static str,
    },
    /// A table of ours that this plan has no use for.
    UnplannedTable {
        /// Its name.
        table: &'static str,
    },
    /// The table is switched off, or belongs to a process.
    TableFlags {
        /// Its name.
        table: &'static str,
        /// Which flags.
        flags: u32,
    },
    /// A chain is not there.
    NoChain {
        /// The table.
        table: &'static str,
        /// The chain.
        chain: &'static str,
    },
    /// Somebody added a chain.
    UnplannedChain {
        /// The table.
        table: &'static str,
        /// The chain.
        chain: String,
    },
    /// A chain hangs at another place, or has another policy.
    Hook {
        /// The table.
        table: &'static str,
        /// The chain.
        chain: &'static str,
    },
    /// The first rule of a chain that is not as planned.
    Rule {
        /// The table.
        table: &'static str,
        /// The chain.
        chain: &'static str,
        /// Counted from 1.
        position: usize,
        /// What should be there.
        planned: Option<String>,
        /// What is there, in the kernel's expressions.
        found: Option<String>,
    },
    /// The rule that sends marked packets to our routing table is not there.
    NoPolicyRule {
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// The route that keeps them on the loopback interface is not there.
    NoRoute {
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// A policy rule or route of ours that should not be there any more.
    UnplannedRoute {
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
}

/// Judges what was found.
pub(super) fn judge(plan: &Plan, found: &Ruleset, routes: &FoundRoutes) -> Observed {
    if let Some(foreign) = Foreign::find(found) {
        return Observed::Foreign(foreign);
    }
    if OUR_TABLES.iter().all(|name| found.table(INET, name).is_none()) && routes.is_empty() {
        return Observed::Missing;
    }
    let differences = differences(plan, found, routes);
    if differences.is_empty() {
        return Observed::InPlace;
    }
    if self::differences(&released(plan), found, routes).is_empty() {
        return Observed::Released;
    }
    Observed::Differs(differences)
}

/// What the plan becomes by the first half of a release.
fn released(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    let nat = plan.tables.iter_mut().filter(|table| table.name == NAT_TABLE);
    for chain in nat.flat_map(|table| &mut table.chains).filter(|chain| [PREROUTING, OUTPUT].contains(&chain.name)) {
        chain.rules.clear();
    }
    plan
}

fn differences(plan: &Plan, found: &Ruleset, routes: &FoundRoutes) -> Vec<Difference> {
    let mut differences = Vec::new();
    for name in OUR_TABLES {
        let planned = plan.tables.iter().find(|table| table.name == name);
        match (planned, found.table(INET, name)) {
            (None, None) => {}
            (None, Some(_)) => differences.push(Difference::UnplannedTable { table: name }),
            (Some(_), None) => differences.push(Difference::NoTable { table: name }),
            (Some(planned), Some(table)) => {
                if table.flags != 0 {
                    differences.push(Difference::TableFlags { table: name, flags: table.flags });
                }
                compare_table(planned, found, &mut differences);
            }
        }
    }
    routes.compare(&plan.policy_route, &mut differences);
    differences
}

fn compare_table(table: &Table, found: &Ruleset, differences: &mut Vec<Difference>) {
    for chain in &table.chains {
        match found.chains_of(INET, table.name).find(|there| there.name == chain.name) {
            None => differences.push(Difference::NoChain { table: table.name, chain: chain.name }),
            Some(there) => {
                if !same_base(chain.base.as_ref(), there.base.as_ref()) {
                    differences.push(Difference::Hook { table: table.name, chain: chain.name });
                }
                differences.extend(first_different_rule(table.name, chain, found));
            }
        }
    }
    let unplanned =
        found.chains_of(INET, table.name).filter(|there| table.chains.iter().all(|chain| chain.name != there.name));
    differences
        .extend(unplanned.map(|there| Difference::UnplannedChain { table: table.name, chain: there.name.clone() }));
}

fn same_base(planned: Option<&Base>, found: Option<&FoundBase>) -> bool {
    match (planned, found) {
        (None, None) => true,
        (Some(planned), Some(found)) => {
            found.kind == kind_name(planned)
                && found.hook == hook_number(planned)
                && found.priority == planned.priority
                && found.policy == ACCEPT
        }
        _ => false,
    }
}

fn first_different_rule(table: &'static str, chain: &Chain, found: &Ruleset) -> Option<Difference> {
    let mut there = found.rules_of(INET, table, chain.name).map(|rule| rule.expressions.as_slice());
    let mut planned = chain.rules.iter();
    let mut position = 0;
    loop {
        position += 1;
        let (rule, expressions) = (planned.next(), there.next());
        let same = match (rule, expressions) {
            (None, None) => return None,
            (Some(rule), Some(expressions)) => lower(rule) == expressions,
            _ => false,
        };
        if !same {
            let found = expressions.map(|expressions: &[Expression]| Line(expressions).to_string());
            return Some(Difference::Rule {
                table,
                chain: chain.name,
                position,
                planned: rule.map(ToString::to_string),
                found,
            });
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTable { table } => write!(f, "table inet {table} is missing"),
            Self::UnplannedTable { table } => write!(f, "table inet {table} is left over"),
            Self::TableFlags { table, flags } => {
                write!(f, "table inet {table} has flags 0x{flags:x} (1 means switched off)")
            }
            Self::NoChain { table, chain } => write!(f, "chain inet {table} {chain} is missing"),
            Self::UnplannedChain { table, chain } => write!(f, "chain inet {table} {chain} was added by somebody"),
            Self::Hook { table, chain } => {
                write!(f, "chain inet {table} {chain} has another hook, priority, type or policy")
            }
            Self::Rule { table, chain, position, planned, found } => {
                write!(f, "chain inet {table} {chain}, rule {position}: ")?;
                match (planned, found) {
                    (Some(planned), Some(found)) => write!(f, "should be `{planned}` and is {found}"),
                    (Some(planned), None) => write!(f, "`{planned}` is missing"),
                    (None, found) => write!(f, "{} was added by somebody", found.as_deref().unwrap_or("a rule")),
                }
            }
            Self::NoPolicyRule { family } => write!(f, "the {family} policy rule for delivered connections is missing"),
            Self::NoRoute { family } => write!(f, "the {family} route for delivered connections is missing"),
            Self::UnplannedRoute { family } => write!(f, "an {family} policy rule or route is left over"),
        }
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InPlace => write!(f, "all rules are in place"),
            Self::Missing => write!(f, "no rules"),
            Self::Released => write!(f, "redirects are out, the rest waits for open connections"),
            Self::Differs(differences) => {
                for (index, difference) in differences.iter().enumerate() {
                    let separator = if index == 0 { "" } else { "; " };
                    write!(f, "{separator}{difference}")?;
                }
                Ok(())
            }
            Self::Foreign(foreign) => write!(f, "an Istio agent's rules: {foreign}"),
        }
    }
}

#[cfg(test)]
mod tests;
