// SPDX-License-Identifier: Apache-2.0
//! The server: a thread per connection, whose first line says what it is for.
//!
//! `echo`: sends every further line back · `digest`: reads to the end, answers `bytes digest` · `send N`: sends N bytes and closes · `who`: answers the address
//! it sees · `name`: answers its own name · `hold`: answers `holding` and then says on standard output how the connection ended · `reset`: resets the connection ·
//! `late`: waits for the other direction to be closed and only then answers · `gorge N`: reads N bytes, and then nothing more for as long as the connection stands.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::content;

/// Serves for ever.
pub(crate) fn serve(port: u16, name: &str) -> Result<()> {
    let listener = listen(port).with_context(|| format!("listen on port {port}"))?;
    loop {
        let (stream, _) = listener.accept()?;
        let name = name.to_owned();
        std::thread::spawn(move || {
            if let Err(error) = answer(&stream, &name) {
                println!("connection from {:?}: {error:#}", stream.peer_addr().ok());
            }
        });
    }
}

/// With a queue as long as that of a server that is made for many: connections that were reset stay in it until they are taken out.
fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_only_v6(false)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn answer(stream: &TcpStream, name: &str) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    let mut purpose = String::new();
    reader.read_line(&mut purpose)?;
    let mut words = purpose.split_whitespace();
    match (words.next().unwrap_or(""), words.next().unwrap_or("")) {
        ("echo", _) => {
            let mut line = String::new();
            while reader.read_line(&mut line)? > 0 {
                writer.write_all(line.as_bytes())?;
                line.clear();
            }
        }
        ("digest", _) => {
            let (length, digest) = content::receive(reader)?;
            writeln!(writer, "{length} {digest}")?;
        }
        ("send", length) => {
            content::send(writer, length.parse()?)?;
        }
        ("who", _) => writeln!(writer, "{}", stream.peer_addr()?.ip().to_canonical())?,
        ("name", _) => writeln!(writer, "{name}")?,
        ("hold", mark) => {
            writeln!(writer, "holding")?;
            let end = reader.read_to_end(&mut Vec::new());
            println!("{mark}: {}", end.map_or_else(|error| format!("{:?}", error.kind()), |_| "closed".to_owned()));
        }
        ("reset", _) => SockRef::from(stream).set_linger(Some(Duration::ZERO))?,
        ("late", _) => {
            let (length, _) = content::receive(reader)?;
            writeln!(writer, "after the end of {length} bytes")?;
        }
        ("gorge", length) => {
            let length: u64 = length.parse()?;
            std::io::copy(&mut Read::take(&mut reader, length), &mut std::io::sink())?;
            // Only the end of the connection is an event that was not asked for.
            poll(&mut [PollFd::new(stream.as_fd(), PollFlags::empty())], PollTimeout::NONE)?;
        }
        (other, _) => writeln!(writer, "no such purpose: {other:?}")?,
    }
    Ok(())
}
