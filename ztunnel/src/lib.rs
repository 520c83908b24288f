// SPDX-License-Identifier: Apache-2.0
//! The node proxy, bottom to top.

pub mod backoff;
pub mod mesh;
pub mod metrics;

pub mod decide;

pub mod net;

pub mod tls;

pub mod control_plane;

pub mod certs;
pub mod xds;
pub mod zds;

pub mod engine;

pub mod pods;

pub mod config;

pub mod admin;

pub mod app;
