// SPDX-License-Identifier: Apache-2.0
//! One HBONE connection and its streams: socket, TLS, protocol core. Client tunnels are dialled for the pool, server tunnels accepted.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use hbone::{Connection, ErrorCode, StreamId};

use super::account::{Denied, Reporter};
use super::failure::Failure;
use super::flow::{Ending, Flow, Read, Sink, Socket, Source, Stage, Wrote};
use super::outbound::PoolKey;
use super::poll::{Readiness, Token};
use super::site::{Phase as SitePhase, Site};
use super::table::Key;
use super::thread::{Alarm, Work, Worker};
use crate::net::{Buffer, Stream};
use crate::tls::record::{Opened, Records};
use crate::tls::{Established, Handshake, PeerIdentity, Progress};

/// See the module.
pub(super) struct Tunnel {
    pub(super) site: Rc<Site>,
    pub(super) end: End,
    pub(super) phase: Phase,
    pub(super) socket: Socket,
    /// Sealed bytes the socket has not taken. While there are some, nothing is read from applications.
    pub(super) sealed: Buffer,
    /// Frames of this turn, not sealed yet.
    pub(super) frames: Buffer,
    /// The flows of its streams, by slot.
    pub(super) streams: Vec<Option<(StreamId, Key<Flow>)>>,
    /// How many streams have flows.
    pub(super) bound: usize,
    /// Flows that wait for the socket to take what is sealed.
    pub(super) waiting: Vec<Key<Flow>>,
    /// Writing has failed; reading goes on until it finds the end.
    pub(super) broken: Option<Arc<std::io::Error>>,
    pub(super) is_dirty: bool,
    pub(super) is_queued: bool,
    /// When the phase has taken too long.
    pub(super) deadline: Option<Instant>,
    /// The earliest alarm that is set.
    pub(super) alarm: Option<Instant>,
}

/// Which end of the tunnel we are.
pub(super) enum End {
    Client(PoolKey),
    Server { peer: SocketAddr, local: SocketAddr },
}

/// How far a tunnel has got.
pub(super) enum Phase {
    /// Server: waits for the pod's certificate.
    Parked,
    /// Client: waits for TCP; the handshake begins afterwards.
    Connecting(Box<Handshake>),
    Handshaking(Box<Handshake>),
    Open(Box<Session>),
}

/// An open tunnel.
pub(super) struct Session {
    pub(super) connection: Connection,
    pub(super) records: Box<dyn Records>,
    pub(super) peer: PeerIdentity,
}

impl Tunnel {
    pub(super) fn new(site: Rc<Site>, end: End, phase: Phase, socket: Socket) -> Self {
        site.enter();
        Self {
            site,
            end,
            phase,
            socket,
            sealed: Buffer::default(),
            frames: Buffer::default(),
            streams: Vec::new(),
            bound: 0,
            waiting: Vec::new(),
            broken: None,
            is_dirty: false,
            is_queued: false,
            deadline: None,
            alarm: None,
        }
    }

    pub(super) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.phase {
            Phase::Open(session) => Some(session),
            Phase::Parked | Phase::Connecting(_) | Phase::Handshaking(_) => None,
        }
    }

    /// The flow of a stream.
    pub(super) fn flow_of(&self, id: StreamId) -> Option<Key<Flow>> {
        self.streams.get(id.slot()).copied().flatten().filter(|(known, _)| *known == id).map(|(_, flow)| flow)
    }

    pub(super) fn bind(&mut self, id: StreamId, flow: Key<Flow>) {
        self.bound += 1;
        if self.streams.len() <= id.slot() {
            self.streams.resize(id.slot() + 1, None);
        }
        self.streams[id.slot()] = Some((id, flow));
    }

    pub(super) fn unbind(&mut self, id: StreamId) {
        if let Some(slot) = self.streams.get_mut(id.slot())
            && slot.is_some_and(|(known, _)| known == id)
        {
            *slot = None;
            self.bound -= 1;
        }
    }

    pub(super) fn has_streams(&self) -> bool {
        self.bound > 0
    }
}

