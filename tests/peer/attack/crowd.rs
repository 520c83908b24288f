// SPDX-License-Identifier: Apache-2.0
//! Many at once: connections, half handshakes, streams that nobody reads. Each says when everything stands and then keeps it until standard input is
//! closed.

use std::{
    io::{ErrorKind, Read, Write, stdin},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    credentials::{Claim, Flaw},
    raw::hello,
    tunnel::{DATA, END_HEADERS, HEADERS, SETTINGS, Tunnel, connect, frame},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn keep() -> Result<()> {
    stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn open(to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&to, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// That many connections at once, each asked twice with all the others open.
pub(crate) fn parallel(to: SocketAddr, count: usize) -> Result<()> {
    let mut all = Vec::new();
    for number in 0..count {
        let mut socket = open(to).with_context(|| format!("connection {number}"))?;
        socket.write_all(b"echo\n")?;
        all.push(socket);
    }
    for round in 0..2 {
        for (number, socket) in all.iter_mut().enumerate() {
            socket.write_all(format!("{number:06} {round}\n").as_bytes())?;
        }
        for (number, socket) in all.iter_mut().enumerate() {
            let mut answer = [0; 9];
            socket
                .read_exact(&mut answer)
                .with_context(|| format!("the answer of connection {number} in round {round}"))?;
            let expected = format!("{number:06} {round}\n");
            ensure!(answer == expected.as_bytes(), "connection {number} got another's answer");
        }
    }
    println!("{count} answered");
    keep()
}

/// As many connections as there can be, up to `count`, none of which is ever let go.
pub(crate) fn greedy(to: SocketAddr, count: usize) -> Result<()> {
    let mut all = Vec::new();
    let mut failed = 0;
    for _ in 0..count {
        match open(to) {
            Ok(mut socket) => {
                socket.set_nonblocking(true)?;
                // Who was refused at once finds out below.
                let _ = socket.write_all(b"echo\nhere\n");
                all.push(socket);
            }
            Err(_) => failed += 1,
        }
    }
    // A refusal may still be on its way: count until nothing changes any more.
    let (mut good, mut bad) = (0, failed);
    let mut left: Vec<TcpStream> = all.iter().map(TcpStream::try_clone).collect::<Result<_, _>>()?;
    let end = std::time::Instant::now() + PATIENCE;
    while !left.is_empty() && std::time::Instant::now() < end {
        left.retain_mut(|socket| match socket.read(&mut [0; 64]) {
            Ok(0) => {
                bad += 1;
                false
            }
            Ok(_) => {
                good += 1;
                false
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(_) => {
                bad += 1;
                false
            }
        });
        std::thread::park_timeout(Duration::from_millis(20));
    }
    println!("{good} open {bad} refused {} unanswered", left.len());
    drop(left);
    keep()
}

/// Handshakes that begin and never go on; with `silent` they do not even begin.
pub(crate) fn half_open(to: SocketAddr, claim: &Claim, count: usize, silent: bool) -> Result<()> {
    let hello = hello(to, claim)?;
    let (mut all, mut refused) = (Vec::new(), 0);
    for _ in 0..count {
        let Ok(mut socket) = open(to) else {
            refused += 1;
            continue;
        };
        if !silent {
            // A refused one is as good as a lost one.
            let _ = socket.write_all(&hello);
        }
        socket.set_nonblocking(true)?;
        all.push(socket);
    }
    // A refusal comes at once; the first answers of a server to those it listens to take a moment.
    for _ in 0..20 {
        std::thread::park_timeout(Duration::from_millis(10));
        all.retain_mut(|socket| {
            loop {
                match socket.read(&mut [0; 4096]) {
                    Ok(count) if count > 0 => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break true,
                    _ => {
                        refused += 1;
                        break false;
                    }
                }
            }
        });
    }
    println!("{} open {refused} refused", all.len());
    keep()
}

/// Streams over a few tunnels, each filled as far as it can be, to an application that does not read, by a client that does not read either.
pub(crate) fn stalled_streams(to: SocketAddr, claim: &Claim, count: usize, target: &str) -> Result<()> {
    const PER_TUNNEL: usize = 200;
    let config = claim.client(Flaw::Nothing)?;
    let mut tunnels = Vec::new();
    let (mut open, mut sent) = (0, 0);
    while open < count {
        let mut tunnel = Tunnel::open(to, config.clone())?;
        // Nothing may be sent to us on any stream.
        tunnel.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]))?;
        let streams: Vec<u32> = (0..PER_TUNNEL.min(count - open)).map(|_| tunnel.number()).collect();
        for stream in &streams {
            tunnel.send(&frame(HEADERS, END_HEADERS, *stream, &connect(target)))?;
        }
        let all = streams.len();
        tunnel.until(|heard| heard.goaway.is_some() || heard.statuses.len() + heard.resets.len() >= all)?;
        for stream in &streams {
            tunnel.send(&frame(DATA, 0, *stream, b"send 1000000000\n"))?;
        }
        // The window a stream opens with, less what was just sent.
        let mut left = (256 << 10) - 16;
        let piece = vec![7; 16 << 10];
        while left > 0 {
            let part = piece.len().min(left);
            for stream in &streams {
                if tunnel.stands() && !tunnel.heard.resets.contains_key(stream) {
                    tunnel.send(&frame(DATA, 0, *stream, &piece[..part]))?;
                    sent += part;
                }
            }
            left -= part;
        }
        tunnel.settle()?;
        open += all;
        tunnels.push(tunnel);
    }
    let reset: usize = tunnels.iter().map(|tunnel| tunnel.heard.resets.len()).sum();
    let gone = tunnels.iter().filter(|tunnel| !tunnel.stands()).count();
    println!("{open} streams {reset} reset {gone} tunnels gone {} MiB sent", sent >> 20);
    keep()
}

/// Connections that ask for a lot and read nothing.
pub(crate) fn stalled_readers(to: SocketAddr, count: usize) -> Result<()> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut socket = open(to)?;
        socket.write_all(b"send 1000000000\n")?;
        all.push(socket);
    }
    for socket in &mut all {
        // Once a first byte is there, the rest is on its way.
        socket.read_exact(&mut [0])?;
    }
    println!("{} stalled", all.len());
    keep()
}
