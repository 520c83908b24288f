// SPDX-License-Identifier: Apache-2.0
//! The test world: two nodes and their pods out of network namespaces, with the real programs in them.
//!
//! Everything lives inside a user, mount, network and process namespace of its own, so no root is needed, the host's network is never touched and
//! nothing is left behind. The harness plays what is not ours: the container runtime and the kubelet (it calls the real CNI plugin), the API server
//! (a directory of YAML), and the wire between the nodes, on which it can listen. It must never play a part of the mesh.
//!
//! Bottom to top: [`wait`] deadlines, [`tools`] outside programs, [`enter`] the way in, [`netns`] network namespaces, [`process`] child processes,
//! [`capture`] listening on a wire, [`http`] a tiny client, [`tokens`] callers' tokens, [`objects`] the directory of YAML, [`runtime`] CNI,
//! [`node`] and [`pod`], [`world`] all of them, [`access`] what a proxy logged, [`programs`] ours, [`mesh`] the three of them in the world, [`certificates`] and
//! [`baseline`] proxies of another kind to compare with, [`bed`] all of it for a test, [`runner`] tests
//! that can say they were skipped.

pub mod access;
pub mod baseline;
pub mod bed;
pub mod capture;
pub mod certificates;
pub mod enter;
pub mod http;
pub mod mesh;
pub mod netns;
pub mod node;
pub mod objects;
pub mod pod;
pub mod process;
pub mod programs;
pub mod runner;
pub mod runtime;
pub mod tokens;
pub mod tools;
pub mod wait;
pub mod world;

pub use bed::Bed;
pub use mesh::Mesh;
pub use runner::{Suite, skip};
pub use world::{Node, Pod, World};
