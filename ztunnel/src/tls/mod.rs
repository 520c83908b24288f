// SPDX-License-Identifier: Apache-2.0
//! TLS sessions with SPIFFE identities: TLS 1.3 only, both ends authenticated, ALPN `h2`, no SNI.
//!
//! `certs` builds [`Credential`]s, `engine` runs [`Handshake`]s and then moves application data through [`record::Records`]. A [`PeerIdentity`] can
//! only be made here, from a certificate that was verified in a finished handshake.

mod credential;
pub mod record;
mod session;
mod verify;

pub use credential::{Credential, Material};
pub use session::{Established, Handshake, PeerIdentity, Progress};
pub use verify::identities_of;

use mesh_proto::spiffe::Identity;

/// Why TLS failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Key, chain or roots cannot be used.
    #[error("the credential of {identity} cannot be used: {reason}")]
    Credential {
        /// Whose.
        identity: Box<Identity>,
        /// What is wrong with it.
        reason: String,
    },
    /// The peer is not who it must be.
    #[error("identity verification error: {0}")]
    Identity(verify::WrongIdentity),
    /// The handshake or a record failed.
    #[error("TLS: {0}")]
    Protocol(#[source] rustls::Error),
    /// The peer sent more handshake bytes than a handshake has.
    #[error("TLS: the peer sent {0} bytes that complete no handshake message")]
    TooLong(usize),
    /// No more records can be protected with these keys.
    #[error("TLS: the session's keys are used up")]
    Exhausted,
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match verify::wrong_identity(&error) {
            Some(wrong) => Self::Identity(wrong),
            None => Self::Protocol(error),
        }
    }
}

#[cfg(test)]
pub(crate) mod test_ca;
#[cfg(test)]
mod tests;
