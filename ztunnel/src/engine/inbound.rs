// SPDX-License-Identifier: Apache-2.0
//! Streams that come in on 15008 (ztunnel.md §7): validated and judged by `decide`, then carried to the application.

use std::net::IpAddr;
use std::sync::Arc;

use hbone::StreamId;
use hbone::request::{Authority, ConnectAnswer, ConnectRequest};

use super::account::{Ends, Reporter};
use super::failure::Failure;
use super::flow::{Far, Flow, Judged, Origin, Socket, Stage, Story, Waiting, Way};
use super::poll::Token;
use super::shares::Kind;
use super::table::Key;
use super::thread::{Alarm, Worker};
use super::tunnel::{End, Tunnel};
use crate::decide::{self, Admitted, Baggage, Delivery, Denied, DialFrom, Inbound, InboundRequest, Inquiry, Requested};
use crate::mesh::Snapshot;

impl Worker {
    /// A peer asks for a connection.
    pub(super) fn requested(
        &mut self,
        tunnel_key: Key<Tunnel>,
        id: StreamId,
        request: Box<ConnectRequest>,
        rest: &[u8],
    ) {
        let Some(tunnel) = self.tunnels.get_mut(tunnel_key) else { return };
        let End::Server { peer, local } = tunnel.end else { return };
        let site = tunnel.site.clone();
        // For the socket of the application.
        if let Err(refusal) = site.share.take(Kind::Sockets) {
            let failure = Failure::Refused(refusal);
            if let Some(session) = tunnel.session() {
                session.connection.reject(id, failure.status());
            }
            self.mark_dirty(tunnel_key);
            return self.deny(Reporter::Destination, (peer, local), &failure);
        }
        site.enter();
        let key = self.flows.insert(Flow {
            site,
            origin: Origin::Stream,
            stage: Stage::Parked(Waiting::Outbound),
            app: None,
            far: Far::Stream { tunnel: tunnel_key, id },
            to_app: Way::default(),
            to_far: Way::default(),
            story: Story::Early { source: peer, destination: local },
            deadline: None,
            charged: 0,
            early: 0,
            speaks: false,
            is_queued: false,
            is_waiting: false,
        });
        let speaks = tunnel.session().is_some_and(|session| session.connection.data_follows(id, rest));
        tunnel.bind(id, key);
        if let Some(flow) = self.flows.get_mut(key) {
            flow.speaks = speaks;
        }
        self.admit_stream(key, request);
    }

    /// A peer asks for something that is no connection.
    pub(super) fn bad_request(&mut self, key: Key<Tunnel>, stream: StreamId, status: u16, reason: &'static str) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let End::Server { peer, local } = tunnel.end else { return };
        if let Some(session) = tunnel.session() {
            session.connection.reject(stream, status);
        }
        self.deny(Reporter::Destination, (peer, local), &Failure::BadRequest(reason));
        self.mark_dirty(key);
    }

    /// A peer has asked for what no honest one asks for. Whoever goes on with that is sent away.
    fn blame_peer(&mut self, key: Key<Tunnel>) {
        let now = self.now;
        let blamed =
            self.tunnels.get_mut(key).and_then(Tunnel::session).map(|session| session.connection.fault_found(now));
        if let Some(Err(error)) = blamed {
            self.fail_tunnel(key, error.into());
        }
    }

