// SPDX-License-Identifier: Apache-2.0
//! The control side's grip on the data threads. Every call returns at once; listeners are bound on the calling thread, so that the
//! answer to "open" is known and no half-opened pod exists.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use hbone::Budget;
use mesh_proto::spiffe::Identity;
use nix::sys::eventfd::EventFd;
use tokio::sync::oneshot;

use super::command::{CloseHow, Command, Done, ListenAt, Opening, Pod, Role};
use super::options::Options;
use super::shares::{Kind, Shares};
use crate::mesh::Snapshot;
use crate::net::socket::ListenOptions;
use crate::net::{Home, Listener, NetError, PodNetns};

/// Why a pod could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A pod with this uid is open.
    #[error("pod {0} is open already")]
    Open(String),
    /// Its sockets could not be had.
    #[error("pod {uid}: {source}")]
    Net {
        /// The pod.
        uid: String,
        /// Why.
        #[source]
        source: NetError,
    },
}

/// See the module. Cheap to share by reference; dropping it stops the threads without draining.
pub struct Handle {
    options: Arc<Options>,
    home: Arc<Home>,
    budget: Budget,
    shares: Arc<Shares>,
    threads: Vec<Mailbox>,
    pods: Mutex<Pods>,
    mesh: Arc<ArcSwap<Snapshot>>,
    published: Mutex<Vec<Arc<Snapshot>>>,
}

/// Reads what is in use of all that runs out.
#[derive(Clone)]
pub struct Gauges {
    shares: Arc<Shares>,
    budget: Budget,
}

/// How much of something is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What it is, as label value.
    pub what: &'static str,
    /// How much of it is in use.
    pub used: usize,
    /// How much of it there is.
    pub most: usize,
}

impl Gauges {
    /// One kind.
    pub fn used(&self, kind: Kind) -> usize {
        self.shares.used(kind)
    }

    /// Bytes that wait for slow readers.
    pub fn buffered(&self) -> usize {
        self.budget.used()
    }

    /// Everything.
    pub fn all(&self) -> [Usage; 4] {
        let of = |kind: Kind| Usage { what: kind.as_str(), used: self.shares.used(kind), most: self.shares.most(kind) };
        let bytes = Usage { what: "buffered_bytes", used: self.budget.used(), most: self.budget.limit() };
        [of(Kind::Sockets), of(Kind::Dials), of(Kind::Handshakes), bytes]
    }
}

#[derive(Default)]
struct Pods {
    /// On which threads each open pod listens.
    open: HashMap<String, Vec<usize>>,
    next_thread: usize,
}

/// The sending end of one thread's queue.
pub(super) struct Mailbox {
    pub(super) queue: Sender<Command>,
    pub(super) wake: Arc<EventFd>,
}

/// The receiving end.
pub(super) struct Inbox {
    pub(super) queue: Receiver<Command>,
    pub(super) wake: Arc<EventFd>,
}

impl Mailbox {
    fn send(&self, command: Command) {
        // A thread that is gone has closed everything already.
        if self.queue.send(command).is_ok() {
            self.wake();
        }
    }

    fn wake(&self) {
        // Fails only if the counter is full, and then the thread wakes up anyway.
        let _ = self.wake.write(1);
    }
}

impl Handle {
    pub(super) fn new(
        options: Arc<Options>,
        home: Arc<Home>,
        threads: Vec<Mailbox>,
        mesh: Arc<ArcSwap<Snapshot>>,
        files: u64,
    ) -> Self {
        let budget = Budget::node(options.limits.node_bytes);
        let shares = Shares::new(options.limits.most(files));
        Self { options, home, budget, shares, threads, pods: Mutex::default(), mesh, published: Mutex::default() }
    }

    /// What is in use of all that runs out, to be read at any time.
    pub fn gauges(&self) -> Gauges {
        Gauges { shares: Arc::clone(&self.shares), budget: self.budget.clone() }
    }

    /// Opens a pod's listeners in its network namespace (or in our own), where [`Options::listen`] says. When it returns `Ok`, connections
    /// queue; when it fails, nothing is left behind.
    pub fn open(&self, pod: Arc<Pod>, netns: Option<OwnedFd>) -> Result<(), OpenError> {
        self.open_at(pod, netns, self.options.listen.clone())
    }

