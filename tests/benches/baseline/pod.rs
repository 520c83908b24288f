// SPDX-License-Identifier: Apache-2.0
//! Sockets inside the pod: a worker enters, makes the socket, and comes back.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use anyhow::{Context, Result};
use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{setsockopt, sockopt::IpBindAddressNoPort},
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// The mark of the proxy's own sockets, which the pod's rules leave alone.
const MARK: u32 = 1337;
const BACKLOG: i32 = 1024;

/// A pod's network namespace, and the one to come back to.
pub(crate) struct PodNetns {
    pod: File,
    home: File,
}

impl PodNetns {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            pod: File::open(path).with_context(|| format!("open {}", path.display()))?,
            home: File::open("/proc/thread-self/ns/net")?,
        })
    }

    fn run<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        setns(&self.pod, CloneFlags::CLONE_NEWNET).context("enter the pod")?;
        let done = work();
        if let Err(error) = setns(&self.home, CloneFlags::CLONE_NEWNET) {
            // This thread would serve the wrong network from now on.
            eprintln!("cannot leave the pod: {error}");
            std::process::abort();
        }
        done
    }

    fn socket() -> Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        socket.set_mark(MARK).context("SO_MARK")?;
        Ok(socket)
    }

    /// Listens in the pod.
    pub(crate) fn listen(&self, port: u16) -> Result<TcpListener> {
        let socket = self.run(Self::socket)?;
        socket.set_reuse_address(true)?;
        // Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
        socket
            .bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())
            .with_context(|| format!("bind port {port}"))?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from_std(socket.into())?)
    }

    /// Connects from the pod, as `from` if that is given.
    pub(crate) async fn connect(&self, to: SocketAddr, from: Option<IpAddr>) -> Result<TcpStream> {
        let socket = self.run(Self::socket)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(from) = from {
            socket.set_ip_transparent_v4(true)?;
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::new(from, 0).into()).with_context(|| format!("appear as {from}"))?;
        }
        TcpSocket::from_std_stream(socket.into()).connect(to).await.with_context(|| format!("connect to {to}"))
    }
}

/// Where a redirected connection was going.
pub(crate) fn original_destination(stream: &TcpStream) -> Result<SocketAddr> {
    let address = SockRef::from(stream).original_dst_v4().context("original destination")?;
    address.as_socket().context("not an internet address")
}
