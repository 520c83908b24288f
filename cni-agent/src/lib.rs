// SPDX-License-Identifier: Apache-2.0
//! The node agent, bottom to top.

pub mod names;

pub mod cni;
pub mod enrol;

pub mod rules;

pub mod find;

pub mod plugin;
pub mod watch;
pub mod zds;

pub mod agent;

pub mod config;

pub mod app;
