// SPDX-License-Identifier: Apache-2.0
//! Pods come and go: listeners, accepting, closing, draining.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::account::{Denied, LeftOut, Reporter};
use super::command::{CloseHow, Done, Opening, Role};
use super::failure::Failure;
use super::flow::{Ending, Far, Flow, Origin, Socket, Stage, Story, Waiting, Way};
use super::poll::Token;
use super::shares::Kind;
use super::site::{Phase, Site};
use super::table::Key;
use super::thread::{Alarm, Worker};
use super::tunnel::Tunnel;
use crate::net::{Listener, Stream};

/// A listener of a pod.
pub(super) struct Listening {
    listener: Listener,
    role: Role,
    site: Rc<Site>,
}

impl Worker {
    pub(super) fn open_site(&mut self, mut opening: Opening) {
        let uid = opening.pod.uid.clone();
        let listeners = std::mem::take(&mut opening.listeners);
        let mut site = Site::new(opening, &self.options);
        site.is_transparent = listeners.iter().any(|(_, listener)| listener.is_transparent());
        site.is_paced = listeners.iter().any(|(_, listener)| listener.is_paced());
        let site = Rc::new(site);
        for (role, listener) in listeners {
            let key = self.listeners.insert(Listening { listener, role, site: site.clone() });
            site.listeners.borrow_mut().push(key);
            self.listen_again(key);
        }
        // A pod that was closed and opened again is another one: the old one lives on until it is empty.
        if let Some(old) = self.sites.insert(uid, site) {
            self.closing.push(old);
        }
    }

    /// Begins or goes on to accept.
    pub(super) fn listen_again(&mut self, key: Key<Listening>) {
        let Some(listening) = self.listeners.get(key) else { return };
        if let Err(error) = self.poll.add_level(&listening.listener, Token::Listener(key)) {
            tracing::error!(%error, pod = listening.site.pod.uid, "cannot watch a listener; trying again");
            self.timers.set(self.now + REST, Alarm::Listener(key));
        }
    }

    /// One connection per event: a level-triggered listener comes again if there are more.
    pub(super) fn accept(&mut self, key: Key<Listening>) {
        let Some(listening) = self.listeners.get(key) else { return };
        match listening.listener.accept() {
            Ok((stream, peer)) => {
                let (role, site) = (listening.role, listening.site.clone());
                self.accepted(role, site, stream, peer);
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                _ => {
                    // Most likely out of file descriptors: a busy loop would help nobody, nor would a line for each try.
                    if self.complained.is_none_or(|at| self.now.duration_since(at) >= COMPLAIN_AGAIN) {
                        self.complained = Some(self.now);
                        tracing::warn!(%error, pod = listening.site.pod.uid, "cannot accept connections and tries again every {REST:?}; check the limit on open files (LimitNOFILE, fs.file-max)");
                    }
                    self.poll.remove(&listening.listener);
                    self.timers.set(self.now + REST, Alarm::Listener(key));
                }
            },
        }
    }

    fn accepted(&mut self, role: Role, site: Rc<Site>, stream: Stream, peer: SocketAddr) {
        let destination = match role {
            Role::Inbound => stream.local(),
            Role::Outbound | Role::Plaintext => {
                stream.original_destination().map(|found| match site.at.target_without_redirect {
                    Some(target) if !found.redirected => target,
                    _ => found.address,
                })
            }
        };
        let Ok(destination) = destination else { return };
        if let Err(refusal) = site.share.take(Kind::Sockets) {
            let reporter = if role == Role::Outbound { Reporter::Source } else { Reporter::Destination };
            self.deny(reporter, (peer, destination), &Failure::Refused(refusal));
            return stream.reset();
        }
        if role == Role::Inbound {
            return self.accept_tunnel(site, stream, peer, destination);
        }
        site.enter();
        let (origin, waiting) = match role {
            Role::Outbound => (Origin::Outbound, Waiting::Outbound),
            Role::Plaintext | Role::Inbound => (Origin::Plaintext, Waiting::Plaintext),
        };
        self.book.accounts().socket_opened(origin.reporter());
        let key = self.flows.insert(Flow {
            site,
            origin,
            stage: Stage::Parked(waiting),
            app: None,
            far: Far::Nothing,
            to_app: Way::default(),
            to_far: Way::default(),
            story: Story::Early { source: peer, destination },
            deadline: None,
            charged: 0,
            early: 0,
            speaks: false,
            is_queued: false,
            is_waiting: false,
        });
        let watched = self.poll.add_edge(&stream, Token::App(key));
        if let Some(flow) = self.flows.get_mut(key) {
            flow.app = Some(Socket::connected(stream));
        }
        match watched {
            Ok(()) => self.resume_flow(key),
            Err(error) => self.fail_flow(key, Failure::Connect(Arc::new(error))),
        }
    }

