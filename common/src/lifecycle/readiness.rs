// SPDX-License-Identifier: Apache-2.0
//! Whether the process is ready: a set of named gates, all of which must be open (ztunnel.md P-10, P-11).
//!
//! A part takes its gate before it starts, opens it when it can serve and may close it again. A gate that is dropped unopened stays closed: a part that died
//! must not make the process look ready.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// The gates of a process. Clones are the same set. Without gates it is ready.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// Closed gates by name, with how many are closed under it.
    closed: Arc<watch::Sender<BTreeMap<String, usize>>>,
}

impl Readiness {
    /// No gates.
    pub fn new() -> Self {
        Self { closed: Arc::new(watch::Sender::new(BTreeMap::new())) }
    }

    /// A new gate, closed.
    pub fn gate(&self, name: impl Into<String>) -> Gate {
        let mut gate = Gate { closed: Arc::clone(&self.closed), name: name.into(), open: true };
        gate.close();
        gate
    }

    /// Whether every gate is open.
    pub fn is_ready(&self) -> bool {
        self.closed.borrow().is_empty()
    }

    /// The names of the closed gates, sorted.
    pub fn pending(&self) -> Vec<String> {
        self.closed.borrow().keys().cloned().collect()
    }

    /// Waits until every gate is open.
    pub async fn ready(&self) {
        // The sender is in `self`, so this cannot fail.
        let _ = self.closed.subscribe().wait_for(BTreeMap::is_empty).await;
    }

    /// What a probe is told: whether it is ready, and the text of the answer (P-10).
    pub fn report(&self) -> (bool, String) {
        let pending = self.pending();
        if pending.is_empty() {
            (true, "ready\n".to_owned())
        } else {
            (false, format!("not ready, pending: {}\n", pending.join(", ")))
        }
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

/// One condition of readiness.
#[derive(Debug)]
#[must_use = "a gate that is dropped stays closed for ever"]
pub struct Gate {
    closed: Arc<watch::Sender<BTreeMap<String, usize>>>,
    name: String,
    open: bool,
}

impl Gate {
    /// Opens it for good.
    pub fn open(mut self) {
        self.set(true);
    }

    /// Opens or closes it.
    pub fn set(&mut self, open: bool) {
        if self.open == open {
            return;
        }
        self.open = open;
        self.closed.send_modify(|closed| {
            let count = closed.entry(self.name.clone()).or_default();
            if open {
                *count -= 1;
            } else {
                *count += 1;
            }
            if *count == 0 {
                closed.remove(&self.name);
            }
        });
    }

    /// Closes it again.
    pub fn close(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_closed_gates_in_order() {
        let readiness = Readiness::new();
        assert_eq!(readiness.report(), (true, "ready\n".to_owned()));
        let mut proxies = readiness.gate("workload proxy manager");
        let state = readiness.gate("state manager");
        assert_eq!(
            readiness.report(),
            (false, "not ready, pending: state manager, workload proxy manager\n".to_owned())
        );
        state.open();
        assert_eq!(readiness.report().1, "not ready, pending: workload proxy manager\n");
        proxies.set(true);
        proxies.set(true);
        assert!(readiness.is_ready());
        proxies.close();
        assert_eq!(readiness.pending(), ["workload proxy manager"]);
    }

    #[test]
    fn a_gate_that_is_dropped_closed_stays_closed() {
        let readiness = Readiness::new();
        drop(readiness.gate("dead"));
        assert!(!readiness.is_ready());
    }

    #[test]
    fn gates_of_one_name_count_separately() {
        let readiness = Readiness::new();
        let (first, second) = (readiness.gate("proxy"), readiness.gate("proxy"));
        first.open();
        assert_eq!(readiness.pending(), ["proxy"]);
        second.open();
        assert!(readiness.is_ready());
    }

    #[tokio::test]
    async fn waiting_ends_when_the_last_gate_opens() {
        let readiness = Readiness::new();
        let gate = readiness.gate("proxy");
        let waiting = readiness.clone();
        let tasks = crate::lifecycle::Tasks::new();
        let task = tasks.spawn("waiting", async move { waiting.ready().await });
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        gate.open();
        task.output().await.unwrap();
    }
}
