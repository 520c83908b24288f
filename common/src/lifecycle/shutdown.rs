// SPDX-License-Identifier: Apache-2.0
//! The wish to stop: SIGINT, SIGTERM, or a part of the program (such as `/quitquitquit`) that says so (ztunnel.md P-13).

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::Tasks;

/// Knows whether the process has been asked to stop. Clones are the same wish.
#[derive(Debug, Clone)]
pub struct Shutdown {
    reason: Arc<watch::Sender<Option<String>>>,
}

impl Shutdown {
    /// One that only [`request`](Self::request) can ask.
    pub fn new() -> Self {
        Self { reason: Arc::new(watch::Sender::new(None)) }
    }

    /// One that signals can ask as well: the first SIGINT or SIGTERM is a request, a second SIGINT ends the process at once, further SIGTERMs do nothing.
    pub fn listen(tasks: &Tasks) -> io::Result<Self> {
        let shutdown = Self::new();
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tasks.spawn_background("signals", obey(shutdown.clone(), interrupt, terminate));
        Ok(shutdown)
    }

    /// Asks. The first reason stands.
    pub fn request(&self, reason: &str) {
        self.reason.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(reason.to_owned());
            }
            first
        });
    }

    /// Waits until it has been asked, and tells why.
    pub async fn requested(&self) -> String {
        let mut reason = self.reason.subscribe();
        // The lock of what was seen ends with this statement, so that the future can move between threads.
        let reason = reason.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // The sender is in `self`, and it was waited for a reason.
            None => std::future::pending().await,
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

async fn obey(shutdown: Shutdown, mut interrupt: Signal, mut terminate: Signal) {
    let mut interrupted = false;
    loop {
        tokio::select! {
            _ = interrupt.recv() => {
                if interrupted {
                    tracing::warn!("second SIGINT, ending at once");
                    std::process::exit(0);
                }
                interrupted = true;
                shutdown.request("SIGINT");
            }
            _ = terminate.recv() => shutdown.request("SIGTERM"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_stands() {
        let shutdown = Shutdown::new();
        shutdown.request("/quitquitquit");
        shutdown.request("later");
        assert_eq!(shutdown.requested().await, "/quitquitquit");
        assert_eq!(shutdown.requested().await, "/quitquitquit");
    }

    #[tokio::test]
    async fn waiting_ends_with_the_request() {
        let shutdown = Shutdown::new();
        let waiting = shutdown.clone();
        let tasks = Tasks::new();
        let task = tasks.spawn("waiting", async move { waiting.requested().await });
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        shutdown.request("enough");
        assert_eq!(task.output().await.unwrap(), "enough");
    }
}
