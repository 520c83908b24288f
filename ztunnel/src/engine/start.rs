// SPDX-License-Identifier: Apache-2.0
//! Starting the data threads.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit};

use super::command::Shared;
use super::handle::{Handle, Inbox, Mailbox};
use super::options::{Limits, Options};
use super::thread::Worker;
use crate::net::{Home, NetError};

/// The data threads as a whole.
pub struct Engine;

/// Why they could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The own network namespace cannot be had.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A thread, or what it waits with, cannot be had.
    #[error("cannot start a data thread; check the limits on processes and open files: {0}")]
    Thread(#[source] io::Error),
}

impl Engine {
    /// Starts the threads, named `ztunnel-<n>`. They serve nothing until a pod is opened, and end when the handle is dropped.
    pub fn start(options: Options, shared: &Shared) -> Result<Handle, StartError> {
        let home = Home::open()?;
        let options = Arc::new(options);
        let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|errno| StartError::Thread(errno.into()))?;
        let pipes = Limits::pipes(files, options.threads);
        let mut mailboxes = Vec::new();
        for number in 0..options.threads.get() {
            let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
            let wake = EventFd::from_value_and_flags(0, flags).map_err(|errno| StartError::Thread(errno.into()))?;
            let wake = Arc::new(wake);
            let (sender, queue) = mpsc::channel();
            let inbox = Inbox { queue, wake: wake.clone() };
            let (options, shared) = (options.clone(), shared.clone());
            let (started, ready) = mpsc::channel();
            // A worker is made on its own thread, where it stays.
            let body = move || match Worker::new(options, &shared, inbox, pipes) {
                Ok(worker) => {
                    let _ = started.send(Ok(()));
                    worker.run();
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            };
            thread::Builder::new().name(format!("ztunnel-{number}")).spawn(body).map_err(StartError::Thread)?;
            // A thread that ends without a word has no way to do so but a panic.
            ready.recv().unwrap_or_else(|_| Err(io::Error::other("it ended at once"))).map_err(StartError::Thread)?;
            mailboxes.push(Mailbox { queue: sender, wake });
        }
        Ok(Handle::new(options, home, mailboxes, shared.mesh.clone(), files))
    }
}
