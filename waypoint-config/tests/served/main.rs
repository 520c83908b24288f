// SPDX-License-Identifier: Apache-2.0
//! What a waypoint's Envoy gets, judged by a real Envoy (`--mode validate`), counted, and encoded twice.
//!
//! The judge is found by `ENVOY_BIN`, else among the tools of this build; a run without one says so and fails where `CI` is set.
#![allow(clippy::unwrap_used)]

mod cases;
mod directories;
mod generated;
mod golden;
mod incremental;
mod judge;
mod mesh;
mod operator;
mod stable;
