// SPDX-License-Identifier: Apache-2.0
//! Who is calling: a client certificate of the mesh, or a Kubernetes service account token. And how much of us each may
//! have at once.

mod authenticator;
mod keyset;
mod peer;
mod share;

pub use authenticator::{AuthenticationError, Authenticator, Caller, PodReference};
pub use keyset::{KeySet, KeySetError};
pub use peer::{CallerKey, Peer};
pub use share::{Share, Shares};
