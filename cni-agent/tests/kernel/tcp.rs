// SPDX-License-Identifier: Apache-2.0
//! Real sockets for the traffic tests. Everything has a deadline.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(5);

/// Listens on every address of the namespace it is called in.
pub(crate) fn listen(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_only_v6(false).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into()).unwrap();
    socket.listen(16).unwrap();
    socket
}

/// Takes a connection that is there or comes soon.
pub(crate) fn accept(listener: &Socket) -> TcpStream {
    assert!(waits(listener, PATIENCE), "nobody connected");
    let stream = TcpStream::from(listener.accept().unwrap().0);
    patient(&stream);
    stream
}

/// Did nobody connect? Asked only after something else has arrived, so there is nothing to wait for.
pub(crate) fn quiet(listener: &Socket) -> bool {
    !waits(listener, Duration::ZERO)
}

fn waits(listener: &Socket, patience: Duration) -> bool {
    let fd = std::os::fd::AsFd::as_fd(listener);
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::try_from(patience).unwrap()).unwrap() > 0
}

/// How a client connects.
#[derive(Clone, Copy, Default)]
pub(crate) struct Client {
    pub(crate) mark: u32,
    pub(crate) from: Option<IpAddr>,
    /// Of `from`; 0 leaves it to the kernel.
    pub(crate) from_port: u16,
    /// `from` is not an address of this namespace.
    pub(crate) transparent: bool,
}

impl Client {
    pub(crate) fn connect(self, to: SocketAddr) -> TcpStream {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).unwrap();
        if self.mark != 0 {
            socket.set_mark(self.mark).unwrap();
        }
        if self.transparent {
            // IPv6 sockets take the IPv4 option too.
            socket.set_ip_transparent_v4(true).unwrap();
        }
        if let Some(from) = self.from {
            socket.bind(&SockAddr::from(SocketAddr::from((from, self.from_port)))).unwrap();
        }
        socket.connect_timeout(&to.into(), PATIENCE).unwrap_or_else(|error| panic!("connect to {to}: {error}"));
        let stream = TcpStream::from(socket);
        patient(&stream);
        stream
    }
}

/// A plain connection.
pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    Client::default().connect(to)
}

fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
}

/// Bytes go both ways.
pub(crate) fn talk(one: &TcpStream, other: &TcpStream, why: &str) {
    for (mut from, mut to) in [(one, other), (other, one), (one, other)] {
        from.write_all(b"hello").unwrap_or_else(|error| panic!("{why}: write: {error}"));
        let mut read = [0; 5];
        to.read_exact(&mut read).unwrap_or_else(|error| panic!("{why}: read: {error}"));
        assert_eq!(&read, b"hello");
    }
}

/// Where a redirected connection was going.
pub(crate) fn original_destination(stream: &TcpStream) -> SocketAddr {
    if stream.local_addr().unwrap().ip().to_canonical().is_ipv4() {
        let found = getsockopt(stream, sockopt::OriginalDst).unwrap();
        SocketAddr::from((u32::from_be(found.sin_addr.s_addr).to_be_bytes(), u16::from_be(found.sin_port)))
    } else {
        let found = getsockopt(stream, sockopt::Ip6tOriginalDst).unwrap();
        SocketAddr::from((found.sin6_addr.s6_addr, u16::from_be(found.sin6_port)))
    }
}

/// The peer's address, IPv4 as such.
pub(crate) fn peer(stream: &TcpStream) -> IpAddr {
    stream.peer_addr().unwrap().ip().to_canonical()
}
