// SPDX-License-Identifier: Apache-2.0
//! Routes from YAML, judged by the real Envoy: it takes what we make of every row and of whatever else a person may write, and does what the rows say.
//!
//! Envoy is the one the tests of the workspace fetch (`target/tools`), or `ENVOY_BIN`. Without it nothing is shown, and with `CI=true` that is a failure.
#![allow(clippy::unwrap_used)]

mod bootstrap;
mod generated;
mod judge;
mod mesh;
mod rows;
mod upstream;

use judge::Envoy;

/// The Envoy to ask, or why there is none.
fn envoy() -> Option<Envoy> {
    match Envoy::find() {
        Ok(envoy) => Some(envoy),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
            eprintln!("skipped: {why}");
            None
        }
    }
}
