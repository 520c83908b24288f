// SPDX-License-Identifier: Apache-2.0
//! One HBONE connection and its streams: socket, TLS, protocol core. Client tunnels are dialled for the pool, server tunnels accepted.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use hbone::{Connection, StreamId};

use super::failure::Failure;
use super::flow::{Flow, Read, Socket, Wrote};
use super::outbound::PoolKey;
use super::poll::Readiness;
use super::site::Site;
use super::table::Key;
use super::thread::{Alarm, Worker};
use crate::net::Buffer;
use crate::tls::record::{Opened, Records};
use crate::tls::{Handshake, PeerIdentity};

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
    /// The peer has sent its SETTINGS.
    pub(super) is_greeted: bool,
    /// When bytes came last.
    pub(super) heard: Option<Instant>,
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
            is_greeted: false,
            heard: None,
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
        if self.streams.len() <= id.slot() {
            self.streams.resize(id.slot() + 1, None);
        }
        // The core may use a slot again before the flow of its last stream has seen that everything is done.
        if self.streams[id.slot()].replace((id, flow)).is_none() {
            self.bound += 1;
        }
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
                tunnel.heard = Some(self.now);
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
                Ok(Some(event)) => self.on_event(key, event, input),
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
    pub(super) fn wake_waiting(&mut self, waiting: Vec<Key<Flow>>) {
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
            self.ready_tunnels.push_back(key);
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
