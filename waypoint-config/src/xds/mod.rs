// SPDX-License-Identifier: Apache-2.0
//! The discovery server: one pure session per stream, and the server that carries it.

pub mod delta;
