// SPDX-License-Identifier: Apache-2.0
//! What the program needs from its host: checked once, at start, with an error that says what to grant.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::net::{Home, NetError, PodNetns};

/// Why the host will not do.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The own namespace.
    #[error("cannot work with network namespaces; ztunnel needs CAP_SYS_ADMIN to enter pods")]
    Netns(#[source] NetError),
    /// The mark.
    #[error("cannot mark packets; ztunnel needs CAP_NET_ADMIN (and CAP_NET_RAW) for SO_MARK and IP_TRANSPARENT")]
    Mark(#[source] io::Error),
}

/// Enter the namespace we are in, and mark a socket: what every pod will need (P-03).
pub(super) fn check_capabilities(mark: Option<u32>) -> Result<(), HostError> {
    let home = Home::open().map_err(HostError::Netns)?;
    let here = File::open("/proc/thread-self/ns/net").map_err(NetError::NotANetns).map_err(HostError::Netns)?;
    let netns = PodNetns::new(OwnedFd::from(here), Arc::clone(&home)).map_err(HostError::Netns)?;
    let marked = netns.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None)?;
        mark.map_or(Ok(()), |mark| socket.set_mark(mark))
    });
    marked.map_err(HostError::Netns)?.map_err(HostError::Mark)
}

/// Every connection costs two or three descriptors: take all we may have (P-08).
pub(super) fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok((soft, hard))
    });
    match raised {
        Ok((soft, hard)) => tracing::info!(soft, hard, "raised the limit of open files"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
}

/// The cores this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
