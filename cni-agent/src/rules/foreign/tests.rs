// SPDX-License-Identifier: Apache-2.0
//! What other agents leave, recognised and told apart from what is none of ours.

use super::super::ruleset::{FoundBase, FoundChain, FoundRule};
use super::*;

const V4: u8 = IPTABLES_FAMILIES[0];

fn chain(family: u8, table: &str, name: &str, base: bool) -> FoundChain {
    let base = base.then(|| FoundBase { kind: "nat".to_owned(), hook: 0, priority: -100, policy: 1 });
    FoundChain { family, table: table.to_owned(), name: name.to_owned(), base }
}

fn rule(family: u8, chain: &str, handle: u64, verdict: Verdict) -> FoundRule {
    let (table, chain) = ("nat".to_owned(), chain.to_owned());
    FoundRule { family, table, chain, handle, expressions: vec![Expression::Counter, Expression::Verdict(verdict)] }
}

#[test]
fn istio_s_base_chains_tell_its_nftables_rules_from_ours() {
    let mut found = Ruleset {
        chains: vec![chain(INET, NAT_TABLE, "first-output", true), chain(INET, NAT_TABLE, "output", false)],
        ..Ruleset::default()
    };
    assert_eq!(Foreign::find(&found), None);
    found.chains.push(chain(INET, NAT_TABLE, "output", true));
    let foreign = Foreign::find(&found).unwrap();
    assert_eq!(foreign.to_string(), "table inet istio-ambient-nat in Istio's form");
    found.chains = vec![chain(V4, NAT_TABLE, "output", true), chain(INET, "elsewhere", "output", true)];
    assert_eq!(Foreign::find(&found), None);
}

#[test]
fn only_chains_of_the_ambient_set_and_what_leads_to_them_are_taken() {
    let jump = |to: &str| Verdict::Jump(to.to_owned());
    let found = Ruleset {
        chains: vec![
            chain(V4, "nat", "PREROUTING", true),
            chain(V4, "nat", "ISTIO_PRERT", false),
            chain(V4, "nat", "ISTIO_OUTPUT", false),
            // A sidecar's, in another table and family.
            chain(V4, "mangle", "ISTIO_OUTPUT", false),
            chain(IPTABLES_FAMILIES[1], "nat", "ISTIO_OUTPUT", false),
            chain(INET, "nat", "ISTIO_PRERT", false),
        ],
        rules: vec![
            rule(V4, "PREROUTING", 1, Verdict::Accept),
            rule(V4, "PREROUTING", 2, jump("ISTIO_PRERT")),
            rule(V4, "OUTPUT", 3, Verdict::Other { code: libc::NFT_GOTO, chain: Some("ISTIO_OUTPUT".to_owned()) }),
            rule(V4, "PREROUTING", 4, jump("KUBE-SERVICES")),
            rule(IPTABLES_FAMILIES[1], "OUTPUT", 5, jump("ISTIO_OUTPUT")),
        ],
        ..Ruleset::default()
    };
    let foreign = Foreign::find(&found).unwrap();
    assert_eq!(foreign.to_string(), "iptables chain ip nat ISTIO_PRERT, iptables chain ip nat ISTIO_OUTPUT");
    assert_eq!(foreign.jumps.iter().map(|jump| jump.handle).collect::<Vec<_>>(), [2, 3]);
}
