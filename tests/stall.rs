// SPDX-License-Identifier: Apache-2.0
//! Sixteen readers that stall, and a seventeenth connection between the same two pods. In the ordinary design the credit of a tunnel comes back only with that of its
//! streams, so a few stalled readers take all of it and whatever shares the tunnel hangs; ours gives a tunnel's credit back when bytes arrive.
//!
//! Both are shown, the ordinary design with the pair of proxies the datapath bench compares with.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use harness::{
    Bed, Suite, World,
    baseline::{self, Baseline},
    certificates::Authority,
    process::{Dialogue, Said},
    wait,
};

const OBJECTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: ours, labels: {istio.io/dataplane-mode: ambient}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: ordinary}}
---
apiVersion: v1
kind: Pod
metadata: {namespace: ours, name: client}
spec: {nodeName: n1, serviceAccountName: client}
---
apiVersion: v1
kind: Pod
metadata: {namespace: ours, name: server}
spec:
  nodeName: n2
  serviceAccountName: server
  containers: [{name: peer, command: [peer, serve, '9000', ours], ports: [{containerPort: 9000}]}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: ordinary, name: client}
spec: {nodeName: n1}
---
apiVersion: v1
kind: Pod
metadata: {namespace: ordinary, name: server}
spec:
  nodeName: n2
  containers: [{name: peer, command: [peer, serve, '9000', ordinary], ports: [{containerPort: 9000}]}]
";

/// Four of them with the ordinary design's windows of 4 MiB take all of a tunnel's 16 MiB.
const STALLED: usize = 16;
/// What each reads before it stalls: enough for windows that grow with their readers to have grown.
const APPETITE: &str = "16000000";
/// What a client that stops asks for: more than everything between it and the server holds.
const FEAST: &str = "200000000";

/// The mesh, and what the pair of the ordinary design beside it needs.
struct Pairs {
    bed: Bed,
    authority: Authority,
}

fn main() -> ExitCode {
    Suite::new("stall", prepare)
        .with_programs(&["baseline"])
        .test("sixteen_servers_that_stop_reading_hang_a_fresh_connection_of_the_ordinary_design", |pairs| {
            pairs.hangs(servers_that_stop)
        })
        .test("sixteen_clients_that_stop_reading_hang_a_fresh_connection_of_the_ordinary_design", |pairs| {
            pairs.hangs(clients_that_stop)
        })
        .test("sixteen_servers_that_stop_reading_do_not_touch_a_fresh_connection_of_ours", |pairs| {
            pairs.answers(servers_that_stop)
        })
        .test("sixteen_clients_that_stop_reading_do_not_touch_a_fresh_connection_of_ours", |pairs| {
            pairs.answers(clients_that_stop)
        })
        .main()
}

fn prepare(world: World) -> Result<Pairs> {
    let bed = Bed::start(world, OBJECTS)?;
    for pod in ["ordinary/client", "ordinary/server"] {
        baseline::redirect(bed.pod(pod)?)?;
    }
    Ok(Pairs { bed, authority: Authority::create()? })
}

/// What each of the stalled clients is told.
type Stall = fn(&str) -> Vec<&str>;

fn servers_that_stop(server: &str) -> Vec<&str> {
    vec!["peer", "pour", server, APPETITE]
}

fn clients_that_stop(server: &str) -> Vec<&str> {
    vec!["peer", "stall", server, FEAST, APPETITE]
}

impl Pairs {
    fn fresh(&self, namespace: &str) -> Result<Said> {
        let server = self.bed.pod(&format!("{namespace}/server"))?.v4;
        self.bed.who(&format!("{namespace}/client"), server.into(), 9000)
    }

    fn stall(&self, namespace: &str, stall: Stall) -> Result<Vec<Dialogue>> {
        let server = format!("{}:9000", self.bed.pod(&format!("{namespace}/server"))?.v4);
        let client = self.bed.pod(&format!("{namespace}/client"))?;
        (0..STALLED).map(|_| client.talk(&stall(&server))).collect()
    }

    fn hangs(&self, stall: Stall) -> Result<()> {
        // A pair for each test: what has hung stays so, for proxies that wait for credit do not notice that their application is gone.
        let pods = [self.bed.pod("ordinary/client")?, self.bed.pod("ordinary/server")?];
        let pair = Baseline::start(&self.bed.world, &self.authority, pods)?;
        self.fresh("ordinary")?.good().context("before anything stalls")?;
        let stalled = self.stall("ordinary", stall)?;
        // Each try waits ten seconds for its answer. One that is answered came before the credit was gone; it may go before all sixteen have begun.
        // One that fails at once, refused or reset, does not hang.
        wait::until("a fresh connection to hang", wait::LONG_PATIENCE, || -> Result<()> {
            let said = self.fresh("ordinary")?;
            ensure!(!said.is_good() && said.stderr.contains("no answer within"), "it ended: {}", said.story());
            Ok(())
        })?;
        // The machine is not too busy to answer.
        self.fresh("ours")?.good().context("beside it, in the mesh")?;
        drop((stalled, pair));
        Ok(())
    }

    fn answers(&self, stall: Stall) -> Result<()> {
        let mut stalled = self.stall("ours", stall)?;
        for (number, one) in stalled.iter_mut().enumerate() {
            ensure!(one.hear().with_context(|| format!("connection {number}"))? == "stalled", "it does not stall");
        }
        // Several, so that every data thread's tunnel is asked.
        for number in 0..20 {
            self.fresh("ours")?.good().with_context(|| format!("fresh connection {number}"))?;
        }
        drop(stalled);
        Ok(())
    }
}
