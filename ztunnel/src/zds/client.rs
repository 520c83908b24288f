// SPDX-License-Identifier: Apache-2.0
//! The socket of the node agent: the shell of `session`. It obeys the session's actions in order and decides nothing.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mesh_common::lifecycle::{Drain, Gate};
use mesh_proto::zds::{
    MAX_PACKET, PacketError, Received, Version, WorkloadRequest, WorkloadResponse, ZdsHello, receive_packet,
    send_packet,
};
use prost::Message as _;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::message::{Message, PodInfo};
use super::netns::Held;
use super::session::{Action, Attempt, Session, Stop};
use crate::metrics;

/// Where the agent listens.
#[derive(Clone, Debug)]
pub struct Options {
    /// The socket's path.
    pub socket: PathBuf,
}

/// What `pods` has to do, in order.
#[derive(Debug)]
pub enum Order {
    /// Bind the pod's listeners and report.
    Open {
        /// The pod.
        uid: String,
        /// To be named in the report.
        attempt: Attempt,
        /// Who it is.
        info: PodInfo,
        /// Where its listeners go.
        netns: Arc<Held>,
    },
    /// Close what was opened.
    Close {
        /// The pod.
        uid: String,
        /// Why.
        why: Stop,
    },
}

/// The end of an [`Order::Open`].
#[derive(Debug)]
pub struct Report {
    /// The pod.
    pub uid: String,
    /// The order's.
    pub attempt: Attempt,
    /// Why not.
    pub result: Result<(), String>,
}

/// The pods the agent has named: uid, who it is, and whether its listeners are bound. For `config_dump`.
pub type Standing = Arc<ArcSwap<Vec<(String, PodInfo, bool)>>>;

/// What the client tells others.
pub struct Outlets {
    /// To `pods`.
    pub orders: mpsc::UnboundedSender<Order>,
    /// From `pods`.
    pub reports: mpsc::UnboundedReceiver<Report>,
    /// For `config_dump`.
    pub standing: Standing,
    /// Readiness: `workload proxy manager`.
    pub gate: Gate,
    /// Counters.
    pub metrics: (metrics::Zds, metrics::WorkloadManager),
}

/// The client; see the module's text.
pub struct Client {
    options: Options,
    outlets: Outlets,
    session: Session<Arc<Held>>,
    socket: Option<UnixStream>,
    failures: u32,
}

impl Client {
    /// Not connected yet.
    pub fn new(options: Options, outlets: Outlets) -> Self {
        Self { options, outlets, session: Session::new(Instant::now()), socket: None, failures: 0 }
    }

    /// Until the drain starts. Reading stops at once then (P-17); pods are drained by others.
    pub async fn run(mut self, drain: Drain) {
        let mut buffer = [0; MAX_PACKET];
        loop {
            let actions = tokio::select! {
                biased;
                () = drain.started() => break,
                Some(Report { uid, attempt, result }) = self.outlets.reports.recv() => {
                    self.note(&uid, &result);
                    self.session.handle_started(Instant::now(), &uid, attempt, result)
                }
                received = receive(self.socket.as_ref(), &mut buffer), if self.session.may_read() => {
                    self.take(received, &buffer)
                }
                () = until(self.session.next_deadline()) => self.session.handle_timeout(Instant::now()),
            };
            // Before the answer leaves: who has it may look at once. And after it: a connection may have come or gone.
            self.publish();
            self.perform(actions).await;
            self.publish();
        }
        // Shutting down must never look like becoming ready (P-11).
        self.outlets.gate.close();
    }

    fn take(&mut self, received: Result<Received, PacketError>, buffer: &[u8]) -> Vec<Action<Arc<Held>>> {
        let (now, mut rng) = (Instant::now(), rand::rng());
        let message = match received {
            Ok(Received::Packet { len, fd }) => parse(&buffer[..len], fd),
            Ok(Received::Closed) => {
                tracing::info!("the node agent closed the connection");
                return self.lost(now);
            }
            Err(PacketError::Io(error)) => {
                tracing::warn!(%error, "the connection to the node agent broke");
                return self.lost(now);
            }
            Err(error) => Err(error.to_string()),
        };
        match message {
            Ok(message) => {
                tracing::debug!(?message, "from the node agent");
                self.session.handle_message(now, message, &mut rng)
            }
            Err(reason) => self.session.handle_unreadable(now, &reason, &mut rng),
        }
    }

    fn lost(&mut self, now: Instant) -> Vec<Action<Arc<Held>>> {
        self.hang_up();
        self.session.handle_disconnected(now, &mut rand::rng());
        Vec::new()
    }

    fn hang_up(&mut self) {
        self.socket = None;
        self.outlets.metrics.0.disconnected();
    }

