// SPDX-License-Identifier: Apache-2.0
//! The one configuration of the program: the sum of its parts' options (ztunnel.md §1.6, same names and defaults).
//!
//! `args` is what can be said, as text, and what `--help` prints; `environment` the variables whose names are open;
//! `proxy_config` the file and its variable; `value` the ways to write a value; `resolve` makes the [`Config`] and
//! reports every mistake together (`mistakes`), with the help of `planes`; `threads` counts data threads; `limits` is what is held and waited for at most; `shown` is what `config_dump` shows. Nothing here
//! touches the host: main reads files and environment once and hands them in.

mod args;
mod environment;
mod limits;
mod mistakes;
mod planes;
mod proxy_config;
mod resolve;
mod shown;
mod threads;
mod value;

pub use args::{Args, Command};
pub use environment::Environment;
pub use mistakes::ConfigError;
pub use proxy_config::{MESH_CONFIG_PATH, ProxyConfig};
pub use resolve::{Config, Hbone, OwnPod, World};
pub use threads::Threads;
