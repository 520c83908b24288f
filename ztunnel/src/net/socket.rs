// SPDX-License-Identifier: Apache-2.0
//! TCP sockets of the data path: listeners in pods, accepted streams, and dials with or without the original source address.
//!
//! The engine calls it on data threads. Everything is non-blocking. Which options go where is ztunnel.md §2.2 (N-03 to N-11).

use std::ffi::OsString;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use mesh_proto::contract::mark::IN_CLIENT_S_NAME;
use nix::sys::socket::{
    MsgFlags, getsockopt, recv, setsockopt,
    sockopt::{IpBindAddressNoPort, TcpCongestion},
};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use super::NetError;

/// Options that every socket of the process shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOptions {
    /// SO_MARK that keeps our own packets out of the redirect rules; `None` outside pods that have such rules.
    pub mark: Option<u32>,
    /// SO_REUSEPORT on listeners: several data threads, and a successor process, share the port.
    pub reuse_port: bool,
    /// TCP keepalive, `None` = off.
    pub keepalive: Option<Keepalive>,
    /// Whether TCP_USER_TIMEOUT is set to what the keepalive probes add up to.
    pub user_timeout: bool,
}

/// TCP keepalive timing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe.
    pub time: Duration,
    /// Between probes.
    pub interval: Duration,
    /// Unanswered probes before the connection is dead.
    pub retries: u32,
}

impl Default for SocketOptions {
    fn default() -> Self {
        let keepalive = Keepalive { time: Duration::from_secs(180), interval: Duration::from_secs(180), retries: 9 };
        Self { mark: None, reuse_port: true, keepalive: Some(keepalive), user_timeout: false }
    }
}

impl SocketOptions {
    /// The same without mark and shared port: sockets in the proxy's own namespace.
    pub fn at_home(&self) -> Self {
        Self { mark: None, reuse_port: false, ..self.clone() }
    }

    fn keep_alive(&self, socket: &Socket) -> io::Result<()> {
        let Some(keepalive) = self.keepalive else { return Ok(()) };
        let Keepalive { time, interval, retries } = keepalive;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries))?;
        if self.user_timeout {
            socket.set_tcp_user_timeout(Some(time + interval * retries))?;
        }
        Ok(())
    }
}

/// A bound, listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    transparent: bool,
    paced: bool,
}

/// What accepted sockets of a listener inherit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenOptions {
    /// Accepted sockets get TCP keepalive (redirect ports do, 15008 has HTTP/2 pings instead).
    pub keepalive: bool,
    /// Whether IP_TRANSPARENT is tried.
    pub transparent: Transparent,
    /// Whether those who connect are in the same network namespace: see [`Listener::is_paced`].
    pub near: bool,
}

/// Whether we may use addresses that are not ours (`ENABLE_ORIG_SRC`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transparent {
    /// Try, go on without.
    #[default]
    Auto,
    /// Try, fail if it is not allowed.
    Required,
    /// Do not.
    Never,
}

