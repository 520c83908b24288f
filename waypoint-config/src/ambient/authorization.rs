// SPDX-License-Identifier: Apache-2.0
//! An AuthorizationPolicy as a node proxy can enforce it (control-plane.md §1.8), and what is lost on the way. Called by `render`.
//!
//! A node proxy sees connections, not requests. What it cannot see makes the policy stricter, never wider: a rule of an ALLOW policy that needs it
//! is left out whole; in a DENY policy only the unseen part is left out, so the rest denies more. One hole is istiod's and kept, because a proxy
//! must not refuse everything for a wish about paths: a `from`, `to` or `when` of a DENY rule that holds nothing but unseen attributes matches
//! nothing, hence neither does its rule. The [`Notice`] says so.

use mesh_proto::security::{
    Action, Address, Authorization, Clause, Match, Rule, Scope, ServiceAccountMatch, StringMatch,
    string_match::MatchType,
};

use super::{
    encode,
    notice::{Effect, Notice},
};
use crate::{
    api::{self, AuthorizationPolicy, Condition, Operation, Source, parse_range},
    view,
};

/// The message, and what is not enforced as written.
pub(super) fn translate(scope: view::Scope, object: &AuthorizationPolicy) -> (Authorization, Option<Notice>) {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let denies = object.spec.action == api::Action::Deny;
    let mut rules = Vec::new();
    let mut found = Vec::new();
    let mut effect = if denies { Effect::DeniesMore } else { Effect::AllowsLess };
    for rule in &object.spec.rules {
        let mut unseen = Vec::new();
        let translated = translate_rule(rule, namespace, &mut unseen);
        let is_whole = unseen.is_empty();
        // An empty match matches nothing: what it stood for is not denied.
        if denies && translated.clauses.iter().flat_map(|clause| &clause.matches).any(|one| *one == Match::default()) {
            effect = Effect::DeniesNothing;
        }
        found.extend(unseen.into_iter().filter(|attribute| !found.contains(attribute)).collect::<Vec<_>>());
        if is_whole || denies {
            rules.push(translated);
        }
    }
    found.dedup();
    let scope = match scope {
        view::Scope::Global => Scope::Global,
        view::Scope::Namespace => Scope::Namespace,
        view::Scope::Selected => Scope::WorkloadSelector,
    };
    let message = Authorization {
        name: object.metadata.name.clone().unwrap_or_default(),
        namespace: namespace.to_owned(),
        scope: scope.into(),
        action: if denies { Action::Deny } else { Action::Allow }.into(),
        rules,
        ..Authorization::default()
    };
    (message, (!found.is_empty()).then_some(Notice::Attributes { found, effect }))
}

/// What a policy that is not sent at all should say.
pub(super) fn refusal(object: &AuthorizationPolicy) -> Option<Notice> {
    if object.spec.is_for_gateways() {
        return Some(Notice::ForGateways);
    }
    match object.spec.action {
        api::Action::Custom => Some(Notice::Action("CUSTOM")),
        api::Action::Audit => Some(Notice::Action("AUDIT")),
        api::Action::Allow | api::Action::Deny => view::is_dry_run(object).then_some(Notice::DryRun),
    }
}

/// `to`, `from`, then every `when`: each a clause, all of which must match. An absent one is no clause.
fn translate_rule(rule: &api::Rule, namespace: &str, unseen: &mut Vec<String>) -> Rule {
    let mut clauses = Vec::new();
    if !rule.to.is_empty() {
        clauses.push(Clause { matches: rule.to.iter().map(|to| operation(&to.operation, unseen)).collect() });
    }
    if !rule.from.is_empty() {
        clauses
            .push(Clause { matches: rule.from.iter().map(|from| source(&from.source, namespace, unseen)).collect() });
    }
    clauses.extend(rule.when.iter().map(|when| Clause { matches: vec![condition(when, namespace, unseen)] }));
    Rule { clauses }
}

fn operation(operation: &Operation, unseen: &mut Vec<String>) -> Match {
    let hidden = [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ];
    note_hidden(&hidden, unseen);
    Match {
        destination_ports: ports("ports", &operation.ports, unseen),
        not_destination_ports: ports("notPorts", &operation.not_ports, unseen),
        ..Match::default()
    }
}

fn source(source: &Source, namespace: &str, unseen: &mut Vec<String>) -> Match {
    let hidden = [
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
    ];
    note_hidden(&hidden, unseen);
    let mut found = Match {
        namespaces: strings(&source.namespaces),
        not_namespaces: strings(&source.not_namespaces),
        principals: strings(&source.principals),
        not_principals: strings(&source.not_principals),
        source_ips: ranges("ipBlocks", &source.ip_blocks, unseen),
        not_source_ips: ranges("notIpBlocks", &source.not_ip_blocks, unseen),
        service_accounts: accounts(&source.service_accounts, namespace),
        not_service_accounts: accounts(&source.not_service_accounts, namespace),
        ..Match::default()
    };
    trust_domains(source, &mut found, unseen);
    found
}

