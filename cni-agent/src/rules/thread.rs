// SPDX-License-Identifier: Apache-2.0
//! Work inside another network namespace.
//!
//! Every call has a thread of its own that enters the namespace and ends with the work. No thread ever comes back from a foreign namespace, so none can be
//! left in the wrong one; a runtime's threads never enter any.

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::error::RulesError;

/// Runs `work` inside the network namespace and gives back what it returned. Blocks the calling thread: call it where blocking is allowed.
///
/// # Errors
/// When the namespace cannot be entered, or when `work` panicked.
pub fn in_netns<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T, RulesError> {
    thread::scope(|scope| {
        let entered = thread::Builder::new()
            .name("pod-netns".to_owned())
            .spawn_scoped(scope, move || {
                setns(netns, CloneFlags::CLONE_NEWNET)
                    .map_err(|errno| RulesError::EnterNamespace { source: io::Error::from(errno) })?;
                Ok(work())
            })
            .map_err(|source| RulesError::EnterNamespace { source })?;
        entered.join().unwrap_or(Err(RulesError::Panicked))
    })
}