impl Listener {
    /// Binds and listens in the namespace the thread is in. NODELAY, keepalive and mark are set here once: accepted sockets inherit
    /// them.
    pub fn bind(address: SocketAddr, options: &SocketOptions, listen: ListenOptions) -> Result<Self, NetError> {
        let failed = |step| move |source| NetError::Listen { address, step, source };
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP)).map_err(failed("socket"))?;
        if let Some(mark) = options.mark {
            socket.set_mark(mark).map_err(failed("SO_MARK, needs CAP_NET_ADMIN or CAP_NET_RAW"))?;
        }
        if options.reuse_port {
            if let Err(error) = socket.set_reuse_port(true) {
                tracing::warn!(%address, %error, "listening without SO_REUSEPORT: a successor process cannot share the port");
            }
        } else {
            socket.set_reuse_address(true).map_err(failed("SO_REUSEADDR"))?;
        }
        let transparent =
            match (listen.transparent, socket.set_ip_transparent_v4(listen.transparent != Transparent::Never)) {
                (Transparent::Never, _) => false,
                (_, Ok(())) => true,
                (Transparent::Auto, Err(_)) => false,
                (Transparent::Required, Err(error)) => {
                    return Err(failed("IP_TRANSPARENT, needs CAP_NET_ADMIN")(error));
                }
            };
        socket.set_tcp_nodelay(true).map_err(failed("TCP_NODELAY"))?;
        if listen.keepalive {
            options.keep_alive(&socket).map_err(failed("keepalive"))?;
        }
        let paced = is_paced(&socket);
        if listen.near && paced {
            hurry(&socket);
        }
        socket.bind(&SockAddr::from(address)).map_err(failed("bind"))?;
        socket.listen(BACKLOG).map_err(failed("listen"))?;
        Ok(Self { socket, transparent, paced })
    }

    /// Whether the kernel allowed IP_TRANSPARENT, hence spoofed sources for dials.
    pub fn is_transparent(&self) -> bool {
        self.transparent
    }

    /// Whether the namespace's congestion control sends by a timer (BBR does). Between two sockets of one namespace, where nothing can be congested, that is only work:
    /// such sockets use one that does not.
    pub fn is_paced(&self) -> bool {
        self.paced
    }

    /// The address it is bound to.
    pub fn local(&self) -> io::Result<SocketAddr> {
        address_of(self.socket.local_addr()?)
    }

    /// The next connection that waits, with the peer's address.
    pub fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let (socket, peer) = self.socket.accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)?;
        Ok((Stream { socket }, address_of(peer)?))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A connected (or connecting) TCP socket.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
}

impl Stream {
    /// Where the connection was going before it was redirected; its local address if the kernel knows of no redirect.
    pub fn original_destination(&self) -> io::Result<Destination> {
        let redirected = self.socket.original_dst_v4().or_else(|_| self.socket.original_dst_v6());
        Ok(match redirected {
            Ok(address) => Destination { address: address_of(address)?, redirected: true },
            Err(_) => Destination { address: self.local()?, redirected: false },
        })
    }

    /// The local address.
    pub fn local(&self) -> io::Result<SocketAddr> {
        address_of(self.socket.local_addr()?)
    }

