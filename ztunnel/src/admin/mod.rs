// SPDX-License-Identifier: Apache-2.0
//! The admin server of this node (localhost:15000): what the program knows, as JSON, for `istioctl ztunnel-config` and for
//! people (ztunnel.md §14). Shows keys to nobody.

mod certificates;
mod dump;

pub use dump::{ConfigDump, Sources};
