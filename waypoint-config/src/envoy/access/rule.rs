// SPDX-License-Identifier: Apache-2.0
//! AuthorizationPolicies as policies of Envoy's RBAC filters. Called by `guard` and `custom`.
//!
//! Where something cannot be checked (HTTP on a chain of bytes, a value that is no address, an attribute nobody knows), a rule of an ALLOW policy is left out
//! whole, and any other rule loses the condition and matches more: nothing passes that should not.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac, rbac::Action};

use super::{
    attribute::{self, Node},
    said::{About, Said},
};
use crate::{
    api::{self, AuthorizationPolicy, Condition, Operation, Rule, Source},
    envoy::Notice,
    view::Name,
};

/// Where rules are to be checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    /// Whether requests are seen, or only connections.
    pub(super) sees_requests: bool,
    /// The mesh's own.
    pub(super) trust_domains: &'a [String],
}

/// All rules of these policies. `prefix` stands before the name of each.
pub(super) fn rules(
    context: Context<'_>,
    action: Action,
    prefix: &str,
    objects: &[&AuthorizationPolicy],
    said: &mut Vec<Said>,
) -> Rbac {
    let mut policies = HashMap::new();
    for object in objects {
        let name = name_of(object);
        let mut unseen = Vec::new();
        for (position, rule) in object.spec.rules.iter().enumerate() {
            let mut translation = Translation { context, namespace: &name.namespace, unseen: Vec::new() };
            let policy = translation.rule(rule);
            let is_whole = translation.unseen.is_empty();
            for attribute in translation.unseen {
                if !unseen.contains(&attribute) {
                    unseen.push(attribute);
                }
            }
            if is_whole || object.spec.action != api::Action::Allow {
                policies.insert(format!("{prefix}{}-rule[{position}]", label(&name)), policy);
            }
        }
        if !unseen.is_empty() {
            let notice = match object.spec.action {
                api::Action::Allow => Notice::AllowsLess { attributes: unseen },
                _ => Notice::DeniesMore { attributes: unseen },
            };
            said.push(Said { about: About::Authorization(name), notice });
        }
    }
    Rbac { action: action.into(), policies, ..Default::default() }
}

/// Everything, under this name.
pub(super) fn everything(action: Action, name: &str) -> Rbac {
    let policy =
        Policy { permissions: vec![Permission::always()], principals: vec![Principal::always()], ..Default::default() };
    Rbac { action: action.into(), policies: HashMap::from([(name.to_owned(), policy)]), ..Default::default() }
}

pub(super) fn name_of(object: &AuthorizationPolicy) -> Name {
    Name::new(
        object.metadata.namespace.as_deref().unwrap_or_default(),
        object.metadata.name.as_deref().unwrap_or_default(),
    )
}

/// As Istio names policies in logs.
pub(super) fn label(name: &Name) -> String {
    format!("ns[{}]-policy[{}]", name.namespace, name.name)
}

struct Translation<'a> {
    context: Context<'a>,
    namespace: &'a str,
    unseen: Vec<String>,
}

