// SPDX-License-Identifier: Apache-2.0
//! The server's loop.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
};

use anyhow::{Context, Result};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use socket2::{Domain, Socket, Type};

use crate::{BLOCK, Loop, QUESTIONS};

/// What a port is for, in the order of the ports.
#[derive(Clone, Copy)]
enum Purpose {
    Sink,
    Source,
    Echo,
    Answer,
}

const PURPOSES: [Purpose; 4] = [Purpose::Sink, Purpose::Source, Purpose::Echo, Purpose::Answer];
const BACKLOG: i32 = 4096;

/// Serves until its standard input ends.
pub(crate) fn serve(port: u16) -> Result<()> {
    let mut work = Loop::new()?;
    let mut listeners = Vec::new();
    for (number, _) in PURPOSES.iter().enumerate() {
        let listener = listen(port + u16::try_from(number)?)?;
        work.watch(&listener, EpollFlags::EPOLLIN, number)?;
        listeners.push(listener);
    }
    println!("serving");
    let mut links: Vec<Option<(TcpStream, Purpose)>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut block = vec![0_u8; BLOCK];
    let mut events = vec![EpollEvent::empty(); 256];
    loop {
        for event in work.wait(&mut events)? {
            let token = event.data();
            if token == QUESTIONS {
                if !work.answer()? {
                    return Ok(());
                }
                continue;
            }
            let token = usize::try_from(token)?;
            if let Some(listener) = listeners.get(token) {
                // It may be gone again.
                let Ok((stream, _)) = listener.accept() else { continue };
                let purpose = PURPOSES[token];
                let place = free.pop().unwrap_or_else(|| {
                    links.push(None);
                    links.len() - 1
                });
                let flags = match purpose {
                    Purpose::Source => {
                        stream.set_nonblocking(true)?;
                        EpollFlags::EPOLLOUT
                    }
                    _ => EpollFlags::EPOLLIN,
                };
                work.watch(&stream, flags, place + listeners.len())?;
                links[place] = Some((stream, purpose));
                continue;
            }
            let place = token - listeners.len();
            let Some((stream, purpose)) = &links[place] else { continue };
            let goes_on = match purpose {
                Purpose::Sink => receive(stream, &mut block).inspect(|length| work.tally.receive(*length)).is_some(),
                Purpose::Source => send(stream, &block),
                Purpose::Echo => {
                    receive(stream, &mut block).is_some_and(|length| (&*stream).write_all(&block[..length]).is_ok())
                }
                Purpose::Answer => {
                    if let Some(length) = receive(stream, &mut block) {
                        // A client that is gone needs no answer.
                        let _ = (&*stream).write_all(&block[..length]);
                    }
                    false
                }
            };
            if !goes_on {
                links[place] = None;
                free.push(place);
            }
        }
    }
}

/// Some bytes, or none if there will be no more.
fn receive(mut stream: &TcpStream, block: &mut [u8]) -> Option<usize> {
    match stream.read(block) {
        Ok(0) => None,
        Ok(length) => Some(length),
        Err(error) if error.kind() == ErrorKind::Interrupted => Some(0),
        Err(_) => None,
    }
}

fn send(mut stream: &TcpStream, block: &[u8]) -> bool {
    let fleeting = |error: std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted);
    stream.write(block).map_or_else(fleeting, |_| true)
}

fn listen(port: u16) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    socket
        .bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())
        .with_context(|| format!("bind port {port}"))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
