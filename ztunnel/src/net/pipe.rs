// SPDX-License-Identifier: Apache-2.0
//! Pipes, through which the kernel moves bytes from one socket to another without copying them to us.
//!
//! The engine has a pool of them per data thread and gives one to a connection while that has bytes on their way.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;

use super::Stream;

/// A pipe that knows how much is in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
    room: usize,
}

impl Pipe {
    /// An empty one, with room for `wanted` bytes if the kernel grants it to us.
    pub fn new(wanted: i32) -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // Refused to those who have many of them; the usual size will do as well.
        let room = fcntl(&write, FcntlArg::F_SETPIPE_SZ(wanted)).or_else(|_| fcntl(&write, FcntlArg::F_GETPIPE_SZ))?;
        Ok(Self { read, write, held: 0, room: usize::try_from(room).unwrap_or(0) })
    }

    /// How many bytes are in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves what a socket has into the pipe. Call it on an empty pipe: a full one would answer like a socket that has nothing.
    pub fn fill(&mut self, from: &Stream) -> io::Result<usize> {
        let count = splice(from.as_fd(), None, &self.write, None, self.room, flags())?;
        self.held += count;
        Ok(count)
    }

    /// Moves what is in the pipe into a socket, as far as that takes it.
    pub fn drain(&mut self, to: &Stream) -> io::Result<usize> {
        let count = splice(&self.read, None, to.as_fd(), None, self.held, flags())?;
        self.held -= count.min(self.held);
        Ok(count)
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Our end, not blocking, and the other.
    fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::from(ours), other)
    }

    #[test]
    fn bytes_go_through_a_pipe_and_are_counted_in_it() {
        let ((from, mut sender), (to, mut receiver)) = (pair(), pair());
        let mut pipe = Pipe::new(1 << 18).unwrap();
        assert_eq!(pipe.fill(&from).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        sender.write_all(b"through").unwrap();
        while pipe.held() == 0 {
            match pipe.fill(&from) {
                Ok(count) => assert_eq!((count, pipe.held()), (7, 7)),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert_eq!((pipe.drain(&to).unwrap(), pipe.held()), (7, 0));
        let mut arrived = [0; 7];
        receiver.read_exact(&mut arrived).unwrap();
        assert_eq!(&arrived, b"through");
        drop(sender);
        let end = loop {
            match pipe.fill(&from) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => break other.unwrap(),
            }
        };
        assert_eq!(end, 0);
    }
}
