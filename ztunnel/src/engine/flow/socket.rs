// SPDX-License-Identifier: Apache-2.0
//! A socket under edge-triggered epoll: what can be done with it now.

use std::io::{self, IoSlice};

use crate::engine::poll::Readiness;
use crate::net::{Pipe, Stream};

/// A socket and what epoll has said about it.
pub(in crate::engine) struct Socket {
    stream: Stream,
    readable: bool,
    writable: bool,
    hung_up: bool,
    broken: bool,
}

/// The outcome of a read.
pub(in crate::engine) enum Read {
    Bytes(usize),
    End,
    Nothing,
    Broken(io::Error),
}

/// The outcome of a write.
pub(in crate::engine) enum Wrote {
    Bytes(usize),
    Nothing,
    Broken(io::Error),
}

impl Socket {
    /// An accepted or connected socket can be written to; whether there is something to read, epoll says when it is added.
    pub(in crate::engine) fn connected(stream: Stream) -> Self {
        Self { stream, readable: false, writable: true, hung_up: false, broken: false }
    }

    /// One that is being connected says when it is ready.
    pub(in crate::engine) fn connecting(stream: Stream) -> Self {
        Self { stream, readable: false, writable: false, hung_up: false, broken: false }
    }

    pub(in crate::engine) fn note(&mut self, readiness: Readiness) {
        self.readable |= readiness.readable;
        self.writable |= readiness.writable;
        self.hung_up |= readiness.hung_up;
        self.broken |= readiness.broken;
    }

    pub(in crate::engine) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(in crate::engine) fn into_stream(self) -> Stream {
        self.stream
    }

    /// It was reset. Reading finds that too, behind what came before; who cannot read must ask.
    pub(in crate::engine) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(in crate::engine) fn is_readable(&self) -> bool {
        self.readable
    }

    pub(in crate::engine) fn is_writable(&self) -> bool {
        self.writable
    }

    pub(in crate::engine) fn read(&mut self, room: &mut [u8]) -> Read {
        match self.stream.read(room) {
            Ok(0) => {
                self.readable = false;
                Read::End
            }
            Ok(count) => {
                // A short read has drained the socket, unless the peer's FIN lies behind it: its edge may be the one we are in.
                if count < room.len() && !self.hung_up {
                    self.readable = false;
                }
                Read::Bytes(count)
            }
            Err(error) => self.unread(error),
        }
    }

    /// Copies what is there and leaves it where it is. Says nothing of whether there is more.
    pub(in crate::engine) fn peek(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self.stream.peek(room) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            other => other,
        }
    }

    pub(in crate::engine) fn write(&mut self, bytes: &[u8]) -> Wrote {
        let wrote = self.stream.write(bytes);
        self.wrote(wrote, bytes.len())
    }

    /// The same for bytes that a FIN follows at once.
    pub(in crate::engine) fn write_before_end(&mut self, bytes: &[u8]) -> Wrote {
        let wrote = self.stream.write_before_end(bytes);
        self.wrote(wrote, bytes.len())
    }

    pub(super) fn write_pieces(&mut self, pieces: &[IoSlice<'_>]) -> Wrote {
        let wrote = self.stream.write_pieces(pieces);
        self.wrote(wrote, pieces.iter().map(|piece| piece.len()).sum())
    }

    /// Reads into a pipe.
    pub(in crate::engine) fn fill(&mut self, pipe: &mut Pipe) -> Read {
        match pipe.fill(&self.stream) {
            Ok(0) => {
                self.readable = false;
                Read::End
            }
            // However little it is, there may be more: a pipe takes so many pieces, not so many bytes.
            Ok(count) => Read::Bytes(count),
            Err(error) => self.unread(error),
        }
    }

    /// Writes what a pipe holds.
    pub(in crate::engine) fn drain(&mut self, pipe: &mut Pipe) -> Wrote {
        let held = pipe.held();
        let wrote = pipe.drain(&self.stream);
        self.wrote(wrote, held)
    }

    fn unread(&mut self, error: io::Error) -> Read {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                self.readable = false;
                Read::Nothing
            }
            io::ErrorKind::Interrupted => Read::Nothing,
            _ => {
                self.readable = false;
                Read::Broken(error)
            }
        }
    }

    fn wrote(&mut self, result: io::Result<usize>, wanted: usize) -> Wrote {
        match result {
            Ok(count) => {
                if count < wanted {
                    self.writable = false;
                }
                Wrote::Bytes(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.writable = false;
                Wrote::Nothing
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Wrote::Nothing,
            Err(error) => Wrote::Broken(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_reset_is_not_taken_for_silence_by_looking() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut socket = Socket::connected(near.into());
        assert_eq!(socket.peek(&mut [0; 8]).unwrap(), 0, "silence");
        Stream::from(other).reset();
        assert_eq!(socket.peek(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
