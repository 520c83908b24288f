// SPDX-License-Identifier: Apache-2.0
//! External authorizers, as the mesh configuration names them.

use anyhow::{Context, Result, ensure};
use harness::{Bed, objects};
use serde_json::Value;

use super::{Ask, LOG_JSON, policy, reason, set_up, with_objects};

fn providers(more: &str) -> String {
    format!(
        "{LOG_JSON}extensionProviders:
- name: by-http
  envoyExtAuthzHttp:
    service: authz.demo.svc.cluster.local
    port: 8000
    pathPrefix: /check
    includeRequestHeadersInCheck: [x-authz]
    includeAdditionalHeadersInCheck: {{x-from: waypoint}}
    headersToUpstreamOnAllow: [x-user]
    headersToDownstreamOnAllow: [x-allowed-by]
    headersToDownstreamOnDeny: [x-denied-by]
- name: by-grpc
  envoyExtAuthzGrpc: {{service: authz.demo.svc.cluster.local, port: 9000}}
{more}"
    )
}

fn custom(provider: &str) -> String {
    let spec = format!(
        "action: CUSTOM, provider: {{name: {provider}}}, rules: [{{to: [{{operation: {{paths: ['/asked*']}}}}]}}]"
    );
    policy("custom", &spec)
}

pub(crate) fn asked(bed: &mut Bed) -> Result<()> {
    set_up(bed)?;
    // A provider nobody knows yet refuses everything, also what the rules do not name: fail closed.
    with_objects(bed, &custom("by-http"), |bed| {
        let refused = Ask::path("/asked").until(bed, "403")?;
        reason(bed, &refused, "istio-ext-authz-deny-due-to-bad-provider")?;
        bed.mesh.configure(&providers(""))?;
        let passed = Ask::path("/asked").with("x-authz: allow").until(bed, "200")?;
        ensure!(passed.body.contains("x-user: http"), "{}", passed.body);
        ensure!(!passed.body.contains("x-not-listed"), "{}", passed.body);
        ensure!(passed.headers.contains("x-allowed-by: /check/asked"), "{}", passed.headers);
        let refused = Ask::path("/asked").with("x-authz: deny").now(bed, "403")?;
        ensure!(refused.body.contains("denied by http"), "{}", refused.body);
        ensure!(refused.headers.contains("x-denied-by: waypoint"), "{}", refused.headers);
        reason(bed, &refused, "ext_authz_denied")?;
        let before = bed.pod("demo/authz")?.output().matches("/check").count();
        Ask::path("/free").now(bed, "200")?;
        let after = bed.pod("demo/authz")?.output().matches("/check").count();
        ensure!(before > 0 && before == after, "asked {before} times, then {after}");
        Ok(())
    })?;
    with_objects(bed, &custom("by-grpc"), |bed| {
        let passed = Ask::path("/asked").with("x-authz: allow").until(bed, "200")?;
        let refused = Ask::path("/asked").until(bed, "403")?;
        ensure!(refused.body.contains("denied by grpc"), "{}", refused.body);
        reason(bed, &refused, "ext_authz_denied")?;
        let passed = if passed.body.contains("x-user: grpc") {
            passed
        } else {
            Ask::path("/asked").with("x-authz: allow").now(bed, "200")?
        };
        ensure!(passed.body.contains("x-user: grpc"), "{}", passed.body);
        Ask::path("/free").now(bed, "200").map(drop)
    })
}

pub(crate) fn silent(bed: &mut Bed) -> Result<()> {
    set_up(bed)?;
    let nobody = |name: &str, more: &str| {
        format!(
            "- name: {name}\n  envoyExtAuthzHttp: {{service: authz.demo.svc.cluster.local, port: 9999, timeout: 1s, {more}}}\n"
        )
    };
    let more = [nobody("usual", ""), nobody("own", "statusOnError: '503'"), nobody("open", "failOpen: true")].concat();
    bed.mesh.configure(&providers(&more))?;
    let provider = |name: &str| policy_object(&custom(name));
    with_objects(bed, &custom("usual"), |bed| {
        // The policy never goes away between one provider and the next.
        for (name, status) in [("usual", "403"), ("own", "503"), ("open", "200"), ("own", "503")] {
            bed.world.objects.write(&provider(name)?)?;
            Ask::path("/asked").until_reason(
                bed,
                status,
                if status == "200" { "via_upstream" } else { "ext_authz_error" },
            )?;
        }
        Ask::path("/free").now(bed, "200").map(drop)
    })
}

fn policy_object(yaml: &str) -> Result<Value> {
    objects::parse(yaml)?.into_iter().next().context("an object")
}
