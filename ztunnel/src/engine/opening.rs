// SPDX-License-Identifier: Apache-2.0
//! How a tunnel comes to stand: accepted or dialled, then the TLS handshake, then the protocol core.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use hbone::Connection;

use super::account::Reporter;
use super::failure::Failure;
use super::flow::{Read, Socket};
use super::poll::Token;
use super::shares::Kind;
use super::site::{Phase as SitePhase, Site};
use super::table::Key;
use super::thread::{Waiter, Worker};
use super::tunnel::{End, Phase, Session, Tunnel};
use crate::decide::RouteError;
use crate::net::Stream;
use crate::tls::{Established, Progress};

impl Worker {
    /// A peer connects to 15008. Its socket is counted already.
    pub(super) fn accept_tunnel(&mut self, site: Rc<Site>, stream: Stream, peer: SocketAddr, local: SocketAddr) {
        if let Err(failure) = self.begin_handshake(&site, peer.ip()) {
            site.share.give(Kind::Sockets);
            self.deny(Reporter::Destination, (peer, local), &failure);
            return stream.reset();
        }
        self.book.accounts().socket_opened(Reporter::Destination);
        let socket = Socket::connected(stream);
        let mut tunnel = Tunnel::new(site, End::Server { peer, local }, Phase::Parked, socket);
        tunnel.deadline = Some(self.now + self.options.deadlines.handshake);
        if let Some(key) = self.watch_tunnel(tunnel) {
            self.arm_server(key);
        }
    }

    /// Whether one more handshake may begin. Until it ends nobody knows who the peer is, so an address gets no more than it leaves to
    /// the others, and addresses that are in no workload's record get no more than half together.
    fn begin_handshake(&mut self, site: &Site, source: IpAddr) -> Result<(), Failure> {
        let (allowed, used) = (site.share.allowed(Kind::Handshakes), site.share.used(Kind::Handshakes));
        if used >= allowed / 2 && !self.is_of_the_mesh(site, source) {
            return Err(Failure::HandshakesOfStrangers(used));
        }
        let free = allowed.saturating_sub(used).div_ceil(site.spread);
        let entered = site.sources.borrow_mut().enter(source, site.per_source, free);
        entered.map_err(Failure::HandshakesOfSource)?;
        site.share.take(Kind::Handshakes).map_err(|refusal| {
            site.sources.borrow_mut().leave(source);
            Failure::Refused(refusal)
        })
    }

    fn is_of_the_mesh(&mut self, site: &Site, source: IpAddr) -> bool {
        let snapshot = self.snapshot();
        snapshot.own(&site.name).is_some_and(|own| snapshot.workload_at(&own.network, source).is_some())
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
            return self.park_on_mesh(&site, Waiter::Tunnel(key));
        };
        let Some(identity) = own.identity.clone() else {
            return self.fail_tunnel(key, Failure::Route(Arc::new(RouteError::NoIdentity(own.uid.clone()))));
        };
        let Some(credential) = self.credential(&identity) else {
            return self.park_on_certificate(&identity, Waiter::Tunnel(key));
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

    pub(super) fn shake_hands(&mut self, key: Key<Tunnel>) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        self.arrived.clear();
        self.opened.clear();
        let read = match tunnel.socket.is_readable() {
            true => tunnel.socket.read(&mut self.arrived.room_mut()[..HANDSHAKE_READ]),
            // The client speaks first.
            false => Read::Nothing,
        };
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
        // At once: the buffer goes back before the next handshake wants one, however many there are in this turn.
        self.flush_tunnel(key);
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
            End::Client(_) => {
                tunnel.site.share.give(Kind::Dials);
                Connection::client(tunnel.site.client.clone(), now)
            }
            End::Server { peer, .. } => {
                tunnel.site.end_handshake(peer.ip());
                Connection::server(tunnel.site.server.clone(), now)
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
}

/// What is read of a handshake at once.
const HANDSHAKE_READ: usize = 16 * 1024;
