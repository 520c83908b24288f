// SPDX-License-Identifier: Apache-2.0
//! What a waypoint's Envoy is told. Pure: the resolved mesh goes in, Envoy's own messages come out; `xds` serves them.

pub mod names;
pub mod route;
