// SPDX-License-Identifier: Apache-2.0
//! How tunnels and flows end: everybody who has part in one is told, once, and account and log get it.

use std::time::Duration;

use hbone::{ErrorCode, StreamId};

use super::account::Reporter;
use super::failure::Failure;
use super::flow::{Ending, Far, Flow, Origin, Read, Sink, Source, Stage, Story, Wrote};
use super::shares::Kind;
use super::table::Key;
use super::thread::Worker;
use super::tunnel::{End, Phase, Session, Tunnel};

impl Worker {
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
                tunnel.site.end_handshake(peer.ip());
                self.deny(Reporter::Destination, (peer, local), &failure);
            } else if failure.is_misconduct() {
                // Its streams may have been few or none: what a peer did to its connection is told apart from them.
                self.deny(Reporter::Destination, (peer, local), &failure);
            } else if !matches!(failure, Failure::Drained | Failure::TunnelClosed) {
                tracing::debug!(%peer, %local, error = %failure, "inbound tunnel ended");
            }
        }
        if let End::Client(pool_key) = &tunnel.end {
            if is_open {
                let mut pool = tunnel.site.pool.borrow_mut();
                pool.withdraw(pool_key, key);
                // A server checks our certificate when we are done with its own: what it says then belongs to the handshake.
                if !tunnel.is_greeted {
                    pool.turned_away(self.now, pool_key, failure.clone(), failure.speaks_for());
                }
            } else {
                tunnel.site.share.give(Kind::Dials);
                self.pool_failed(&tunnel.site, pool_key, &failure);
            }
        }
        tunnel.site.share.give(Kind::Sockets);
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
        // Everything the peer had to say is here; what is left is between us and the application.
        if flow.to_app.source == Source::Ended && matches!(flow.stage, Stage::Open) {
            return self.orphan(key);
        }
        if !self.try_again(key, failure) {
            self.end_flow(key, Ending::Failed(failure.clone()));
        }
    }

    /// Something went wrong with a flow.
    pub(super) fn fail_flow(&mut self, key: Key<Flow>, failure: Failure) {
        self.end_flow(key, Ending::Failed(failure));
    }

    /// The one end of every flow: both sides are told, account and log get it.
    pub(super) fn end_flow(&mut self, key: Key<Flow>, ending: Ending) {
        let Some(flow) = self.flows.remove(key) else { return };
        let Flow { site, origin, stage, app, far, mut story, charged, early, .. } = flow;
        story.count_to_far(early.into());
        site.server.budget.refund(charged);
        site.share.give_some(Kind::Sockets, 1 + usize::from(matches!(far, Far::Socket(_))));
        if matches!(stage, Stage::Dialling) {
            site.share.give(Kind::Dials);
        }
        let is_complete = matches!(ending, Ending::Complete);
        match far {
            Far::Stream { tunnel, id } => self.end_stream(tunnel, id, &stage, &ending),
            Far::Socket(socket) if !is_complete => socket.into_stream().reset(),
            Far::Socket(_) | Far::Nothing => {}
        }
        if let Stage::Pooled(hop) = &stage {
            site.pool.borrow_mut().forget(&hop.key, &key);
        }
        if let Some(app) = app {
            // An application that was dialled and has not answered yet is left alone.
            if !is_complete && !matches!(ending, Ending::Failed(Failure::ConnectTimeout { .. })) {
                app.into_stream().reset();
            }
        }
        self.tell(origin, story, &ending);
        site.leave();
    }

    fn end_stream(&mut self, key: Key<Tunnel>, id: StreamId, stage: &Stage, ending: &Ending) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        tunnel.unbind(id);
        if let End::Client(pool_key) = &tunnel.end {
            tunnel.site.pool.borrow_mut().check_in(pool_key, key);
        }
        let is_server = matches!(tunnel.end, End::Server { .. });
        if let Some(session) = tunnel.session() {
            match ending {
                Ending::Complete => {}
                Ending::Failed(failure) if is_server && !matches!(stage, Stage::Open) => {
                    session.connection.reject(id, failure.status());
                }
                Ending::Failed(_) | Ending::Reset => session.connection.reset(id, ErrorCode::CANCEL),
            }
        }
        self.mark_dirty(key);
    }

    fn tell(&mut self, origin: Origin, story: Story, ending: &Ending) {
        let (now, reporter) = (self.now, origin.reporter());
        let failure = match ending {
            Ending::Complete | Ending::Reset => None,
            Ending::Failed(failure) => Some(failure),
        };
        if origin != Origin::Stream {
            self.book.accounts().socket_closed(reporter);
        }
        match story {
            Story::Told(told) => {
                let error = failure.map(|failure| (failure.flag(), failure.to_string()));
                let ended = error.as_ref().map_or(Ok(()), |(flag, text)| Err((*flag, text.as_str())));
                // Who is denied may try again for ever: that must not drown what others have to say.
                let is_denied = matches!(failure, Some(Failure::Denied(_)));
                let is_written = !is_denied || self.gate.admits(now, told.record.source().ip());
                told.record.close(&mut self.book, is_written.then_some(&mut self.log), now, ended);
            }
            Story::Early { source, destination, .. } => {
                if let Some(failure) = failure {
                    self.deny(reporter, (source, destination), failure);
                }
            }
        }
    }

    /// The far side has sent everything and is gone: the application has until its own end to take that. As with TCP, what it sends
    /// from now on is answered by a reset; to reset it at once could take back what it has not read yet.
    pub(super) fn orphan(&mut self, key: Key<Flow>) {
        let deadline = self.now + SEEN_OFF_WITHIN;
        let Some(flow) = self.flows.get_mut(key) else { return };
        let far = std::mem::replace(&mut flow.far, Far::Nothing);
        flow.to_far.sink = Sink::Gone;
        if let Far::Stream { tunnel, id } = far {
            self.end_stream(tunnel, id, &Stage::Open, &Ending::Complete);
        }
        // What waits for the application was charged to its tunnel's stream, which is no more: the pod answers for it from now on.
        let Some(flow) = self.flows.get_mut(key) else { return };
        // What went out with the request has been answered, so it has arrived: it is not news that comes too late.
        let early = usize::from(std::mem::take(&mut flow.early));
        if early > 0
            && let Some(app) = &mut flow.app
            && let Read::Bytes(count) = app.read(&mut self.carried.room_mut()[..early])
        {
            flow.story.count_to_far(count);
        }
        let held = flow.to_app.queue.len();
        if let Err(over) = flow.site.server.budget.charge(held) {
            return self.end_flow(key, Ending::Failed(Failure::OverBudget(over)));
        }
        flow.charged = held;
        self.set_flow_deadline(key, deadline);
        self.queue_flow(key);
    }

    pub(super) fn see_off(&mut self, key: Key<Flow>) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Some(app) = &mut flow.app else { return };
        let way = &mut flow.to_app;
        while !way.queue.is_empty() && app.is_writable() && way.sink == Sink::Open {
            match way.queue.write_to(app) {
                Wrote::Bytes(count) => flow.story.count_to_app(count),
                Wrote::Nothing => break,
                Wrote::Broken(_) => way.sink = Sink::Gone,
            }
        }
        if way.owes_end() {
            let _ = app.stream().finish();
            way.sink = Sink::Finished;
        }
        if flow.to_far.source == Source::Ended || way.sink == Sink::Gone {
            if way.sink != Sink::Open {
                self.end_flow(key, Ending::Complete);
            }
            return;
        }
        if app.is_readable() {
            match app.read(&mut self.carried.room_mut()[..GLANCE]) {
                Read::Bytes(_) | Read::Broken(_) => self.end_flow(key, Ending::Reset),
                Read::Nothing => {}
                Read::End => {
                    flow.to_far.source = Source::Ended;
                    self.queue_flow(key);
                }
            }
        }
    }
}

/// How long an application may take for what it has not read when the far side is gone.
const SEEN_OFF_WITHIN: Duration = Duration::from_secs(60);
/// What is looked at of bytes nobody wants.
const GLANCE: usize = 8 * 1024;
