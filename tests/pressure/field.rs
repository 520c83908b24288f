// SPDX-License-Identifier: Apache-2.0
//! What all of these tests share: a client and a server on each node, two pods outside the mesh, and how much the programs used at the start.

use anyhow::{Context, Result, ensure};
use harness::{Bed, World, process::Dialogue};

use crate::{chance::Chance, load::Load, usage::Usage};

/// How long pods and traffic may take.
pub(crate) use harness::wait::LONG_PATIENCE as PATIENCE;

const OBJECTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: demo, labels: {istio.io/dataplane-mode: ambient}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: churn, labels: {istio.io/dataplane-mode: ambient}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: plain}}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: client1}
spec: {nodeName: n1, serviceAccountName: client1}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: server1}
spec:
  nodeName: n1
  serviceAccountName: server1
  containers: [{name: peer, command: [peer, serve, '9000', server1], ports: [{containerPort: 9000}]}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: client2}
spec: {nodeName: n2, serviceAccountName: client2}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: server2, labels: {app: server2}}
spec:
  nodeName: n2
  serviceAccountName: server2
  containers: [{name: peer, command: [peer, serve, '9000', server2], ports: [{containerPort: 9000}]}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: plain, name: client}
spec: {nodeName: n1}
---
apiVersion: v1
kind: Pod
metadata: {namespace: plain, name: server}
spec:
  nodeName: n2
  containers: [{name: peer, command: [peer, serve, '9000', plain], ports: [{containerPort: 9000}]}]
";

/// The client pods of the mesh.
pub(crate) const CLIENTS: [&str; 2] = ["demo/client1", "demo/client2"];
/// Its servers, of the same nodes.
pub(crate) const SERVERS: [&str; 2] = ["demo/server1", "demo/server2"];

/// Connections from every client to every server that stay open for long.
#[derive(Debug)]
pub(crate) struct Open(Vec<(String, Dialogue)>);

impl Open {
    /// Opens them.
    pub(crate) fn all(bed: &Bed) -> Result<Self> {
        let mut open = Vec::new();
        for (client, server) in CLIENTS.iter().flat_map(|client| SERVERS.map(|server| (client, server))) {
            let to = format!("{}:9000", bed.pod(server)?.v4);
            let mut talk = bed.pod(client)?.talk(&["peer", "talk", &to])?;
            talk.hear()?;
            open.push((format!("{client} to {server}"), talk));
        }
        let mut all = Self(open);
        all.live()?;
        Ok(all)
    }

    /// An error if one is broken.
    pub(crate) fn live(&mut self) -> Result<()> {
        for (way, talk) in &mut self.0 {
            let answer = talk.ask("still there?").with_context(|| way.clone())?;
            ensure!(answer == "still there?", "a long-lived connection from {way} says {answer:?}");
        }
        Ok(())
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Field {
    /// Mesh and world.
    pub(crate) bed: Bed,
    /// What chance decides.
    pub(crate) chance: Chance,
    /// What the programs used at the start, after a first load.
    pub(crate) start: Usage,
}

impl Field {
    /// Starts the mesh, and lets it carry something before it counts what that takes.
    pub(crate) fn prepare(world: World) -> Result<Self> {
        let chance = Chance::seeded();
        let bed = Bed::start(world, OBJECTS)?;
        let mut load = Load::start(&bed, 3, 2)?;
        load.goes_on(5)?;
        load.stop()?.is_clean()?;
        let start = Usage::of(&bed)?;
        println!("at the start:\n{start}");
        Ok(Self { bed, chance, start })
    }
}
