// SPDX-License-Identifier: Apache-2.0
//! Plain TCP: what leaves the mesh, and what enters a pod without it on 15006 (ztunnel.md §7.6). Two sockets and bytes between them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hbone::{Budget, OverBudget};

use super::account::Ends;
use super::buffers::Pipes;
use super::failure::Failure;
use super::flow::{Ending, Far, Flow, Judged, Origin, Read, Sink, Socket, Source, Stage, Story, Waiting, Way, Wrote};
use super::poll::{Readiness, Token};
use super::shares::Kind;
use super::table::Key;
use super::thread::Worker;
use crate::decide::{self, Admitted, Delivery, Inbound};
use crate::net::Buffer;

impl Worker {
    /// Judges a connection that arrived in plaintext.
    pub(super) fn admit_plaintext(&mut self, key: Key<Flow>) {
        let snapshot = self.snapshot();
        let Some(flow) = self.flows.get(key) else { return };
        let Story::Early { source, destination } = flow.story else { return };
        let site = flow.site.clone();
        let delivery = match decide::inbound_plaintext(&snapshot, &site.name, source, destination) {
            Inbound::Need(_) => return self.park_flow(key, Waiting::Plaintext),
            Inbound::Reject { error, .. } => return self.fail_flow(key, Failure::Inbound(Arc::new(error))),
            Inbound::Deliver(delivery) => delivery,
        };
        let judged = Judged { source, destination: delivery.app, identity: None, doubtful_since: None };
        let verdict = self.judge(key, &snapshot, &judged);
        if self.may_wait(key, &verdict) {
            return self.park_flow(key, Waiting::Plaintext);
        }
        Self::tell_dry_run(&judged, &verdict);
        let ends = Ends { source, destination: delivery.app, authority: None };
        self.open_record(key, delivery.traffic.clone(), ends, Some(judged));
        match verdict {
            Ok(admitted) => self.dial_plaintext(key, admitted, &delivery),
            Err(denied) => self.fail_flow(key, Failure::Denied(Arc::new(denied))),
        }
    }

    fn dial_plaintext(&mut self, key: Key<Flow>, admitted: Admitted, delivery: &Delivery) {
        let Some(flow) = self.flows.get(key) else { return };
        let from = flow.site.source_of(delivery.from);
        self.dial_far(key, admitted.destination(), from);
    }

    /// Opens a plain TCP connection for a flow.
    pub(super) fn dial_far(&mut self, key: Key<Flow>, to: SocketAddr, from: Option<IpAddr>) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let site = flow.site.clone();
        if let Err(refusal) = site.begin_dial() {
            return self.fail_flow(key, Failure::Refused(refusal));
        }
        flow.stage = Stage::Dialling;
        flow.deadline = None;
        let dialled = match flow.origin {
            Origin::Plaintext => site.dial_app(to, from, false),
            Origin::Outbound | Origin::Stream => site.dial(to, from),
        };
        let dialling = match dialled {
            Ok(dialling) => dialling,
            Err(error) => {
                // There is no socket to be given back with the flow.
                site.share.give(Kind::Sockets);
                return self.fail_flow(key, error.into());
            }
        };
        let (stream, connected) = (dialling.stream, dialling.connected);
        let watched = self.poll.add_edge(&stream, Token::Far(key));
        flow.far = Far::Socket(if connected { Socket::connected(stream) } else { Socket::connecting(stream) });
        self.young.enter(self.now, key);
        match (watched, connected) {
            (Err(error), _) => self.fail_flow(key, Failure::Connect(Arc::new(error))),
            (Ok(()), true) => self.far_connected(key),
            (Ok(()), false) => self.set_flow_deadline(key, self.now + self.options.deadlines.connect),
        }
    }

    pub(super) fn far_ready(&mut self, key: Key<Flow>, readiness: Readiness) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Far::Socket(far) = &mut flow.far else { return };
        far.note(readiness);
        match &flow.stage {
            Stage::Open => self.queue_flow(key),
            Stage::Dialling if readiness.writable => match far.stream().connected() {
                Ok(()) => self.far_connected(key),
                Err(error) => self.fail_flow(key, Failure::Connect(Arc::new(error))),
            },
            _ => {}
        }
    }

    fn far_connected(&mut self, key: Key<Flow>) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.site.share.give(Kind::Dials);
            flow.stage = Stage::Open;
            flow.deadline = None;
        }
        self.queue_flow(key);
    }

    /// Moves bytes both ways, one read each.
    pub(super) fn move_between(&mut self, key: Key<Flow>) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Flow { site, app: Some(app), far: Far::Socket(far), to_app, to_far, story, charged, .. } = flow else {
            return;
        };
        let budget = &site.server.budget;
        let most = if budget.used() > budget.limit() / 2 { LITTLE } else { READ };
        let mut means = Means { buffer: &mut self.carried, pipes: &mut self.pipes, most };
        let there = means.carry(to_far, app, far);
        let back = means.carry(to_app, far, app);
        story.count_to_far(there.bytes);
        story.count_to_app(back.bytes);
        if there.is_broken || back.is_broken {
            return self.end_flow(key, Ending::Reset);
        }
        // After the second direction the first may have more to do: a broken sink has made its socket readable.
        let again = |way: &Way, from: &Socket| way.is_empty() && way.source == Source::Open && from.is_readable();
        let is_ready = again(to_far, app) || again(to_app, far);
        if let Err(over) = charge(budget, charged, to_far.waiting() + to_app.waiting()) {
            return self.end_flow(key, Ending::Failed(Failure::OverBudget(over)));
        }
        if is_ready {
            self.queue_flow(key);
        }
    }
}

