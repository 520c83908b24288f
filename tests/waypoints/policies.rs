// SPDX-License-Identifier: Apache-2.0
//! Which requests are refused.

use anyhow::{Result, ensure};
use harness::Bed;

use super::{curl, eventually, with_object};

fn policy(spec: &str) -> String {
    format!(
        "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{namespace: demo, name: web}}, \
         spec: {{targetRefs: [{{group: '', kind: Service, name: web}}], {spec}}}}}"
    )
}

fn status(bed: &Bed, from: &str, method: &str, path: &str, wanted: &str) -> Result<()> {
    let said = curl(bed, from, &["-X", method, &format!("http://10.96.0.10{path}")])?;
    ensure!(said.trim_end().ends_with(wanted), "{method} {path} from {from}: {said}");
    Ok(())
}

pub(crate) fn deny(bed: &mut Bed) -> Result<()> {
    let spec = "action: DENY, rules: [{to: [{operation: {methods: [DELETE], paths: ['/admin*']}}]}]";
    let after =
        |bed: &Bed, wanted| eventually("the policy", || status(bed, "demo/client", "DELETE", "/admin/users", wanted));
    after(bed, "200")?;
    with_object(bed, &policy(spec), |bed| {
        after(bed, "403")?;
        status(bed, "demo/client", "DELETE", "/admin", "403")?;
        status(bed, "demo/client", "GET", "/admin/users", "200")?;
        status(bed, "demo/client", "DELETE", "/users/admin", "200")
    })?;
    after(bed, "200")
}

/// The waypoint stands between both, and still goes by who the client is.
pub(crate) fn allow(bed: &mut Bed) -> Result<()> {
    let spec = "action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/demo/sa/client]}}]}]";
    let stranger = |bed: &Bed, wanted| eventually("the policy", || status(bed, "demo/stranger", "GET", "/", wanted));
    stranger(bed, "200")?;
    with_object(bed, &policy(spec), |bed| {
        stranger(bed, "403")?;
        status(bed, "demo/client", "GET", "/", "200")
    })?;
    stranger(bed, "200")
}