impl Worker {
    /// A peer connects to 15008.
    pub(super) fn accept_tunnel(&mut self, site: Rc<Site>, stream: Stream, peer: SocketAddr, local: SocketAddr) {
        if site.handshakes.get() >= self.options.limits.handshakes_per_pod {
            let error = Failure::TooManyHandshakes.to_string();
            self.log_denied(&Denied {
                reporter: Reporter::Destination,
                source: peer,
                destination: local,
                error: &error,
            });
            return stream.reset();
        }
        site.handshakes.set(site.handshakes.get() + 1);
        self.book.accounts().socket_opened(Reporter::Destination);
        let socket = Socket::connected(stream);
        let mut tunnel = Tunnel::new(site, End::Server { peer, local }, Phase::Parked, socket);
        tunnel.deadline = Some(self.now + self.options.deadlines.handshake);
        if let Some(key) = self.watch_tunnel(tunnel) {
            self.arm_server(key);
        }
    }

    /// Puts a new tunnel into the table and under epoll.
    pub(super) fn watch_tunnel(&mut self, tunnel: Tunnel) -> Option<Key<Tunnel>> {
        let key = self.tunnels.insert(tunnel);
        let socket = self.tunnels.get(key)?.socket.stream();
        if let Err(error) = self.poll.add_edge(socket, Token::Tunnel(key)) {
            self.fail_tunnel(key, Failure::Connect(Arc::new(error)));
            return None;
        }
        self.set_tunnel_alarm(key);
        Some(key)
    }

    /// Begins the handshake of an accepted tunnel if the pod's identity and its certificate are known, else waits for them.
    pub(super) fn arm_server(&mut self, key: Key<Tunnel>) {
        let Some(Tunnel { site, phase: Phase::Parked, .. }) = self.tunnels.get(key) else { return };
        let site = site.clone();
        let Some(own) = self.snapshot().own(&site.name).cloned() else {
            return self.park_on_mesh(&site, Work::Tunnel(key));
        };
        let Some(identity) = own.identity.clone() else {
            return self
                .fail_tunnel(key, Failure::Route(Arc::new(crate::decide::RouteError::NoIdentity(own.uid.clone()))));
        };
        let Some(credential) = self.credential(&identity) else {
            return self.park_on_certificate(&identity, Work::Tunnel(key));
        };
        match credential.accept() {
            Ok(handshake) => {
                if let Some(tunnel) = self.tunnels.get_mut(key) {
                    tunnel.phase = Phase::Handshaking(Box::new(handshake));
                }
                self.shake_hands(key);
            }
            Err(error) => self.fail_tunnel(key, error.into()),
        }
    }

