// SPDX-License-Identifier: Apache-2.0
//! ZDS packets over real sockets: whole or not at all, with one descriptor or none, and no descriptor left behind.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mesh_proto::zds::{
    MAX_PACKET, PacketError, Received, WorkloadResponse, receive_packet, send_packet, workload_response,
};
use proptest::prelude::*;
use prost::Message;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

fn pair(flags: SocketFlags) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags | SocketFlags::CLOEXEC, None).unwrap()
}

/// A descriptor to pass, and a way to see whether every copy of it is closed.
fn watched() -> (File, File) {
    let (reader, writer) = io::pipe().unwrap();
    (File::from(OwnedFd::from(reader)), File::from(OwnedFd::from(writer)))
}

/// Blocks until no copy of the write end is left; a leak makes the test hang rather than pass.
fn all_closed(mut reader: File) {
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

/// Sends what [`send_packet`] never would.
fn send_raw(socket: &OwnedFd, bytes: &[u8], passed: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !passed.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(passed)));
    }
    assert_eq!(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap(), bytes.len());
}

fn receive(socket: &OwnedFd, buf: &mut [u8]) -> Result<(Vec<u8>, Option<OwnedFd>), PacketError> {
    match receive_packet(socket.as_fd(), buf)? {
        Received::Packet { len, fd } => Ok((buf[..len].to_vec(), fd)),
        Received::Closed => panic!("closed"),
    }
}

