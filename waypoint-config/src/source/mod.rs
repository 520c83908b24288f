// SPDX-License-Identifier: Apache-2.0
//! Where objects come from. Every source gives the same stream of [`Batch`]es; `line` takes them in.

mod batch;

pub use batch::{Batch, Fault};
