// SPDX-License-Identifier: Apache-2.0
//! Connections that never become what the port is for, and handshakes that end with a refusal.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rustls::{ClientConnection, pki_types::ServerName};
use socket2::SockRef;

use super::{
    credentials::{Claim, Flaw},
    link::{Link, PATIENCE},
    tunnel::{PREFACE, SETTINGS, frame},
};

/// Bytes and manners without sense; answers who ended it.
pub(crate) fn annoy(to: SocketAddr, claim: &Claim, name: &str) -> Result<String> {
    let refused = |error: &std::io::Error| {
        matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::NotConnected | ErrorKind::BrokenPipe)
    };
    match attempt(to, claim, name) {
        // The refusal was faster than the attack.
        Err(error) if error.downcast_ref().is_some_and(refused) => Ok("refused".to_owned()),
        other => other,
    }
}

fn attempt(to: SocketAddr, claim: &Claim, name: &str) -> Result<String> {
    let mut socket = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    let hello = hello(to, claim)?;
    match name {
        "garbage" => Ok(tell(&mut socket, &noise(64 << 10))),
        "zeros" => Ok(tell(&mut socket, &[0; 4096])),
        "http" => Ok(tell(&mut socket, b"GET / HTTP/1.1\r\nhost: server\r\n\r\n")),
        "plaintext-hbone" => Ok(tell(&mut socket, &[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())),
        "record-too-large" => Ok(tell(&mut socket, &[&[22, 3, 1, 0xff, 0xff][..], &noise(0xffff)].concat())),
        "garbage-behind-a-hello" => Ok(tell(&mut socket, &[&hello[..], &noise(4096)].concat())),
        "endless-hello" => Ok(endless(&mut socket)),
        "silence" => Ok("left".to_owned()),
        "mute" => Ok(hear(&mut socket)),
        "half-close" => {
            socket.shutdown(Shutdown::Write)?;
            Ok(hear(&mut socket))
        }
        "half-hello" => {
            socket.write_all(&hello[..hello.len() / 2])?;
            socket.shutdown(Shutdown::Write)?;
            Ok(hear(&mut socket))
        }
        "half-garbage" => {
            socket.write_all(b"x")?;
            socket.shutdown(Shutdown::Write)?;
            Ok(hear(&mut socket))
        }
        "reset" => {
            SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
            Ok("left".to_owned())
        }
        "reset-behind-a-hello" => {
            socket.write_all(&hello)?;
            SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
            Ok("left".to_owned())
        }
        "slow" => {
            // A pause between any two bytes; after some of them patience ends.
            socket.set_read_timeout(Some(Duration::from_millis(2)))?;
            for byte in &hello[..hello.len().min(40)] {
                if socket.write_all(&[*byte]).is_err() || is_over(&mut socket) {
                    return Ok("refused".to_owned());
                }
            }
            Ok("left".to_owned())
        }
        "slow-for-ever" => {
            socket.set_read_timeout(Some(Duration::from_millis(2)))?;
            let end = Instant::now() + PATIENCE;
            while Instant::now() < end {
                if socket.write_all(b"x").is_err() || is_over(&mut socket) {
                    return Ok("refused".to_owned());
                }
            }
            Ok("nothing".to_owned())
        }
        other => bail!("no such manners: {other}"),
    }
}

/// A handshake with such a certificate; answers whether it was taken, or with which alert it was refused.
pub(crate) fn shake(to: SocketAddr, claim: &Claim, name: &str) -> Result<String> {
    let mut link = Link::dial(to, claim.client(Flaw::parse(name)?)?)?;
    link.until(|link| !link.is_shaking())?;
    if link.ended.is_none() {
        // With TLS 1.3 a client learns only from what it reads next that its certificate was refused.
        link.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())?;
        link.until(|link| !link.arrived.is_empty())?;
    }
    Ok(match (&link.ended, link.arrived.is_empty()) {
        (_, false) => "taken".to_owned(),
        (Some(why), true) => format!("refused: {why}"),
        (None, true) => "nothing".to_owned(),
    })
}

/// The first message of a handshake.
pub(crate) fn hello(to: SocketAddr, claim: &Claim) -> Result<Vec<u8>> {
    let config = claim.client(Flaw::Missing)?;
    let mut session = ClientConnection::new(config, ServerName::IpAddress(to.ip().into()))?;
    let mut hello = Vec::new();
    session.write_tls(&mut hello)?;
    Ok(hello)
}

/// Bytes that look like nothing, the same every time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

fn tell(socket: &mut TcpStream, bytes: &[u8]) -> String {
    // The other end may have had enough before the last byte.
    let _ = socket.write_all(bytes);
    hear(socket)
}

fn hear(socket: &mut TcpStream) -> String {
    let mut room = [0; 4096];
    loop {
        match socket.read(&mut room) {
            Ok(0) => return "refused".to_owned(),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                return "refused".to_owned();
            }
            Err(error) => return format!("nothing: {error}"),
        }
    }
}

fn is_over(socket: &mut TcpStream) -> bool {
    match socket.read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

/// One handshake message of sixteen megabytes, in records as they should be.
fn endless(socket: &mut TcpStream) -> String {
    let mut first = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff, 3, 3];
    first.resize(5 + 0x4000, 7);
    let mut record = vec![22, 3, 1, 0x40, 0];
    record.resize(5 + 0x4000, 7);
    let mut alive = socket.write_all(&first).is_ok();
    for _ in 0..1023 {
        alive = alive && socket.write_all(&record).is_ok();
    }
    if alive { "taken".to_owned() } else { "refused".to_owned() }
}
