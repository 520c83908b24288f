// SPDX-License-Identifier: Apache-2.0
//! The only place where asynchronous tasks start. Each has a name, is tracked, and is awaited before the process ends; one that panics is reported.
//!
//! Called by everything that runs beside something else. It must never let a task end unnoticed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::task::TaskTracker;

/// The tasks of a process. Clones are the same set.
#[derive(Clone, Default)]
pub struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    tracker: TaskTracker,
    /// Running tasks by name, with how many run under it.
    running: Mutex<BTreeMap<Cow<'static, str>, usize>>,
    /// Those that never end by themselves.
    background: Mutex<Vec<AbortHandle>>,
    /// Names of tasks that panicked.
    panicked: watch::Sender<Vec<String>>,
}

impl Tasks {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that [`finished`](Self::finished) waits for. Needs to be called inside a tokio runtime, and the task runs on that runtime.
    ///
    /// Dropping the returned [`Task`] does not stop it.
    pub fn spawn<F>(&self, name: impl Into<Cow<'static, str>>, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let name = name.into();
        let watched = Watched::start(&self.shared, name.clone());
        let handle = self.shared.tracker.spawn(async move {
            let mut watched = watched;
            let output = future.await;
            watched.returned = true;
            output
        });
        Task { name, handle }
    }

    /// Starts a task that never ends by itself, such as one that waits for signals: [`finished`](Self::finished) stops it when the others are done.
    pub fn spawn_background<F>(&self, name: impl Into<Cow<'static, str>>, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let name = name.into();
        let watched = Watched::start(&self.shared, name);
        #[expect(clippy::disallowed_methods, reason = "this is the one place, and the task is stopped by finished()")]
        let handle = tokio::spawn(async move {
            let mut watched = watched;
            future.await;
            watched.returned = true;
        });
        let mut background = lock(&self.shared.background);
        background.retain(|handle| !handle.is_finished());
        background.push(handle.abort_handle());
    }

    /// Runs `work` on a thread of its own, for what blocks (files, name look-ups, compression). [`finished`](Self::finished) waits for it.
    pub fn spawn_blocking<F, T>(&self, name: impl Into<Cow<'static, str>>, work: F) -> Task<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let name = name.into();
        let watched = Watched::start(&self.shared, name.clone());
        let handle = self.shared.tracker.spawn_blocking(move || {
            let mut watched = watched;
            let output = work();
            watched.returned = true;
            output
        });
        Task { name, handle }
    }

    /// Waits until every task has ended, then stops the background ones. Tasks may start others while it waits.
    pub async fn finished(&self) {
        self.shared.tracker.close();
        self.shared.tracker.wait().await;
        for handle in lock(&self.shared.background).drain(..) {
            handle.abort();
        }
    }

    /// Waits until some task has panicked, and names it. A main that wants to end then selects on this.
    pub async fn panicked(&self) -> String {
        let mut names = self.shared.panicked.subscribe();
        // The lock of what was seen ends with this statement, so that the future can move between threads.
        let first = names.wait_for(|names| !names.is_empty()).await.ok().and_then(|names| names.first().cloned());
        match first {
            Some(name) => name,
            // The sender lives as long as `self`, and it was waited for a name.
            None => std::future::pending().await,
        }
    }

    /// The names of the tasks that run now, each with how many run under it: what a shutdown still waits for.
    pub fn running(&self) -> Vec<(String, usize)> {
        lock(&self.shared.running).iter().map(|(name, count)| (name.to_string(), *count)).collect()
    }
}

/// A task that was started. Dropping this lets the task run on by itself.
pub struct Task<T> {
    name: Cow<'static, str>,
    handle: JoinHandle<T>,
}

impl<T> Task<T> {
    /// Waits for its end.
    pub async fn output(self) -> Result<T, TaskLost> {
        self.handle.await.map_err(|error| {
            let name = self.name.into_owned();
            if error.is_panic() { TaskLost::Panicked { name } } else { TaskLost::Aborted { name } }
        })
    }

