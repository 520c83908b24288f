// SPDX-License-Identifier: Apache-2.0
//! Whether a policy matches a connection. The rules are those of `mesh::Policy`; nothing here allocates.

use std::net::{IpAddr, SocketAddr};

use mesh_proto::spiffe::Identity;

use crate::mesh::{Clause, Match, Policy, Rule, ServiceAccount, StringMatch};

/// What a policy may ask about a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// Who the client is, if mutual TLS proves it.
    pub(super) identity: Option<&'a Identity>,
    /// Where the client is.
    pub(super) source: IpAddr,
    /// Where the application is.
    pub(super) destination: SocketAddr,
}

/// Whether a policy matches: whether any of its rules does.
pub(super) fn matches(policy: &Policy, facts: Facts<'_>) -> bool {
    policy.rules.iter().any(|Rule(clauses)| clauses.iter().all(|clause| facts.fit_clause(clause)))
}

impl Facts<'_> {
    fn fit_clause(self, Clause(matches): &Clause) -> bool {
        matches.is_empty() || matches.iter().any(|one| self.fit(one))
    }

    fn fit(self, one: &Match) -> bool {
        let namespace = self.identity.map_or("", Identity::namespace);
        let account = |account: &ServiceAccount| {
            self.identity.is_some_and(|identity| {
                account.namespace == *identity.namespace() && account.service_account == *identity.service_account()
            })
        };
        let principal =
            |wanted: &StringMatch| self.identity.is_some_and(|identity| is_principal(wanted, identity.as_principal()));
        says_something(one)
            && field(&one.namespaces, &one.not_namespaces, |wanted| wanted.matches(namespace))
            && field(&one.principals, &one.not_principals, principal)
            && field(&one.source_ips, &one.not_source_ips, |range| range.contains(&self.source))
            && field(&one.destination_ips, &one.not_destination_ips, |range| range.contains(&self.destination.ip()))
            && field(&one.destination_ports, &one.not_destination_ports, |&port| port == self.destination.port())
            && field(&one.service_accounts, &one.not_service_accounts, account)
    }
}

/// One of the values, if there are any, and none of the forbidden ones.
fn field<T>(any: &[T], none: &[T], is: impl Fn(&T) -> bool) -> bool {
    (any.is_empty() || any.iter().any(&is)) && !none.iter().any(&is)
}

/// Principals are compared without scheme, so one written with it means the same.
fn is_principal(wanted: &StringMatch, principal: &str) -> bool {
    match wanted {
        StringMatch::Exact(text) => text.strip_prefix(SCHEME).unwrap_or(text) == principal,
        StringMatch::Prefix(text) => principal.starts_with(text.strip_prefix(SCHEME).unwrap_or(text)),
        StringMatch::Suffix(_) | StringMatch::Presence() => wanted.matches(principal),
    }
}

/// A match with no field at all stands for criteria that could not be expressed at this layer, and matches nothing.
fn says_something(one: &Match) -> bool {
    let strings = [&one.namespaces, &one.not_namespaces, &one.principals, &one.not_principals];
    let ranges = [&one.source_ips, &one.not_source_ips, &one.destination_ips, &one.not_destination_ips];
    let ports = [&one.destination_ports, &one.not_destination_ports];
    let accounts = [&one.service_accounts, &one.not_service_accounts];
    strings.iter().any(|list| !list.is_empty())
        || ranges.iter().any(|list| !list.is_empty())
        || ports.iter().any(|list| !list.is_empty())
        || accounts.iter().any(|list| !list.is_empty())
}

const SCHEME: &str = "spiffe://";
