// SPDX-License-Identifier: Apache-2.0
//! One data thread: the loop, and what it hands to whom. The other files of this room extend [`Worker`] with what they are about.
//!
//! One turn: wait, take socket events, take commands, ring alarms, move bytes, write every tunnel once, hand over log lines.
//! Nothing in a turn waits.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Cache};
use mesh_proto::spiffe::Identity;
use rand::rngs::ThreadRng;
use tokio::sync::mpsc::UnboundedSender;

use super::account::{Book, Gate, LogBuffer};
use super::buffers::{Buffers, Pipes, ROOM};
use super::command::{Command, Credentials, Demand, Done, Shared};
use super::failure::Failure;
use super::flow::Flow;
use super::handle::Inbox;
use super::listen::Listening;
use super::options::Options;
use super::poll::{Poll, Readiness, Token};
use super::site::Site;
use super::table::{Key, Table};
use super::timers::Timers;
use super::tunnel::Tunnel;
use super::young::Young;
use crate::mesh::Snapshot;
use crate::net::Buffer;
use crate::tls::Credential;

/// Everything one data thread has.
pub(super) struct Worker {
    pub(super) options: Arc<Options>,
    pub(super) poll: Poll,
    pub(super) demands: UnboundedSender<Demand>,
    /// Pods whose listeners are open, by uid.
    pub(super) sites: HashMap<String, Rc<Site>>,
    /// Pods that are being closed and have something left.
    pub(super) closing: Vec<Rc<Site>>,
    pub(super) listeners: Table<Listening>,
    pub(super) tunnels: Table<Tunnel>,
    pub(super) flows: Table<Flow>,
    pub(super) timers: Timers<Alarm>,
    pub(super) buffers: Buffers,
    pub(super) pipes: Pipes,
    /// Tunnels with something to read.
    pub(super) ready_tunnels: VecDeque<Key<Tunnel>>,
    /// Flows with something to move.
    pub(super) ready_flows: VecDeque<Key<Flow>>,
    /// Tunnels that have something to write.
    pub(super) dirty: Vec<Key<Tunnel>>,
    pub(super) parked: Parked,
    /// Flows with a dialled socket that has no keepalive yet.
    pub(super) young: Young<Key<Flow>>,
    pub(super) book: Book,
    pub(super) log: LogBuffer,
    /// Which lines about failed connections are left out.
    pub(super) gate: Gate,
    /// When somebody was last told that nothing can be accepted.
    pub(super) complained: Option<Instant>,
    pub(super) rng: ThreadRng,
    pub(super) now: Instant,
    pub(super) draining: Option<Arc<Done>>,
    /// What is read from a tunnel's socket, what came out of its records, control frames, what a pair of sockets exchanges.
    pub(super) arrived: Buffer,
    pub(super) opened: Buffer,
    pub(super) control: Vec<u8>,
    pub(super) carried: Buffer,
    mesh: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    credentials: Cache<Arc<ArcSwap<Credentials>>, Arc<Credentials>>,
    inbox: Inbox,
}

/// Who waits for a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    Flow(Key<Flow>),
    Tunnel(Key<Tunnel>),
}

/// What an alarm is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Alarm {
    Flow(Key<Flow>),
    Tunnel(Key<Tunnel>),
    /// A listener that was given a rest.
    Listener(Key<Listening>),
    /// Look through pools and accounts for what is not used any more.
    Sweep,
    /// Judge again those whom only a provisional reason stands against.
    Rejudge,
    /// The end of a drain.
    DrainDeadline,
    /// Hand over what was logged.
    Lines,
    /// More connections have lived for a while than could be seen to at once.
    Grown,
}

/// Who waits for which fact.
#[derive(Default)]
pub(super) struct Parked {
    pub(super) mesh: Vec<Waiter>,
    pub(super) certificates: HashMap<Identity, Vec<Waiter>>,
}

