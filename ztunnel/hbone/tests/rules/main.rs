// SPDX-License-Identifier: Apache-2.0
//! RFC 9113 and our own limits against a peer that is written out frame by frame: what is a fault of one stream, what of the
//! connection, what is passed over, and which code says so.
#![allow(clippy::unwrap_used)]

#[path = "../shell/mod.rs"]
mod shell;

mod headers;
mod life;
mod peer;
mod streams;
mod windows;
