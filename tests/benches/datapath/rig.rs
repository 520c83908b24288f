// SPDX-License-Identifier: Apache-2.0
//! The world of the bench: for each variant a client pod on one node and a server pod on the other, alike in everything but what connects them.

use std::{fmt::Write as _, net::IpAddr};

use anyhow::{Context, Result, ensure};
use harness::{
    Mesh, Pod, World,
    baseline::{self, Baseline},
    certificates::Authority,
    process::{Dialogue, Program, Said},
    wait,
};
use nix::sys::signal::Signal;

use crate::{
    case::{Server, Variant},
    envoy::Envoys,
    results::Resident,
    usage::{resident, settled},
};

/// The first port of the load program's server.
pub(crate) const PORT: u16 = 7000;

/// World, proxies and servers.
pub(crate) struct Rig {
    // Dropped in this order.
    servers: Vec<(Variant, Dialogue)>,
    plain: Option<Dialogue>,
    baseline: Option<Baseline>,
    envoys: Option<Envoys>,
    mesh: Option<Mesh>,
    authority: Authority,
    pub(crate) world: World,
    /// Of our proxies before any load.
    pub(crate) resident: Option<Resident>,
}

impl Rig {
    /// Builds all that the variants need.
    pub(crate) fn build(mut world: World, variants: &[Variant]) -> Result<Self> {
        let mesh = if variants.contains(&Variant::Ours) { Some(Mesh::start(&mut world)?) } else { None };
        let without_pods = mesh.as_ref().map(in_memory).transpose()?;
        world.apply(&objects(variants))?;
        let mut resident = None;
        if let (Some(mesh), Some(without_pods)) = (&mesh, without_pods) {
            mesh.settle(&world)?;
            mesh.await_policies(&world, Variant::Ours.name(), &["clients"])?;
            resident = Some(Resident { without_pods, with_pods: in_memory(mesh)? });
        }
        let mut rig = Self {
            servers: Vec::new(),
            plain: None,
            baseline: None,
            envoys: None,
            mesh,
            authority: Authority::create()?,
            world,
            resident,
        };
        for variant in variants.iter().copied() {
            rig.servers.push((variant, serve(rig.pod(variant, "server")?)?));
            if matches!(variant, Variant::Baseline | Variant::Envoy) {
                for pod in ["client", "server"] {
                    baseline::redirect(rig.pod(variant, pod)?)?;
                }
            }
            rig.start_proxies(variant)?;
            rig.probe(variant)?;
            rig.verify(variant)?;
            for pod in ["client", "server"] {
                // A fast machine closes more connections in two minutes than the kernel's table of them holds. Without rules there is no such table.
                let _ = rig.pod(variant, pod)?.netns.sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "5");
            }
        }
        rig.plain = Some(serve(rig.world.pod("plain/server")?)?);
        Ok(rig)
    }

    /// Starts the proxies of a variant anew: what earlier cases left in them is gone.
    pub(crate) fn restart(&mut self, variant: Variant) -> Result<()> {
        match (variant, &mut self.mesh) {
            (Variant::Ours, Some(mesh)) => {
                for node in self.world.nodes() {
                    mesh.take(&format!("{}-ztunnel", node.name))?.stop()?;
                    mesh.start_ztunnel(&self.world, node)?;
                }
                for node in self.world.nodes() {
                    mesh.ready(node)?;
                }
                mesh.settle(&self.world)?;
                mesh.await_policies(&self.world, variant.name(), &["clients"])?;
            }
            _ => self.start_proxies(variant)?,
        }
        self.probe(variant)
    }

    fn start_proxies(&mut self, variant: Variant) -> Result<()> {
        // The old ones have to leave their ports first.
        match variant {
            Variant::Baseline => {
                self.baseline = None;
                let pods = [self.pod(variant, "client")?, self.pod(variant, "server")?];
                self.baseline = Some(Baseline::start(&self.world, &self.authority, pods)?);
            }
            Variant::Envoy => {
                self.envoys = None;
                let pods = [self.pod(variant, "client")?, self.pod(variant, "server")?];
                self.envoys = Some(Envoys::start(&self.world, &self.authority, pods)?);
            }
            Variant::Direct | Variant::Ours => {}
        }
        Ok(())
    }

    /// A pod of a variant.
    pub(crate) fn pod(&self, variant: Variant, name: &str) -> Result<&Pod> {
        self.world.pod(&format!("{variant}/{name}"))
    }

    /// The proxies of a variant: of the client's node, and of the server's.
    pub(crate) fn proxies(&self, variant: Variant) -> Result<Vec<u32>> {
        let pids = |programs: &[&Program]| programs.iter().map(|program| program.pid()).collect();
        Ok(match variant {
            Variant::Direct => Vec::new(),
            Variant::Baseline => {
                let pair = self.baseline.as_ref().context("no baseline runs")?;
                pids(&pair.programs().iter().collect::<Vec<_>>())
            }
            Variant::Envoy => {
                let pair = self.envoys.as_ref().context("no Envoy runs")?;
                pids(&pair.programs().iter().collect::<Vec<_>>())
            }
            Variant::Ours => ztunnels(self.mesh.as_ref().context("no mesh runs")?)?,
        })
    }

    /// Every process of the mesh.
    pub(crate) fn mesh_processes(&self) -> Vec<u32> {
        self.mesh.iter().flat_map(Mesh::programs).map(Program::pid).collect()
    }

    /// Lets only the proxies of one variant run. The mesh's programs are never stopped, for they have clocks to keep; how little they do while others are
    /// measured is part of the report.
    pub(crate) fn spotlight(&self, variant: Variant) -> Result<()> {
        let pairs = [
            (Variant::Baseline, self.baseline.as_ref().map_or(&[][..], Baseline::programs)),
            (Variant::Envoy, self.envoys.as_ref().map_or(&[][..], Envoys::programs)),
        ];
        for (of, programs) in pairs {
            let signal = if of == variant { Signal::SIGCONT } else { Signal::SIGSTOP };
            programs.iter().try_for_each(|program| program.signal(signal))?;
        }
        Ok(())
    }

    /// The address clients of a case connect to.
    pub(crate) fn address(&self, variant: Variant, server: Server) -> Result<IpAddr> {
        Ok(match server {
            Server::Peer => self.pod(variant, "server")?.v4.into(),
            Server::Plain => self.world.pod("plain/server")?.v4.into(),
        })
    }

    /// The server of a case.
    pub(crate) fn server(&mut self, variant: Variant, server: Server) -> Result<&mut Dialogue> {
        match server {
            Server::Plain => self.plain.as_mut().context("no plain server runs"),
            Server::Peer => self
                .servers
                .iter_mut()
                .find_map(|(of, server)| (*of == variant).then_some(server))
                .with_context(|| format!("no server for {variant} runs")),
        }
    }

    /// Makes sure that a variant is what it claims to be: the application sees the client's address, and what goes over the wire between the nodes goes in a
    /// tunnel or, without proxies, does not.
    fn verify(&self, variant: Variant) -> Result<()> {
        let (client, server) = (self.pod(variant, "client")?, self.pod(variant, "server")?);
        let port = PORT - 1;
        let mut command = server.command("peer");
        command.args(["serve", &port.to_string()]);
        let _asked = Program::start("peer", command, &self.world.logs().join("peer.log"))?;
        let capture = self.world.listen()?;
        let seen = wait::until(&format!("an answer by {variant}"), wait::PATIENCE, || {
            client.run(&["peer", "who", &format!("{}:{port}", server.v4)]).and_then(Said::good)
        })?;
        let caught = capture.stop()?;
        ensure!(seen.trim() == client.v4.to_string(), "through {variant} the application sees {seen}");
        let (plain, tunnelled) = (caught.bytes_on(port), caught.bytes_on(15008));
        ensure!(
            if variant == Variant::Direct { plain > 0 && tunnelled == 0 } else { plain == 0 && tunnelled > 0 },
            "through {variant} the wire carries {}",
            caught.summary()
        );
        Ok(())
    }

    /// Waits until a variant carries a connection.
    fn probe(&self, variant: Variant) -> Result<()> {
        let to = self.pod(variant, "server")?.v4.to_string();
        let line = ["load", "run", "hold", &to, &PORT.to_string(), "1"];
        self.spotlight(variant)?;
        wait::until(&format!("{variant} to carry a connection"), wait::PATIENCE, || {
            self.pod(variant, "client")?.run(&line).and_then(Said::good)
        })?;
        Ok(())
    }
}

