// SPDX-License-Identifier: Apache-2.0
//! The orderly end in two steps (ztunnel.md P-14): first everybody stops taking new work and finishes what is under way, then, at the deadline, the rest is
//! dropped.
//!
//! The main holds the [`Drainer`]; every part holds a [`Drain`], keeps a named [`Hold`] while it has something to finish, and obeys the two signals.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// A drain: who starts it, and who obeys it.
pub fn drain() -> (Drainer, Drain) {
    let (phase, watched) = watch::channel(Phase::Running);
    let holds = Arc::new(Holds { names: Mutex::default(), changed: watch::Sender::new(()) });
    (Drainer { phase, holds: Arc::clone(&holds) }, Drain { phase: watched, holds })
}

/// How far the drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not begun.
    Running,
    /// Take nothing new; what is under way has until then.
    Started {
        /// When the rest will be dropped.
        deadline: Instant,
    },
    /// Drop everything now.
    Forced,
}

/// Starts a drain.
#[derive(Debug)]
pub struct Drainer {
    phase: watch::Sender<Phase>,
    holds: Arc<Holds>,
}

impl Drainer {
    /// Drains: signals the first step, waits at most `patience` for all holds to go, signals the second step and waits again, at most two seconds.
    ///
    /// With no patience it is an immediate drain: both signals at once.
    pub async fn drain(self, patience: Duration) -> DrainEnd {
        let deadline = Instant::now() + patience;
        self.phase.send_replace(Phase::Started { deadline });
        if tokio::time::timeout_at(deadline.into(), self.holds.gone()).await.is_ok() {
            // Those who wait for the second step without a hold must hear of it as well.
            self.phase.send_replace(Phase::Forced);
            return DrainEnd::Complete;
        }
        let cut_off = self.holds.names();
        self.phase.send_replace(Phase::Forced);
        match tokio::time::timeout(LAST_WAIT, self.holds.gone()).await {
            Ok(()) => DrainEnd::Forced { cut_off },
            Err(_) => DrainEnd::Stuck { holding: self.holds.names() },
        }
    }
}

/// After the second signal nobody has a reason to wait for anything.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// How a drain ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrainEnd {
    /// Everything was finished before the deadline.
    Complete,
    /// At the deadline these were still busy, and were cut off.
    Forced {
        /// The names of their holds.
        cut_off: Vec<String>,
    },
    /// These did not even obey the second signal.
    Stuck {
        /// The names of their holds.
        holding: Vec<String>,
    },
}

/// Obeys a drain. Clones are the same drain.
#[derive(Debug, Clone)]
pub struct Drain {
    phase: watch::Receiver<Phase>,
    holds: Arc<Holds>,
}

impl Drain {
    /// Waits for the first step: close listeners, take nothing new.
    pub async fn started(&self) {
        self.reached(|phase| !matches!(phase, Phase::Running)).await;
    }

    /// Waits for the second step: drop what is still under way.
    pub async fn forced(&self) {
        self.reached(|phase| matches!(phase, Phase::Forced)).await;
    }

    /// How far it is, for threads that look instead of waiting.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Keeps the drain from being complete until the returned value is dropped.
    pub fn hold(&self, name: impl Into<String>) -> Hold {
        let name = name.into();
        *self.holds.lock().entry(name.clone()).or_default() += 1;
        Hold { holds: Arc::clone(&self.holds), name }
    }

    async fn reached(&self, wanted: impl FnMut(&Phase) -> bool) {
        // A drainer that is gone without having drained means that the main is gone: the same as the second step.
        let _ = self.phase.clone().wait_for(wanted).await;
    }
}

/// Something that has to end before a drain is complete.
#[derive(Debug)]
#[must_use = "dropping it at once holds nothing"]
pub struct Hold {
    holds: Arc<Holds>,
    name: String,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut names = self.holds.lock();
        if let Some(count) = names.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                names.remove(&self.name);
            }
        }
        drop(names);
        self.holds.changed.send_replace(());
    }
}

#[derive(Debug)]
struct Holds {
    /// How many holds there are under each name.
    names: Mutex<BTreeMap<String, usize>>,
    changed: watch::Sender<()>,
}

impl Holds {
    async fn gone(&self) {
        let mut changed = self.changed.subscribe();
        while !self.lock().is_empty() {
            // The sender is in `self`.
            let _ = changed.changed().await;
        }
    }

    fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Nothing that can panic runs while this lock is held.
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, usize>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Tasks;

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_complete_as_soon_as_nobody_holds_it() {
        let (drainer, draining) = drain();
        let tasks = Tasks::new();
        let part = draining.clone();
        let hold = draining.hold("part");
        tasks.spawn("part", async move {
            part.started().await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            drop(hold);
        });
        let before = tokio::time::Instant::now();
        assert_eq!(draining.phase(), Phase::Running);
        assert_eq!(drainer.drain(Duration::from_secs(60)).await, DrainEnd::Complete);
        assert_eq!(before.elapsed().as_secs(), 3);
        assert_eq!(draining.phase(), Phase::Forced);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_deadline_the_rest_is_told_to_stop_and_named() {
        let (drainer, draining) = drain();
        let tasks = Tasks::new();
        for name in ["slow", "slower"] {
            let (part, hold) = (draining.clone(), draining.hold(name));
            tasks.spawn(name, async move {
                part.forced().await;
                drop(hold);
            });
        }
        let quick = draining.hold("quick");
        drop(quick);
        let end = drainer.drain(Duration::from_secs(5)).await;
        assert_eq!(end, DrainEnd::Forced { cut_off: vec!["slow".to_owned(), "slower".to_owned()] });
        tasks.finished().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_obey_is_named_and_not_waited_for_for_ever() {
        let (drainer, draining) = drain();
        let _held = draining.hold("deaf");
        let end = drainer.drain(Duration::ZERO).await;
        assert_eq!(end, DrainEnd::Stuck { holding: vec!["deaf".to_owned()] });
    }

    #[tokio::test]
    async fn those_who_wait_without_a_hold_hear_both_signals() {
        let (drainer, draining) = drain();
        let (first, second) = (draining.clone(), draining);
        let tasks = Tasks::new();
        tasks.spawn("first", async move { first.started().await });
        tasks.spawn("second", async move { second.forced().await });
        assert_eq!(drainer.drain(Duration::from_secs(60)).await, DrainEnd::Complete);
        tasks.finished().await;
    }

    #[tokio::test]
    async fn a_lost_drainer_ends_the_waiting() {
        let (drainer, draining) = drain();
        drop(drainer);
        draining.started().await;
        draining.forced().await;
    }
}
