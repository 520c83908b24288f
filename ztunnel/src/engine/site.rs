// SPDX-License-Identifier: Apache-2.0
//! A pod as one data thread knows it: where its sockets are made, what it may hold, its tunnels, and how far it is from being closed.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use hbone::request::Baggage;

use super::command::{Done, ListenAt, Opening, Pod};
use super::failure::Failure;
use super::flow::Flow;
use super::listen::Listening;
use super::options::Options;
use super::outbound::PoolKey;
use super::pool::{Limits, Pool};
use super::shares::{Kind, Refusal, Share, Sources};
use super::table::Key;
use super::tunnel::Tunnel;
use crate::mesh::{PodName, Workload};
use crate::net::socket::{Dial, Dialling, SocketOptions};
use crate::net::{NetError, PodNetns, Stream};

/// See the module. Flows and tunnels share it; all of them are on the same thread.
pub(super) struct Site {
    pub(super) pod: Arc<Pod>,
    pub(super) name: PodName,
    pub(super) at: Arc<ListenAt>,
    /// Whether the original source address can be used for dials.
    pub(super) is_transparent: bool,
    /// Whether connections to the application would be paced without need.
    pub(super) is_paced: bool,
    pub(super) client: Arc<hbone::Options>,
    pub(super) server: Arc<hbone::Options>,
    pub(super) pool: RefCell<Pool<PoolKey, Key<Tunnel>, Key<Flow>, Failure>>,
    pub(super) listeners: RefCell<Vec<Key<Listening>>>,
    /// The baggage of the pod's own workload, as long as its record stays the same.
    pub(super) baggage: RefCell<Option<(Arc<Workload>, Option<Baggage>)>>,
    /// When the control side was last asked for the pod's record.
    pub(super) demanded: Cell<Option<Instant>>,
    /// Sockets, dials and handshakes the pod has on all threads.
    pub(super) share: Arc<Share>,
    /// Who has how many handshakes under way on this thread, and how many one may have.
    pub(super) sources: RefCell<Sources>,
    pub(super) per_source: usize,
    /// How many threads listen for the pod.
    pub(super) spread: usize,
    /// Flows and tunnels that exist.
    pub(super) live: Cell<usize>,
    pub(super) phase: Cell<Phase>,
    netns: Option<Arc<PodNetns>>,
    socket: SocketOptions,
    /// Who is told when the site is gone. The last field, dropped last: by then nothing here keeps the pod's namespace alive.
    pub(super) waiting: RefCell<Vec<Arc<Done>>>,
}

/// Where a pod is in its life here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// No listeners any more; what is open lives on.
    Draining,
    /// Everything is being closed.
    Closed,
}

impl Site {
    pub(super) fn new(opening: Opening, options: &Options) -> Self {
        let Opening { pod, netns, at, budget, share, spread, .. } = opening;
        let name = PodName {
            name: pod.name.as_str().into(),
            namespace: pod.namespace.as_str().into(),
            service_account: pod.service_account.as_str().into(),
        };
        let common = |defaults: hbone::Options| hbone::Options {
            max_window: options.stream_window,
            initial_window: defaults.initial_window.min(options.stream_window),
            connection_window: options.connection_window,
            max_frame_size: options.frame_size,
            stream_limit: options.stream_window as usize,
            tunnel_limit: options.limits.tunnel_bytes,
            opening_timeout: options.deadlines.handshake,
            ..defaults
        };
        let streams = usize::from(options.pool_max_streams.max(1));
        let limits = Limits { streams, unused: options.pool_unused_release };
        let client = hbone::Options { max_streams: streams as u32, ..common(hbone::Options::client(budget.clone())) };
        Self {
            name,
            client: Arc::new(client),
            server: Arc::new(common(hbone::Options::server(budget))),
            pool: RefCell::new(Pool::new(limits)),
            listeners: RefCell::default(),
            baggage: RefCell::default(),
            demanded: Cell::new(None),
            share,
            sources: RefCell::default(),
            per_source: options.limits.handshakes_per_source.div_ceil(spread.max(1)),
            spread,
            live: Cell::new(0),
            phase: Cell::new(Phase::Open),
            waiting: RefCell::default(),
            is_transparent: false,
            is_paced: false,
            socket: if netns.is_some() { options.socket.clone() } else { options.socket.at_home() },
            pod,
            netns,
            at,
        }
    }

    /// Starts a connection from inside the pod, as `from` if that is given and allowed.
    pub(super) fn dial(&self, to: SocketAddr, from: Option<IpAddr>) -> Result<Dialling, NetError> {
        self.start(Dial { to, from, hurry: false, speaks: false })
    }

    /// The same for a connection to the pod's own application, which hears something at once if it `speaks`.
    pub(super) fn dial_app(&self, to: SocketAddr, from: Option<IpAddr>, speaks: bool) -> Result<Dialling, NetError> {
        self.start(Dial { to, from, hurry: self.is_paced && self.netns.is_some(), speaks })
    }

    fn start(&self, dial: Dial) -> Result<Dialling, NetError> {
        let stream = match &self.netns {
            Some(netns) => netns.run(|| dial.socket(&self.socket))??,
            None => dial.socket(&self.socket)?,
        };
        dial.connect(stream)
    }

    /// Has the kernel look after a connection that nobody uses.
    pub(super) fn keep_alive(&self, stream: &Stream) {
        if let Err(error) = stream.keep_alive(&self.socket) {
            tracing::debug!(%error, pod = self.pod.uid, "a connection has no keepalive");
        }
    }

    /// Takes what a connection needs that is opened from here: a socket, and the right to connect it.
    pub(super) fn begin_dial(&self) -> Result<(), Refusal> {
        self.share.take(Kind::Dials)?;
        self.share.take(Kind::Sockets).inspect_err(|_| self.share.give(Kind::Dials))
    }

    /// An inbound handshake has ended, well or not.
    pub(super) fn end_handshake(&self, source: IpAddr) {
        self.share.give(Kind::Handshakes);
        self.sources.borrow_mut().leave(source);
    }

    /// One more flow or tunnel.
    pub(super) fn enter(&self) {
        self.live.set(self.live.get() + 1);
    }

    /// One less.
    pub(super) fn leave(&self) {
        self.live.set(self.live.get().saturating_sub(1));
    }
}
