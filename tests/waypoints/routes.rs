// SPDX-License-Identifier: Apache-2.0
//! Where requests go.

use anyhow::{Result, ensure};
use harness::{Bed, wait};

use super::{WEB, curl, eventually, with_object};

pub(crate) fn route(rules: &str) -> String {
    format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{namespace: demo, name: web}}, \
         spec: {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: {rules}}}}}"
    )
}

pub(crate) fn by_header(bed: &mut Bed) -> Result<()> {
    let marked = |bed: &Bed| curl(bed, "demo/client", &["-H", "x-version: two", WEB]);
    let goes_to = |bed: &Bed, to: &str| {
        eventually(&format!("a request with the header to reach {to}"), || {
            let said = marked(bed)?;
            ensure!(said.contains(to), "{said}");
            Ok(())
        })
    };
    goes_to(bed, "one through")?;
    let rules = "[{matches: [{headers: [{name: x-version, value: two}]}], backendRefs: [{name: two, port: 80}]}, \
                  {backendRefs: [{name: web, port: 80}]}]";
    with_object(bed, &route(rules), |bed| {
        goes_to(bed, "two through")?;
        for header in ["x-version: twofold", "x-versions: two"] {
            let said = curl(bed, "demo/client", &["-H", header, WEB])?;
            ensure!(said.contains("one through"), "with `{header}`: {said}");
        }
        Ok(())
    })?;
    goes_to(bed, "one through")
}

/// Of 1,000 requests 100 are expected, with a standard deviation of 9.5: outside of these bounds in fewer than one of ten million runs.
pub(crate) fn by_weight(bed: &mut Bed) -> Result<()> {
    let rules = "[{backendRefs: [{name: web, port: 80, weight: 90}, {name: two, port: 80, weight: 10}]}]";
    with_object(bed, &route(rules), |bed| {
        eventually("a request to reach the new version", || {
            let said = curl(bed, "demo/client", &[WEB])?;
            ensure!(said.contains("two through"), "{said}");
            Ok(())
        })?;
        let line = ["curl", "-sS", "--max-time", "10", "http://10.96.0.10/?[1-1000]"];
        let said = bed.pod("demo/client")?.run_for(&line, wait::LONG_PATIENCE)?.good()?;
        let count = |of: &str| said.lines().filter(|line| *line == of).count();
        let (one, two) = (count("one through"), count("two through"));
        ensure!(one + two == 1000, "{one} and {two} of 1,000 requests were answered");
        ensure!((50..=180).contains(&two), "{two} of 1,000 requests reached the version that should have a tenth");
        Ok(())
    })
}