    pub(super) fn tunnel_ready(&mut self, key: Key<Tunnel>, readiness: Readiness) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        tunnel.socket.note(readiness);
        match &tunnel.phase {
            Phase::Parked => {}
            Phase::Connecting(_) if readiness.writable => match tunnel.socket.stream().connected() {
                Ok(()) => self.tunnel_connected(key),
                Err(error) => self.fail_tunnel(key, Failure::Connect(Arc::new(error))),
            },
            Phase::Connecting(_) => {}
            Phase::Handshaking(_) => self.shake_hands(key),
            Phase::Open(_) => {
                if readiness.writable && !tunnel.sealed.is_empty() {
                    self.mark_dirty(key);
                }
                if readiness.readable {
                    self.queue_tunnel(key);
                }
            }
        }
    }

    /// TCP stands: the client speaks first.
    pub(super) fn tunnel_connected(&mut self, key: Key<Tunnel>) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        if let Phase::Connecting(handshake) = std::mem::replace(&mut tunnel.phase, Phase::Parked) {
            tunnel.phase = Phase::Handshaking(handshake);
            tunnel.deadline = Some(self.now + self.options.deadlines.handshake);
        }
        self.set_tunnel_alarm(key);
        self.shake_hands(key);
    }

    fn shake_hands(&mut self, key: Key<Tunnel>) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        self.arrived.clear();
        self.opened.clear();
        let read = tunnel.socket.read(&mut self.arrived.room_mut()[..HANDSHAKE_READ]);
        let end = match read {
            Read::Bytes(count) => {
                self.arrived.fill(count);
                None
            }
            Read::Nothing => None,
            Read::End => Some(Failure::TunnelClosed),
            Read::Broken(error) => Some(Failure::TunnelBroken(Arc::new(error))),
        };
        if let Some(failure) = end {
            return self.fail_tunnel(key, failure);
        }
        let Phase::Handshaking(handshake) = &mut tunnel.phase else { return };
        self.buffers.fill(&mut tunnel.sealed);
        let progress = handshake.advance(self.arrived.filled(), &mut tunnel.sealed, &mut self.opened);
        let more = tunnel.socket.is_readable();
        match progress {
            Ok(Progress::Done) => return self.open_tunnel(key),
            Ok(Progress::More) => {}
            // An alert may be waiting to be sent, which failing does.
            Err(error) => return self.fail_tunnel(key, error.into()),
        }
        self.mark_dirty(key);
        if more {
            self.queue_tunnel(key);
        }
    }

    /// The handshake is done: the peer is known, the protocol begins.
    fn open_tunnel(&mut self, key: Key<Tunnel>) {
        let now = self.now;
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let Phase::Handshaking(handshake) = std::mem::replace(&mut tunnel.phase, Phase::Parked) else { return };
        let Established { records, peer } = match handshake.finish() {
            Ok(established) => established,
            Err(error) => return self.fail_tunnel(key, error.into()),
        };
        let connection = match &tunnel.end {
            End::Client(_) => Connection::client(tunnel.site.client.clone(), now),
            End::Server { .. } => {
                let site = &tunnel.site;
                site.handshakes.set(site.handshakes.get().saturating_sub(1));
                Connection::server(site.server.clone(), now)
            }
        };
        tunnel.phase = Phase::Open(Box::new(Session { connection, records, peer }));
        tunnel.deadline = None;
        let site = tunnel.site.clone();
        if let End::Client(pool_key) = &tunnel.end {
            let pool_key = pool_key.clone();
            self.pool_connected(key, &pool_key);
        }
        if site.phase.get() != SitePhase::Open {
            // It serves those who waited for it, and nobody else.
            site.pool.borrow_mut().withdraw_all();
            self.tunnel_goes_away(key);
        }
        self.mark_dirty(key);
        // What came behind the handshake in the same read.
        let opened = std::mem::take(&mut self.opened);
        self.take_input(key, opened.filled());
        self.opened = opened;
        if self.tunnels.get(key).is_some_and(|tunnel| tunnel.socket.is_readable()) {
            self.queue_tunnel(key);
        }
    }

    /// Reads once, and does what that brings.
    pub(super) fn read_tunnel(&mut self, key: Key<Tunnel>) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        tunnel.is_queued = false;
        if matches!(tunnel.phase, Phase::Handshaking(_)) {
            return self.shake_hands(key);
        }
        let Phase::Open(session) = &mut tunnel.phase else { return };
        self.arrived.clear();
        self.opened.clear();
        session.records.resume(&mut self.arrived);
        self.arrived.reserve(READ);
        let outcome = match tunnel.socket.read(&mut self.arrived.room_mut()[..READ]) {
            Read::Nothing => match tunnel.broken.take() {
                None => return,
                Some(error) => Err(Failure::TunnelBroken(error)),
            },
            Read::End => Err(Failure::TunnelClosed),
            Read::Broken(error) => Err(Failure::TunnelBroken(Arc::new(error))),
            Read::Bytes(count) => {
                self.arrived.fill(count);
                // Replies go out behind whatever is sealed already, in order.
                session.records.open(&mut self.arrived, &mut self.opened, &mut tunnel.sealed).map_err(Failure::from)
            }
        };
        let more = tunnel.socket.is_readable();
        // Records opened before a fault are good.
        let opened = std::mem::take(&mut self.opened);
        self.take_input(key, opened.filled());
        self.opened = opened;
        match outcome {
            Ok(Opened::More) => {
                self.mark_dirty(key);
                if more || self.tunnels.get(key).is_some_and(|tunnel| tunnel.broken.is_some()) {
                    self.queue_tunnel(key);
                }
            }
            Ok(Opened::Closed) => self.fail_tunnel(key, Failure::TunnelClosed),
            Err(failure) => self.fail_tunnel(key, failure),
        }
    }

    /// Feeds decrypted bytes to the protocol core and acts on its events.
    pub(super) fn take_input(&mut self, key: Key<Tunnel>, mut input: &[u8]) {
        loop {
            let now = self.now;
            // An event may have ended the tunnel.
            let Some(session) = self.tunnels.get_mut(key).and_then(Tunnel::session) else { return };
            match session.connection.next_event(now, &mut input) {
                Ok(Some(event)) => self.on_event(key, event),
                Ok(None) => break,
                Err(error) => return self.fail_tunnel(key, error.into()),
            }
        }
        self.set_tunnel_alarm(key);
        self.close_if_drained(key);
    }

    /// Writes what the tunnel has to say, in one write if the socket takes it.
    pub(super) fn flush_tunnel(&mut self, key: Key<Tunnel>) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        tunnel.is_dirty = false;
        if tunnel.broken.is_some() {
            return;
        }
        loop {
            while !tunnel.sealed.is_empty() {
                match tunnel.socket.write(tunnel.sealed.filled()) {
                    Wrote::Bytes(count) => tunnel.sealed.take(count),
                    // Comes again when the socket is writable. What the core queues meanwhile it bounds itself.
                    Wrote::Nothing => return,
                    Wrote::Broken(error) => return self.tunnel_write_failed(key, error),
                }
            }
            let Phase::Open(session) = &mut tunnel.phase else { break };
            session.connection.write_control(&mut self.control);
            if !self.control.is_empty() {
                self.buffers.fill(&mut tunnel.frames);
                tunnel.frames.put(&self.control);
                self.control.clear();
            }
            if tunnel.frames.is_empty() {
                break;
            }
            self.buffers.fill(&mut tunnel.sealed);
            let sealed = session.records.seal(tunnel.frames.filled(), &mut tunnel.sealed);
            tunnel.frames.clear();
            if let Err(error) = sealed {
                return self.fail_tunnel(key, error.into());
            }
        }
        self.buffers.give(&mut tunnel.frames);
        self.buffers.give(&mut tunnel.sealed);
        let waiting = std::mem::take(&mut tunnel.waiting);
        self.wake_waiting(waiting);
        self.set_tunnel_alarm(key);
        self.close_if_drained(key);
    }

    /// Lets flows go on that waited for a tunnel's socket.
    fn wake_waiting(&mut self, waiting: Vec<Key<Flow>>) {
        for key in waiting {
            if let Some(flow) = self.flows.get_mut(key) {
                flow.is_waiting = false;
            }
            self.queue_flow(key);
        }
    }

    /// A write failed: the peer has gone. What it sent before may still be there, so the end is left to be found by reading.
    fn tunnel_write_failed(&mut self, key: Key<Tunnel>, error: std::io::Error) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        tunnel.sealed.clear();
        tunnel.broken = Some(Arc::new(error));
        self.queue_tunnel(key);
    }

    pub(super) fn mark_dirty(&mut self, key: Key<Tunnel>) {
        if let Some(tunnel) = self.tunnels.get_mut(key)
            && !tunnel.is_dirty
        {
            tunnel.is_dirty = true;
            self.dirty.push(key);
        }
    }

    pub(super) fn queue_tunnel(&mut self, key: Key<Tunnel>) {
        if let Some(tunnel) = self.tunnels.get_mut(key)
            && !tunnel.is_queued
        {
            tunnel.is_queued = true;
            self.ready.push_back(Work::Tunnel(key));
        }
    }

    /// Takes no more streams, and closes when the last has ended.
    pub(super) fn tunnel_goes_away(&mut self, key: Key<Tunnel>) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let is_client = matches!(tunnel.end, End::Client(_));
        let is_unused = !tunnel.has_streams();
        match tunnel.session() {
            Some(session) => session.connection.go_away_gracefully(),
            // Its handshake has a deadline, and after it this is asked again.
            None => return,
        }
        self.mark_dirty(key);
        if is_client && is_unused {
            self.fail_tunnel(key, Failure::Drained);
        }
    }

    /// A tunnel that is going away and carries nothing any more is closed.
    pub(super) fn close_if_drained(&mut self, key: Key<Tunnel>) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let is_busy = tunnel.has_streams() || !tunnel.frames.is_empty() || !tunnel.sealed.is_empty();
        let is_over = |session: &mut Session| session.connection.is_drained() && !session.connection.has_control();
        if !is_busy && tunnel.session().is_some_and(is_over) {
            self.fail_tunnel(key, Failure::Drained);
        }
    }

    /// Ends a tunnel and everything in it. Says goodbye as far as the socket takes it at once.
    pub(super) fn fail_tunnel(&mut self, key: Key<Tunnel>, failure: Failure) {
        let Some(mut tunnel) = self.tunnels.remove(key) else { return };
        let is_open = matches!(tunnel.phase, Phase::Open(_));
        self.say_goodbye(&mut tunnel);
        if let End::Server { peer, local } = tunnel.end {
            self.book.accounts().socket_closed(Reporter::Destination);
            if !is_open {
                tunnel.site.handshakes.set(tunnel.site.handshakes.get().saturating_sub(1));
                let error = failure.to_string();
                self.log_denied(&Denied {
                    reporter: Reporter::Destination,
                    source: peer,
                    destination: local,
                    error: &error,
                });
            } else if !matches!(failure, Failure::Drained | Failure::TunnelClosed) {
                tracing::debug!(%peer, %local, error = %failure, "inbound tunnel ended");
            }
        }
        if let End::Client(pool_key) = &tunnel.end {
            if is_open {
                tunnel.site.pool.borrow_mut().withdraw(pool_key, key);
            } else {
                self.pool_failed(&tunnel.site, pool_key, &failure);
            }
        }
        for (_, flow) in tunnel.streams.into_iter().flatten() {
            self.tunnel_lost(flow, &failure);
        }
        self.wake_waiting(tunnel.waiting);
        tunnel.site.leave();
    }

    fn say_goodbye(&mut self, tunnel: &mut Tunnel) {
        if let Phase::Open(session) = &mut tunnel.phase {
            session.connection.close(ErrorCode::NO_ERROR);
            session.connection.write_control(&mut self.control);
            tunnel.frames.put(&self.control);
            self.control.clear();
            let sealed = session.records.seal(tunnel.frames.filled(), &mut tunnel.sealed);
            if sealed.is_ok() {
                let _ = session.records.close(&mut tunnel.sealed);
            }
        }
        if !tunnel.sealed.is_empty() {
            // Once: if the socket does not take it now, nobody reads.
            let _ = tunnel.socket.write(tunnel.sealed.filled());
        }
        for buffer in [&mut tunnel.frames, &mut tunnel.sealed] {
            buffer.clear();
            self.buffers.give(buffer);
        }
    }

    /// What a stream's flow makes of the end of its tunnel.
    fn tunnel_lost(&mut self, key: Key<Flow>, failure: &Failure) {
        let Some(flow) = self.flows.get(key) else { return };
        if flow.to_app.source == Source::Ended && flow.to_far.sink == Sink::Finished {
            // Everything went through; all that is left is between us and the application.
            return self.queue_flow(key);
        }
        if flow.to_app.source == Source::Ended && matches!(flow.stage, Stage::Open) {
            return self.orphan(key);
        }
        if !failure.is_retryable() || !self.try_again(key) {
            self.end_flow(key, Ending::Failed(failure.clone()));
        }
    }

    pub(super) fn tunnel_alarm(&mut self, key: Key<Tunnel>) {
        let (now, deadlines) = (self.now, self.options.deadlines);
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        tunnel.alarm = None;
        if tunnel.deadline.is_some_and(|deadline| deadline <= now) {
            let failure = match (&tunnel.phase, &tunnel.end) {
                (Phase::Connecting(_), End::Client(pool_key)) => {
                    Failure::HboneTimeout { to: pool_key.hop, after: deadlines.connect }
                }
                (Phase::Parked, _) => Failure::NotReady(deadlines.handshake),
                _ => Failure::HandshakeTimeout(deadlines.handshake),
            };
            return self.fail_tunnel(key, failure);
        }
        if let Phase::Open(session) = &mut tunnel.phase {
            if let Err(error) = session.connection.handle_timeout(now) {
                return self.fail_tunnel(key, error.into());
            }
            self.mark_dirty(key);
        }
        self.set_tunnel_alarm(key);
    }

    /// Sets an alarm if the next deadline comes before the one that is set.
    pub(super) fn set_tunnel_alarm(&mut self, key: Key<Tunnel>) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let of_core = match &tunnel.phase {
            Phase::Open(session) => session.connection.next_deadline(),
            Phase::Parked | Phase::Connecting(_) | Phase::Handshaking(_) => None,
        };
        let next = [tunnel.deadline, of_core].into_iter().flatten().min();
        if let Some(next) = next
            && tunnel.alarm.is_none_or(|set| next < set)
        {
            tunnel.alarm = Some(next);
            self.timers.set(next, Alarm::Tunnel(key));
        }
    }
}

/// What is read from a tunnel at once.
const READ: usize = 256 * 1024;
/// What is read of a handshake at once.
const HANDSHAKE_READ: usize = 16 * 1024;
