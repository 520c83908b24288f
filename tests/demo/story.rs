// SPDX-License-Identifier: Apache-2.0
//! The story: its acts in order, and what all their steps share.

use anyhow::Result;
use harness::{Mesh, World, tools};

use crate::{
    enrolment::{self, Connections},
    report::Act,
    waypoint,
};

/// Everything the steps share.
pub(crate) struct Story {
    pub(crate) mesh: Mesh,
    pub(crate) world: World,
    pub(crate) connections: Connections,
}

/// The acts in order.
pub(crate) const ACTS: &[Act<Story>] = &[
    Act { title: "Pods join the mesh and leave it", needs: nothing, steps: enrolment::STEPS },
    Act { title: "A waypoint comes and goes", needs: envoy, steps: waypoint::STEPS },
];

impl Story {
    pub(crate) fn new(world: World, mesh: Mesh) -> Self {
        Self { mesh, world, connections: Connections::default() }
    }
}

fn nothing() -> Result<()> {
    Ok(())
}

fn envoy() -> Result<()> {
    tools::ENVOY.find().map(drop)
}
