// SPDX-License-Identifier: Apache-2.0
//! The rules and routes inside a pod.
//!
//! `plan` says what belongs into a pod's network namespace, as data. `pod` brings one namespace there, reads back what really stands in it, and
//! takes it out again in two steps. Between them: `expression` and `ruleset` are the kernel's view of the same rules, `compare` and `foreign` judge what
//! was read, `nft` and `routes` speak netlink. Nothing here runs a program, and nothing decides which pod is enrolled.

mod attributes;
mod batch;
mod codec;
mod compare;
mod error;
mod expression;
mod foreign;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod netlink;
mod nft;
mod overrides;
mod plan;
mod pod;
mod routes;
mod rule;
mod ruleset;
mod sockets;
mod text;
mod thread;
mod transaction;

pub use self::compare::{Difference, Observed};
pub use self::error::RulesError;
pub use self::foreign::Foreign;
pub use self::overrides::{Ignored, Overrides};
pub use self::plan::{Marked, Options, Plan, Ports};
pub use self::pod::{Applied, apply, legacy_tables, observe, proxied_connections, release_redirects, remove};
pub use self::sockets::ProxiedConnections;
pub use self::thread::in_netns;
