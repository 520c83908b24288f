// SPDX-License-Identifier: Apache-2.0
//! Keeps the list of pods, and carries one conversation per connected proxy.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mesh_common::lifecycle::{Drain, Tasks};
use mesh_common::telemetry::Seldom;
use mesh_proto::zds::{MAX_PACKET, Received, receive_packet, send_packet};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind as bind_socket, listen, socket};
use prost::Message as _;
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{info, warn};

use crate::find::PodNetns;

use super::session::{Action, Order, PodInfo, Session};

/// Why node proxies cannot be served.
#[derive(Debug, Error)]
pub enum ZdsError {
    /// Something that is no socket has its name.
    #[error("{} is not a socket: move it away, node proxies have to find the agent's socket there", path.display())]
    Occupied {
        /// Where.
        path: PathBuf,
    },
    /// The socket.
    #[error("cannot listen for node proxies on {}: {source}; check that the directory exists and the path is shorter than 108 bytes", path.display())]
    Bind {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why the newest node proxy does not listen in a pod.
#[derive(Debug, Error)]
pub enum ListenError {
    /// None is connected.
    #[error("no ztunnel connection: check that ztunnel runs on this node and has this agent's socket ({0})")]
    NoProxy(String),
    /// It went away before it answered.
    #[error("ztunnel went away before it answered; its log says why")]
    Lost,
    /// It said no.
    #[error("ztunnel answered: {0}")]
    Refused(String),
}

/// What node proxies did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Another proxy is the newest now, or there is none.
    Changed,
    /// The newest proxy, when it was given the list, said that it listens in this pod.
    Listening {
        /// The pod's uid.
        uid: String,
    },
}

/// The node proxies, and the list of pods they are given. Clones are the same.
#[derive(Clone)]
pub struct Proxies {
    socket: PathBuf,
    shared: Arc<Mutex<Shared>>,
    events: mpsc::UnboundedSender<Event>,
}

#[derive(Default)]
struct Shared {
    pods: BTreeMap<String, (PodInfo, PodNetns)>,
    /// Pods whose network namespace is not found: a proxy that has them keeps them.
    kept: BTreeSet<String>,
    /// Those that have not said hello yet, by age. Each can be told to go.
    silent: BTreeMap<u64, Arc<Notify>>,
    /// The newest is last.
    connections: Vec<Connected>,
    tokens: u64,
}

struct Connected {
    id: u64,
    orders: mpsc::UnboundedSender<Asked>,
}

/// An order and who waits for its answer.
struct Asked {
    order: Order<PodNetns>,
    token: u64,
    reply: oneshot::Sender<Result<(), String>>,
}

/// More proxies than this on one node is not an upgrade but a fault.
const MAX_CONNECTIONS: usize = 8;
/// Connections that have not said hello yet: a proxy says it at once. One more takes the place of the oldest.
const MAX_SILENT: usize = 16;
/// What whoever connects can make us say as often as they like.
static COMPLAINTS: Seldom = Seldom::new(10, Duration::from_secs(10));
/// How long to wait after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Takes the socket's path. Nobody is accepted before [`Proxies::accept`].
///
/// # Errors
/// The path cannot be had.
pub fn bind(path: &Path) -> Result<UnixListener, ZdsError> {
    let failed = |source: io::Error| ZdsError::Bind { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(ZdsError::Occupied { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let seqpacket = || -> nix::Result<_> {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        bind_socket(std::os::fd::AsRawFd::as_raw_fd(&fd), &UnixAddr::new(path)?)?;
        listen(&fd, Backlog::new(16)?)?;
        Ok(fd)
    };
    let fd = seqpacket().map_err(|errno| failed(errno.into()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    UnixListener::from_std(fd.into()).map_err(failed)
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Proxies {
    /// No proxies and no pods yet; `events` is told of what happens.
    #[must_use]
    pub fn new(socket: PathBuf, events: mpsc::UnboundedSender<Event>) -> Self {
        Self { socket, shared: Arc::default(), events }
    }

    /// Puts a pod on the list without asking any proxy.
    pub fn hold(&self, uid: &str, info: PodInfo, netns: PodNetns) {
        self.lock().put(uid, info, netns);
    }

    /// Puts a pod on the list by name alone: whoever has it from before goes on with it.
    pub fn keep(&self, uid: String) {
        self.lock().kept.insert(uid);
    }

    /// Puts a pod on the list and has the newest proxy listen in it.
    ///
    /// # Errors
    /// There is no proxy, or it did not do so. The pod stays on the list.
    pub async fn listen(&self, uid: &str, info: PodInfo, netns: PodNetns) -> Result<(), ListenError> {
        let reply = {
            let mut shared = self.lock();
            shared.put(uid, info.clone(), netns.clone());
            let token = shared.token();
            let order = Order::Add { uid: uid.to_owned(), info, netns, token };
            let newest = shared.connections.last();
            newest.and_then(|newest| newest.ask(order, token))
        };
        let reply = reply.ok_or_else(|| ListenError::NoProxy(self.socket.display().to_string()))?;
        reply.await.map_err(|_| ListenError::Lost)?.map_err(ListenError::Refused)
    }

    /// Takes a pod off the list and has all proxies leave it. One that goes away meanwhile has left it.
    pub async fn leave(&self, uid: &str) {
        let replies: Vec<_> = {
            let mut shared = self.lock();
            shared.pods.remove(uid);
            shared.kept.remove(uid);
            let token = shared.token();
            let order = || Order::Delete { uid: uid.to_owned(), token };
            shared.connections.iter().filter_map(|proxy| proxy.ask(order(), token)).collect()
        };
        for reply in replies {
            if let Ok(Err(error)) = reply.await {
                warn!(uid, error, "a node proxy did not want to leave a pod");
            }
        }
    }

    /// How many proxies are connected.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.lock().connections.len()
    }

    /// Accepts proxies until the drain starts.
    pub async fn accept(self, listener: UnixListener, tasks: Tasks, drain: Drain) {
        let ours = place(&self.socket);
        let mut id = 0;
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        warn!(%error, "cannot accept a node proxy");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
                () = drain.started() => break,
            };
            // Whoever is handed a pod's namespace can do anything in it.
            let owner = nix::unistd::geteuid().as_raw();
            if stream.peer_cred().map_or(true, |peer| peer.uid() != owner) {
                if let Some(times) = COMPLAINTS.due(Instant::now()) {
                    warn!(times, "somebody of another user wanted to be a node proxy and is turned away");
                }
                continue;
            }
            id += 1;
            let pushed_out = self.arrived(id);
            let (proxies, draining) = (self.clone(), drain.clone());
            let _ = tasks.spawn("node proxy", async move {
                let reason = tokio::select! {
                    reason = proxies.converse(id, stream) => reason,
                    () = pushed_out.notified() => "it said nothing, and others came".to_owned(),
                    () = draining.started() => "the agent ends".to_owned(),
                };
                if proxies.disconnected(id) {
                    info!(id, reason, "node proxy disconnected");
                } else if let Some(times) = COMPLAINTS.due(Instant::now()) {
                    warn!(id, reason, times, "a connection to the node proxies' socket ended before it was a proxy's");
                }
            });
        }
        // The name goes with the listener, so that a proxy waits for the next agent instead of for nobody; unless the
        // next agent has taken it already.
        if ours.is_some() && place(&self.socket) == ours {
            let _ = std::fs::remove_file(&self.socket);
        }
    }

    /// Answers with why it ended.
    async fn converse(&self, id: u64, stream: UnixStream) -> String {
        let mut session = Session::new(Instant::now());
        let mut asked = HashMap::new();
        let mut listed: HashMap<u64, String> = HashMap::new();
        let mut orders = None;
        let mut buffer = [0; MAX_PACKET];
        loop {
            let actions = tokio::select! {
                received = stream.async_io(Interest::READABLE, || {
                    receive_packet(stream.as_fd(), &mut buffer).map_err(io::Error::from)
                }) => match received {
                    Ok(Received::Packet { len, fd: None }) => session.handle_packet(Instant::now(), &buffer[..len]),
                    Ok(Received::Packet { fd: Some(_), .. }) => return "it sent a descriptor".to_owned(),
                    Ok(Received::Closed) => return "it closed the connection".to_owned(),
                    Err(error) => return error.to_string(),
                },
                Some(Asked { order, token, reply }) = next(&mut orders) => {
                    asked.insert(token, reply);
                    session.push(Instant::now(), order)
                }
                () = until(session.next_deadline()) => session.handle_timeout(Instant::now()),
            };
            let mut actions: std::collections::VecDeque<_> = actions.into();
            if session.is_greeted() && orders.is_none() {
                let Some((receiver, snapshot)) = self.connected_as(id) else {
                    return format!("{MAX_CONNECTIONS} node proxies are connected already; what are they?");
                };
                info!(id, "node proxy connected");
                orders = Some(receiver);
                for order in snapshot {
                    if let Order::Add { uid, token, .. } = &order {
                        listed.insert(*token, uid.clone());
                    }
                    actions.extend(session.push(Instant::now(), order));
                }
            }
            while let Some(action) = actions.pop_front() {
                match action {
                    Action::Send { message, netns } => {
                        let bytes = message.encode_to_vec();
                        let sent = stream.async_io(Interest::WRITABLE, || {
                            send_packet(stream.as_fd(), &bytes, netns.as_ref().map(|netns| netns.as_fd()))
                        });
                        match tokio::time::timeout(Duration::from_secs(5), sent).await {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => return error.to_string(),
                            Err(_) => return "it does not read".to_owned(),
                        }
                    }
                    Action::Answered { token, result } => match (asked.remove(&token), listed.remove(&token)) {
                        // Somebody who no longer waits needs no answer.
                        (Some(reply), _) => _ = reply.send(result),
                        (None, Some(uid)) => self.told(id, uid, result),
                        (None, None) => {}
                    },
                    Action::Listed => info!(id, "node proxy has the whole list"),
                    Action::Close { reason } => return reason,
                }
            }
        }
    }

    /// Somebody has come and said nothing yet; the oldest such has to go if there are too many. What it gives tells the
    /// new one the same.
    fn arrived(&self, id: u64) -> Arc<Notify> {
        let mut shared = self.lock();
        if shared.silent.len() >= MAX_SILENT
            && let Some((_, oldest)) = shared.silent.pop_first()
        {
            oldest.notify_one();
        }
        let pushed_out = Arc::new(Notify::new());
        shared.silent.insert(id, Arc::clone(&pushed_out));
        pushed_out
    }

    /// Makes the connection the newest, and gives what it has to be told first. In one step, so that no change falls between.
    /// None if there are too many.
    fn connected_as(&self, id: u64) -> Option<(mpsc::UnboundedReceiver<Asked>, Vec<Order<PodNetns>>)> {
        let (orders, receiver) = mpsc::unbounded_channel();
        let mut shared = self.lock();
        if shared.connections.len() >= MAX_CONNECTIONS {
            return None;
        }
        shared.silent.remove(&id);
        let pods: Vec<_> = shared.pods.iter().map(|(uid, pod)| (uid.clone(), pod.clone())).collect();
        let mut snapshot = Vec::with_capacity(pods.len() + 1);
        for (uid, (info, netns)) in pods {
            snapshot.push(Order::Add { uid, info, netns, token: shared.token() });
        }
        let kept: Vec<_> = shared.kept.iter().cloned().collect();
        for uid in kept {
            snapshot.push(Order::Keep { uid, token: shared.token() });
        }
        snapshot.push(Order::SnapshotSent);
        shared.connections.push(Connected { id, orders });
        // A receiver that is gone means that the agent ends.
        let _ = self.events.send(Event::Changed);
        Some((receiver, snapshot))
    }

    fn told(&self, id: u64, uid: String, result: Result<(), String>) {
        match result {
            Ok(()) if self.lock().connections.last().is_some_and(|newest| newest.id == id) => {
                let _ = self.events.send(Event::Listening { uid });
            }
            Ok(()) => {}
            Err(error) => warn!(uid, error, "a node proxy does not listen in a pod it was given"),
        }
    }

    /// Whether it was a proxy's.
    fn disconnected(&self, id: u64) -> bool {
        let mut shared = self.lock();
        shared.silent.remove(&id);
        let newest = shared.connections.last().is_some_and(|newest| newest.id == id);
        let before = shared.connections.len();
        shared.connections.retain(|connected| connected.id != id);
        if newest {
            let _ = self.events.send(Event::Changed);
        }
        shared.connections.len() < before
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        // Every change to it is a single step.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn put(&mut self, uid: &str, info: PodInfo, netns: PodNetns) {
        self.kept.remove(uid);
        self.pods.insert(uid.to_owned(), (info, netns));
    }

    const fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }
}

impl Connected {
    fn ask(&self, order: Order<PodNetns>, token: u64) -> Option<oneshot::Receiver<Result<(), String>>> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(Asked { order, token, reply }).ok().map(|()| answer)
    }
}

/// Tells one file of that name from the next.
fn place(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

async fn next(orders: &mut Option<mpsc::UnboundedReceiver<Asked>>) -> Option<Asked> {
    match orders {
        Some(orders) => orders.recv().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