#[test]
fn packets_keep_their_bounds_and_their_descriptors() {
    let (near, far) = pair(SocketFlags::empty());
    let (mut reader, writer) = watched();
    send_packet(near.as_fd(), b"first", None).unwrap();
    send_packet(near.as_fd(), b"second", Some(writer.as_fd())).unwrap();
    send_packet(near.as_fd(), b"third", None).unwrap();
    drop(writer);
    let mut buf = [0; MAX_PACKET];
    let (bytes, fd) = receive(&far, &mut buf).unwrap();
    assert!(bytes == b"first" && fd.is_none());
    let (bytes, fd) = receive(&far, &mut buf).unwrap();
    assert_eq!(bytes, b"second");
    let passed = fd.unwrap();
    assert!(rustix::io::fcntl_getfd(&passed).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    File::from(passed).write_all(b"x").unwrap();
    let mut byte = [0];
    assert_eq!((reader.read(&mut byte).unwrap(), byte), (1, *b"x"));
    all_closed(reader);
    let (bytes, fd) = receive(&far, &mut buf).unwrap();
    assert!(bytes == b"third" && fd.is_none());
}

#[test]
fn the_end_of_the_connection_is_told_from_an_error() {
    let (near, far) = pair(SocketFlags::empty());
    send_packet(near.as_fd(), b"last", None).unwrap();
    drop(near);
    let mut buf = [0; MAX_PACKET];
    assert_eq!(receive(&far, &mut buf).unwrap().0, b"last");
    assert!(matches!(receive_packet(far.as_fd(), &mut buf).unwrap(), Received::Closed));
    let error = send_packet(far.as_fd(), b"late", None).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn an_empty_packet_reads_as_the_end_and_its_descriptor_is_closed() {
    let (near, far) = pair(SocketFlags::empty());
    let (reader, writer) = watched();
    send_raw(&near, b"", &[writer.as_fd()]);
    drop(writer);
    assert!(matches!(receive_packet(far.as_fd(), &mut [0; MAX_PACKET]).unwrap(), Received::Closed));
    all_closed(reader);
}

#[test]
fn nothing_there_yet_is_would_block() {
    let (_near, far) = pair(SocketFlags::NONBLOCK);
    let error = receive_packet(far.as_fd(), &mut [0; MAX_PACKET]).unwrap_err();
    assert!(matches!(&error, PacketError::Io(error) if error.kind() == io::ErrorKind::WouldBlock));
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_full_socket_is_would_block_and_nothing_is_sent_in_part() {
    let (near, far) = pair(SocketFlags::NONBLOCK);
    let packet = [7; MAX_PACKET];
    let mut sent = 0;
    let error = loop {
        match send_packet(near.as_fd(), &packet, None) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let mut buf = [0; MAX_PACKET];
    for _ in 0..sent {
        assert_eq!(receive(&far, &mut buf).unwrap().0, packet);
    }
    assert!(receive_packet(far.as_fd(), &mut buf).is_err());
}

#[test]
fn a_packet_longer_than_the_buffer_is_an_error_and_its_descriptor_is_closed() {
    let (near, far) = pair(SocketFlags::empty());
    let (reader, writer) = watched();
    send_raw(&near, &[1; MAX_PACKET + 1], &[writer.as_fd()]);
    send_packet(near.as_fd(), b"next", None).unwrap();
    drop(writer);
    let mut buf = [0; MAX_PACKET];
    assert!(matches!(receive(&far, &mut buf), Err(PacketError::Truncated { room: MAX_PACKET })));
    all_closed(reader);
    assert_eq!(receive(&far, &mut buf).unwrap().0, b"next");
}

#[test]
fn more_than_one_descriptor_is_an_error_and_all_are_closed() {
    for count in [2, 3, 4, 5, 40] {
        let (near, far) = pair(SocketFlags::empty());
        let (reader, writer) = watched();
        send_raw(&near, b"add", &vec![writer.as_fd(); count]);
        drop(writer);
        let error = receive(&far, &mut [0; MAX_PACKET]).unwrap_err();
        match error {
            PacketError::ManyDescriptors { count: seen } => assert_eq!(seen, count),
            PacketError::ControlTruncated => assert!(count > 4),
            other => panic!("{other}"),
        }
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidData);
        all_closed(reader);
    }
}

#[test]
fn what_the_other_side_could_not_read_is_not_sent() {
    let (near, far) = pair(SocketFlags::NONBLOCK);
    for bytes in [&[][..], &[0; MAX_PACKET + 1]] {
        assert_eq!(send_packet(near.as_fd(), bytes, None).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    assert!(receive_packet(far.as_fd(), &mut [0; MAX_PACKET]).is_err());
}

#[test]
fn a_stream_socket_is_noticed_when_it_takes_only_a_part() {
    let (near, _far) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)
            .unwrap();
    let error = loop {
        if let Err(error) = send_packet(near.as_fd(), &[0; MAX_PACKET], None) {
            break error;
        }
    };
    assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::WriteZero));
}

#[test]
fn an_answer_always_fits_into_a_packet() {
    let reason = |response: &WorkloadResponse| match &response.payload {
        Some(workload_response::Payload::Ack(ack)) => ack.error.clone(),
        None => panic!("no payload"),
    };
    assert_eq!(WorkloadResponse::done().encode_to_vec(), [0x0a, 0x00]);
    assert_eq!(reason(&WorkloadResponse::failed("no network namespace")), "no network namespace");
    for unit in ["x", "é", "漢", "🦀"] {
        let long = unit.repeat(2000);
        let response = WorkloadResponse::failed(&long);
        let len = response.encoded_len();
        assert!(len <= MAX_PACKET && len > MAX_PACKET - 20, "{len}");
        assert!(long.starts_with(&reason(&response)));
    }
}

/// The way both programs use it: ready or not is tokio's business, the packet is ours.
#[tokio::test(flavor = "current_thread")]
async fn packets_pass_through_an_asynchronous_socket() {
    let (near, far) = pair(SocketFlags::NONBLOCK);
    let (near, far) = (UnixStream::from_std(near.into()).unwrap(), UnixStream::from_std(far.into()).unwrap());
    let (reader, writer) = watched();
    let sender = async {
        for number in 0..2000u32 {
            let bytes = number.to_be_bytes();
            let passed = (number % 100 == 0).then_some(writer.as_fd());
            near.async_io(Interest::WRITABLE, || send_packet(near.as_fd(), &bytes, passed)).await.unwrap();
        }
    };
    let receiver = async {
        let mut buf = [0; MAX_PACKET];
        for number in 0..2000u32 {
            let receive = || receive_packet(far.as_fd(), &mut buf).map_err(io::Error::from);
            let Received::Packet { len, fd } = far.async_io(Interest::READABLE, receive).await.unwrap() else {
                panic!("closed")
            };
            assert_eq!(buf[..len], number.to_be_bytes());
            assert_eq!(fd.is_some(), number % 100 == 0);
        }
    };
    tokio::join!(sender, receiver);
    drop(writer);
    all_closed(reader);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_packets_arrive_as_they_were_sent(
        packets in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 1..=MAX_PACKET), any::<bool>()), 1..8),
    ) {
        let (near, far) = pair(SocketFlags::empty());
        let (reader, writer) = watched();
        for (bytes, with_descriptor) in &packets {
            send_packet(near.as_fd(), bytes, with_descriptor.then_some(writer.as_fd())).unwrap();
        }
        drop(writer);
        let mut buf = [0; MAX_PACKET];
        for (bytes, with_descriptor) in &packets {
            let (received, fd) = receive(&far, &mut buf).unwrap();
            prop_assert_eq!(&received, bytes);
            prop_assert_eq!(fd.is_some(), *with_descriptor);
        }
        all_closed(reader);
    }
}
