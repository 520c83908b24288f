// SPDX-License-Identifier: Apache-2.0
//! A TLS connection that never blocks for good: it writes what the socket takes and reads what is there, also behind a broken pipe.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection, pki_types::ServerName};

/// How long anything may take before an attacker gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);
/// How long a connection is waited for.
const CONNECT: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Link {
    session: Connection,
    socket: TcpStream,
    /// Decrypted bytes nobody has looked at.
    pub(crate) arrived: Vec<u8>,
    /// How the connection ended, if it has.
    pub(crate) ended: Option<String>,
    /// Nothing is read while this is set, as by a peer that has gone to sleep.
    pub(crate) asleep: bool,
}

impl Link {
    /// Connects and begins a handshake.
    pub(crate) fn dial(to: SocketAddr, config: Arc<ClientConfig>) -> Result<Self> {
        let socket = TcpStream::connect_timeout(&to, CONNECT).context("connect")?;
        Self::over(socket, Connection::Client(ClientConnection::new(config, ServerName::IpAddress(to.ip().into()))?))
    }

    /// Answers a handshake.
    pub(crate) fn answer(socket: TcpStream, config: Arc<ServerConfig>) -> Result<Self> {
        Self::over(socket, Connection::Server(ServerConnection::new(config)?))
    }

    fn over(socket: TcpStream, session: Connection) -> Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self { session, socket, arrived: Vec::new(), ended: None, asleep: false })
    }

    /// Whether the handshake goes on.
    pub(crate) fn is_shaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Goes on until `done`, the end, or for too long.
    pub(crate) fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !done(self) && self.ended.is_none() {
            ensure!(Instant::now() < end, "nothing happens");
            self.pump(Duration::from_millis(200))?;
        }
        Ok(())
    }

    /// Sends all of it, reading meanwhile; whether the connection still stands.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<bool> {
        for piece in bytes.chunks(16 << 10) {
            if self.ended.is_some() {
                return Ok(false);
            }
            self.session.writer().write_all(piece)?;
            self.until(|link| !link.session.wants_write())?;
        }
        Ok(self.ended.is_none())
    }

    /// Writes and reads once, waiting a while if there is nothing to do.
    pub(crate) fn pump(&mut self, patience: Duration) -> Result<()> {
        let mut wanted = PollFlags::empty();
        if !self.asleep {
            wanted |= PollFlags::POLLIN;
        }
        if self.session.wants_write() {
            wanted |= PollFlags::POLLOUT;
        }
        let mut polled = [PollFd::new(self.socket.as_fd(), wanted)];
        poll(&mut polled, PollTimeout::try_from(patience)?)?;
        if self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // What came before the end is still to be read.
                Err(error) => self.finish_reading(&error.to_string()),
            }
        }
        if !self.asleep && self.ended.is_none() {
            self.read()?;
        }
        Ok(())
    }

    fn finish_reading(&mut self, why: &str) {
        while self.ended.is_none() {
            match self.session.read_tls(&mut self.socket) {
                Ok(count) if count > 0 => self.open(),
                _ => self.ended = Some(why.to_owned()),
            }
        }
    }

    fn read(&mut self) -> Result<()> {
        match self.session.read_tls(&mut self.socket) {
            Ok(0) => self.ended = Some("closed".to_owned()),
            Ok(_) => self.open(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.ended = Some("reset".to_owned()),
            Err(error) => bail!(error),
        }
        Ok(())
    }

    fn open(&mut self) {
        if let Err(error) = self.session.process_new_packets() {
            // The other end shall learn why.
            let _ = self.session.write_tls(&mut self.socket);
            self.ended = Some(error.to_string());
            return;
        }
        let mut room = [0; 16 << 10];
        loop {
            match self.session.reader().read(&mut room) {
                Ok(0) => {
                    self.ended = Some("closed".to_owned());
                    return;
                }
                Ok(count) => self.arrived.extend_from_slice(&room[..count]),
                Err(_) => return,
            }
        }
    }
}
