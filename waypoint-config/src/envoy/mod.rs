// SPDX-License-Identifier: Apache-2.0
//! What a waypoint's Envoy gets: listeners, clusters, endpoints and routes out of what the waypoint serves (control-plane.md §5). Pure. `render` keeps
//! them in step with `input`, `resources` is what the discovery server reads; `listener`, `cluster` and `access` translate. Stock Envoy must accept all of
//! it; Istio's build of Envoy is recognised by what it announces (`profile`).

mod access;
mod canonical;
mod cluster;
mod encode;
pub mod format;
pub mod input;
mod listener;
mod message;
pub mod names;
mod notice;
mod profile;
mod render;
pub mod resources;
pub mod route;

pub use access::{About, Said};
pub use encode::pack;
pub use notice::Notice;
pub use profile::{Flavour, Profile, RUNTIME, Secrets, Viewer};
pub use render::{Renderer, Unit};
pub use resources::{Resource, Resources, Type};
