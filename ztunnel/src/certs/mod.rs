// SPDX-License-Identifier: Apache-2.0
//! Workload certificates: which identity when, and the calls that fetch them.
//!
//! `schedule` decides (pure), `interest` counts who wants what (pure), `request` makes a key and a signing request and
//! checks the answer, `keeper` calls the CA and publishes.

mod interest;
mod keeper;
mod request;
mod schedule;

pub use interest::{Interest, Wanted};
pub use keeper::{Authority, CallError, Keeper, Options, Order, Outcome, Published, Standing};
pub use request::{CertificateError, Draft};
pub use schedule::{Action, Priority, Schedule, State, Validity};