    /// The same with other addresses: [`ListenAt::at_home`] for the proxy's own pod.
    pub fn open_at(&self, pod: Arc<Pod>, netns: Option<OwnedFd>, at: ListenAt) -> Result<(), OpenError> {
        let failed = |source| OpenError::Net { uid: pod.uid.clone(), source };
        let netns = netns.map(|fd| PodNetns::new(fd, self.home.clone())).transpose().map_err(failed)?.map(Arc::new);
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        if pods.open.contains_key(&pod.uid) {
            return Err(OpenError::Open(pod.uid.clone()));
        }
        let chosen = self.choose(&mut pods, netns.is_some());
        let bind = || chosen.iter().map(|_| self.bind(&at, netns.is_some())).collect::<Result<Vec<_>, _>>();
        let bound = match &netns {
            Some(netns) => netns.run(bind).and_then(|bound| bound),
            None => bind(),
        };
        let at = Arc::new(at);
        let budget = self.budget.pod(self.options.limits.pod_bytes);
        let (bound, spread) = (bound.map_err(failed)?, chosen.len());
        // The listeners, and the namespace.
        let share = self.shares.pod(bound.iter().map(Vec::len).sum::<usize>() + 1);
        for (&thread, listeners) in chosen.iter().zip(bound) {
            let (pod, netns, at) = (pod.clone(), netns.clone(), at.clone());
            let (budget, share) = (budget.clone(), share.clone());
            let opening = Opening { pod, listeners, netns, at, budget, share, spread };
            self.threads[thread].send(Command::Open(Box::new(opening)));
        }
        pods.open.insert(pod.uid.clone(), chosen);
        Ok(())
    }

    /// Closes a pod. The receiver completes when its last connection on every thread has ended; for `Immediate` that is soon. An
    /// unknown pod is closed already. A draining pod may be closed again, `Immediate`ly, and its uid may be opened again meanwhile.
    pub fn close(&self, uid: &str, how: CloseHow) -> oneshot::Receiver<()> {
        let (done, receiver) = Done::new();
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).open.remove(uid);
        for thread in &self.threads {
            thread.send(Command::Close { uid: uid.to_owned(), how, done: done.clone() });
        }
        receiver
    }

    /// A new snapshot was published. With `rejudge`, open inbound connections are judged again: say so when policies or workloads
    /// changed.
    pub fn mesh_changed(&self, rejudge: bool) {
        self.retire();
        self.broadcast(|| Command::MeshChanged { rejudge });
    }

    /// A credential of this identity was published.
    pub fn credential_changed(&self, identity: &Identity) {
        self.broadcast(|| Command::CredentialChanged { identity: identity.clone() });
    }

    /// No credential can be had for this identity now: connections that wait for it fail with this reason.
    pub fn credential_failed(&self, identity: &Identity, reason: impl Into<Arc<str>>) {
        let reason = reason.into();
        self.broadcast(|| Command::CredentialFailed { identity: identity.clone(), reason: reason.clone() });
    }

    /// Stops listening everywhere, sends GOAWAY, and lets connections end until the deadline. The receiver completes when all are gone.
    pub fn drain(&self, deadline: Instant) -> oneshot::Receiver<()> {
        let (done, receiver) = Done::new();
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).open.clear();
        self.broadcast(|| Command::Drain { deadline, done: done.clone() });
        receiver
    }

    /// Keeps every published snapshot until all threads have let go of it, so that none of them has to free it.
    fn retire(&self) {
        let current = self.mesh.load_full();
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.retain(|snapshot| Arc::strong_count(snapshot) > 1 || Arc::ptr_eq(snapshot, &current));
        if !published.iter().any(|snapshot| Arc::ptr_eq(snapshot, &current)) {
            published.push(current);
        }
    }

    fn broadcast(&self, command: impl Fn() -> Command) {
        for thread in &self.threads {
            thread.send(command());
        }
    }

    /// The threads that listen for the next pod. In our own namespace no port is shared (P-04), so there it is one.
    fn choose(&self, pods: &mut Pods, in_pod: bool) -> Vec<usize> {
        let all = self.threads.len();
        let several =
            if in_pod && self.options.socket.reuse_port { self.options.listeners_per_pod.get().min(all) } else { 1 };
        let first = pods.next_thread;
        pods.next_thread = (first + several) % all;
        (first..first + several).map(|thread| thread % all).collect()
    }

    /// One thread's listeners, HBONE first: a pod is redirected only when all of them are there (N-01).
    fn bind(&self, at: &ListenAt, in_pod: bool) -> Result<Vec<(Role, Listener)>, NetError> {
        let home = self.options.socket.at_home();
        let socket = if in_pod { &self.options.socket } else { &home };
        let wanted = [(Role::Inbound, at.inbound), (Role::Plaintext, at.plaintext), (Role::Outbound, at.outbound)];
        let mut bound = Vec::new();
        for (role, address) in wanted {
            let Some(address) = address else { continue };
            let listen = ListenOptions {
                keepalive: role != Role::Inbound,
                transparent: self.options.original_source,
                near: in_pod && role == Role::Outbound,
            };
            bound.push((role, Listener::bind(address, socket, listen)?));
        }
        Ok(bound)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        for thread in self.threads.drain(..) {
            // Closing the queue before the wake-up lets the thread find it closed.
            drop(thread.queue);
            let _ = thread.wake.write(1);
        }
    }
}
