// SPDX-License-Identifier: Apache-2.0
//! The clients. Each prints one line per finding and ends with status 0 only if what it is for worked.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write, stdin},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use socket2::SockRef;

use crate::content;

const PATIENCE: Duration = Duration::from_secs(10);
const STUCK: Duration = Duration::from_secs(2);

fn open(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connect to {to}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a line and returns the one that comes back.
pub(crate) fn ask(stream: &TcpStream, question: &str) -> Result<String> {
    let mut writer = stream;
    writeln!(writer, "{question}").context("send")?;
    line(stream)
}

/// The next line that comes.
pub(crate) fn line(stream: &TcpStream) -> Result<String> {
    // Unbuffered, so that nothing behind the line is lost.
    let mut answer = Vec::new();
    let mut reader = stream;
    loop {
        let mut byte = [0];
        let read = match reader.read(&mut byte) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                bail!("no answer within {:?}", stream.read_timeout()?.unwrap_or_default())
            }
            read => read.context("receive")?,
        };
        if read == 0 || byte[0] == b'\n' {
            ensure!(read > 0 || !answer.is_empty(), "the connection was closed before an answer came");
            return Ok(String::from_utf8_lossy(&answer).into_owned());
        }
        answer.push(byte[0]);
    }
}

/// See `Role::Talk`.
pub(crate) fn talk(to: SocketAddr) -> Result<()> {
    let stream = open(to)?;
    let mut writer = &stream;
    writeln!(writer, "echo")?;
    println!("open {}", stream.local_addr()?);
    for question in stdin().lock().lines() {
        // The connection breaking is an answer too: whoever listens is waiting for one.
        match ask(&stream, &question?) {
            Ok(answer) => println!("{answer}"),
            Err(error) => println!("broken: {error:#}"),
        }
    }
    Ok(())
}

/// See `Role::Upload`.
pub(crate) fn upload(to: SocketAddr, bytes: u64) -> Result<()> {
    let stream = open(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    let mut writer = &stream;
    writeln!(writer, "digest")?;
    let sent = content::send(writer, bytes).context("send")?;
    stream.shutdown(Shutdown::Write)?;
    let answer = line(&stream)?;
    ensure!(answer == format!("{bytes} {sent}"), "sent {bytes} bytes with digest {sent}, the server had {answer}");
    println!("{bytes} bytes up, digest {sent}");
    Ok(())
}

/// See `Role::Download`.
pub(crate) fn download(to: SocketAddr, bytes: u64) -> Result<()> {
    let stream = open(to)?;
    let mut writer = &stream;
    writeln!(writer, "send {bytes}")?;
    let (length, digest) = content::receive(&stream).context("receive")?;
    let expected = content::send(std::io::sink(), bytes)?;
    ensure!(
        (length, &digest) == (bytes, &expected),
        "expected {bytes} bytes with digest {expected}, got {length} with {digest}"
    );
    println!("{bytes} bytes down, digest {digest}");
    Ok(())
}

/// See `Role::HalfClose`.
pub(crate) fn half_close(to: SocketAddr) -> Result<()> {
    let stream = open(to)?;
    let mut writer = &stream;
    writer.write_all(b"late\n12345")?;
    stream.shutdown(Shutdown::Write)?;
    let mut rest = String::new();
    BufReader::new(&stream).read_to_string(&mut rest).context("receive")?;
    print!("{rest}");
    ensure!(!rest.is_empty(), "nothing came after our direction was closed");
    Ok(())
}

/// See `Role::Who` and `Role::Name`.
pub(crate) fn question(to: SocketAddr, question: &str) -> Result<()> {
    println!("{}", ask(&open(to)?, question)?);
    Ok(())
}

/// See `Role::Storm`.
pub(crate) fn storm(to: SocketAddr) -> Result<()> {
    let end = std::thread::spawn(|| stdin().lock().read_to_end(&mut Vec::new()));
    let (mut good, mut bad, mut first) = (0_u64, 0_u64, String::new());
    while !end.is_finished() {
        match open(to).and_then(|stream| ask(&stream, "who")) {
            Ok(_) => good += 1,
            Err(error) => {
                bad += 1;
                if first.is_empty() {
                    first = format!("; the first after {good}: {error:#}");
                }
            }
        }
        if good + bad == 1 {
            println!("blowing");
        }
    }
    println!("{bad} of {} failed{first}", good + bad);
    Ok(())
}

/// See `Role::Stall`.
pub(crate) fn stall(to: SocketAddr, bytes: u64, after: u64) -> Result<()> {
    let stream = open(to)?;
    let mut writer = &stream;
    writeln!(writer, "send {bytes}")?;
    // Once these are there, the rest is on its way.
    let read = std::io::copy(&mut Read::take(&stream, after), &mut std::io::sink())?;
    ensure!(read == after, "the server closed after {read} bytes");
    println!("stalled");
    stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// See `Role::Pour`.
pub(crate) fn pour(to: SocketAddr, bytes: u64) -> Result<()> {
    let stream = open(to)?;
    let mut writer = &stream;
    writeln!(writer, "gorge {bytes}")?;
    // Whoever reads makes room again sooner than this.
    stream.set_write_timeout(Some(STUCK))?;
    let block = vec![0; 256 << 10];
    let mut sent = 0;
    loop {
        match writer.write(&block) {
            Ok(length) => sent += length as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock && sent >= bytes => break,
            // Only slow: the server has not had enough yet.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).with_context(|| format!("send after {sent} bytes")),
        }
    }
    println!("stalled");
    stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// See `Role::Reset`.
pub(crate) fn reset(to: SocketAddr) -> Result<()> {
    let stream = open(to)?;
    ensure!(ask(&stream, "hold reset-by-client")? == "holding", "the server does not hold");
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    println!("reset");
    Ok(())
}

/// See `Role::AwaitReset`.
pub(crate) fn await_reset(to: SocketAddr) -> Result<()> {
    let stream = open(to)?;
    let mut writer = &stream;
    writeln!(writer, "reset")?;
    let mut reader = &stream;
    match reader.read(&mut [0; 16]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {
            println!("reset");
            Ok(())
        }
        other => bail!("expected a reset, got {other:?}"),
    }
}
