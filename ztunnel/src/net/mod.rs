// SPDX-License-Identifier: Apache-2.0
//! Sockets and network namespaces: the only room that asks the kernel for a socket of the data path.
//!
//! `engine` calls it from the data threads; it knows nothing of pods, identities or HBONE.

pub mod buffer;
pub mod netns;
pub mod pipe;
pub mod socket;

pub use buffer::Buffer;
pub use netns::{Home, PodNetns};
pub use pipe::Pipe;
pub use socket::{Dial, Listener, Stream};

use std::io;
use std::net::SocketAddr;

/// Why a socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The process cannot open its own network namespace.
    #[error("cannot open the own network namespace (is /proc mounted?): {0}")]
    Home(#[source] io::Error),
    /// The file descriptor of a pod is not usable as a network namespace.
    #[error("cannot use the file descriptor as a network namespace: {0}")]
    NotANetns(#[source] io::Error),
    /// setns into the pod failed.
    #[error("cannot enter the pod's network namespace (CAP_SYS_ADMIN missing, or the pod is gone): {0}")]
    Enter(#[source] io::Error),
    /// A listener could not be made.
    #[error("cannot listen on {address} ({step}): {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Which call failed.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A socket to dial with could not be made.
    #[error("cannot make a socket to connect to {address} ({step}): {source}")]
    Socket {
        /// Where to.
        address: SocketAddr,
        /// Which call failed.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection was refused or could not be started.
    #[error("connection failed: {0}")]
    Connect(#[source] io::Error),
}
