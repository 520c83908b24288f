// SPDX-License-Identifier: Apache-2.0
//! Who is calling: a client certificate of the mesh, or a Kubernetes service account token.

mod authenticator;
mod keyset;

pub use authenticator::{AuthenticationError, Authenticator, Caller, Peer, PodReference};
pub use keyset::{KeySet, KeySetError};
