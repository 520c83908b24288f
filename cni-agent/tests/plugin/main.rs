// SPDX-License-Identifier: Apache-2.0
//! The plugin as a process against the agent's real server, and the server against what Istio's plugin sends.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod node;
mod program;
mod server;