    /// Says why a connection came to nothing before it was known what it was. Counted always, written unless there are too many.
    pub(super) fn deny(&mut self, reporter: Reporter, (source, destination): (SocketAddr, SocketAddr), why: &Failure) {
        self.book.accounts().refused(reporter, why.reason());
        if self.gate.admits(self.now, source.ip()) {
            let denied = Denied { reporter, source, destination, error: &why.to_string() };
            self.log.denied(std::time::SystemTime::now(), &denied);
        }
    }

    /// Says how many lines were left out since the last time.
    pub(super) fn tell_left_out(&mut self) {
        let LeftOut { lines, about } = self.gate.sweep(self.now);
        if let Some(source) = about {
            self.book.accounts().left_out(lines);
            tracing::warn!(lines, %source, "left out lines about failed connections, among them some from this source; mesh_refused_connections_total counts them all");
        }
    }

    pub(super) fn close_site(&mut self, uid: &str, how: CloseHow, done: &Arc<Done>) {
        let open = self.sites.remove(uid);
        self.closing.extend(open);
        let matching: Vec<_> = self.closing.iter().filter(|site| site.pod.uid == uid).cloned().collect();
        for site in matching {
            site.waiting.borrow_mut().push(done.clone());
            self.stop_listening(&site);
            match how {
                CloseHow::Drain => self.drain_site(&site),
                CloseHow::Immediate => self.end_site(&site),
            }
        }
    }

    pub(super) fn drain(&mut self, deadline: Instant, done: Arc<Done>) {
        self.draining = Some(done);
        self.closing.extend(self.sites.drain().map(|(_, site)| site));
        for site in self.closing.clone() {
            self.stop_listening(&site);
            self.drain_site(&site);
        }
        self.timers.set(deadline, Alarm::DrainDeadline);
    }

    /// The deadline of a drain has passed.
    pub(super) fn end_everything(&mut self) {
        for site in std::mem::take(&mut self.closing) {
            self.end_site(&site);
        }
    }

    /// Serves what the kernel has already accepted for us, then closes: no client sees a refusal.
    fn stop_listening(&mut self, site: &Rc<Site>) {
        for key in site.listeners.take() {
            for _ in 0..MOST_WAITING {
                let Some(listening) = self.listeners.get(key) else { break };
                let Ok((stream, peer)) = listening.listener.accept() else { break };
                let role = listening.role;
                self.accepted(role, site.clone(), stream, peer);
            }
            self.listeners.remove(key);
        }
    }

    /// Existing connections live on; tunnels take no more of them and close when they are empty.
    fn drain_site(&mut self, site: &Rc<Site>) {
        if site.phase.get() == Phase::Open {
            site.phase.set(Phase::Draining);
        }
        // Withdrawn tunnels close with their last stream.
        site.pool.borrow_mut().withdraw_all();
        for key in self.tunnels_of(site) {
            self.tunnel_goes_away(key);
        }
    }

    fn end_site(&mut self, site: &Rc<Site>) {
        site.phase.set(Phase::Closed);
        for key in self.flows.keys_where(|flow| Rc::ptr_eq(&flow.site, site)) {
            self.end_flow(key, Ending::Failed(Failure::Drained));
        }
        for key in self.tunnels_of(site) {
            self.fail_tunnel(key, Failure::Drained);
        }
    }

    fn tunnels_of(&self, site: &Rc<Site>) -> Vec<Key<Tunnel>> {
        self.tunnels.keys_where(|tunnel| Rc::ptr_eq(&tunnel.site, site))
    }

    /// Queues a flow to be moved this turn or the next.
    pub(super) fn queue_flow(&mut self, key: Key<Flow>) {
        if let Some(flow) = self.flows.get_mut(key)
            && !flow.is_queued
        {
            flow.is_queued = true;
            self.ready_flows.push_back(key);
        }
    }
}

/// How often it is said that nothing can be accepted.
const COMPLAIN_AGAIN: Duration = Duration::from_secs(5);
/// How long a listener rests when nothing can be accepted.
const REST: Duration = Duration::from_millis(100);
/// Connections that can wait in a listener's queue.
const MOST_WAITING: usize = 4096;
