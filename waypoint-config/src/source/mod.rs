// SPDX-License-Identifier: Apache-2.0
//! Where objects come from. Every source gives the same stream of [`Batch`]es; `line` takes them in.
//!
//! `files` is the shell around a directory; what decides in it is pure and lies beside it: `document` (bytes to objects), `observation` (what programs
//! saw, laid over them), `ledger` (which file said what, and what stands), `patience` (when a file is believed).

mod batch;
mod document;
pub mod files;
mod folder;
mod ledger;
mod observation;
mod patience;

pub use batch::{Batch, Fault};
pub use document::{Broken, Entry, MAX_FILE_BYTES, Reading, Role};
pub use ledger::Ledger;
