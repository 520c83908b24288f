// SPDX-License-Identifier: Apache-2.0
//! The control plane killed under load: nobody notices, and what changed meanwhile is made up for.

use anyhow::{Result, ensure};
use harness::{Bed, mesh, wait};

use crate::{
    field::{Field, Open},
    load::Load,
    proxies::certificates,
};

const EARLY: &str = "
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: early}
spec: {nodeName: n2, serviceAccountName: early}
";

const LATE: &str = "
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: late}
spec: {nodeName: n1, serviceAccountName: late}
";

const DENY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {namespace: demo, name: not-late}
spec:
  selector: {matchLabels: {app: server2}}
  action: DENY
  rules: [{from: [{source: {serviceAccounts: [late]}}]}]
";

/// See the module's text.
pub(crate) fn killed(field: &mut Field) -> Result<()> {
    let Field { bed, chance, .. } = field;
    bed.apply(EARLY)?;
    let uid = bed.pod("demo/early")?.sandbox.uid.clone();
    let mut load = Load::start(bed, 2, 2)?;
    load.goes_on(3)?;
    let held = certificates(bed)?;
    ensure!(held.values().all(|serial| !serial.is_empty()), "certificates without serial numbers: {held:?}");

    let mut open = Open::all(bed)?;

    load.ends(chance.below(100))?;
    bed.mesh.take("control")?.kill()?;
    load.goes_on(5)?;
    // Known to the agent, not to the proxies.
    bed.world.apply(LATE)?;
    bed.world.apply(DENY)?;
    bed.world.delete_pod("demo/early")?;
    // And again, while it starts.
    bed.mesh.start_control(&bed.world)?;
    load.ends(chance.below(20))?;
    bed.mesh.take("control")?.kill()?;
    load.goes_on(5)?;
    bed.mesh.start_control(&bed.world)?;

    bed.mesh.await_policies(&bed.world, "demo", &["not-late"])?;
    bed.mesh.settle(&bed.world)?;
    for node in bed.world.nodes() {
        bed.mesh.until_dump(node, "nothing of demo/early", |dump| {
            ensure!(!dump["workloads"].to_string().contains("/Pod/demo/early\""), "still among the workloads");
            ensure!(!dump["workloadState"].to_string().contains(&uid), "still among the pods");
            Ok(())
        })?;
    }
    let late = |bed: &Bed, server: &str| bed.who("demo/late", bed.pod(server)?.v4.into(), 9000);
    wait::until("the new pod to be served", mesh::SETTLING, || late(bed, "demo/server1")?.good())?;
    let said = late(bed, "demo/server2")?;
    ensure!(!said.is_good(), "a policy made meanwhile is not in force: {}", said.story());
    load.goes_on(3)?;
    load.stop()?.is_clean()?;
    open.live()?;

    let now = certificates(bed)?;
    for ((node, identity), serial) in held.iter().filter(|((_, identity), _)| !identity.ends_with("/sa/early")) {
        let found = now.get(&(node.clone(), identity.clone()));
        ensure!(found == Some(serial), "{node} had the certificate {serial} of {identity}, and has {found:?}");
    }
    bed.world.objects.remove("AuthorizationPolicy", "demo", "not-late")?;
    bed.mesh.await_policies(&bed.world, "demo", &[])?;
    bed.world.delete_pod("demo/late")
}