/// The mesh's proxies: of the client's node, and of the server's.
fn ztunnels(mesh: &Mesh) -> Result<Vec<u32>> {
    ["n1-ztunnel", "n2-ztunnel"].iter().map(|name| Ok(mesh.program(name)?.pid())).collect()
}

fn in_memory(mesh: &Mesh) -> Result<Vec<u64>> {
    settled(&ztunnels(mesh)?, resident)
}

fn serve(pod: &Pod) -> Result<Dialogue> {
    let mut server = pod.talk(&["load", "serve", &PORT.to_string()])?;
    server.hear()?;
    Ok(server)
}

/// A namespace with two pods for each variant, one with a server outside the mesh, and a policy in the mesh so that ours has one to ask.
fn objects(variants: &[Variant]) -> String {
    let mut yaml = String::new();
    let mut pod = |namespace: &str, name: &str, node: &str| {
        let _ = writeln!(
            yaml,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: {namespace}, name: {name}, labels: {{app: {name}}}}}\n\
             spec: {{nodeName: {node}, serviceAccountName: {name}}}"
        );
    };
    pod("plain", "server", "n2");
    for variant in variants {
        pod(variant.name(), "client", "n1");
        pod(variant.name(), "server", "n2");
    }
    for name in variants.iter().map(|variant| variant.name()).chain(["plain"]) {
        let labels = if name == Variant::Ours.name() { "{istio.io/dataplane-mode: ambient}" } else { "{}" };
        let _ = writeln!(yaml, "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {labels}}}");
    }
    yaml.push_str(POLICY);
    yaml
}

const POLICY: &str = "
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {namespace: ours, name: clients}
spec:
  selector: {matchLabels: {app: server}}
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/ours/sa/client]}}]}]
";
