// SPDX-License-Identifier: Apache-2.0
//! Entering a pod's network namespace on the current thread, and coming back.
//!
//! A socket belongs for ever to the namespace its thread was in when it was created, so a thread enters, creates, and returns.
//! A thread that cannot return would from then on create sockets in the wrong pod: the process aborts instead.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};

use super::NetError;

/// The namespace the process lives in; every [`PodNetns::run`] comes back here.
#[derive(Debug)]
pub struct Home(File);

impl Home {
    /// Opens the calling thread's namespace. Call it at start, before any thread has entered a pod.
    pub fn open() -> Result<Arc<Self>, NetError> {
        File::open("/proc/thread-self/ns/net").map(|file| Arc::new(Self(file))).map_err(NetError::Home)
    }
}

/// A pod's network namespace.
#[derive(Debug)]
pub struct PodNetns {
    fd: File,
    id: (u64, u64),
    home: Arc<Home>,
}

impl PodNetns {
    /// Takes the descriptor that came with ZDS.
    pub fn new(fd: OwnedFd, home: Arc<Home>) -> Result<Self, NetError> {
        let fd = File::from(fd);
        let found = fd.metadata().map_err(NetError::NotANetns)?;
        Ok(Self { id: (found.dev(), found.ino()), fd, home })
    }

    /// Device and inode: equal for two descriptors of the same namespace.
    pub fn id(&self) -> (u64, u64) {
        self.id
    }

    /// Runs `work` inside the pod. It must be short, must not block and must not start threads.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, NetError> {
        // Made first, so that it is dropped, and the thread back home, even if `work` unwinds.
        let _back = Back(&self.home);
        setns(&self.fd, CloneFlags::CLONE_NEWNET).map_err(|errno| NetError::Enter(io::Error::from(errno)))?;
        Ok(work())
    }
}

struct Back<'a>(&'a Home);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        if let Err(errno) = setns(&self.0.0, CloneFlags::CLONE_NEWNET) {
            tracing::error!(%errno, "cannot return from a pod's network namespace; aborting, because this thread would serve the wrong pod");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_of_the_same_namespace_has_the_same_id() {
        let home = Home::open().unwrap();
        let open = || OwnedFd::from(File::open("/proc/self/ns/net").unwrap());
        let one = PodNetns::new(open(), home.clone()).unwrap();
        let two = PodNetns::new(open(), home).unwrap();
        assert_eq!(one.id(), two.id());
    }
}