    async fn perform(&mut self, actions: Vec<Action<Arc<Held>>>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Connect => actions.extend(self.connect()),
                Action::Hello => self.send(&ZdsHello { version: Version::V1.into() }).await,
                Action::Reply(answer) => {
                    let response = match &answer {
                        Ok(()) => WorkloadResponse::done(),
                        Err(reason) => {
                            tracing::warn!(reason, "refused a request of the node agent");
                            self.outlets.metrics.0.refused();
                            WorkloadResponse::failed(reason)
                        }
                    };
                    self.send(&response).await;
                }
                Action::HangUp => self.hang_up(),
                Action::Start { uid, attempt, info, netns } => {
                    tracing::info!(uid, name = info.name, namespace = info.namespace, "starting to carry a pod");
                    self.order(Order::Open { uid, attempt, info, netns });
                }
                Action::Stop { uid, why, .. } => {
                    tracing::info!(uid, ?why, "carrying a pod no longer");
                    self.outlets.metrics.1.stopped();
                    self.order(Order::Close { uid, why });
                }
            }
        }
    }

    fn connect(&mut self) -> Vec<Action<Arc<Held>>> {
        match open(&self.options.socket) {
            Ok(socket) => {
                tracing::info!(socket = %self.options.socket.display(), "connected to the node agent");
                self.failures = 0;
                self.socket = Some(socket);
                self.outlets.metrics.0.connected();
                self.session.handle_connected(Instant::now())
            }
            Err(error) => {
                let delay = self.session.handle_connect_failed(Instant::now(), &mut rand::rng());
                self.failures += 1;
                // The first ones are milliseconds apart: an agent that starts beside us is no reason to shout.
                if self.failures.is_power_of_two() || delay > Duration::from_secs(1) {
                    let socket = self.options.socket.display();
                    tracing::warn!(%socket, %error, ?delay, "cannot connect to the node agent; is it healthy?");
                }
                Vec::new()
            }
        }
    }

    async fn send(&mut self, message: &impl prost::Message) {
        let Some(socket) = &self.socket else { return };
        let sent = tokio::time::timeout(WRITE_LIMIT, send(socket, &message.encode_to_vec())).await;
        let error = match sent {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => io::Error::from(io::ErrorKind::TimedOut),
        };
        tracing::warn!(%error, "cannot write to the node agent");
        self.lost(Instant::now());
    }

    fn note(&self, uid: &str, result: &Result<(), String>) {
        match result {
            Ok(()) => self.outlets.metrics.1.started(),
            Err(reason) => tracing::warn!(uid, reason, "cannot carry a pod yet; will try again"),
        }
    }

    fn order(&self, order: Order) {
        // `pods` ends only after this task.
        let _ = self.outlets.orders.send(order);
    }

    fn publish(&mut self) {
        self.outlets.gate.set(self.session.is_ready());
        self.outlets.metrics.1.standing(self.session.active(), self.session.pending());
        let standing = self.outlets.standing.load();
        let same = standing.iter().map(|(uid, info, up)| (uid.as_str(), info, *up)).eq(self.session.pods());
        if !same {
            let pods = self.session.pods().map(|(uid, info, up)| (uid.to_owned(), info.clone(), up)).collect();
            self.outlets.standing.store(Arc::new(pods));
        }
    }
}

/// A Unix socket connects at once or not at all. tokio has no type for packets over a connection; its stream waits for
/// readiness all the same, and the packets are sent and received by `mesh_proto`.
fn open(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.cloexec().nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    UnixStream::from_std(OwnedFd::from(socket).into())
}

fn parse(bytes: &[u8], fd: Option<OwnedFd>) -> Result<Message<Arc<Held>>, String> {
    let request = WorkloadRequest::decode(bytes).map_err(|error| error.to_string())?;
    let netns = fd
        .map(|fd| Held::new(fd).map(Arc::new))
        .transpose()
        .map_err(|error| format!("cannot inspect the descriptor that came with it: {error}"))?;
    Message::new(request, netns).map_err(|error| error.to_string())
}

async fn receive(socket: Option<&UnixStream>, buffer: &mut [u8]) -> Result<Received, PacketError> {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        socket.readable().await.map_err(PacketError::Io)?;
        let received = socket.try_io(Interest::READABLE, || match receive_packet(socket.as_fd(), buffer) {
            Err(PacketError::Io(error)) => Err(error),
            received => Ok(received),
        });
        match received {
            Ok(received) => return received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(PacketError::Io(error)),
        }
    }
}

async fn send(socket: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    loop {
        socket.writable().await?;
        match socket.try_io(Interest::WRITABLE, || send_packet(socket.as_fd(), bytes, None)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return sent,
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// An agent that does not read its answers for this long is gone (the agent's own limit, Z-09).
const WRITE_LIMIT: Duration = Duration::from_secs(5);
