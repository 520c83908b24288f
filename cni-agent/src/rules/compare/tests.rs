// SPDX-License-Identifier: Apache-2.0
//! Every single departure from a plan is seen. The kernel tests show that what the kernel gives back is no departure.

use super::super::plan::Options;
use super::super::ruleset::{FoundChain, FoundRule, FoundTable};
use super::*;

fn plan() -> Plan {
    Plan::new(&Options { dns_capture: true, virtual_interfaces: vec!["tap0".to_owned()], ..Options::default() })
}

/// A namespace in which the plan stands.
fn standing(plan: &Plan) -> Ruleset {
    let mut found = Ruleset::default();
    for table in &plan.tables {
        found.tables.push(FoundTable { family: INET, name: table.name.to_owned(), flags: 0 });
        for chain in &table.chains {
            let base = chain.base.as_ref().map(|base| FoundBase {
                kind: kind_name(base).to_owned(),
                hook: hook_number(base),
                priority: base.priority,
                policy: ACCEPT,
            });
            found.chains.push(FoundChain {
                family: INET,
                table: table.name.to_owned(),
                name: chain.name.to_owned(),
                base,
            });
            for rule in &chain.rules {
                let (table, chain) = (table.name.to_owned(), chain.name.to_owned());
                found.rules.push(FoundRule { family: INET, table, chain, handle: 0, expressions: lower(rule) });
            }
        }
    }
    found
}

fn differs(found: &Ruleset, what: &str) {
    let observed = judge(&plan(), found, &FoundRoutes::complete());
    assert!(matches!(observed, Observed::Differs(_)), "{what}: {observed}");
}

#[test]
fn a_standing_plan_is_in_place_whatever_stands_beside_it() {
    let mut found = standing(&plan());
    assert_eq!(judge(&plan(), &found, &FoundRoutes::complete()), Observed::InPlace);
    found.tables.push(FoundTable { family: INET, name: "theirs".to_owned(), flags: 1 });
    found.chains.push(FoundChain { family: INET, table: "theirs".to_owned(), name: "x".to_owned(), base: None });
    found.tables.push(FoundTable { family: 2, name: OUR_TABLES[0].to_owned(), flags: 1 });
    assert_eq!(judge(&plan(), &found, &FoundRoutes::complete()), Observed::InPlace);
}

#[test]
fn a_missing_added_or_misplaced_rule_is_a_difference() {
    let whole = standing(&plan());
    for index in 0..whole.rules.len() {
        let mut found = whole.clone();
        let rule = found.rules.remove(index);
        differs(&found, "a rule is missing");
        found.rules.insert(index, FoundRule { expressions: vec![Expression::Counter], ..rule.clone() });
        differs(&found, "a rule does nothing");
        found.rules[index] = rule.clone();
        found.rules.insert(index, rule);
        differs(&found, "a rule stands twice");
    }
    for index in 1..whole.rules.len() {
        let mut found = whole.clone();
        if found.rules[index].chain == found.rules[index - 1].chain
            && found.rules[index].table == found.rules[index - 1].table
        {
            found.rules.swap(index - 1, index);
            differs(&found, "two rules changed places");
        }
    }
}

#[test]
fn a_missing_or_changed_chain_is_a_difference() {
    let whole = standing(&plan());
    for index in 0..whole.chains.len() {
        let mut found = whole.clone();
        found.chains.remove(index);
        differs(&found, "a chain is missing");
        let change = |change: fn(&mut FoundBase)| {
            let mut found = whole.clone();
            found.chains[index].base.as_mut().map(change).map(|()| found)
        };
        for changed in [
            change(|base| base.hook += 1),
            change(|base| base.priority += 1),
            change(|base| base.policy = 0),
            change(|base| base.kind = "other".to_owned()),
        ]
        .into_iter()
        .flatten()
        {
            differs(&changed, "a base chain hangs elsewhere");
        }
        let mut found = whole.clone();
        found.chains[index].base = match found.chains[index].base.take() {
            Some(_) => None,
            None => Some(FoundBase { kind: "nat".to_owned(), hook: 0, priority: 0, policy: ACCEPT }),
        };
        differs(&found, "a base chain is none, or the other way round");
    }
}

#[test]
fn a_missing_or_sleeping_table_is_a_difference() {
    let whole = standing(&plan());
    for index in 0..whole.tables.len() {
        let mut found = whole.clone();
        found.tables[index].flags = 1;
        differs(&found, "a table sleeps");
        found.tables.remove(index);
        differs(&found, "a table is missing");
    }
}

#[test]
fn a_table_left_over_from_earlier_options_is_a_difference() {
    let without = Plan::new(&Options::default());
    let observed = judge(
        &without,
        &standing(&Plan::new(&Options { dns_capture: true, ..Options::default() })),
        &FoundRoutes::complete(),
    );
    assert!(observed.to_string().contains("table inet istio-ambient-raw is left over"), "{observed}");
}

#[test]
fn redirects_out_and_the_rest_in_place_is_a_release_and_nothing_less_is() {
    let mut found = standing(&plan());
    found.rules.retain(|rule| rule.table != NAT_TABLE || ![PREROUTING, OUTPUT].contains(&rule.chain.as_str()));
    assert_eq!(judge(&plan(), &found, &FoundRoutes::complete()), Observed::Released);
    differs(&Ruleset { rules: Vec::new(), ..found.clone() }, "the rest is missing too");
    assert!(matches!(judge(&plan(), &found, &FoundRoutes::default()), Observed::Differs(_)), "the routes are missing");
}

#[test]
fn routes_without_rules_are_a_difference_and_nothing_at_all_is_missing() {
    assert_eq!(judge(&plan(), &Ruleset::default(), &FoundRoutes::default()), Observed::Missing);
    assert!(matches!(judge(&plan(), &Ruleset::default(), &FoundRoutes::complete()), Observed::Differs(_)));
    let observed = judge(&plan(), &standing(&plan()), &FoundRoutes::default());
    for part in ["IPv4 policy rule", "IPv6 policy rule", "IPv4 route", "IPv6 route"] {
        assert!(observed.to_string().contains(part), "{observed}");
    }
}

#[test]
fn ipv6_routes_are_left_over_when_ipv6_is_off() {
    let plan = Plan::new(&Options { ipv6: false, ..Options::default() });
    let observed = judge(&plan, &standing(&plan), &FoundRoutes::complete());
    assert_eq!(observed, Observed::Differs(vec![Difference::UnplannedRoute { family: "IPv6" }]));
}