impl Worker {
    pub(super) fn new(options: Arc<Options>, shared: &Shared, inbox: Inbox, pipes: usize) -> std::io::Result<Self> {
        let poll = Poll::new()?;
        poll.add_level(&*inbox.wake, Token::Wake)?;
        let now = Instant::now();
        let mut timers = Timers::new();
        timers.set(now + SWEEP, Alarm::Sweep);
        Ok(Self {
            poll,
            demands: shared.demands.clone(),
            sites: HashMap::new(),
            closing: Vec::new(),
            listeners: Table::new(),
            tunnels: Table::new(),
            flows: Table::new(),
            timers,
            buffers: Buffers::new(),
            pipes: Pipes::new(pipes),
            ready_tunnels: VecDeque::new(),
            ready_flows: VecDeque::new(),
            dirty: Vec::new(),
            parked: Parked::default(),
            young: Young::default(),
            book: Book::new(shared.accounts.clone()),
            log: LogBuffer::new(options.access_log.clone()),
            gate: Gate::new(now, options.limits.denied_lines),
            complained: None,
            rng: rand::rng(),
            now,
            draining: None,
            arrived: Buffer::with_room(ROOM),
            opened: Buffer::with_room(ROOM),
            control: Vec::new(),
            carried: Buffer::with_room(ROOM),
            mesh: Cache::new(shared.mesh.clone()),
            credentials: Cache::new(shared.credentials.clone()),
            inbox,
            options,
        })
    }

    /// Runs until the handle is dropped.
    pub(super) fn run(mut self) {
        loop {
            let idle = self.ready_tunnels.is_empty() && self.ready_flows.is_empty() && self.dirty.is_empty();
            let wait = if idle { self.timers.wait(self.now) } else { Some(Duration::ZERO) };
            let events = match self.poll.wait(wait) {
                Ok(events) => events,
                Err(error) => {
                    tracing::error!(%error, "a data thread cannot wait for events and ends");
                    return;
                }
            };
            self.now = Instant::now();
            let mut woken = false;
            for index in 0..events {
                match self.poll.event(index) {
                    Some((Token::Wake, _)) => woken = true,
                    Some((token, readiness)) => self.dispatch(token, readiness),
                    None => {}
                }
            }
            if woken && !self.take_commands() {
                return;
            }
            while let Some(alarm) = self.timers.ring(self.now) {
                self.ring(alarm);
            }
            self.move_bytes();
            self.flush_tunnels();
            self.hand_over_lines();
            // With the last reference to a site goes the pod's namespace, and whoever waits for that is told.
            self.closing.retain(|site| site.live.get() > 0);
            if self.draining.is_some() && self.flows.len() == 0 && self.tunnels.len() == 0 {
                self.draining = None;
            }
        }
    }

    /// The snapshot in force.
    pub(super) fn snapshot(&mut self) -> Arc<Snapshot> {
        Arc::clone(self.mesh.load())
    }

    /// The credential of an identity, unless it is missing or has run out.
    pub(super) fn credential(&mut self, identity: &Identity) -> Option<Arc<Credential>> {
        let found = self.credentials.load().get(identity)?;
        (found.not_after() > SystemTime::now()).then(|| Arc::clone(found))
    }

    /// Something waits for a fact of the mesh.
    pub(super) fn park_on_mesh(&mut self, site: &Site, work: Waiter) {
        let is_recent = |asked: Instant| self.now.duration_since(asked) < ASK_AGAIN;
        if !site.demanded.get().is_some_and(is_recent) {
            site.demanded.set(Some(self.now));
            let demand = Demand::Workload { namespace: site.pod.namespace.clone(), name: site.pod.name.clone() };
            // If nobody listens any more the process is ending, and the deadline will tell.
            let _ = self.demands.send(demand);
        }
        self.parked.mesh.push(work);
    }

    /// Something waits for a certificate. The demand is sent once for all who wait for the same one on this thread.
    pub(super) fn park_on_certificate(&mut self, identity: &Identity, work: Waiter) {
        let waiting = self.parked.certificates.entry(identity.clone()).or_default();
        waiting.push(work);
        if waiting.len() == 1 {
            let _ = self.demands.send(Demand::Certificate { identity: identity.clone() });
        }
    }

    fn dispatch(&mut self, token: Token, readiness: Readiness) {
        match token {
            Token::Wake => {}
            Token::Listener(key) => self.accept(key),
            Token::Tunnel(key) => self.tunnel_ready(key, readiness),
            Token::App(key) => self.app_ready(key, readiness),
            Token::Far(key) => self.far_ready(key, readiness),
        }
    }

