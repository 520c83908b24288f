// SPDX-License-Identifier: Apache-2.0
//! Istio's policies. Called by `object`.

use super::value::{at_most, header_name, no_empty_value, ports, ranges, refuse};
use crate::api::{
    authentication::{JwtRule, RequestAuthenticationSpec},
    object::ObjectError,
    policy::{Action, AuthorizationPolicySpec, Condition, Operation, PeerAuthenticationSpec, Source, TargetReference},
    selector::WorkloadSelector,
};

pub(super) fn authorization(spec: &AuthorizationPolicySpec) -> Result<(), ObjectError> {
    targets(spec.target_ref.as_ref(), &spec.target_refs, spec.narrowing_selector())?;
    at_most("spec.rules", spec.rules.len(), 512)?;
    match (spec.action, &spec.provider) {
        (Action::Custom, None) => return refuse("spec.provider", "is missing: action CUSTOM needs one"),
        (Action::Custom, Some(_)) | (_, None) => {}
        (_, Some(_)) => return refuse("spec.provider", "only action CUSTOM has one"),
    }
    for (i, rule) in spec.rules.iter().enumerate() {
        for (j, from) in rule.from.iter().enumerate() {
            source(&format!("spec.rules[{i}].from[{j}].source"), &from.source)?;
        }
        for (j, to) in rule.to.iter().enumerate() {
            operation(&format!("spec.rules[{i}].to[{j}].operation"), &to.operation)?;
        }
        for (j, when) in rule.when.iter().enumerate() {
            condition(&format!("spec.rules[{i}].when[{j}]"), when)?;
        }
    }
    Ok(())
}

fn source(path: &str, source: &Source) -> Result<(), ObjectError> {
    if *source == Source::default() {
        return refuse(path, "is empty: leave `from` out to mean anybody");
    }
    ranges(&format!("{path}.ipBlocks"), &source.ip_blocks)?;
    ranges(&format!("{path}.notIpBlocks"), &source.not_ip_blocks)?;
    ranges(&format!("{path}.remoteIpBlocks"), &source.remote_ip_blocks)?;
    ranges(&format!("{path}.notRemoteIpBlocks"), &source.not_remote_ip_blocks)?;
    let texts = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ];
    texts.iter().try_for_each(|(field, values)| no_empty_value(&format!("{path}.{field}"), values))?;
    for (field, accounts) in
        [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)]
    {
        for (i, account) in accounts.iter().enumerate() {
            if account.matches('/').count() > 1
                || account.starts_with('/')
                || account.ends_with('/')
                || account.contains('*')
            {
                return refuse(
                    format!("{path}.{field}[{i}]"),
                    format!("{account:?} is neither `name` nor `namespace/name`"),
                );
            }
        }
    }
    Ok(())
}

fn operation(path: &str, operation: &Operation) -> Result<(), ObjectError> {
    if *operation == Operation::default() {
        return refuse(path, "is empty: leave `to` out to mean anything");
    }
    for (field, values) in [("ports", &operation.ports), ("notPorts", &operation.not_ports)] {
        ports(&format!("{path}.{field}"), values)?;
    }
    let texts = [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ];
    texts.iter().try_for_each(|(field, values)| no_empty_value(&format!("{path}.{field}"), values))
}

fn condition(path: &str, condition: &Condition) -> Result<(), ObjectError> {
    if condition.key.is_empty() {
        return refuse(format!("{path}.key"), "is missing");
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        return refuse(path, "needs values or notValues");
    }
    for (field, values) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        let path = format!("{path}.{field}");
        match condition.key.as_str() {
            "source.ip" | "remote.ip" | "destination.ip" => ranges(&path, values)?,
            "destination.port" => ports(&path, values)?,
            _ => no_empty_value(&path, values)?,
        }
    }
    Ok(())
}

pub(super) fn peer(spec: &PeerAuthenticationSpec) -> Result<(), ObjectError> {
    if spec.port_level_mtls.is_empty() {
        return Ok(());
    }
    if spec.narrowing_selector().is_none() {
        return refuse("spec.portLevelMtls", "needs a selector: ports belong to workloads");
    }
    match spec.port_level_mtls.contains_key(&0) {
        true => refuse("spec.portLevelMtls", "0 is not a port"),
        false => Ok(()),
    }
}