impl Translation<'_> {
    fn rule(&mut self, rule: &Rule) -> Policy {
        let (mut also, mut from) = (Vec::new(), Vec::new());
        for condition in &rule.when {
            self.condition(condition, &mut also, &mut from);
        }
        let to: Vec<Vec<Permission>> = rule.to.iter().map(|to| self.operation(&to.operation)).collect();
        let sources: Vec<Vec<Principal>> = rule.from.iter().map(|from| self.source(&from.source)).collect();
        Policy { permissions: alternatives(to, &also), principals: alternatives(sources, &from), ..Default::default() }
    }

    fn operation(&mut self, of: &Operation) -> Vec<Permission> {
        let mut all = Vec::new();
        self.request("hosts", (&of.hosts, &of.not_hosts), &mut all, attribute::host_is);
        self.request("methods", (&of.methods, &of.not_methods), &mut all, attribute::method_is);
        self.request("paths", (&of.paths, &of.not_paths), &mut all, attribute::path_is);
        self.clause("ports", (&of.ports, &of.not_ports), &mut all, attribute::port_is);
        all
    }

    fn source(&mut self, of: &Source) -> Vec<Principal> {
        let (domains, namespace) = (self.context.trust_domains, self.namespace);
        let mut all = Vec::new();
        let principals = (&*of.principals, &*of.not_principals);
        self.clause("principals", principals, &mut all, |value| attribute::peer_is(value, domains));
        let tokens = (&*of.request_principals, &*of.not_request_principals);
        self.request("requestPrincipals", tokens, &mut all, attribute::token_of);
        let namespaces = (&*of.namespaces, &*of.not_namespaces);
        self.clause("namespaces", namespaces, &mut all, attribute::peer_in_namespace);
        let accounts = (&*of.service_accounts, &*of.not_service_accounts);
        self.clause("serviceAccounts", accounts, &mut all, |value| attribute::peer_is_account(value, namespace));
        self.clause("ipBlocks", (&of.ip_blocks, &of.not_ip_blocks), &mut all, attribute::connected_from);
        let remote = (&*of.remote_ip_blocks, &*of.not_remote_ip_blocks);
        self.request("remoteIpBlocks", remote, &mut all, attribute::comes_from);
        let trust = (&*of.trust_domains, &*of.not_trust_domains);
        self.clause("trustDomains", trust, &mut all, attribute::peer_in_domain);
        all
    }

    fn condition(&mut self, of: &Condition, to: &mut Vec<Permission>, from: &mut Vec<Principal>) {
        let (domains, namespace) = (self.context.trust_domains, self.namespace);
        let (key, values) = (of.key.as_str(), (&*of.values, &*of.not_values));
        match key {
            "destination.ip" => self.clause(key, values, to, attribute::destination_in),
            "destination.port" => self.clause(key, values, to, attribute::port_is),
            "source.ip" => self.clause(key, values, from, attribute::connected_from),
            "remote.ip" => self.request(key, values, from, attribute::comes_from),
            "source.namespace" => self.clause(key, values, from, attribute::peer_in_namespace),
            "source.principal" => self.clause(key, values, from, |value| attribute::peer_is(value, domains)),
            "source.serviceAccount" => {
                self.clause(key, values, from, |value| attribute::peer_is_account(value, namespace));
            }
            "source.trustDomain" => self.clause(key, values, from, attribute::peer_in_domain),
            "request.auth.principal" => self.request(key, values, from, attribute::token_of),
            "request.auth.audiences" => self.request(key, values, from, |value| attribute::claim_is(&["aud"], value)),
            "request.auth.presenter" => self.request(key, values, from, |value| attribute::claim_is(&["azp"], value)),
            _ => self.named(of, to, from),
        }
    }

    /// `request.headers[x]` and its like. SNI is none of them: inside HBONE nobody looks for TLS.
    fn named(&mut self, of: &Condition, to: &mut Vec<Permission>, from: &mut Vec<Principal>) {
        let (key, values) = (of.key.as_str(), (&*of.values, &*of.not_values));
        let (stem, parts) = brackets(key);
        match (stem, parts.as_slice()) {
            ("request.headers", [name]) => {
                let name = name.to_ascii_lowercase();
                self.request(key, values, from, |value| attribute::header_is(&name, value));
            }
            ("request.auth.claims", [_, ..]) => {
                self.request(key, values, from, |value| attribute::claim_is(&parts, value));
            }
            (stem, [name]) if stem.starts_with(EXPERIMENTAL) => {
                let filter = &stem["experimental.".len()..];
                self.clause(key, values, to, |value| attribute::found_out(filter, name, value));
            }
            _ => self.note(key),
        }
    }

    /// Of a request: cannot be seen on a connection.
    fn request<N: Node>(
        &mut self,
        attribute: &str,
        values: (&[String], &[String]),
        all: &mut Vec<N>,
        one: impl Fn(&str) -> Option<N>,
    ) {
        match self.context.sees_requests {
            true => self.clause(attribute, values, all, one),
            false if values.0.is_empty() && values.1.is_empty() => {}
            false => self.note(attribute),
        }
    }

    /// Any of the first values, none of the second. A value nobody can read spoils its list.
    fn clause<N: Node>(
        &mut self,
        attribute: &str,
        (values, not_values): (&[String], &[String]),
        all: &mut Vec<N>,
        one: impl Fn(&str) -> Option<N>,
    ) {
        for (values, is_not) in [(values, false), (not_values, true)] {
            if values.is_empty() {
                continue;
            }
            match values.iter().map(|value| one(value)).collect::<Option<Vec<_>>>() {
                Some(nodes) if is_not => all.push(N::not(N::any(nodes))),
                Some(nodes) => all.push(N::any(nodes)),
                None => self.note(attribute),
            }
        }
    }

    fn note(&mut self, attribute: &str) {
        if !self.unseen.iter().any(|one| one == attribute) {
            self.unseen.push(attribute.to_owned());
        }
    }
}

/// Each of them with what must hold besides; none of them: only that.
fn alternatives<N: Node + Clone>(each: Vec<Vec<N>>, also: &[N]) -> Vec<N> {
    let each = if each.is_empty() { vec![Vec::new()] } else { each };
    let with = |mut nodes: Vec<N>| {
        nodes.extend(also.iter().cloned());
        if nodes.is_empty() { N::always() } else { N::all(nodes) }
    };
    each.into_iter().map(with).collect()
}

/// `a[b][c]` into `a` and `b`, `c`; whatever is not of this form has no parts.
fn brackets(key: &str) -> (&str, Vec<&str>) {
    let Some((stem, rest)) = key.split_once('[') else { return (key, Vec::new()) };
    let Some(rest) = rest.strip_suffix(']') else { return (key, Vec::new()) };
    (stem, rest.split("][").collect())
}

const EXPERIMENTAL: &str = "experimental.envoy.filters.";
