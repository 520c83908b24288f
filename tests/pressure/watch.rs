// SPDX-License-Identifier: Apache-2.0
//! Listening for anything that leaves or reaches a pod of the mesh beside the tunnels: on the wire between the nodes, and on each pod's own link, which is
//! where traffic between two pods of one node would be heard, and by which alone anything could reach a server past its proxy.

use anyhow::{Context, Result, ensure};
use harness::{Bed, capture::Capture, node::WIRE};

use crate::field::{CLIENTS, SERVERS};

const HBONE: u16 = 15008;

/// Running captures, each with the name of where it listens.
#[derive(Debug)]
pub(crate) struct Watch(Vec<(String, Capture)>);

impl Watch {
    /// Listens on the wire and on the links of the mesh's pods.
    pub(crate) fn start(bed: &Bed) -> Result<Self> {
        let wire = Capture::start_beside(&bed.world.nodes()[0].netns, WIRE, HBONE)?;
        let mut captures = vec![("the wire".to_owned(), wire)];
        for path in CLIENTS.iter().chain(&SERVERS) {
            captures.push((format!("the link of {path}"), on_link(bed, path)?));
        }
        Ok(Self(captures))
    }

    /// An error if a single packet was heard: where there is no handshake in the clear there is no payload either.
    pub(crate) fn stop(self) -> Result<()> {
        for (place, capture) in self.0 {
            let caught = capture.stop()?;
            ensure!(caught.packets == 0, "heard on {place} beside the tunnels: {}", caught.summary());
        }
        Ok(())
    }
}

/// Shows that these ears hear: two pods outside the mesh talk, on the wire and on the server's link.
pub(crate) fn prove(bed: &Bed) -> Result<()> {
    let wire = Capture::start_beside(&bed.world.nodes()[0].netns, WIRE, HBONE)?;
    let link = on_link(bed, "plain/server")?;
    let deaf = Capture::start_beside(&bed.world.nodes()[0].netns, WIRE, 9000)?;
    for address in bed.pod("plain/server")?.addresses() {
        bed.who("plain/client", address, 9000)?.good()?;
    }
    for (place, capture) in [("the wire", wire), ("the link of plain/server", link)] {
        let caught = capture.stop()?;
        ensure!(caught.bytes_on(9000) > 0, "nothing heard on {place} of two pods outside the mesh");
    }
    let caught = deaf.stop()?;
    ensure!(caught.bytes_on(9000) == 0, "heard what it should be deaf to: {}", caught.summary());
    Ok(())
}

fn on_link(bed: &Bed, path: &str) -> Result<Capture> {
    let pod = bed.pod(path)?;
    let link = pod.sandbox.result["interfaces"][0]["name"].as_str().context("a pod without a link")?;
    Capture::start_beside(&bed.world.node(&pod.node)?.netns, link, HBONE)
}