    /// Stops the task where it next waits. Its future is dropped, and its output is [`TaskLost::Aborted`].
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// Whether it has ended, in whatever way.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a task has no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskLost {
    /// It panicked: a bug, already logged.
    #[error("task {name:?} panicked: this is a bug, the log holds the message")]
    Panicked {
        /// Its name.
        name: String,
    },
    /// It was aborted, or its runtime ended.
    #[error("task {name:?} was stopped before its end")]
    Aborted {
        /// Its name.
        name: String,
    },
}

/// Rides along in a task and sees how it ends: dropped after a return, in a panic, or by an abort.
struct Watched {
    shared: Arc<Shared>,
    name: Cow<'static, str>,
    returned: bool,
}

impl Watched {
    fn start(shared: &Arc<Shared>, name: Cow<'static, str>) -> Self {
        *lock(&shared.running).entry(name.clone()).or_default() += 1;
        Self { shared: Arc::clone(shared), name, returned: false }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut running = lock(&self.shared.running);
        if let Some(count) = running.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.name);
            }
        }
        drop(running);
        if !self.returned && std::thread::panicking() {
            tracing::error!(task = %self.name, "task panicked: this is a bug, standard error holds the message and place");
            self.shared.panicked.send_modify(|names| names.push(self.name.to_string()));
        }
    }
}

/// Nothing that can panic runs while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn finished_waits_for_tasks_and_for_those_they_start() {
        let tasks = Tasks::new();
        let (go, wait) = oneshot::channel::<()>();
        let done = Arc::new(AtomicBool::new(false));
        let (inner_tasks, inner_done) = (tasks.clone(), done.clone());
        tasks.spawn("outer", async move {
            wait.await.unwrap();
            inner_tasks.spawn("inner", async move {
                tokio::task::yield_now().await;
                inner_done.store(true, Ordering::SeqCst);
            });
        });
        assert_eq!(tasks.running(), [("outer".to_owned(), 1)]);
        let waiter = tasks.finished();
        tokio::pin!(waiter);
        assert!(futures_pending(waiter.as_mut()).await);
        go.send(()).unwrap();
        waiter.await;
        assert!(done.load(Ordering::SeqCst));
        assert!(tasks.running().is_empty());
    }

    #[tokio::test]
    async fn a_panic_is_reported_by_name_and_does_not_hang_the_end() {
        let tasks = Tasks::new();
        let task = tasks.spawn("faulty", async {
            tokio::task::yield_now().await;
            if true {
                panic!("on purpose");
            }
        });
        assert_eq!(tasks.panicked().await, "faulty");
        assert_eq!(task.output().await, Err(TaskLost::Panicked { name: "faulty".to_owned() }));
        tasks.finished().await;
    }

    #[tokio::test]
    async fn an_aborted_task_is_no_panic() {
        let tasks = Tasks::new();
        let task = tasks.spawn("endless", std::future::pending::<()>());
        task.abort();
        assert_eq!(task.output().await, Err(TaskLost::Aborted { name: "endless".to_owned() }));
        tasks.finished().await;
        assert!(tasks.shared.panicked.borrow().is_empty());
    }

    #[tokio::test]
    async fn a_background_task_does_not_hold_up_the_end_and_is_stopped_by_it() {
        let tasks = Tasks::new();
        let (held, dropped) = oneshot::channel::<()>();
        tasks.spawn_background("signals", async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        tasks.finished().await;
        assert!(dropped.await.is_err());
    }

    #[tokio::test]
    async fn blocking_work_gives_its_output() {
        let tasks = Tasks::new();
        assert_eq!(tasks.spawn_blocking("sum", || 1 + 1).output().await, Ok(2));
        tasks.finished().await;
    }

    async fn futures_pending<F: Future + Unpin>(mut future: F) -> bool {
        tokio::time::timeout(std::time::Duration::from_millis(10), &mut future).await.is_err()
    }
}