    /// Answers whether the handle still exists.
    fn take_commands(&mut self) -> bool {
        // Emptied first, so that a command sent from now on wakes again.
        let _ = self.inbox.wake.read();
        loop {
            match self.inbox.queue.try_recv() {
                Ok(command) => self.obey(command),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Open(opening) => self.open_site(*opening),
            Command::Close { uid, how, done } => self.close_site(&uid, how, &done),
            Command::MeshChanged { rejudge } => {
                // Lets go of the old snapshot even if nobody asks for the new one.
                self.snapshot();
                for work in std::mem::take(&mut self.parked.mesh) {
                    self.resume(work);
                }
                if rejudge {
                    self.rejudge();
                }
            }
            Command::CredentialChanged { identity } => {
                for work in self.parked.certificates.remove(&identity).unwrap_or_default() {
                    self.resume(work);
                }
            }
            Command::CredentialFailed { identity, reason } => {
                let failure = Failure::Certificate { identity: identity.clone(), reason };
                for work in self.parked.certificates.remove(&identity).unwrap_or_default() {
                    self.give_up(work, failure.clone());
                }
            }
            Command::Drain { deadline, done } => self.drain(deadline, done),
        }
    }

    /// The fact something waited for may be there.
    fn resume(&mut self, work: Waiter) {
        match work {
            Waiter::Flow(key) => self.resume_flow(key),
            Waiter::Tunnel(key) => self.arm_server(key),
        }
    }

    /// The fact something waits for will not come.
    fn give_up(&mut self, work: Waiter, failure: Failure) {
        match work {
            Waiter::Flow(key) => self.fail_flow(key, failure),
            Waiter::Tunnel(key) => self.fail_tunnel(key, failure),
        }
    }

    fn ring(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Flow(key) => self.flow_alarm(key),
            Alarm::Tunnel(key) => self.tunnel_alarm(key),
            Alarm::Listener(key) => self.listen_again(key),
            Alarm::Rejudge => self.rejudge(),
            Alarm::DrainDeadline => self.end_everything(),
            Alarm::Lines => self.log.keep_promise(),
            Alarm::Grown => self.keep_grown_alive(),
            Alarm::Sweep => {
                self.timers.set(self.now + SWEEP, Alarm::Sweep);
                self.sweep_pools();
                self.young.trim();
                self.keep_grown_alive();
                if self.book.next_sweep().is_some_and(|at| at <= self.now) {
                    self.book.sweep(self.now);
                }
                self.forget_gone();
                self.tunnels.trim();
                self.flows.trim();
                self.timers.trim();
                self.tell_left_out();
            }
        }
    }

    /// Connections that have lived for a while get keepalive, so many in one turn.
    fn keep_grown_alive(&mut self) {
        for _ in 0..GROWN_AT_ONCE {
            let Some(key) = self.young.grown(self.now) else { return };
            if let Some(flow) = self.flows.get(key)
                && let Some(dialled) = flow.dialled()
            {
                flow.site.keep_alive(dialled.stream());
            }
        }
        self.timers.set(self.now + GROWN_PAUSE, Alarm::Grown);
    }

    /// Who waited for a fact and has ended meanwhile is forgotten.
    fn forget_gone(&mut self) {
        let (tunnels, flows) = (&self.tunnels, &self.flows);
        let exists = |work: &Waiter| match work {
            Waiter::Flow(key) => flows.get(*key).is_some(),
            Waiter::Tunnel(key) => tunnels.get(*key).is_some(),
        };
        self.parked.mesh.retain(exists);
        self.parked.certificates.retain(|_, waiting| {
            waiting.retain(exists);
            !waiting.is_empty()
        });
    }

    /// One pass over what can move now, tunnels first because they give flows something to do. What can move further comes again next
    /// turn.
    fn move_bytes(&mut self) {
        for _ in 0..self.ready_tunnels.len() {
            let Some(key) = self.ready_tunnels.pop_front() else { break };
            self.read_tunnel(key);
        }
        for _ in 0..self.ready_flows.len() {
            let Some(key) = self.ready_flows.pop_front() else { break };
            self.move_flow(key);
        }
    }

    /// What is logged leaves a moment later, with all that comes until then; at once when the process is about to end.
    fn hand_over_lines(&mut self) {
        if self.draining.is_some() {
            self.log.flush();
        } else if self.log.asks_for_flush() {
            self.timers.set(self.now + LINES_WAIT, Alarm::Lines);
        }
    }

    fn flush_tunnels(&mut self) {
        // What a flush makes dirty again is written next turn, which then does not wait.
        for key in std::mem::take(&mut self.dirty) {
            self.flush_tunnel(key);
        }
    }
}

/// How often pools and accounts are looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// How long lines may wait for more.
const LINES_WAIT: Duration = Duration::from_millis(20);
/// Connections that get keepalive in one turn, at four calls each, and how long others have their turn before the next.
const GROWN_AT_ONCE: usize = 128;
const GROWN_PAUSE: Duration = Duration::from_millis(5);
/// How often the control side is asked for the same record.
const ASK_AGAIN: Duration = Duration::from_secs(1);
