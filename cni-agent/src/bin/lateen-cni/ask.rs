// SPDX-License-Identifier: Apache-2.0
//! A call of the agent: one HTTP/1.1 request over its socket, one answer, within a time.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cni_agent::cni::question::{Question, SOCKET_NAME, path};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, setsockopt, socket,
    sockopt::{PeerCredentials, SendTimeout},
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::geteuid;

/// The agent of this node.
pub(crate) struct Agent {
    socket: PathBuf,
    deadline: Instant,
}

/// What it said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) status: u16,
    /// Its words, without white space around them.
    pub(crate) text: String,
}

impl Said {
    /// Whether the agent only said that it cannot answer: it stops, or got no request it could read in time.
    pub(crate) fn is_no_answer(&self) -> bool {
        matches!(self.status, 408 | 503)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("cannot connect to {path}: {source}")]
    Connect { path: PathBuf, source: io::Error },
    #[error("the listener on {path} runs as user {uid}, which is not the agent: find out who put it there")]
    Stranger { path: PathBuf, uid: u32 },
    #[error("the agent did not answer on {path} in time")]
    Late { path: PathBuf },
    #[error("the connection to {path} failed: {source}")]
    Broken { path: PathBuf, source: io::Error },
    #[error("the answer on {path} is not HTTP of the agent: {why}")]
    Garbled { path: PathBuf, why: &'static str },
}

/// Waits between attempts to connect: an agent that restarts in place is back in no time, any other takes longer than a pod should wait here.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(200)];
/// What is read of an answer (cni-agent.md P-12).
const MAX_ANSWER: usize = 1024 * 1024;

impl Agent {
    /// The agent with this run directory, to be heard within `patience`.
    pub(crate) fn new(run_dir: &Path, patience: Duration) -> Self {
        Self { socket: run_dir.join(SOCKET_NAME), deadline: Instant::now() + patience }
    }

    /// Asks about a sandbox.
    pub(crate) fn ask(&self, path: &str, question: &Question) -> Result<Said, AskError> {
        let body = serde_json::to_vec(question).map_err(|error| self.broken(error.into()))?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: unix\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.exchange(&[head.as_bytes(), &body].concat())
    }

    /// Asks whether anybody is there.
    pub(crate) fn ask_status(&self) -> Result<Said, AskError> {
        let request = format!("GET {} HTTP/1.1\r\nHost: unix\r\nConnection: close\r\n\r\n", path::STATUS);
        self.exchange(request.as_bytes())
    }

    fn exchange(&self, request: &[u8]) -> Result<Said, AskError> {
        let mut stream = self.connect()?;
        self.write(&mut stream, request)?;
        let answer = self.read(&mut stream)?;
        parse(&answer).map_err(|why| AskError::Garbled { path: self.socket.clone(), why })
    }

    fn connect(&self) -> Result<UnixStream, AskError> {
        let mut pauses = PAUSES.into_iter();
        loop {
            match (self.connect_once(), pauses.next()) {
                (Ok(stream), _) => return Ok(stream),
                (Err(error @ AskError::Late { .. }), _) | (Err(error), None) => return Err(error),
                (Err(_), Some(pause)) => {
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "a socket that comes into being cannot be waited for otherwise"
                    )]
                    std::thread::sleep(pause);
                }
            }
        }
    }

    /// With a limit: connecting waits while the agent's backlog is full.
    fn connect_once(&self) -> Result<UnixStream, AskError> {
        let failed = |error: nix::Error| AskError::Connect { path: self.socket.clone(), source: error.into() };
        let address = UnixAddr::new(&self.socket).map_err(failed)?;
        let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
        let left = i64::try_from(self.left()?.as_micros()).unwrap_or(i64::MAX);
        setsockopt(&socket, SendTimeout, &TimeVal::microseconds(left)).map_err(failed)?;
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => {
                let listener = getsockopt(&socket, PeerCredentials).map_err(failed)?.uid();
                if listener != geteuid().as_raw() {
                    return Err(AskError::Stranger { path: self.socket.clone(), uid: listener });
                }
                Ok(socket.into())
            }
            Err(nix::Error::EAGAIN) => Err(self.late()),
            Err(error) => Err(failed(error)),
        }
    }

    fn write(&self, stream: &mut UnixStream, mut request: &[u8]) -> Result<(), AskError> {
        while !request.is_empty() {
            stream.set_write_timeout(Some(self.left()?)).map_err(|error| self.broken(error))?;
            match stream.write(request) {
                Ok(0) => return Err(self.broken(io::ErrorKind::WriteZero.into())),
                Ok(written) => request = &request[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(())
    }

    fn read(&self, stream: &mut UnixStream) -> Result<Vec<u8>, AskError> {
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            stream.set_read_timeout(Some(self.left()?)).map_err(|error| self.broken(error))?;
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(answer),
                Ok(length) => answer.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
            if answer.len() > MAX_ANSWER {
                return Err(AskError::Garbled { path: self.socket.clone(), why: "it does not end" });
            }
        }
    }

    /// Never zero, which sockets take for no limit at all.
    fn left(&self) -> Result<Duration, AskError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left < Duration::from_micros(1) { Err(self.late()) } else { Ok(left) }
    }

    fn late(&self) -> AskError {
        AskError::Late { path: self.socket.clone() }
    }

    fn broken(&self, source: io::Error) -> AskError {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.late(),
            _ => AskError::Broken { path: self.socket.clone(), source },
        }
    }
}

/// Reads a whole answer. The agent tells its length, so one that was cut off is not taken for another.
fn parse(answer: &[u8]) -> Result<Said, &'static str> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or("it ends within its head")?;
    let (head, body) = (&answer[..end], &answer[end + 4..]);
    let head = std::str::from_utf8(head).map_err(|_| "its head is not text")?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some("HTTP/1.1" | "HTTP/1.0"), Some(Ok(status @ 200..=599))) = (words.next(), words.next().map(str::parse))
    else {
        return Err("it has no status");
    };
    let mut length = None;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err("it is in pieces");
        }
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<usize>().map_err(|_| "its length is no number")?);
        }
    }
    if length.ok_or("it does not tell its length")? != body.len() {
        return Err("it is not as long as it says");
    }
    Ok(Said { status, text: String::from_utf8_lossy(body).trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_answer_is_read() {
        let said = |text: &str| parse(text.as_bytes());
        assert_eq!(
            said("HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\nContent-Length: 5\r\n\r\n no \n"),
            Ok(Said { status: 500, text: "no".to_owned() })
        );
        assert_eq!(said("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), Ok(Said { status: 200, text: String::new() }));
    }

    #[test]
    fn half_an_answer_is_none() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes";
        for length in 0..whole.len() {
            parse(&whole[..length]).unwrap_err();
        }
        parse(whole).unwrap();
        parse(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes!").unwrap_err();
        parse(b"HTTP/1.1 200 OK\r\n\r\n").unwrap_err();
        parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n").unwrap_err();
        parse(b"HTTP/1.1 99 No\r\ncontent-length: 0\r\n\r\n").unwrap_err();
        parse(b"SSH-2.0-OpenSSH\r\n\r\n").unwrap_err();
    }

    proptest::proptest! {
        #[test]
        fn anything_is_read(answer in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse(&answer);
        }
    }
}
