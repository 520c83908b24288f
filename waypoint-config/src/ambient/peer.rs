// SPDX-License-Identifier: Apache-2.0
//! PeerAuthentication as policies a node proxy understands: "deny whoever has no identity" (control-plane.md §1.9). Called by `render`.

use std::collections::BTreeSet;

use mesh_proto::security::{Action, Authorization, Clause, Match, Rule, Scope, StringMatch, string_match::MatchType};

use crate::view::{Name, PortLevel};

/// For workloads that want an identity on every port.
pub(super) fn static_strict(name: &Name) -> Authorization {
    policy(name, vec![Rule { clauses: vec![clause(without_identity())] }])
}

/// For workloads where ports differ.
pub(super) fn port_level(name: &Name, level: &PortLevel) -> Authorization {
    match level {
        PortLevel::StrictExcept(ports) => policy(name, vec![all_but(ports)]),
        PortLevel::StrictOn(ports) => policy(name, ports.iter().map(|port| only_on(*port)).collect()),
    }
}

/// No identity, and none of the exempt ports: clauses are ANDed.
fn all_but(ports: &BTreeSet<u16>) -> Rule {
    let exempt =
        ports.iter().map(|port| clause(Match { not_destination_ports: vec![(*port).into()], ..Match::default() }));
    Rule { clauses: std::iter::once(clause(without_identity())).chain(exempt).collect() }
}

/// No identity, and this port: fields of a match are ANDed.
fn only_on(port: u16) -> Rule {
    Rule { clauses: vec![clause(Match { destination_ports: vec![port.into()], ..without_identity() })] }
}

fn without_identity() -> Match {
    Match { not_principals: vec![StringMatch { match_type: Some(MatchType::Presence(())) }], ..Match::default() }
}

fn clause(only: Match) -> Clause {
    Clause { matches: vec![only] }
}

fn policy(name: &Name, rules: Vec<Rule>) -> Authorization {
    Authorization {
        name: name.name.to_string(),
        namespace: name.namespace.to_string(),
        scope: Scope::WorkloadSelector.into(),
        action: Action::Deny.into(),
        rules,
        ..Authorization::default()
    }
}
