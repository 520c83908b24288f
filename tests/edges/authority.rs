// SPDX-License-Identifier: Apache-2.0
//! The CA refuses one node: whoever has a certificate goes on, whoever has none is told why, and once it is well it is well.

use anyhow::{Result, ensure};
use harness::{Bed, wait};

use crate::{carried, unharmed};

pub(crate) fn refuses(bed: &mut Bed) -> Result<()> {
    unharmed(bed, |bed| {
        // The CA signs for pods of the caller's node, and of this caller it no longer knows the node.
        let proxy = bed.world.objects.find("Pod", "istio-system", "ztunnel-n1")?.clone();
        bed.world.objects.remove("Pod", "istio-system", "ztunnel-n1")?;
        bed.mesh.until_dump(bed.world.node("n2")?, "nothing of the proxy of n1", |dump| {
            ensure!(!dump["workloads"].to_string().contains("/Pod/istio-system/ztunnel-n1\""), "it is still there");
            Ok(())
        })?;
        bed.apply(
            "{apiVersion: v1, kind: Pod, metadata: {namespace: demo, name: late}, spec: {nodeName: n1, serviceAccountName: late}}",
        )?;
        let mark = bed.mesh.mark("n1")?;
        let calls = refusals(bed)?;
        let mut asked = 0;
        let began = std::time::Instant::now();
        while asked < 20 {
            let said = late(bed)?;
            ensure!(!said.is_good(), "served without a certificate: {}", said.story());
            asked += 1;
        }
        let reason = bed.reason("n1", mark, bed.pod("demo/late")?)?;
        ensure!(reason.contains("the CA refused"), "the reason does not say what is wrong: {reason}");
        // One call in five seconds, however many ask; one more each for the start and for one that was under way.
        let called = refusals(bed)? - calls;
        let most = began.elapsed().as_secs() / 5 + 3;
        ensure!(called <= most, "{called} calls for {asked} connections, {most} expected at most");
        carried(bed)?;

        bed.world.put(proxy)?;
        wait::until("the CA to be heard again", wait::LONG_PATIENCE, || late(bed)?.good())?;
        bed.world.delete_pod("demo/late")
    })
}

fn late(bed: &Bed) -> Result<harness::process::Said> {
    bed.who("demo/late", bed.pod("demo/far")?.v4.into(), 9000)
}

/// How often the CA refused somebody, by its own count.
fn refusals(bed: &Bed) -> Result<u64> {
    let address = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 15014));
    let page = harness::http::fetch(&bed.world.control, "GET", address, "/metrics")?.body;
    let line = page.lines().find_map(|line| line.strip_prefix("citadel_server_impersonation_refused_count_total "));
    Ok(line.map_or(Ok(0), str::parse)?)
}