    /// Validates and judges a request, and dials the application.
    pub(super) fn admit_stream(&mut self, key: Key<Flow>, request: Box<ConnectRequest>) {
        let snapshot = self.snapshot();
        let Some(flow) = self.flows.get(key) else { return };
        let Story::Early { source, destination: local } = flow.story else { return };
        let Far::Stream { tunnel, .. } = flow.far else { return };
        let site = flow.site.clone();
        let Some(session) = self.tunnels.get_mut(tunnel).and_then(Tunnel::session) else { return };
        let identity = session.peer.identity().clone();
        let decision = decide::inbound(
            &snapshot,
            &InboundRequest {
                pod: &site.name,
                source,
                local,
                requested: match &request.authority {
                    Authority::Ip(address) => Requested::Address(*address),
                    Authority::Name { host, port } => Requested::Name { host, port: *port },
                },
                identity: &identity,
                forwarded_host: request.forwarded.as_ref().and_then(|forwarded| forwarded.host.as_deref()),
                forwarded_network: request.network.as_deref(),
                baggage: request.baggage.as_ref().filter(|_| self.options.response_baggage).map(baggage_of),
                loopback_app_tunnel: self.options.loopback_app_tunnel,
            },
        );
        let delivery = match decision {
            Inbound::Need(_) => return self.park_flow(key, Waiting::Request(request)),
            Inbound::Reject { error, .. } => {
                let is_fault = error.status() == 400;
                self.fail_flow(key, Failure::Inbound(Arc::new(error)));
                return if is_fault {
                    self.blame_peer(tunnel)
                };
            }
            Inbound::Deliver(delivery) => delivery,
        };
        let judged = Judged { source, destination: delivery.app, identity: Some(identity), doubtful_since: None };
        let verdict = self.judge(key, &snapshot, &judged);
        if self.may_wait(key, &verdict) {
            return self.park_flow(key, Waiting::Request(request));
        }
        Self::tell_dry_run(&judged, &verdict);
        let authority = Some(Box::new(request.authority));
        let ends = Ends { source, destination: local, authority };
        self.open_record(key, delivery.traffic.clone(), ends, Some(judged));
        match verdict {
            Ok(admitted) => self.dial_app(key, admitted, &delivery),
            Err(denied) => self.fail_flow(key, Failure::Denied(Arc::new(denied))),
        }
    }

    /// Asks the policies.
    pub(super) fn judge(&self, key: Key<Flow>, snapshot: &Snapshot, judged: &Judged) -> Result<Admitted, Denied> {
        let Some(flow) = self.flows.get(key) else {
            return Err(Denied { reason: decide::DenyReason::PoliciesMissing, dry_run: Vec::new() });
        };
        let pod = &flow.site.name;
        let Judged { source, destination, identity, .. } = judged;
        let inquiry = Inquiry { pod, source: *source, destination: *destination, identity: identity.as_ref() };
        decide::authz(snapshot, &inquiry)
    }

    /// A denial that discovery may lift any moment is waited for, once.
    pub(super) fn may_wait(&self, key: Key<Flow>, verdict: &Result<Admitted, Denied>) -> bool {
        let is_provisional = verdict.as_ref().is_err_and(Denied::is_provisional);
        is_provisional
            && self.flows.get(key).is_some_and(|flow| flow.deadline.is_none_or(|deadline| deadline > self.now))
    }

    /// Says what policies on trial would have done, once per connection.
    pub(super) fn tell_dry_run(judged: &Judged, verdict: &Result<Admitted, Denied>) {
        let dry_run = match verdict {
            Ok(admitted) => admitted.dry_run(),
            Err(denied) => &denied.dry_run,
        };
        for what in dry_run {
            tracing::info!(source = %judged.source, destination = %judged.destination, "{what}");
        }
    }

