// SPDX-License-Identifier: Apache-2.0
//! A ZDS packet that comes when the process may open no more files. Alone in its file: the limit holds for the whole process.
#![allow(clippy::unwrap_used)]

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use mesh_proto::zds::{MAX_PACKET, PacketError, Received, receive_packet, send_packet};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};

#[test]
fn without_room_for_descriptors_a_packet_is_an_error_and_nothing_is_left_open() {
    let (near, far) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
            .unwrap();
    let (mut reader, writer) = io::pipe().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let two = [writer.as_fd(), writer.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&two)));
    sendmsg(&near, &[IoSlice::new(b"two")], &mut control, SendFlags::empty()).unwrap();
    send_packet(near.as_fd(), b"one", Some(writer.as_fd())).unwrap();
    send_packet(near.as_fd(), b"one more", Some(writer.as_fd())).unwrap();
    drop(writer);

    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
    let mut filler: Vec<OwnedFd> = Vec::new();
    while let Ok(fd) = near.try_clone() {
        filler.push(fd);
    }
    let mut buf = [0; MAX_PACKET];
    // One place is free: of two descriptors one is installed, and has to go again.
    filler.pop();
    let error = receive_packet(far.as_fd(), &mut buf).unwrap_err();
    assert!(matches!(error, PacketError::ControlTruncated), "{error}");
    filler.push(near.try_clone().unwrap());
    // No place is free.
    let error = receive_packet(far.as_fd(), &mut buf).unwrap_err();
    assert!(matches!(error, PacketError::ControlTruncated), "{error}");
    // With room again, the connection goes on.
    drop(filler);
    let Received::Packet { len, fd } = receive_packet(far.as_fd(), &mut buf).unwrap() else { panic!("closed") };
    assert!(&buf[..len] == b"one more" && fd.is_some());
    drop(fd);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}