/// Brings what is charged for a flow to what waits in it.
fn charge(budget: &Budget, charged: &mut usize, waiting: usize) -> Result<(), OverBudget> {
    if waiting > *charged {
        budget.charge(waiting - *charged)?;
    } else {
        budget.refund(*charged - waiting);
    }
    *charged = waiting;
    Ok(())
}

/// What one pass in one direction did.
#[derive(Default)]
struct Carried {
    /// Bytes the sink has taken.
    bytes: usize,
    /// The source was reset.
    is_broken: bool,
}

/// What bytes are carried with.
struct Means<'a> {
    buffer: &'a mut Buffer,
    pipes: &'a mut Pipes,
    /// The most that is read at once.
    most: usize,
}

impl Means<'_> {
    /// Writes what waits; if nothing waits any more, reads once and writes that.
    fn carry(&mut self, way: &mut Way, from: &mut Socket, to: &mut Socket) -> Carried {
        let mut carried = Carried::default();
        if to.is_writable() || way.sink == Sink::Gone {
            carried.bytes += unload(way, to);
        }
        if way.is_empty() && way.source == Source::Open && from.is_readable() {
            match self.load(way, from) {
                // An edge that has not been seen yet would only say what writing finds out.
                Read::Bytes(count) => carried.bytes += self.pass_on(way, count, to),
                Read::Nothing => {}
                Read::End => way.source = Source::Ended,
                Read::Broken(_) => carried.is_broken = true,
            }
        }
        self.pipes.give(&mut way.pipe);
        // Who cannot read does not find the reset by reading.
        carried.is_broken |= from.is_broken() && (way.source == Source::Ended || !way.is_empty());
        if way.owes_end() {
            // If this fails the peer has gone, which reading will find.
            let _ = to.stream().finish();
            way.sink = Sink::Finished;
        }
        carried
    }

    /// Reads once: past us into a pipe if much is coming, else into the buffer.
    fn load(&mut self, way: &mut Way, from: &mut Socket) -> Read {
        if way.sink == Sink::Open && way.is_bulk() && way.pipe.is_none() && self.most == READ {
            way.pipe = self.pipes.take();
        }
        let read = match &mut way.pipe {
            Some(lent) => from.fill(&mut lent.pipe),
            None => {
                let room = self.buffer.size().min(self.most);
                from.read(&mut self.buffer.room_mut()[..room])
            }
        };
        if let Read::Bytes(count) = read {
            way.arrived(count);
        }
        read
    }

    /// Writes what was read; answers how much of it the sink has taken.
    fn pass_on(&mut self, way: &mut Way, count: usize, to: &mut Socket) -> usize {
        if way.pipe.is_some() || way.sink == Sink::Gone {
            return unload(way, to);
        }
        let bytes = &self.buffer.room_mut()[..count];
        let taken = match to.write(bytes) {
            Wrote::Bytes(count) => count,
            Wrote::Nothing => 0,
            Wrote::Broken(_) => {
                lose(way, to);
                return 0;
            }
        };
        way.queue.put(&bytes[taken..]);
        taken
    }
}

/// Writes what waits, as far as the sink takes it; answers how much that was.
fn unload(way: &mut Way, to: &mut Socket) -> usize {
    let mut taken = 0;
    while way.sink != Sink::Gone && !way.is_empty() {
        let wrote = match &mut way.pipe {
            Some(lent) => to.drain(&mut lent.pipe),
            None => way.queue.write_to(to),
        };
        match wrote {
            Wrote::Bytes(count) => taken += count,
            Wrote::Nothing => break,
            Wrote::Broken(_) => lose(way, to),
        }
    }
    if way.sink == Sink::Gone {
        way.queue.discard();
        way.pipe = None;
    }
    taken
}

/// A sink that takes nothing any more. What its peer sent before is still worth delivering, so the end is left to be found by reading.
fn lose(way: &mut Way, to: &mut Socket) {
    way.sink = Sink::Gone;
    to.note(Readiness { readable: true, writable: true, hung_up: true, broken: false });
}

/// What is read at once, hence the most that waits for a slow sink.
const READ: usize = 64 * 1024;
/// The same of a pod for which much waits already: the rest waits in the kernel, where it holds its sender up.
const LITTLE: usize = 4 * 1024;
