// SPDX-License-Identifier: Apache-2.0
//! The process: what every main needs and nothing of the mesh.
//!
//! A main reads its configuration, calls [`telemetry::init`], makes one [`lifecycle::Tasks`], one [`lifecycle::Readiness`] and one
//! [`lifecycle::drain`] pair, binds its [`admin::Server`]s, starts its parts and waits for [`lifecycle::Shutdown::requested`].

#![warn(missing_docs)]

pub mod admin;
pub mod lifecycle;
pub mod telemetry;
