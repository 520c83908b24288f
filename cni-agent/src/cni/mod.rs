// SPDX-License-Identifier: Apache-2.0
//! The container network interface as the plugin speaks it: parameters, configuration, results, errors, and what plugin and agent say to each other.
//!
//! Pure but for [`snapshot::file`]. Used by the `lateen-cni` program, and by `plugin` for the agent's end of the conversation. It follows the CNI
//! specification, versions 0.1.0 to 1.1.0, and Istio's plugin where that is visible from outside (cni-agent.md §1.8 to §1.10).

mod arguments;
mod config;
mod environment;
mod error;
mod outcome;
mod version;

pub mod question;
pub mod snapshot;

pub use arguments::{Pod, parse_arguments};
pub use config::{Admission, Config};
pub use environment::{Command, Environment, Sandbox};
pub use error::{CniError, Code};
pub use outcome::{addresses, result, versions};
pub use version::Version;

#[cfg(test)]
mod tests;
