// SPDX-License-Identifier: Apache-2.0
//! The keys of token issuers, fetched so that Envoys need not: any user of a namespace can name the place, so what is fetched, from where, how much and how
//! long is bounded. `address` says which addresses may be connected to, `place` which URLs, `keyset` what is kept of an answer, `schedule` when to ask;
//! these are pure. `fetch` asks once, `keeper` is the loop. `app` starts it; `line` says what is wanted and takes what comes.

mod address;
mod fetch;
mod keeper;
mod keyset;
mod place;
mod schedule;

pub use address::{Allowed, AllowedError};
pub use fetch::{FetchError, Fetcher};
pub use keeper::{Wanted, run};
pub use place::{Place, PlaceError};