    /// Connects to the application the verdict admits.
    fn dial_app(&mut self, key: Key<Flow>, admitted: Admitted, delivery: &Delivery) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        // The verdict is about the application; only its port may be reached through another address of the same pod.
        if admitted.destination() != delivery.app {
            return self.fail_flow(key, Failure::SelfCall);
        }
        if let Some(header) = &delivery.header {
            flow.to_app.queue.put_own(&super::proxy_header::encode(header));
        }
        let site = flow.site.clone();
        if let Err(refusal) = site.share.take(Kind::Dials) {
            return self.fail_flow(key, Failure::Refused(refusal));
        }
        flow.stage = Stage::Dialling;
        let speaks = flow.speaks || !flow.to_app.queue.is_empty();
        let dialled = site.dial_app(delivery.dial, site.source_of(delivery.from), speaks);
        let (stream, connected) = match dialled {
            Ok(dialling) => (dialling.stream, dialling.connected),
            Err(error) => return self.fail_flow(key, error.into()),
        };
        let watched = self.poll.add_edge(&stream, Token::App(key));
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.app = Some(if connected { Socket::connected(stream) } else { Socket::connecting(stream) });
        self.young.enter(self.now, key);
        match (watched, connected) {
            (Err(error), _) => self.fail_flow(key, Failure::Connect(Arc::new(error))),
            (Ok(()), true) => self.app_connected(key),
            (Ok(()), false) => self.set_flow_deadline(key, self.now + self.options.deadlines.connect),
        }
    }

    /// The application has accepted: the peer is told, bytes flow.
    pub(super) fn app_connected(&mut self, key: Key<Flow>) {
        let snapshot = self.snapshot();
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.site.share.give(Kind::Dials);
        flow.stage = Stage::Open;
        flow.deadline = None;
        let Far::Stream { tunnel, id } = flow.far else { return };
        let site = &flow.site;
        let own = if self.options.response_baggage { snapshot.own(&site.name) } else { None };
        let answer = ConnectAnswer::accepted(own.and_then(|own| site.baggage_of(own)));
        if let Some(session) = self.tunnels.get_mut(tunnel).and_then(Tunnel::session) {
            session.connection.answer(id, &answer);
        }
        self.mark_dirty(tunnel);
        self.queue_flow(key);
    }

    /// Judges open inbound connections again, by the snapshot in force. A provisional reason closes them only if it stays.
    pub(super) fn rejudge(&mut self) {
        let (snapshot, now, patience) = (self.snapshot(), self.now, self.options.deadlines.workload);
        let mut is_doubtful = false;
        for key in self.flows.keys_where(|flow| matches!(&flow.story, Story::Told(told) if told.judged.is_some())) {
            let Some(judged) = self.judged(key) else { continue };
            let denied = self.judge(key, &snapshot, &judged).err();
            let since = denied.as_ref().map(|_| judged.doubtful_since.unwrap_or(now));
            if let Some(Flow { story: Story::Told(told), .. }) = self.flows.get_mut(key)
                && let Some(judged) = &mut told.judged
            {
                judged.doubtful_since = since;
            }
            let (Some(denied), Some(since)) = (denied, since) else { continue };
            if denied.is_provisional() && now.duration_since(since) < patience {
                is_doubtful = true;
            } else {
                tracing::info!(source = %judged.source, destination = %judged.destination, reason = %denied, "closing a connection that policy no longer admits");
                self.fail_flow(key, Failure::PolicyChange(Arc::new(denied)));
            }
        }
        if is_doubtful {
            self.timers.set(now + patience, Alarm::Rejudge);
        }
    }

    fn judged(&self, key: Key<Flow>) -> Option<Judged> {
        match &self.flows.get(key)?.story {
            Story::Told(told) => told.judged.clone(),
            Story::Early { .. } => None,
        }
    }
}

impl super::site::Site {
    /// The address to appear as, as far as the kernel lets us.
    pub(super) fn source_of(&self, from: DialFrom) -> Option<IpAddr> {
        match from {
            DialFrom::Client(client) => Some(client).filter(|_| self.is_transparent),
            DialFrom::Loopback(loopback) => Some(loopback),
            DialFrom::Own => None,
        }
    }
}

fn baggage_of(baggage: &hbone::request::Baggage) -> Baggage<'_> {
    let fields = baggage.fields();
    Baggage {
        cluster: fields.cluster,
        namespace: fields.namespace,
        workload_name: fields.workload_name,
        canonical_name: fields.canonical_name,
        canonical_revision: fields.canonical_revision,
        region: fields.region,
        zone: fields.zone,
    }
}
