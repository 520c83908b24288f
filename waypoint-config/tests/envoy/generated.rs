// SPDX-License-Identifier: Apache-2.0
//! Whatever people write, a real Envoy takes it. Bounded here; `PROPTEST_CASES=2000` for longer.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*, sample::select};
use waypoint_config::{
    api::{Action, AuthorizationPolicy, Condition, FromEntry, JwtHeader, JwtRule, Operation, Rule, Source, ToEntry},
    envoy::input::Settings,
    view::AppProtocol,
};

use crate::{
    judge::{envoy, profile, refusal},
    mesh::{add, authentication, authorization, empty, rendered, service},
};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        select(vec![
            "",
            "*",
            "a",
            "*a",
            "a*",
            "**",
            "a/b",
            "/x/{*}/y",
            "{**}",
            "10.0.0.0/8",
            "::/0",
            "80",
            "GET",
            "\\",
            "("
        ])
        .prop_map(str::to_owned),
        "\\PC{0,12}",
        any::<String>(),
    ]
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..3)
}

fn source() -> impl Strategy<Value = FromEntry> {
    (vec(texts(), 7), vec(texts(), 7)).prop_map(|(is, not)| {
        let [principals, request_principals, namespaces, service_accounts, ip_blocks, remote_ip_blocks, trust_domains]: [_; 7] =
            is.try_into().unwrap();
        let [not_principals, not_request_principals, not_namespaces, not_service_accounts, not_ip_blocks, not_remote_ip_blocks, not_trust_domains]: [_; 7] =
            not.try_into().unwrap();
        FromEntry {
            source: Source {
                principals, request_principals, namespaces, service_accounts, ip_blocks, remote_ip_blocks, trust_domains,
                not_principals, not_request_principals, not_namespaces, not_service_accounts, not_ip_blocks,
                not_remote_ip_blocks, not_trust_domains,
            },
        }
    })
}

fn operation() -> impl Strategy<Value = ToEntry> {
    (vec(texts(), 4), vec(texts(), 4)).prop_map(|(is, not)| {
        let [hosts, ports, methods, paths]: [_; 4] = is.try_into().unwrap();
        let [not_hosts, not_ports, not_methods, not_paths]: [_; 4] = not.try_into().unwrap();
        ToEntry { operation: Operation { hosts, ports, methods, paths, not_hosts, not_ports, not_methods, not_paths } }
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    let key = prop_oneof![
        select(vec!["source.ip", "destination.port", "request.auth.principal", "connection.sni", "request.headers[]"])
            .prop_map(str::to_owned),
        text().prop_map(|name| format!("request.headers[{name}]")),
        text().prop_map(|name| format!("request.auth.claims[{name}][b]")),
        text().prop_map(|name| format!("experimental.envoy.filters.{name}[{name}]")),
        text(),
    ];
    (key, texts(), texts()).prop_map(|(key, values, not_values)| Condition { key, values, not_values })
}

fn policy() -> impl Strategy<Value = AuthorizationPolicy> {
    let rule = (vec(source(), 0..2), vec(operation(), 0..2), vec(condition(), 0..3))
        .prop_map(|(from, to, when)| Rule { from, to, when });
    let action = select(vec![Action::Allow, Action::Deny, Action::Audit, Action::Custom]);
    (vec(rule, 0..3), action).prop_map(|(rules, action)| {
        let mut policy = (*authorization("p", "{}")).clone();
        policy.spec.rules = rules;
        policy.spec.action = action;
        policy
    })
}

fn token_rule() -> impl Strategy<Value = JwtRule> {
    let header = (text(), text()).prop_map(|(name, prefix)| JwtHeader { name, prefix });
    (vec(text(), 5), vec(header, 0..2), vec(texts(), 4)).prop_map(|(single, from_headers, many)| {
        let [issuer, jwks, jwks_uri, output_payload_to_header, timeout]: [_; 5] = single.try_into().unwrap();
        let [audiences, from_params, from_cookies, space_delimited_claims]: [_; 4] = many.try_into().unwrap();
        JwtRule {
            issuer,
            jwks,
            jwks_uri,
            output_payload_to_header,
            timeout,
            from_headers,
            audiences,
            from_params,
            from_cookies,
            space_delimited_claims,
            ..JwtRule::default()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_policies_say_envoy_takes_them(policies in vec(policy(), 1..6), tokens in vec(token_rule(), 0..4)) {
        if envoy().is_some() {
            let mut serving = empty();
            let ports = [(80, AppProtocol::Http11), (81, AppProtocol::Tcp)];
            add(&mut serving, service("cart", "10.96.0.10", &ports), "10.0.0.10");
            serving.settings = Arc::new(Settings::default());
            serving.access.authorization = policies.into_iter().map(Arc::new).collect();
            let mut authentication = (*authentication("t", "{}")).clone();
            authentication.spec.jwt_rules = tokens;
            serving.access.authentication = vec![Arc::new(authentication)];
            prop_assert_eq!(refusal("generated", rendered(&serving, profile()).resources()), None);
        }
    }
}
