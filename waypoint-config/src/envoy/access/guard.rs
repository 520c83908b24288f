// SPDX-License-Identifier: Apache-2.0
//! The filters that stand before a service, in Istio's order: CUSTOM, tokens, AUDIT, DENY, ALLOW (control-plane.md §5.1.3). Called by the files that make
//! chains.

use envoy_types::pb::envoy::{
    config::{
        listener::v3::Filter as NetworkFilter,
        rbac::v3::{Rbac, rbac::Action},
    },
    extensions::filters::{
        http::rbac::v3::Rbac as HttpRbac,
        network::{http_connection_manager::v3::HttpFilter, rbac::v3::Rbac as NetworkRbac},
    },
};
use mesh_proto::discovery::Any;

use super::{
    custom,
    gate::{self, Refused},
    rule::{self, Context},
    said::Said,
    token,
};
use crate::{
    api::{self, AuthorizationPolicy},
    envoy::{
        encode::pack,
        input::Serving,
        listener::{http_filter, network_filter, trust_domains},
    },
    view::{is_dry_run, waypoint::Access},
};

/// Filters, and what must be said about the policies they are made of.
#[derive(Debug)]
pub(in crate::envoy) struct Guards<F> {
    /// In order.
    pub(in crate::envoy) filters: Vec<F>,
    /// About policies.
    pub(in crate::envoy) said: Vec<Said>,
    /// Whether some requests must be written down.
    pub(in crate::envoy) is_audited: bool,
    /// Which connections are refused before they reach the filters.
    pub(in crate::envoy) refused: Refused,
}

/// A filter on its way into its wrapping.
pub(super) enum Filter {
    Http(&'static str, Any),
    Network(&'static str, Any),
}

/// For a chain that sees requests.
pub(in crate::envoy) fn of_requests(serving: &Serving, access: &[&Access]) -> Guards<HttpFilter> {
    let tokens = |said: &mut Vec<Said>| token::filter(serving, access, said);
    let guards = guards(serving, access, true, tokens);
    let wrap = |filter| match filter {
        Filter::Http(name, config) | Filter::Network(name, config) => http_filter(name, config),
    };
    Guards {
        filters: guards.filters.into_iter().map(wrap).collect(),
        said: guards.said,
        is_audited: guards.is_audited,
        refused: guards.refused,
    }
}

/// For a chain that sees bytes.
pub(in crate::envoy) fn of_connections(serving: &Serving, access: &[&Access]) -> Guards<NetworkFilter> {
    let guards = guards(serving, access, false, |_| None);
    let wrap = |filter| match filter {
        Filter::Http(name, config) | Filter::Network(name, config) => network_filter(name, config),
    };
    Guards {
        filters: guards.filters.into_iter().map(wrap).collect(),
        said: guards.said,
        is_audited: guards.is_audited,
        refused: guards.refused,
    }
}

fn guards(
    serving: &Serving,
    access: &[&Access],
    sees_requests: bool,
    tokens: impl FnOnce(&mut Vec<Said>) -> Option<Filter>,
) -> Guards<Filter> {
    let trust_domains = trust_domains(serving);
    let context = Context { sees_requests, trust_domains: &trust_domains };
    let all: Vec<&AuthorizationPolicy> = access.iter().flat_map(|one| &one.authorization).map(|one| &**one).collect();
    let of = |action, dry: bool| -> Vec<&AuthorizationPolicy> {
        all.iter().copied().filter(|one| one.spec.action == action && is_dry_run(one) == dry).collect()
    };
    let mut said = Vec::new();
    let mut filters = custom::filters(serving, context, &of(api::Action::Custom, false), &mut said);
    filters.extend(tokens(&mut said));
    let audit = of(api::Action::Audit, false);
    let mut enforcing = Vec::new();
    let verdicts = [
        (Action::Log, audit.clone(), Vec::new(), ""),
        (Action::Deny, of(api::Action::Deny, false), of(api::Action::Deny, true), "istio_dry_run_deny_"),
        (Action::Allow, of(api::Action::Allow, false), of(api::Action::Allow, true), "istio_dry_run_allow_"),
    ];
    for (action, enforced, dry, prefix) in verdicts {
        let mut rules = |objects: &[&AuthorizationPolicy]| {
            (!objects.is_empty()).then(|| rule::rules(context, action, "", objects, &mut said))
        };
        let (rules, shadow) = (rules(&enforced), rules(&dry));
        enforcing.extend(rules.iter().filter(|_| action != Action::Log).cloned());
        if rules.is_some() || shadow.is_some() {
            filters.push(verdict(sees_requests, rules, shadow, prefix));
        }
    }
    let refused = if sees_requests { Refused::Never } else { gate::refused(&enforcing) };
    Guards { filters, said, is_audited: !audit.is_empty(), refused }
}

fn verdict(sees_requests: bool, rules: Option<Rbac>, shadow_rules: Option<Rbac>, prefix: &str) -> Filter {
    let shadow_rules_stat_prefix = if shadow_rules.is_some() { prefix.to_owned() } else { String::new() };
    match sees_requests {
        true => Filter::Http(
            HTTP_RBAC,
            pack(&HttpRbac { rules, shadow_rules, shadow_rules_stat_prefix, ..Default::default() }),
        ),
        false => Filter::Network(
            NETWORK_RBAC,
            pack(&NetworkRbac {
                rules,
                shadow_rules,
                shadow_rules_stat_prefix,
                stat_prefix: "tcp".into(),
                ..Default::default()
            }),
        ),
    }
}

pub(super) const HTTP_RBAC: &str = "envoy.filters.http.rbac";
pub(super) const NETWORK_RBAC: &str = "envoy.filters.network.rbac";
