// SPDX-License-Identifier: Apache-2.0
//! Bytes between an application's socket and a stream of a tunnel, both ways, with half-close, reset and back-pressure.
//!
//! Towards the tunnel: bytes are read straight behind a frame header into the tunnel's buffer, as many as the windows allow, and not at
//! all while the tunnel's socket is full. Towards the application: bytes are written as they come out of the records; what the
//! application does not take waits in the flow's queue, charged to the stream, and stream credit goes back as it is taken.

use std::sync::Arc;

use hbone::{ErrorCode, Event, ResetReason, StreamId};

use super::account::Reporter;
use super::failure::Failure;
use super::flow::{Ending, Far, Flow, Read, Sink, Source, Stage, Wrote};
use super::poll::Readiness;
use super::table::Key;
use super::thread::{Alarm, Worker};
use super::tunnel::{End, Tunnel};

impl Worker {
    /// `rest` is what the core has not looked at yet.
    pub(super) fn on_event(&mut self, key: Key<Tunnel>, event: Event<'_>, rest: &[u8]) {
        match event {
            Event::Data { stream, bytes } => self.deliver(key, stream, bytes, rest),
            Event::End { stream } => {
                if let Some(flow_key) = self.flow_of(key, stream)
                    && let Some(flow) = self.flows.get_mut(flow_key)
                {
                    flow.to_app.source = Source::Ended;
                    self.queue_flow(flow_key);
                }
            }
            Event::Writable { stream } => {
                if let Some(flow) = self.flow_of(key, stream) {
                    self.queue_flow(flow);
                }
            }
            Event::Reset { stream, code, reason } => self.stream_reset(key, stream, code, reason),
            Event::Answer { stream, answer } => self.answered(key, stream, &answer),
            Event::Request { stream, request } => self.requested(key, stream, request, rest),
            Event::BadRequest { stream, status, reason } => self.bad_request(key, stream, status, reason),
            Event::GoAway { code } => self.told_to_go_away(key, code),
            Event::Refused { number, code, reason } => self.refused(key, number, code, reason),
            Event::Settings => self.limit_streams(key),
        }
    }

    fn flow_of(&self, tunnel: Key<Tunnel>, stream: StreamId) -> Option<Key<Flow>> {
        self.tunnels.get(tunnel)?.flow_of(stream)
    }

    /// Bytes from the tunnel for an application.
    fn deliver(&mut self, key: Key<Tunnel>, stream: StreamId, mut bytes: &[u8], rest: &[u8]) {
        let now = self.now;
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let flow_key = tunnel.flow_of(stream);
        let Some(session) = tunnel.session() else { return };
        let Some((flow_key, flow)) = flow_key.and_then(|key| self.flows.get_mut(key).map(|flow| (key, flow))) else {
            // The flow has ended; so has its stream, and the core knows how to account for stragglers.
            return session.connection.consumed(now, stream, bytes.len());
        };
        let all = bytes.len();
        let mut broken = false;
        if let (Stage::Open, Some(app), true) = (&flow.stage, &mut flow.app, flow.to_app.queue.is_empty()) {
            if flow.to_app.sink == Sink::Gone {
                bytes = &[];
            } else if app.is_writable() {
                // An end that is known already leaves in the same packet: half the packets of a short answer, and one wake-up of its reader.
                let is_last = session.connection.end_follows(stream, rest);
                match if is_last { app.write_before_end(bytes) } else { app.write(bytes) } {
                    Wrote::Bytes(count) => {
                        bytes = &bytes[count..];
                        flow.story.count_to_app(count);
                    }
                    Wrote::Nothing => {}
                    Wrote::Broken(_) => {
                        bytes = &[];
                        broken = true;
                    }
                }
            }
        }
        if all > bytes.len() {
            session.connection.consumed(now, stream, all - bytes.len());
        }
        if !bytes.is_empty() {
            match session.connection.hold(stream, bytes.len()) {
                Ok(()) => flow.to_app.queue.put(bytes),
                Err(over) => {
                    session.connection.reset(stream, ErrorCode::ENHANCE_YOUR_CALM);
                    return self.end_flow(flow_key, Ending::Failed(Failure::OverBudget(over)));
                }
            }
        }
        if broken {
            self.app_gone(flow_key);
        }
    }

