// SPDX-License-Identifier: Apache-2.0
//! A test bed: a world with the mesh running in it and some pods, and the questions tests ask of it again and again.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};

use crate::{
    access::Connection,
    mesh::Mesh,
    process::Said,
    world::{Pod, World},
};

/// World and mesh.
#[derive(Debug)]
pub struct Bed {
    /// The mesh; before the world, so that it is taken down first.
    pub mesh: Mesh,
    /// The world.
    pub world: World,
}

/// What both proxies logged of one connection.
#[derive(Debug)]
pub struct Seen {
    /// The proxy of the caller's node.
    pub outbound: Connection,
    /// The proxy of the server's node.
    pub inbound: Connection,
}

impl Bed {
    /// Starts the mesh, applies objects, and waits until all of it is as the labels say.
    pub fn start(world: World, yaml: &str) -> Result<Self> {
        Self::start_with(world, yaml, &[])
    }

    /// The same with more variables in the proxies' environment.
    pub fn start_with(mut world: World, yaml: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let mesh = Mesh::start_with(&mut world, settings)?;
        let mut bed = Self { mesh, world };
        bed.apply(yaml)?;
        Ok(bed)
    }

    /// Applies objects and waits for pods and proxies.
    pub fn apply(&mut self, yaml: &str) -> Result<()> {
        self.world.apply(yaml)?;
        self.mesh.settle(&self.world)
    }

    /// A pod by `namespace/name`.
    pub fn pod(&self, path: &str) -> Result<&Pod> {
        self.world.pod(path)
    }

    /// Asks a `peer serve` at `address` whom it sees, from pod `from`.
    pub fn who(&self, from: &str, address: IpAddr, port: u16) -> Result<Said> {
        self.pod(from)?.run(&["peer", "who", &SocketAddr::new(address, port).to_string()])
    }

    /// Fetches a page from pod `from`.
    pub fn curl(&self, from: &str, url: &str) -> Result<Said> {
        self.pod(from)?.run(&["curl", "-sS", "--max-time", "10", url])
    }

    /// Makes one connection through `call` from pod `from` to pod `to`, and finds it in the access logs of both proxies, carried over HBONE with the
    /// SPIFFE ids of both pods.
    pub fn carried(&self, from: &str, to: &str, call: impl FnOnce(&Self) -> Result<()>) -> Result<Seen> {
        let (caller, server) = (self.pod(from)?, self.pod(to)?);
        let marks = (self.mesh.mark(&caller.node)?, self.mesh.mark(&server.node)?);
        call(self)?;
        let between =
            |line: &Connection| line.field("src.workload") == caller.name && line.field("dst.workload") == server.name;
        let outbound = self
            .mesh
            .connection(&caller.node, marks.0, |line| line.is_outbound() && between(line))
            .context("outbound")?;
        let inbound = self
            .mesh
            .connection(&server.node, marks.1, |line| !line.is_outbound() && between(line))
            .context("inbound")?;
        let wanted = (self.identity(from)?, self.identity(to)?);
        for line in [&outbound, &inbound] {
            ensure!(line.identities() == wanted, "expected the identities {wanted:?} in {line}");
        }
        Ok(Seen { outbound, inbound })
    }

    /// The SPIFFE id a pod has by its manifest.
    pub fn identity(&self, path: &str) -> Result<String> {
        let pod = self.pod(path)?;
        let manifest = self.world.objects.find("Pod", &pod.namespace, &pod.name)?;
        let account = manifest["spec"]["serviceAccountName"].as_str().unwrap_or("default");
        Ok(format!("spiffe://cluster.local/ns/{}/sa/{account}", pod.namespace))
    }

    /// Waits for the reason a proxy gave for a connection of pod `from` that failed, behind `mark` in the log of `node`.
    pub fn reason(&self, node: &str, mark: usize, from: &Pod) -> Result<String> {
        let failed = |line: &Connection| {
            let source = line.field("src.addr");
            !line.field("error").is_empty()
                && (source.contains(&from.v4.to_string()) || source.contains(&from.v6.to_string()))
        };
        Ok(self.mesh.connection(node, mark, failed)?.field("error"))
    }
}
