// SPDX-License-Identifier: Apache-2.0
//! The agent's side of the CNI plugin's socket: `<run dir>/pluginevent.sock`, HTTP/1.1 (cni-agent.md P-10 to P-14).
//!
//! Nothing is decided here. Each call becomes one [`Request`] to the agent's loop, and the [`Answer`] the loop gives becomes the plugin's answer. A plugin
//! that gives up takes its request with it: the loop sees the receiver of its reply gone and can stop waiting on its behalf.

mod request;
mod server;
mod socket;

pub use request::{Answer, Request, Sandbox};
pub use server::{Counts, PluginError, serve};
