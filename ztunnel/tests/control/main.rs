// SPDX-License-Identifier: Apache-2.0
//! The shells of the control side against small real servers: gRPC over TLS, and a packet socket that passes real
//! descriptors. What they decide is tested at their cores.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod certs;
mod server;
mod xds;
mod zds;
