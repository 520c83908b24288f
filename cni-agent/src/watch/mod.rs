// SPDX-License-Identifier: Apache-2.0
//! Pods of this node and all namespaces, as news. Here they come from a directory of YAML; another source will give the same news.
//!
//! `view` reads files and lays observations over objects, pure; `directory` looks at the directory and keeps the last good state of what cannot be read.

mod directory;
mod view;

pub use directory::{Directory, WatchError};
pub use view::News;
