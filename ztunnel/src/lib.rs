// SPDX-License-Identifier: Apache-2.0
//! The node proxy, bottom to top.
//!
//! One word per thing, from accept to log line. A *pod* is enrolled on this node, by the node agent. A *workload* or a
//! *service* is learnt by discovery. A *peer* is the other end of a TLS session. A *target* is what the application asked
//! for, a *hop* where we dial next. An *identity* is a SPIFFE id, a *credential* its key, chain and roots.

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