    /// The application's socket does not take bytes any more. What it has sent before that is still worth delivering.
    fn app_gone(&mut self, key: Key<Flow>) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.to_app.sink = Sink::Gone;
        if let Some(app) = &mut flow.app {
            app.note(Readiness { readable: true, writable: true, hung_up: true, broken: false });
        }
        self.queue_flow(key);
    }

    pub(super) fn app_ready(&mut self, key: Key<Flow>, readiness: Readiness) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Some(app) = &mut flow.app else { return };
        app.note(readiness);
        match (&flow.stage, &flow.far) {
            (Stage::Open, _) => self.queue_flow(key),
            // An application that was dialled for a stream.
            (Stage::Dialling, Far::Stream { .. }) if readiness.writable => match app.stream().connected() {
                Ok(()) => self.app_connected(key),
                Err(error) => self.fail_flow(key, Failure::Connect(Arc::new(error))),
            },
            (Stage::Asked(_), Far::Stream { .. }) if readiness.readable && !readiness.hung_up => self.send_early(key),
            // One that broke while we were looking for its way has no use for it.
            _ if readiness.hung_up && app.stream().connected().is_err() => self.end_flow(key, Ending::Reset),
            _ => {}
        }
    }

    /// Moves what can be moved now, once each way.
    pub(super) fn move_flow(&mut self, key: Key<Flow>) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.is_queued = false;
        match (&flow.stage, &flow.far) {
            (Stage::Open, Far::Stream { tunnel, id }) => {
                let (tunnel, id) = (*tunnel, *id);
                self.drain_to_app(key, tunnel, id);
                self.read_into_tunnel(key, tunnel, id);
                self.settle(key);
            }
            (Stage::Open, Far::Socket(_)) => {
                self.move_between(key);
                self.settle(key);
            }
            (Stage::Open, Far::Nothing) => self.see_off(key),
            _ => {}
        }
    }

    /// What waits for the application.
    fn drain_to_app(&mut self, key: Key<Flow>, tunnel: Key<Tunnel>, id: StreamId) {
        let now = self.now;
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Some(app) = &mut flow.app else { return };
        let way = &mut flow.to_app;
        let mut taken = 0;
        while !way.queue.is_empty() {
            if way.sink == Sink::Gone {
                taken += way.queue.discard();
                break;
            }
            if !app.is_writable() {
                break;
            }
            match way.queue.write_to(app) {
                Wrote::Bytes(count) => {
                    taken += count;
                    flow.story.count_to_app(count);
                }
                Wrote::Nothing => break,
                Wrote::Broken(_) => {
                    way.sink = Sink::Gone;
                    app.note(Readiness { readable: true, writable: true, hung_up: true, broken: false });
                }
            }
        }
        if way.owes_end() {
            // An application that has finished too is told by closing. If this fails the peer has gone, which reading will find.
            if flow.to_far.sink != Sink::Finished {
                let _ = app.stream().finish();
            }
            way.sink = Sink::Finished;
        }
        if taken > 0 {
            if let Some(session) = self.tunnels.get_mut(tunnel).and_then(Tunnel::session) {
                session.connection.consumed(now, id, taken);
            }
            // The core may have kept something back until the application had everything.
            self.take_input(tunnel, &[]);
            self.mark_dirty(tunnel);
        }
    }

    /// One read from the application, one DATA frame.
    fn read_into_tunnel(&mut self, key: Key<Flow>, tunnel_key: Key<Tunnel>, id: StreamId) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Some(app) = &mut flow.app else { return };
        if flow.to_far.source == Source::Ended || !app.is_readable() {
            // Nothing will be read any more that could find the reset.
            if app.is_broken() {
                self.end_flow(key, Ending::Reset);
            }
            return;
        }
        let Some(tunnel) = self.tunnels.get_mut(tunnel_key) else { return };
        if !tunnel.sealed.is_empty() {
            if app.is_broken() {
                return self.end_flow(key, Ending::Reset);
            }
            if !flow.is_waiting {
                flow.is_waiting = true;
                tunnel.waiting.push(key);
            }
            return;
        }
        let Tunnel { phase: super::tunnel::Phase::Open(session), frames, .. } = tunnel else { return };
        session.connection.write_control(&mut self.control);
        self.buffers.fill(frames);
        if !self.control.is_empty() {
            frames.put(&self.control);
            self.control.clear();
        }
        let room = frames.room_mut().len();
        if room < LEAST_ROOM {
            // Full: what is in it leaves first, this flow comes after the others.
            self.flush_tunnel(tunnel_key);
            return self.queue_flow(key);
        }
        // What went out with the request comes first once more, and only what lies behind it is new.
        let early = usize::from(flow.early);
        let capacity = session.connection.send_capacity(id).min(room - HEADER - early);
        if capacity + early == 0 {
            // The core says when there is some again. Whether the application has broken meanwhile epoll says.
            if app.is_broken() {
                self.end_flow(key, Ending::Reset);
            }
            return;
        }
        match app.read(&mut frames.room_mut()[HEADER..HEADER + early + capacity]) {
            Read::Bytes(read) => {
                let known = read.min(early);
                flow.early -= u16::try_from(known).unwrap_or(flow.early);
                flow.story.count_to_far(read);
                let count = read - known;
                if count > 0 {
                    let Some(header) = session.connection.data_header(id, count, false) else {
                        return self.fail_flow(key, Failure::StreamFault("the window shrank under a frame"));
                    };
                    let room = frames.room_mut();
                    room.copy_within(HEADER + known..HEADER + read, HEADER);
                    room[..HEADER].copy_from_slice(&header);
                    frames.fill(HEADER + count);
                }
                if app.is_readable() && read < early + capacity {
                    // It has announced its end, which is all that can lie behind a short read: both leave in one write.
                    self.mark_dirty(tunnel_key);
                    return self.read_into_tunnel(key, tunnel_key, id);
                }
                if app.is_readable() {
                    self.queue_flow(key);
                }
            }
            Read::Nothing => {
                if app.is_readable() {
                    self.queue_flow(key);
                }
            }
            Read::End => {
                flow.to_far.source = Source::Ended;
                flow.to_far.sink = Sink::Finished;
                session.connection.finish(id);
            }
            Read::Broken(_) => {
                self.end_flow(key, Ending::Reset);
            }
        }
        self.mark_dirty(tunnel_key);
    }

    /// Ends a flow of which nothing more will come.
    pub(super) fn settle(&mut self, key: Key<Flow>) {
        let Some(flow) = self.flows.get(key) else { return };
        // It became an orphan in this very turn: the application has not read everything yet.
        if matches!(flow.far, Far::Nothing) {
            return;
        }
        let (to_app, to_far) = (&flow.to_app, &flow.to_far);
        if to_app.sink == Sink::Finished && to_far.sink == Sink::Finished {
            return self.end_flow(key, Ending::Complete);
        }
        // A socket that takes nothing and gives nothing is gone; whoever writes to it must learn that it was for nothing.
        let app_is_gone = to_app.sink == Sink::Gone && to_far.source == Source::Ended;
        let far_is_gone = to_far.sink == Sink::Gone && to_app.source == Source::Ended;
        if app_is_gone || far_is_gone {
            self.end_flow(key, Ending::Reset);
        }
    }

    fn stream_reset(&mut self, tunnel: Key<Tunnel>, stream: StreamId, code: ErrorCode, reason: ResetReason) {
        let Some(key) = self.flow_of(tunnel, stream) else { return };
        let Some(flow) = self.flows.get(key) else { return };
        let is_open = matches!(flow.stage, Stage::Open);
        if is_open && flow.to_app.source == Source::Ended {
            // The connection is as complete as it can be; what the peer did behind its end is told apart.
            if let ResetReason::Fault(what) = reason {
                self.stream_misused(tunnel, what);
            }
            return self.orphan(key);
        }
        let failure = match reason {
            ResetReason::Fault(what) => Failure::StreamFault(what),
            ResetReason::NotProcessed => Failure::StreamReset(ErrorCode::REFUSED_STREAM),
            _ => Failure::StreamReset(code),
        };
        if self.try_again(key, &failure) {
            return;
        }
        let ending = match (is_open, reason) {
            (true, ResetReason::Peer) => Ending::Reset,
            _ => Ending::Failed(failure),
        };
        self.end_flow(key, ending);
    }

    /// A peer opened a stream that never came to be.
    fn refused(&mut self, key: Key<Tunnel>, number: u32, code: ErrorCode, reason: &'static str) {
        // More streams than granted is no misconduct: the peer may not have read our SETTINGS.
        if code == ErrorCode::REFUSED_STREAM {
            tracing::debug!(stream = number, reason, "refused a stream of a peer");
        } else {
            self.stream_misused(key, reason);
        }
    }

    /// Logs what a client did to a stream, where no connection of an application fails of it.
    fn stream_misused(&mut self, key: Key<Tunnel>, what: &'static str) {
        if let Some(&End::Server { peer, local }) = self.tunnels.get(key).map(|tunnel| &tunnel.end) {
            self.deny(Reporter::Destination, (peer, local), &Failure::StreamFault(what));
        }
    }

    fn told_to_go_away(&mut self, key: Key<Tunnel>, code: ErrorCode) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        if code != ErrorCode::NO_ERROR {
            tracing::debug!(%code, "a peer ends a tunnel because of us");
        }
        if let End::Client(pool_key) = &tunnel.end {
            tunnel.site.pool.borrow_mut().withdraw(pool_key, key);
        }
        self.tunnel_goes_away(key);
    }

    pub(super) fn set_flow_deadline(&mut self, key: Key<Flow>, deadline: std::time::Instant) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.deadline = Some(deadline);
            self.timers.set(deadline, Alarm::Flow(key));
        }
    }
}

/// Size of a frame's header.
pub(super) const HEADER: usize = 9;
/// Below this the tunnel's buffer is written before anything is added.
pub(super) const LEAST_ROOM: usize = 8 * 1024;
