// SPDX-License-Identifier: Apache-2.0
//! The socket node proxies connect to: which pods to listen in, with their network namespaces (cni-agent.md §6).
//!
//! `session` is one proxy's conversation, pure; `server` keeps the list of pods and carries the conversations. Flow: the proxy says hello, is given the
//! whole list, and then every change; each message is answered before the next is sent. New pods go to the newest proxy, removals to all.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod server;
mod session;

pub use server::{Event, ListenError, Proxies, ZdsError, bind};
pub use session::PodInfo;
