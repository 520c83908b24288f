// SPDX-License-Identifier: Apache-2.0
//! epoll, and the tokens that tell whom an event is for.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::flow::Flow;
use super::listen::Listening;
use super::table::Key;
use super::tunnel::Tunnel;

/// Whom an event is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Wake,
    Listener(Key<Listening>),
    Tunnel(Key<Tunnel>),
    /// The application's socket of a flow.
    App(Key<Flow>),
    /// The far socket of a flow without a tunnel.
    Far(Key<Flow>),
}

/// What happened to a socket since the last event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Readiness {
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The other end has finished or broken: a short read does not mean that nothing more will come.
    pub(super) hung_up: bool,
    /// It was reset, or has an error.
    pub(super) broken: bool,
}

pub(super) struct Poll {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, events: vec![EpollEvent::empty(); EVENTS] })
    }

    /// Level-triggered, for what is taken one by one: listeners and the wake-up.
    pub(super) fn add_level(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token.to_bits());
        Ok(self.epoll.add(fd, event)?)
    }

    /// Edge-triggered for everything, once and for all. Closing the socket removes it.
    pub(super) fn add_edge(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        Ok(self.epoll.add(fd, EpollEvent::new(flags, token.to_bits()))?)
    }

    pub(super) fn remove(&self, fd: impl AsFd) {
        // Whatever is not there need not be removed.
        let _ = self.epoll.delete(fd);
    }

    /// Waits, and answers with how many events there are for [`Poll::event`].
    pub(super) fn wait(&mut self, at_most: Option<Duration>) -> io::Result<usize> {
        // Rounded up, lest the thread spins through the last millisecond.
        let milliseconds = at_most.map(|wait| wait.as_nanos().div_ceil(1_000_000).min(3_600_000) as i32);
        let timeout =
            milliseconds.map_or(EpollTimeout::NONE, |wait| EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::ZERO));
        match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => Ok(count),
            Err(nix::errno::Errno::EINTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(super) fn event(&self, index: usize) -> Option<(Token, Readiness)> {
        let event = self.events.get(index)?;
        let flags = event.events();
        let broken = flags.contains(EpollFlags::EPOLLERR);
        let closed = broken || flags.contains(EpollFlags::EPOLLHUP);
        let hung_up = closed || flags.contains(EpollFlags::EPOLLRDHUP);
        let readable = hung_up || flags.contains(EpollFlags::EPOLLIN);
        let writable = closed || flags.contains(EpollFlags::EPOLLOUT);
        Some((Token::from_bits(event.data())?, Readiness { readable, writable, hung_up, broken }))
    }
}

impl Token {
    fn to_bits(self) -> u64 {
        let (kind, bits) = match self {
            Self::Wake => (0, 0),
            Self::Listener(key) => (1, key.to_bits()),
            Self::Tunnel(key) => (2, key.to_bits()),
            Self::App(key) => (3, key.to_bits()),
            Self::Far(key) => (4, key.to_bits()),
        };
        kind << 60 | bits
    }

    fn from_bits(bits: u64) -> Option<Self> {
        Some(match bits >> 60 {
            0 => Self::Wake,
            1 => Self::Listener(Key::from_bits(bits)),
            2 => Self::Tunnel(Key::from_bits(bits)),
            3 => Self::App(Key::from_bits(bits)),
            4 => Self::Far(Key::from_bits(bits)),
            _ => return None,
        })
    }
}

/// Events taken in one turn.
const EVENTS: usize = 512;
