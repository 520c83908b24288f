// SPDX-License-Identifier: Apache-2.0
//! The one loop that owns the pods of the node. Everything that happens only says that something may have changed; the loop compares what is wanted
//! with what was observed and takes the next step, for each pod in order, until they agree, and then looks again for ever.
//!
//! `entry` decides a pod's next step, `table` keeps all pods; both are pure. `work` carries steps out, `status` tells the mesh, `sandboxes` remembers
//! network namespaces, `run` is the loop around them.

mod entry;
mod run;
mod sandboxes;
mod status;
mod table;
mod work;

pub use entry::{Report, State, Timing};
pub use run::{Agent, AgentError, Inlets, Options, Overview};
