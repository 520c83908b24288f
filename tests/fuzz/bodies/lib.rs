// SPDX-License-Identifier: Apache-2.0
//! The bodies of the fuzz targets, and what they need from the tests that share them.

#[path = "../../../ztunnel/hbone/tests/shell/mod.rs"]
pub mod shell;

pub mod choices;
pub mod hbone;
pub mod mesh;
pub mod packets;
pub mod plugin;
pub mod zds;
