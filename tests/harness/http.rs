// SPDX-License-Identifier: Apache-2.0
//! A tiny HTTP client for readiness, metrics and admin pages of programs inside a network namespace.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};

use crate::netns::Netns;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

/// Asks for `path` at `address` as seen from `netns`.
pub fn fetch(netns: &Netns, method: &str, address: SocketAddr, path: &str) -> Result<Answer> {
    let timeout = Duration::from_secs(5);
    let bytes = netns.run(|| {
        let mut stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        let host = address.to_string();
        stream.write_all(
            format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                .as_bytes(),
        )?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    parse(&bytes.with_context(|| format!("{method} http://{address}{path}"))?)
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| anyhow!("no end of the header"))?;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status =
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| anyhow!("no status in {head:?}"))?;
    let body = &bytes[end + 4..];
    let body = if head.contains("transfer-encoding: chunked") { unchunk(body)? } else { body.to_vec() };
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n").ok_or_else(|| anyhow!("a chunk without a length"))?;
        let length =
            usize::from_str_radix(std::str::from_utf8(&rest[..line])?.split(';').next().unwrap_or("").trim(), 16)?;
        if length == 0 {
            return Ok(body);
        }
        let from = line + 2;
        body.extend_from_slice(rest.get(from..from + length).ok_or_else(|| anyhow!("a chunk is cut off"))?);
        rest = rest.get(from + length + 2..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_whole_or_in_chunks() {
        let whole = parse(b"HTTP/1.1 500 x\r\ncontent-length: 3\r\n\r\nno\n").unwrap();
        assert_eq!((whole.status, whole.body.as_str()), (500, "no\n"));
        let chunked =
            parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")
                .unwrap();
        assert_eq!((chunked.status, chunked.body.as_str()), (200, "abcde"));
    }

    #[test]
    fn half_an_answer_is_an_error() {
        for half in [
            &b"HTTP/1.1 200 OK\r\n"[..],
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc",
        ] {
            assert!(parse(half).is_err());
        }
    }
}
