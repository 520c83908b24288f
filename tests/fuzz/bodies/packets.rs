// SPDX-License-Identifier: Apache-2.0
//! What is to hold of ZDS packets over a real socket: the body of a fuzz target. `cargo test -p mesh-proto --test fuzz` runs it as a bounded
//! property, `cargo fuzz run packets` (in `tests/fuzz`) without bound. A plain function: it panics where something does not hold.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use mesh_proto::zds::{MAX_PACKET, PacketError, Received, receive_packet, send_packet};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};

/// Packets of any length with any number of descriptors, sent by us or by somebody who keeps no rules. Each is received whole with its one descriptor
/// or refused whole, the next one is not affected, and no descriptor stays open.
pub fn packets(input: &[u8]) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("two sockets");
    let (mut reader, writer) = io::pipe().expect("a pipe");
    // Where a descriptor is left, it has nothing to read instead of an end.
    rustix::io::ioctl_fionbio(&reader, true).expect("a pipe that does not block");
    let mut sent = VecDeque::new();
    let mut buffer = [0; MAX_PACKET];
    let mut rest = input;
    while let [kind, low, high, after @ ..] = rest {
        rest = after;
        // What is sent are the bytes that follow, over again until there are enough.
        let length = usize::from(u16::from_le_bytes([*low, *high])) % (MAX_PACKET + 100);
        let bytes: Vec<u8> = input.iter().copied().cycle().take(length).collect();
        let count = usize::from(kind >> 2) % 8;
        let outcome = match kind % 4 {
            0 | 1 => {
                let passed = (count > 0).then_some(writer.as_fd());
                let outcome = send_packet(near.as_fd(), &bytes, passed);
                let fits = (1..=MAX_PACKET).contains(&bytes.len());
                match &outcome {
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => assert!(!fits),
                    _ => assert!(fits),
                }
                outcome.map(|()| Sent { bytes, count: usize::from(count > 0) })
            }
            2 => send_raw(&near, &bytes, &vec![writer.as_fd(); count]).map(|()| Sent { bytes, count }),
            _ => {
                check_received(&far, &mut buffer, sent.pop_front());
                continue;
            }
        };
        match outcome {
            Ok(one) => sent.push_back(one),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => assert!(!sent.is_empty()),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}"),
        }
    }
    while let Some(one) = sent.pop_front() {
        check_received(&far, &mut buffer, Some(one));
    }
    check_received(&far, &mut buffer, None);
    drop(writer);
    let at_the_end = reader.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(at_the_end, Ok(0), "a descriptor of the pipe's other end is open still");
}

/// A packet on its way.
struct Sent {
    bytes: Vec<u8>,
    count: usize,
}

fn check_received(socket: &OwnedFd, buffer: &mut [u8], expected: Option<Sent>) {
    let received = receive_packet(socket.as_fd(), buffer);
    let Some(Sent { bytes, count }) = expected else {
        assert!(matches!(received, Err(PacketError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock));
        return;
    };
    match received {
        Ok(Received::Packet { len, fd }) => {
            assert_eq!(&buffer[..len], bytes);
            assert_eq!(usize::from(fd.is_some()), count);
        }
        Ok(Received::Closed) => assert!(bytes.is_empty() && count < 2),
        Err(PacketError::Truncated { room }) => assert!(bytes.len() > room),
        Err(PacketError::ManyDescriptors { count: seen }) => assert!(seen == count && count > 1),
        Err(PacketError::ControlTruncated) => assert!(count > 4),
        Err(PacketError::Io(error)) => panic!("{error}"),
    }
}

/// Sends what [`send_packet`] never would.
fn send_raw(socket: &OwnedFd, bytes: &[u8], passed: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(passed.is_empty() || control.push(SendAncillaryMessage::ScmRights(passed)));
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::empty())?;
    assert_eq!(sent, bytes.len());
    Ok(())
}