    /// Reads what is there.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.socket).read(buffer)
    }

    /// Copies what is there and leaves it to be read.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_PEEK).map_err(io::Error::from)
    }

    /// Writes what fits.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.socket).write(bytes)
    }

    /// Writes what fits and lets the last of it wait for [`Stream::finish`], which must come at once: the FIN goes along.
    pub fn write_before_end(&self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.send_with_flags(bytes, libc::MSG_MORE | libc::MSG_NOSIGNAL)
    }

    /// Writes what fits of several pieces.
    pub fn write_pieces(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.socket).write_vectored(pieces)
    }

    /// Sends FIN.
    pub fn finish(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// Turns keepalive on. It takes four calls or five, and nothing of it works before minutes have passed: what ends sooner need not pay for it.
    pub fn keep_alive(&self, options: &SocketOptions) -> io::Result<()> {
        options.keep_alive(&self.socket)
    }

    /// Closes with RST instead of FIN: the other side learns that its bytes did not arrive.
    pub fn reset(self) {
        // If this fails the peer gets a FIN, which is what closing without it would give.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }

    /// The outcome of a connect that was in progress.
    pub fn connected(&self) -> io::Result<()> {
        match self.socket.take_error()? {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
impl From<std::net::TcpStream> for Stream {
    fn from(stream: std::net::TcpStream) -> Self {
        Self { socket: stream.into() }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The original destination of an accepted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// The address.
    pub address: SocketAddr,
    /// Whether the kernel had a record of a redirect.
    pub redirected: bool,
}

/// One connection to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dial {
    /// Where to.
    pub to: SocketAddr,
    /// The address to appear as, if not our own (N-09).
    pub from: Option<IpAddr>,
    /// Whether the other end is in the same namespace, in which sockets are paced without need: see [`Listener::is_paced`].
    pub hurry: bool,
    /// Whether the first bytes are there already: the packet that ends the handshake waits for them then, and a packet is saved.
    pub speaks: bool,
}

/// A dial that was started.
#[derive(Debug)]
pub struct Dialling {
    /// The socket.
    pub stream: Stream,
    /// Already connected: peers on the same machine usually are.
    pub connected: bool,
}

impl Dial {
    /// Starts connecting from the namespace the thread is in.
    pub fn start(&self, options: &SocketOptions) -> Result<Dialling, NetError> {
        let stream = self.socket(options)?;
        self.connect(stream)
    }

    /// Makes the socket: the part that must happen inside the pod.
    pub fn socket(&self, options: &SocketOptions) -> Result<Stream, NetError> {
        let failed = |step| move |source| NetError::Socket { address: self.to, step, source };
        // A spoofed socket has the family of its source; the canonical forms used here make it that of the destination too.
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(self.to), kind, Some(Protocol::TCP)).map_err(failed("socket"))?;
        if let Some(mark) = options.mark {
            let spoofed = if self.from.is_some() { IN_CLIENT_S_NAME } else { 0 };
            socket.set_mark(mark | spoofed).map_err(failed("SO_MARK"))?;
        }
        Ok(Stream { socket })
    }

    /// Connects with a socket of [`Dial::socket`]; may happen anywhere. Keepalive is left to [`Stream::keep_alive`].
    pub fn connect(&self, stream: Stream) -> Result<Dialling, NetError> {
        let failed = |step| move |source| NetError::Socket { address: self.to, step, source };
        let socket = &stream.socket;
        socket.set_tcp_nodelay(true).map_err(failed("TCP_NODELAY"))?;
        if self.hurry {
            hurry(socket);
        }
        if self.speaks {
            // A kernel that does not take it sends one packet more.
            let _ = socket.set_tcp_quickack(false);
        }
        if let Some(from) = self.from
            && let Err(error) = spoof(socket, from)
        {
            tracing::warn!(to = %self.to, %from, %error, "connecting without the original source address: the application will see the pod's own");
        }
        let to = SockAddr::from(self.to);
        // Twice: the first answers "in progress" even to a local peer that has already accepted; the second says so and saves a turn.
        let first = socket.connect(&to);
        let connected = match first {
            Ok(()) => true,
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => match socket.connect(&to) {
                Ok(()) => true,
                Err(error) if error.raw_os_error() == Some(libc::EISCONN) => true,
                Err(error) if error.raw_os_error() == Some(libc::EALREADY) => false,
                Err(error) => return Err(NetError::Connect(error)),
            },
            Err(error) => return Err(NetError::Connect(error)),
        };
        Ok(Dialling { stream, connected })
    }
}

/// Whether the socket's congestion control, which is its namespace's so far, paces what it sends.
fn is_paced(socket: &Socket) -> bool {
    getsockopt(socket, TcpCongestion).is_ok_and(|name| name.as_encoded_bytes().starts_with(b"bbr"))
}

/// Takes the congestion control that is always there and sends at once. A kernel that refuses that goes on as it was.
fn hurry(socket: &Socket) {
    let _ = setsockopt(socket, TcpCongestion, &OsString::from("reno"));
}

/// Lets the socket carry an address that is not ours: IP_TRANSPARENT includes what IP_FREEBIND would allow. The port is left to the moment of connecting, so that many connections from
/// one source share the ephemeral range per destination.
fn spoof(socket: &Socket, from: IpAddr) -> io::Result<()> {
    if from.is_ipv4() {
        socket.set_ip_transparent_v4(true)?;
    } else {
        socket.set_ip_transparent_v6(true)?;
    }
    setsockopt(socket, IpBindAddressNoPort, &true).map_err(io::Error::from)?;
    socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))
}

/// IPv4 carried in an IPv6 socket is IPv4 for everybody who reads addresses (N-02).
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The wildcard address listeners bind to: both families, or IPv4 only.
pub fn any_address(ipv6: bool, port: u16) -> SocketAddr {
    if ipv6 {
        SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0))
    } else {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
    }
}

fn address_of(address: SockAddr) -> io::Result<SocketAddr> {
    let found = address.as_socket().ok_or_else(|| io::Error::other("not an internet address"))?;
    Ok(canonical(found))
}

const BACKLOG: i32 = 1024;

#[cfg(test)]
mod tests;
