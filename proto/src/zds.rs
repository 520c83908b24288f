// SPDX-License-Identifier: Apache-2.0
//! ZDS, the socket between node agent and node proxy: its messages, and one message with at most one file descriptor in each packet.
//!
//! **Flow.** The agent listens on [`contract::path::ZDS_SOCKET`](crate::contract::path::ZDS_SOCKET) (`SOCK_SEQPACKET`); the proxy connects and sends
//! [`ZdsHello`]. From then on the agent sends [`WorkloadRequest`]s, first all pods of the node, then [`SnapshotSent`], then changes for ever, and the proxy
//! answers each with one [`WorkloadResponse`] before the next is sent: nothing but the order ties an answer to its question, so a party that stopped
//! waiting for one must close the connection.
//!
//! **Guarantees of this file.** A packet is sent whole or not at all. A received descriptor is owned, close-on-exec, and closed on every error path.
//! **Caveats.** Both sides read into [`MAX_PACKET`] bytes; an empty packet cannot be told from the end of the connection, and none is ever sent.
//! **What in Istio it matches.** ztunnel.md §3.1 (Z-01 to Z-04), cni-agent.md §6.1 (Z-01 to Z-03).
//!
//! The functions block or not as the descriptor does. An asynchronous program puts the socket into tokio's `UnixStream`, which cares for readiness only, and
//! calls them in its `async_io`, with `.map_err(io::Error::from)` for the receiving one; the tests show it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

pub use crate::generated::zds::{
    Ack, AddWorkload, DelWorkload, KeepWorkload, SnapshotSent, Version, WorkloadInfo, WorkloadRequest,
    WorkloadResponse, ZdsHello, workload_request, workload_response,
};

/// The longest packet: both Istio's agent and its proxy read into a buffer of this size (ztunnel.md Z-03).
pub const MAX_PACKET: usize = 1024;

/// Sends `bytes` as one packet, with a copy of the descriptor `passed` if there is one.
///
/// Refuses an empty packet, which would look like the end of the connection, and one that the other side could not read whole.
pub fn send_packet(socket: BorrowedFd<'_>, bytes: &[u8], passed: Option<BorrowedFd<'_>>) -> io::Result<()> {
    if bytes.is_empty() || bytes.len() > MAX_PACKET {
        let reason = format!("a ZDS packet has 1 to {MAX_PACKET} bytes, this one has {}", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    let mut space = [MaybeUninit::uninit(); CONTROL_SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if let Some(fd) = &passed
        && !control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(fd)))
    {
        // Cannot happen: the space is for more than one descriptor. An error all the same, never a packet without its descriptor.
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no room for the descriptor of a ZDS packet"));
    }
    let sent = uninterrupted(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))?;
    if sent == bytes.len() {
        Ok(())
    } else {
        let reason =
            format!("{sent} of {} bytes of a ZDS packet were sent: the socket is not SOCK_SEQPACKET", bytes.len());
        Err(io::Error::new(io::ErrorKind::WriteZero, reason))
    }
}

/// Receives one packet into `buf`, which should hold [`MAX_PACKET`] bytes.
pub fn receive_packet(socket: BorrowedFd<'_>, buf: &mut [u8]) -> Result<Received, PacketError> {
    let mut space = [MaybeUninit::uninit(); CONTROL_SPACE];
    // Closes what is left in it when it goes out of scope.
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        uninterrupted(|| recvmsg(socket, &mut [IoSliceMut::new(buf)], &mut control, RecvFlags::CMSG_CLOEXEC))
            .map_err(PacketError::Io)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(PacketError::ControlTruncated);
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(PacketError::Truncated { room: buf.len() });
    }
    if fds.len() > 1 {
        return Err(PacketError::ManyDescriptors { count: fds.len() });
    }
    if received.bytes == 0 {
        return Ok(Received::Closed);
    }
    Ok(Received::Packet { len: received.bytes, fd: fds.pop() })
}

/// What a receive call met.
#[derive(Debug)]
pub enum Received {
    /// A packet.
    Packet {
        /// How many bytes of the buffer it fills; never 0.
        len: usize,
        /// The descriptor that came with it.
        fd: Option<OwnedFd>,
    },
    /// The other side closed the connection (or sent an empty packet, which cannot be told apart).
    Closed,
}

/// Why a packet could not be received. Descriptors that came with it have been closed.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The system call failed. `WouldBlock` means: nothing there yet.
    #[error("cannot receive from the ZDS socket")]
    Io(#[source] io::Error),
    /// The packet was longer than the buffer.
    #[error("a ZDS packet is longer than {room} bytes: compare the versions of node agent and node proxy")]
    Truncated {
        /// The size of the buffer.
        room: usize,
    },
    /// Not all control data arrived: too many descriptors, or this process may open no more.
    #[error("the descriptors of a ZDS packet did not all arrive: check the limit on open files (RLIMIT_NOFILE)")]
    ControlTruncated,
    /// More than one descriptor.
    #[error(
        "a ZDS packet carries {count} descriptors where at most one is allowed: compare the versions of node agent and node proxy"
    )]
    ManyDescriptors {
        /// How many.
        count: usize,
    },
}

impl From<PacketError> for io::Error {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::Io(error) => error,
            other => Self::new(io::ErrorKind::InvalidData, other),
        }
    }
}

impl WorkloadResponse {
    /// The answer that says: done.
    pub fn done() -> Self {
        Self::failed("")
    }

    /// The answer that says why it could not be done; cut where it would no longer fit into a packet. An empty reason means success.
    pub fn failed(reason: &str) -> Self {
        let error = reason[..reason.floor_char_boundary(LONGEST_REASON)].to_owned();
        Self { payload: Some(workload_response::Payload::Ack(Ack { error })) }
    }
}

/// Room for a few descriptors, so that one too many is seen as such, and for credentials, should the socket be set to pass them.
const CONTROL_SPACE: usize = rustix::cmsg_space!(ScmRights(4), ScmCredentials(1));
/// Leaves room for the two tags and lengths around the text.
const LONGEST_REASON: usize = MAX_PACKET - 16;

fn uninterrupted<T>(mut call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}