pub(super) fn request(spec: &RequestAuthenticationSpec) -> Result<(), ObjectError> {
    targets(spec.target_ref.as_ref(), &spec.target_refs, spec.narrowing_selector())?;
    at_most("spec.jwtRules", spec.jwt_rules.len(), 4096)?;
    spec.jwt_rules.iter().enumerate().try_for_each(|(i, rule)| jwt(&format!("spec.jwtRules[{i}]"), rule))
}

fn jwt(path: &str, rule: &JwtRule) -> Result<(), ObjectError> {
    if rule.issuer.is_empty() {
        return refuse(format!("{path}.issuer"), "is missing");
    }
    if !rule.jwks.is_empty() && !rule.jwks_uri.is_empty() {
        return refuse(format!("{path}.jwks"), "goes not together with jwksUri; use one of the two");
    }
    let uri = rule.jwks_uri.as_str();
    if !uri.is_empty() && !uri.starts_with("https://") && !uri.starts_with("http://") {
        return refuse(format!("{path}.jwksUri"), "begins neither with https:// nor with http://");
    }
    if !rule.jwks.is_empty() && !is_key_set(&rule.jwks) {
        return refuse(format!("{path}.jwks"), "is not a JSON object with a list `keys`");
    }
    no_empty_value(&format!("{path}.audiences"), &rule.audiences)?;
    no_empty_value(&format!("{path}.fromParams"), &rule.from_params)?;
    no_empty_value(&format!("{path}.fromCookies"), &rule.from_cookies)?;
    for (i, header) in rule.from_headers.iter().enumerate() {
        header_name(&format!("{path}.fromHeaders[{i}].name"), &header.name)?;
    }
    if !rule.output_payload_to_header.is_empty() {
        header_name(&format!("{path}.outputPayloadToHeader"), &rule.output_payload_to_header)?;
    }
    for (i, output) in rule.output_claim_to_headers.iter().enumerate() {
        header_name(&format!("{path}.outputClaimToHeaders[{i}].header"), &output.header)?;
        if output.claim.is_empty() {
            return refuse(format!("{path}.outputClaimToHeaders[{i}].claim"), "is missing");
        }
    }
    Ok(())
}

fn is_key_set(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text)
        .is_ok_and(|value| value.get("keys").is_some_and(serde_json::Value::is_array))
}

/// What a policy may be attached to: something of its own namespace a waypoint serves, or a class of waypoints.
fn targets(
    one: Option<&TargetReference>,
    many: &[TargetReference],
    selector: Option<&WorkloadSelector>,
) -> Result<(), ObjectError> {
    if selector.is_some() && (one.is_some() || !many.is_empty()) {
        return refuse(
            "spec",
            "selector and targetRefs exclude each other: one is for node proxies, the other for waypoints",
        );
    }
    if one.is_some() && !many.is_empty() {
        return refuse("spec.targetRef", "goes not together with targetRefs; use the latter");
    }
    at_most("spec.targetRefs", many.len(), 16)?;
    let single = one.into_iter().map(|target| ("spec.targetRef".to_owned(), target));
    let listed = many.iter().enumerate().map(|(i, target)| (format!("spec.targetRefs[{i}]"), target));
    for (path, target) in single.chain(listed) {
        if target.name.is_empty() {
            return refuse(format!("{path}.name"), "is missing");
        }
        if !target.namespace.is_empty() {
            return refuse(format!("{path}.namespace"), "must be left out: a policy holds for its own namespace");
        }
        match (target.group.as_str(), target.kind.as_str()) {
            ("gateway.networking.k8s.io", "Gateway" | "GatewayClass")
            | ("" | "core", "Service")
            | ("networking.istio.io", "ServiceEntry") => {}
            (group, kind) => {
                return refuse(
                    path,
                    format!(
                        "{kind:?} of group {group:?} is none of Gateway and GatewayClass (gateway.networking.k8s.io), Service (no group), \
                         ServiceEntry (networking.istio.io)"
                    ),
                );
            }
        }
    }
    Ok(())
}
