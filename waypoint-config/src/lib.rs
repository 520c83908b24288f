// SPDX-License-Identifier: Apache-2.0
//! The control plane, bottom to top.

pub mod api;

pub mod store;

pub mod source;

pub mod view;

pub mod ambient;
pub mod envoy;

pub mod shown;

pub mod fleet;
pub mod jwks;
pub mod settings;

pub mod line;

pub mod preview;

pub mod caller;

pub mod ca;
pub mod control;
pub mod xds;

pub mod listener;

pub mod config;

pub mod waypoint;

pub mod app;
