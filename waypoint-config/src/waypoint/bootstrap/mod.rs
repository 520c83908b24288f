// SPDX-License-Identifier: Apache-2.0
//! What Envoy starts with: who it is, where discovery is and how it is trusted, its limits, and the listeners that are not the mesh's. Pure: one typed
//! input, one JSON value.

mod discovery;
mod input;
mod limits;
mod listener;
mod node;
mod render;

pub use input::{Bootstrap, Limits, Node};
pub(super) use listener::ADMIN;
pub use node::labels;
pub use render::render;
