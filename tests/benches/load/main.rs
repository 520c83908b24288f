// SPDX-License-Identifier: Apache-2.0
//! `load`: the two ends of what the datapath bench measures. One thread each on a bare epoll loop, so that the machine's cores are left to the proxies;
//! it counts and takes latencies itself and says so when it is asked.
//!
//! Every line on standard input is a question after what happened since the one before; the answer is one line of JSON. The end of standard input ends it.

mod client;
mod server;
mod tally;

use std::{
    io::{Read, Write, stdin, stdout},
    net::IpAddr,
    os::fd::AsFd,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    resource::{Resource, getrlimit, setrlimit},
};

use crate::tally::Tally;

/// The token of standard input; no connection has this number.
const QUESTIONS: u64 = u64::MAX;
/// Size of a request and of an answer.
const MESSAGE: usize = 64;
/// Bulk is read and written in pieces of this size.
const BLOCK: usize = 256 << 10;

/// Client and server of the datapath bench.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Serve four ports: what is sent to the first is dropped, the second sends, the third echoes, the fourth answers once and closes.
    Serve {
        /// The first of the four.
        port: u16,
    },
    /// Work until standard input ends.
    Run {
        /// What to do.
        work: Work,
        /// The address of the server.
        to: IpAddr,
        /// The first of its ports.
        port: u16,
        /// How many connections at once.
        connections: usize,
    },
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    /// Send without end.
    Up,
    /// Receive without end.
    Down,
    /// Ask and wait for the answer, again and again.
    Rr,
    /// The same with a new connection each time.
    Crr,
    /// Ask once and keep the connection.
    Hold,
}

fn main() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    match Arguments::parse().role {
        Role::Serve { port } => server::serve(port),
        Role::Run { work, to, port, connections } => client::run(work, to, port, connections),
    }
}

/// What both ends share: the loop's epoll, its events, and the questions.
struct Loop {
    epoll: Epoll,
    tally: Tally,
    asked: Vec<u8>,
}

impl Loop {
    fn new() -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(stdin(), EpollEvent::new(EpollFlags::EPOLLIN, QUESTIONS))?;
        Ok(Self { epoll, tally: Tally::new(), asked: Vec::new() })
    }

    fn watch(&self, what: impl AsFd, flags: EpollFlags, token: usize) -> Result<()> {
        self.epoll.add(what, EpollEvent::new(flags, token as u64)).context("watch a socket")
    }

    fn wait<'e>(&self, events: &'e mut [EpollEvent]) -> Result<&'e [EpollEvent]> {
        match self.epoll.wait(events, EpollTimeout::NONE) {
            Ok(count) => Ok(&events[..count]),
            Err(nix::errno::Errno::EINTR) => Ok(&[]),
            Err(error) => Err(error).context("wait for events"),
        }
    }

    /// Answers what is asked; false at the end of the questions.
    fn answer(&mut self) -> Result<bool> {
        let mut bytes = [0; 256];
        let read = stdin().read(&mut bytes)?;
        self.asked.extend_from_slice(&bytes[..read]);
        while let Some(end) = self.asked.iter().position(|byte| *byte == b'\n') {
            self.asked.drain(..=end);
            let mut out = stdout().lock();
            writeln!(out, "{}", self.tally.take())?;
            out.flush()?;
        }
        Ok(read > 0)
    }
}
