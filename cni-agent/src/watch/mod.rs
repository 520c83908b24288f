// SPDX-License-Identifier: Apache-2.0
//! Pods of this node and all namespaces, as news. Here they come from a directory of YAML; another source will give the same news.
//!
//! `view` reads files and lays observations over objects, and `observation` says what those may hold, both pure. `listing` walks through the directory,
//! `files` keeps the last good state of what cannot be read or is half written, and `directory` looks again whenever something changes.

mod directory;
mod files;
mod listing;
mod observation;
mod view;

pub use directory::{Directory, WatchError};
pub use view::News;
