// SPDX-License-Identifier: Apache-2.0
//! Snapshot to the resources of node proxies: `render` keeps [`Resources`] in step with a `view::Snapshot`; each other file makes one message.
//! Pure. Read by `line`, which publishes, and by the discovery server.

mod authorization;
mod encode;
mod notice;
mod peer;
mod render;
mod resources;
mod service;
mod waypoint;
mod workload;

pub use notice::{Effect, Notice, ztunnel_accepted};
pub use render::Renderer;
pub use resources::{Changes, Names, Resource, Resources, Type};