/// A principal begins with its trust domain, so a condition on one is a condition on the other; unless principals are asked for as well, of which
/// any one would then do. istiod forgets the field, which makes an ALLOW wider than written.
fn trust_domains(source: &Source, found: &mut Match, unseen: &mut Vec<String>) {
    let as_principals =
        |domains: &[String]| domains.iter().map(|domain| trust_domain(domain)).collect::<Option<Vec<_>>>();
    match as_principals(&source.trust_domains) {
        Some(domains) if domains.is_empty() => {}
        Some(domains) if found.principals.is_empty() => found.principals = domains,
        _ => note(unseen, "trustDomains"),
    }
    match as_principals(&source.not_trust_domains) {
        Some(domains) => found.not_principals.extend(domains),
        None => note(unseen, "notTrustDomains"),
    }
}

fn trust_domain(domain: &str) -> Option<StringMatch> {
    match domain.strip_suffix('*') {
        _ if domain == "*" => Some(string(domain)),
        _ if domain.starts_with('*') => None,
        Some(_) => Some(string(domain)),
        None => Some(StringMatch { match_type: Some(MatchType::Prefix(format!("{domain}/"))) }),
    }
}

fn condition(condition: &Condition, namespace: &str, unseen: &mut Vec<String>) -> Match {
    let Condition { key, values, not_values } = condition;
    let mut found = Match::default();
    match key.as_str() {
        "source.ip" => {
            found.source_ips = ranges(key, values, unseen);
            found.not_source_ips = ranges(key, not_values, unseen);
        }
        "source.namespace" => {
            found.namespaces = strings(values);
            found.not_namespaces = strings(not_values);
        }
        "source.principal" => {
            found.principals = strings(values);
            found.not_principals = strings(not_values);
        }
        // istiod takes this one for an HTTP attribute, though a node proxy can check it.
        "source.serviceAccount" => {
            found.service_accounts = accounts(values, namespace);
            found.not_service_accounts = accounts(not_values, namespace);
        }
        "destination.ip" => {
            found.destination_ips = ranges(key, values, unseen);
            found.not_destination_ips = ranges(key, not_values, unseen);
        }
        "destination.port" => {
            found.destination_ports = ports(key, values, unseen);
            found.not_destination_ports = ports(key, not_values, unseen);
        }
        other => note(unseen, other),
    }
    found
}

/// `*` any, `x*` prefix, `*x` suffix, else the text itself.
fn string(text: &str) -> StringMatch {
    let match_type = match (text.strip_prefix('*'), text.strip_suffix('*')) {
        (Some(""), _) => MatchType::Presence(()),
        (_, Some(prefix)) => MatchType::Prefix(prefix.to_owned()),
        (Some(suffix), None) => MatchType::Suffix(suffix.to_owned()),
        (None, None) => MatchType::Exact(text.to_owned()),
    };
    StringMatch { match_type: Some(match_type) }
}

fn strings(values: &[String]) -> Vec<StringMatch> {
    values.iter().map(|value| string(value)).collect()
}

/// `namespace/name`, or `name` in the policy's namespace.
fn accounts(values: &[String], namespace: &str) -> Vec<ServiceAccountMatch> {
    let account = |value: &String| {
        let (namespace, name) = value.split_once('/').unwrap_or((namespace, value));
        ServiceAccountMatch { namespace: namespace.to_owned(), service_account: name.to_owned() }
    };
    values.iter().map(account).collect()
}

/// A value nobody can check is like an attribute nobody can see: leaving it out alone could leave the field empty, which means "any".
fn ranges(attribute: &str, values: &[String], unseen: &mut Vec<String>) -> Vec<Address> {
    let range = |value: &String| {
        let parsed = parse_range(value);
        if parsed.is_none() {
            note(unseen, attribute);
        }
        parsed.map(|range| Address { address: encode::octets(range.addr()), length: range.prefix_len().into() })
    };
    values.iter().filter_map(range).collect()
}

fn ports(attribute: &str, values: &[String], unseen: &mut Vec<String>) -> Vec<u32> {
    let port = |value: &String| {
        let parsed = value.parse::<u16>().ok();
        if parsed.is_none() {
            note(unseen, attribute);
        }
        parsed.map(u32::from)
    };
    values.iter().filter_map(port).collect()
}

fn note_hidden(attributes: &[(&str, &Vec<String>)], unseen: &mut Vec<String>) {
    attributes.iter().filter(|(_, values)| !values.is_empty()).for_each(|(name, _)| note(unseen, name));
}

fn note(unseen: &mut Vec<String>, attribute: &str) {
    if !unseen.iter().any(|one| one == attribute) {
        unseen.push(attribute.to_owned());
    }
}
