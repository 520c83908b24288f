// SPDX-License-Identifier: Apache-2.0
//! RequestAuthentication: keys that are given, fetched from a URL, and found through an issuer's configuration.

use anyhow::{Result, ensure};
use harness::Bed;
use serde_json::json;

use super::{Ask, authentication, issuer::Issuer, policy, reason, server, set_up, with_objects};
use crate::eventually;

/// A pod outside the mesh that serves keys under these paths.
fn serve_keys(bed: &mut Bed, name: &str, files: &serde_json::Value) -> Result<()> {
    let files = serde_json::to_string(&files.to_string())?;
    bed.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{namespace: demo, name: {name}, labels: {{app: {name}, istio.io/dataplane-mode: none}}}}
spec:
  nodeName: n2
  serviceAccountName: idp
  containers: [{{name: keys, command: [python3, -c, {}, keys, '8080', {files}], ports: [{{containerPort: 8080}}]}}]
",
        server()?
    ))
}

pub(crate) fn judged(bed: &mut Bed) -> Result<()> {
    set_up(bed)?;
    // The keys of one are fetched, those of two are given, those of three are found through its configuration.
    let (one, two, three) = (Issuer::elliptic("one")?, Issuer::rsa("two")?, Issuer::rsa("three")?);
    serve_keys(bed, "idp", &json!({ "/keys": one.key_set()?, "/three": three.key_set()? }))?;
    let address = bed.pod("demo/idp")?.v4;
    let configuration = json!({ "jwks_uri": format!("http://{address}:8080/three") });
    serve_keys(bed, "realm", &json!({ "/realm/.well-known/openid-configuration": configuration }))?;
    let third = format!("http://{}:8080/realm", bed.pod("demo/realm")?.v4);
    let three = three.renamed(&third);
    let given = two.key_set()?.to_string();
    let rules = format!(
        "{{issuer: one, jwksUri: 'http://{address}:8080/keys', audiences: [shop, books], forwardOriginalToken: true,
            outputPayloadToHeader: x-payload, outputClaimToHeaders: [{{header: x-sub, claim: sub}}, {{header: x-role, claim: realm.role}}]}},
          {{issuer: two, jwks: '{given}', fromHeaders: [{{name: x-token, prefix: 'Token '}}], fromParams: [t], fromCookies: [session]}},
          {{issuer: '{third}'}}"
    );
    let of_one = |claims| one.token(claims);
    let good = of_one(json!({ "aud": "shop", "realm": { "role": "admin" } }))?;
    let of_two = two.token(json!({}))?;
    with_objects(bed, &authentication("tokens", &rules), |bed| {
        let ask = || Ask::path("/page");
        // Refused until the policy is there, then taken when the keys are.
        ask().bearer("no.token.atall").until(bed, "401")?;
        let passed = ask().bearer(&good).until(bed, "200")?;
        for header in ["x-sub: alice", "x-role: admin", "x-payload: ey", "authorization: Bearer ey"] {
            ensure!(passed.body.contains(header), "expected {header:?} in {}", passed.body);
        }
        ask().now(bed, "200")?;
        let forged = ask().with("x-sub: mallory").now(bed, "200")?;
        ensure!(!forged.body.contains("mallory"), "a claim from the client: {}", forged.body);
        let refused = [
            ("Jwt_is_expired", "401", of_one(json!({ "aud": "shop", "exp": 1_000_000_000 }))?),
            ("Jwt_issuer_is_not_configured", "401", of_one(json!({ "iss": "nobody", "aud": "shop" }))?),
            ("Audiences_in_Jwt_are_not_allowed", "403", of_one(json!({ "aud": "bank" }))?),
            ("Audiences_in_Jwt_are_not_allowed", "403", of_one(json!({}))?),
            ("Jwt_verification_fails", "401", Issuer::elliptic("one")?.token(json!({ "aud": "shop" }))?),
            ("key_to_match_kid_or_alg", "401", two.token(json!({ "iss": "one", "aud": "shop" }))?),
        ];
        let mut asked = Vec::new();
        for (details, status, token) in &refused {
            asked.push((details, ask().bearer(token).now(bed, status)?));
        }
        for (details, asked) in asked {
            reason(bed, &asked, details)?;
        }
        // The second issuer's tokens stand elsewhere, and are taken away there.
        let in_header = ask().with(&format!("x-token: Token {of_two}")).now(bed, "200")?;
        ensure!(!in_header.body.contains("x-token"), "the token went on: {}", in_header.body);
        Ask::path(&format!("/page?t={of_two}")).now(bed, "200")?;
        ask().with(&format!("cookie: session={of_two}")).now(bed, "200")?;
        ask().with("x-token: Token junk").now(bed, "401")?;
        ask().bearer(&three.token(json!({}))?).until(bed, "200")?;
        Ok(())
    })?;
    let asked = bed.pod("demo/idp")?.output();
    ensure!(asked.matches("/keys").count() == 1, "the keys were fetched more than once:\n{asked}");

    // With a policy that wants a token, none is not enough; and one of the wrong person is not.
    let wanted = policy("wanted", "rules: [{from: [{source: {requestPrincipals: ['one/*', 'two/bob']}}]}]");
    with_objects(bed, &format!("{}{wanted}", authentication("tokens", &rules)), |bed| {
        let none = Ask::path("/page").until(bed, "403")?;
        reason(bed, &none, "rbac_access_denied_matched_policy[none]")?;
        Ask::path("/page").bearer(&good).until(bed, "200")?;
        Ask::path(&format!("/page?t={of_two}")).now(bed, "403")?;
        Ask::path(&format!("/page?t={}", two.token(json!({ "sub": "bob" }))?)).now(bed, "200")?;
        Ok(())
    })?;
    Ask::path("/page").until(bed, "200").map(drop)
}

pub(crate) fn without_keys(bed: &mut Bed) -> Result<()> {
    set_up(bed)?;
    let issuer = Issuer::elliptic("lost")?;
    let token = issuer.token(json!({}))?;
    // One at the control plane itself, one where nobody is.
    let rules = "{issuer: lost, jwksUri: 'http://127.0.0.1:8080/debug/resources'}, \
                 {issuer: gone, jwksUri: 'http://169.254.169.254/latest/meta-data'}";
    with_objects(bed, &authentication("lost", rules), |bed| {
        let refused = Ask::path("/").bearer(&token).until(bed, "401")?;
        reason(bed, &refused, "jwt_authn_access_denied")?;
        Ask::path("/").now(bed, "200")?;
        eventually("the control plane to say why", || {
            let said = bed.mesh.program("control")?.output();
            for reason in ["127.0.0.1, a loopback address", "169.254.169.254, a link-local address"] {
                ensure!(said.contains(reason), "{reason:?} is not in its log");
            }
            ensure!(said.contains("RequestAuthentication demo/lost"), "the object is not named");
            Ok(())
        })
    })
}
