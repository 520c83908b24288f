// SPDX-License-Identifier: Apache-2.0
//! Which of several policies decides, and those that only tell.

use anyhow::{Result, ensure};
use harness::Bed;

use super::{
    Ask, LOG_JSON, annotated, authentication, issuer::Issuer, logged, logged_soon, policy, reason, set_up, with_objects,
};

pub(crate) fn order(bed: &mut Bed) -> Result<()> {
    set_up(bed)?;
    custom_then_tokens_then_deny_then_allow(bed)?;
    audit_and_trial_tell(bed)
}

/// Whatever refuses first gives the reason; taken away one by one.
fn custom_then_tokens_then_deny_then_allow(bed: &mut Bed) -> Result<()> {
    bed.mesh.configure(&format!(
        "{LOG_JSON}extensionProviders: [{{name: by-http, envoyExtAuthzHttp: {{service: authz.demo.svc.cluster.local, port: 8000, includeRequestHeadersInCheck: [x-authz]}}}}]"
    ))?;
    let issuer = Issuer::elliptic("one")?;
    let all = [
        policy("a-allow", "rules: [{to: [{operation: {paths: ['/nowhere']}}]}]"),
        policy("b-allow-two", "rules: [{to: [{operation: {paths: ['/both', '/two']}}]}]"),
        policy("c-deny", "action: DENY, rules: [{to: [{operation: {paths: ['/both']}}]}]"),
        policy(
            "d-custom",
            "action: CUSTOM, provider: {name: by-http}, rules: [{to: [{operation: {paths: ['/both']}}]}]",
        ),
        authentication("tokens", &format!("{{issuer: one, jwks: '{}'}}", issuer.key_set()?)),
    ]
    .concat();
    with_objects(bed, &all, |bed| {
        let both = || Ask::path("/both");
        both().bearer("a.b.c").until_reason(bed, "403", "ext_authz_denied")?;
        let second = both().with("x-authz: allow").bearer("a.b.c").until(bed, "401")?;
        reason(bed, &second, "jwt_authn_access_denied")?;
        let third = both().with("x-authz: allow").until(bed, "403")?;
        reason(bed, &third, "rbac_access_denied_matched_policy[ns[demo]-policy[c-deny]-rule[0]]")?;
        let fourth = Ask::path("/other").now(bed, "403")?;
        reason(bed, &fourth, "rbac_access_denied_matched_policy[none]")?;
        Ask::path("/two").now(bed, "200").map(drop)
    })?;
    Ask::path("/other").until(bed, "200").map(drop)
}

fn audit_and_trial_tell(bed: &mut Bed) -> Result<()> {
    let on_trial = "istio.io/dry-run: 'true'";
    let all = [
        policy("audit", "action: AUDIT, rules: [{to: [{operation: {paths: ['/seen*']}}]}]"),
        annotated("trial-deny", on_trial, "action: DENY, rules: [{to: [{operation: {paths: ['/tried*']}}]}]"),
        annotated("trial-allow", on_trial, "rules: [{to: [{operation: {paths: ['/good*']}}]}]"),
    ]
    .concat();
    // When the mesh keeps no log, what is audited is still written down, and nothing else.
    bed.mesh.configure("{}")?;
    with_objects(bed, &all, |bed| {
        super::eventually("a request that is audited to be written down", || {
            let asked = Ask::path("/seen/a").now(bed, "200")?;
            let other = Ask::path("/other").now(bed, "200")?;
            logged_soon(bed, &asked)?;
            let log = bed.mesh.program("demo-waypoint-0")?.output();
            ensure!(!log.contains(&other.id), "a request nobody audits was written down");
            Ok(())
        })?;
        bed.mesh.configure(LOG_JSON)?;
        let mut tried = None;
        super::eventually("a policy on trial to tell", || {
            let asked = Ask::path("/tried/a").now(bed, "200")?;
            let line = logged_soon(bed, &asked)?;
            ensure!(line["shadow_deny"] == "denied", "{line}");
            tried = Some(line);
            Ok(())
        })?;
        let tried = tried.unwrap_or_default();
        ensure!(tried["shadow_allow"] == "denied", "no policy that allows would let it pass: {tried}");
        let good = logged(bed, &Ask::path("/good/a").now(bed, "200")?)?;
        ensure!(good["shadow_deny"] == "allowed" && good["shadow_allow"] == "allowed", "{good}");
        Ok(())
    })
}
