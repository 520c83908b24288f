// SPDX-License-Identifier: Apache-2.0
//! The pair of ordinary proxies beside which ours are measured (`benches/baseline`): one on the node of each of two pods that are not in the mesh but have the
//! rules of pods that are, from the agent's own code.

use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};
use cni_agent::rules;

use crate::{
    certificates::Authority,
    enter::sibling,
    pod::listens,
    process::Program,
    wait,
    world::{Pod, World},
};

/// The pair.
#[derive(Debug)]
pub struct Baseline {
    programs: Vec<Program>,
}

impl Baseline {
    /// Starts a proxy for each of both pods, each of which expects the other. The pods must have their rules already (see [`redirect`]).
    pub fn start(world: &World, authority: &Authority, pods: [&Pod; 2]) -> Result<Self> {
        let mut programs = Vec::new();
        for (pod, other) in [(pods[0], pods[1]), (pods[1], pods[0])] {
            let name = format!("baseline-{}-{}", pod.namespace, pod.name);
            let credential = authority.issue(world.state(), &name, &identity(pod))?;
            let mut command = world.node(&pod.node)?.netns.command(sibling("baseline"));
            command.arg("--netns").arg(pod.netns.path()).arg("--credential").arg(credential);
            command.arg("--peer").arg(identity(other));
            let mut program = Program::start(&name, command, &world.logs().join(format!("{name}.log")))?;
            wait::until(&format!("{name} to listen"), wait::PATIENCE, || -> Result<()> {
                program.check()?;
                ensure!(listens(&pod.netns, 15001)? && listens(&pod.netns, 15008)?, "nothing listens");
                Ok(())
            })?;
            programs.push(program);
        }
        Ok(Self { programs })
    }

    /// The proxies: of the first pod's node, and of the second's.
    #[must_use]
    pub fn programs(&self) -> &[Program] {
        &self.programs
    }
}

/// Gives a pod outside the mesh the rules of one inside: what it opens goes to port 15001, what arrives in plaintext to port 15006, of whoever listens there.
pub fn redirect(pod: &Pod) -> Result<()> {
    rules::apply(pod.netns.as_fd(), &rules::Plan::new(&rules::Options::default()))
        .with_context(|| format!("the rules of {}/{}", pod.namespace, pod.name))?;
    Ok(())
}

/// The SPIFFE id of a pod with its own name as its service account.
#[must_use]
pub fn identity(pod: &Pod) -> String {
    format!("spiffe://cluster.local/ns/{}/sa/{}", pod.namespace, pod.name)
}
