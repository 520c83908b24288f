// SPDX-License-Identifier: Apache-2.0
//! The client's loop.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::epoll::{EpollEvent, EpollFlags};

use crate::{BLOCK, Loop, MESSAGE, QUESTIONS, Work};

/// One connection.
struct Link {
    stream: TcpStream,
    /// When its request went out; with a connection for each, when it began to connect.
    since: Instant,
    /// Bytes of the answer so far.
    got: usize,
}

/// How long a connection may take to come about; only one that fails takes long.
const PATIENCE: Duration = Duration::from_secs(10);
const REQUEST: [u8; MESSAGE] = [b'?'; MESSAGE];

/// Works until its standard input ends.
pub(crate) fn run(work: Work, to: IpAddr, port: u16, connections: usize) -> Result<()> {
    let to = SocketAddr::new(to, port + port_of(work));
    let mut turn = Loop::new()?;
    println!("working");
    if work == Work::Hold {
        return hold(&mut turn, to, connections);
    }
    let mut links = Vec::new();
    for place in 0..connections {
        links.push(open(&turn, work, to, place)?);
    }
    let mut block = vec![0_u8; BLOCK];
    let mut events = vec![EpollEvent::empty(); 256];
    loop {
        for event in turn.wait(&mut events)? {
            let token = event.data();
            if token == QUESTIONS {
                if !turn.answer()? {
                    return Ok(());
                }
                continue;
            }
            let place = usize::try_from(token)?;
            let link = &mut links[place];
            match work {
                Work::Up => push(&link.stream, &block)?,
                Work::Down => {
                    let length = pull(&link.stream, &mut block)?;
                    ensure!(length > 0, "the server closed");
                    turn.tally.receive(length);
                }
                Work::Rr | Work::Hold => {
                    let length = pull(&link.stream, &mut block)?;
                    ensure!(length > 0, "the server closed");
                    link.got += length;
                    if link.got >= MESSAGE {
                        turn.tally.complete(link.since.elapsed());
                        link.ask()?;
                    }
                }
                Work::Crr => {
                    // Until the server closes, so that the closing is part of what is measured and its waiting state stays with the server.
                    let ended = match pull(&link.stream, &mut block) {
                        Ok(0) => link.got < MESSAGE,
                        Ok(length) => {
                            link.got += length;
                            if link.got >= MESSAGE {
                                turn.tally.complete(link.since.elapsed());
                            }
                            continue;
                        }
                        Err(_) => link.got < MESSAGE,
                    };
                    if ended {
                        turn.tally.fail();
                    }
                    links[place] = open(&turn, work, to, place)?;
                }
            }
        }
    }
}

/// Opens all of them, each with one question and its answer, and keeps them.
fn hold(turn: &mut Loop, to: SocketAddr, connections: usize) -> Result<()> {
    let mut held = Vec::new();
    for number in 0..connections {
        let mut link = Link { stream: connect(to)?, since: Instant::now(), got: 0 };
        link.ask()?;
        link.stream.set_read_timeout(Some(PATIENCE))?;
        link.stream.read_exact(&mut [0; MESSAGE]).with_context(|| format!("the answer on connection {number}"))?;
        turn.tally.complete(link.since.elapsed());
        held.push(link);
    }
    while turn.answer()? {}
    Ok(())
}

impl Link {
    fn ask(&mut self) -> Result<()> {
        self.since = Instant::now();
        self.got = 0;
        self.stream.write_all(&REQUEST).context("send a request")
    }
}

fn port_of(work: Work) -> u16 {
    match work {
        Work::Up => 0,
        Work::Down => 1,
        Work::Rr | Work::Hold => 2,
        Work::Crr => 3,
    }
}

/// Blocking: between neighbours in one kernel a connect is done when the call returns, and one call is all it costs.
fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn open(turn: &Loop, work: Work, to: SocketAddr, place: usize) -> Result<Link> {
    let since = Instant::now();
    let mut link = Link { stream: connect(to)?, since, got: 0 };
    let flags = match work {
        Work::Up => {
            link.stream.set_nonblocking(true)?;
            EpollFlags::EPOLLOUT
        }
        Work::Down => EpollFlags::EPOLLIN,
        Work::Rr | Work::Crr | Work::Hold => {
            link.ask()?;
            EpollFlags::EPOLLIN
        }
    };
    if work == Work::Crr {
        link.since = since;
    }
    turn.watch(&link.stream, flags, place)?;
    Ok(link)
}

fn push(mut stream: &TcpStream, block: &[u8]) -> Result<()> {
    match stream.write(block) {
        Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Err(error).context("send")
        }
        _ => Ok(()),
    }
}

fn pull(mut stream: &TcpStream, block: &mut [u8]) -> Result<usize> {
    stream.read(block).context("receive")
}
