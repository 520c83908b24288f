// SPDX-License-Identifier: Apache-2.0
//! Connections that leave a pod (ztunnel.md §6): routed by `decide`, sent through a tunnel of the pool or dialled directly.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use hbone::request::{Authority, Baggage, BaggageFields, ConnectAnswer, ConnectRequest, Forwarded, TraceParent};
use hbone::{NoStream, StreamId};
use mesh_proto::contract::port;
use mesh_proto::spiffe::Identity;
use rand::RngExt;

use super::account::{Ends, Record};
use super::failure::{Failure, Status};
use super::flow::{Ending, Far, Flow, Judged, Socket, Stage, Story, Told, Waiting};
use super::pool::CheckOut;
use super::shares::Kind;
use super::site::{Phase as SitePhase, Site};
use super::table::Key;
use super::thread::{Waiter, Worker};
use super::tunnel::{End, Phase, Tunnel};
use crate::decide::{self, Expected, Hbone, Query, Route, Traffic};
use crate::mesh::Workload;

/// Which tunnels a stream may go through (ztunnel.md H-30).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    pub(super) identity: Identity,
    pub(super) hop: SocketAddr,
    pub(super) expected: Expected,
    pub(super) source: IpAddr,
}

/// What an outbound connection over HBONE carries until it is answered.
pub(super) struct Hop {
    pub(super) key: PoolKey,
    request: ConnectRequest,
    /// How often it may still be tried on another tunnel.
    retries: u8,
}

impl Worker {
    /// Goes on with a flow as far as facts allow.
    pub(super) fn resume_flow(&mut self, key: Key<Flow>) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Stage::Parked(waiting) = &mut flow.stage else { return };
        match std::mem::replace(waiting, Waiting::Outbound) {
            Waiting::Outbound => self.route(key),
            Waiting::Plaintext => self.admit_plaintext(key),
            Waiting::Certificate(hop) => self.enter_tunnel(key, hop),
            Waiting::Request(request) => self.admit_stream(key, request),
        }
    }

    /// Parks a flow until the mesh changes.
    pub(super) fn park_flow(&mut self, key: Key<Flow>, waiting: Waiting) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.stage = Stage::Parked(waiting);
        let (site, deadline) = (flow.site.clone(), flow.deadline);
        if deadline.is_none() {
            self.set_flow_deadline(key, self.now + self.options.deadlines.workload);
        }
        self.park_on_mesh(&site, Waiter::Flow(key));
    }

    fn route(&mut self, key: Key<Flow>) {
        let Some(flow) = self.flows.get(key) else { return };
        let Story::Early { source, destination } = flow.story else { return };
        let site = flow.site.clone();
        // Only a redirect brings a connection here; whoever connects to the port itself would come back for ever.
        if is_own_port(destination.port()) && self.is_own_address(key, destination) {
            return self.fail_flow(key, Failure::SelfCall);
        }
        let snapshot = self.snapshot();
        let query = Query { pod: &site.name, target: destination };
        match decide::route(&snapshot, query, &mut self.rng) {
            Route::Need(_) => self.park_flow(key, Waiting::Outbound),
            Route::Reject { error, .. } => self.fail_flow(key, Failure::Route(Arc::new(error))),
            Route::Passthrough { hop, traffic } | Route::Direct { hop, traffic } => {
                let ends = Ends { source, destination: hop, authority: None };
                self.open_record(key, traffic, ends, None);
                self.dial_far(key, hop, None);
            }
            Route::Hbone(hbone) => {
                let request = self.connect_request(&site, source, &hbone);
                let Hbone { identity, hop, authority, expected, traffic, .. } = hbone;
                let authority = Some(Box::new(Authority::Ip(authority)));
                self.open_record(key, traffic, Ends { source, destination: hop, authority }, None);
                let key_of_pool = PoolKey { identity, hop, expected, source: source.ip() };
                self.enter_tunnel(key, Box::new(Hop { key: key_of_pool, request, retries: RETRIES }));
            }
        }
    }

    /// Whether a connection came to the listener's own address without a redirect.
    fn is_own_address(&self, key: Key<Flow>, destination: SocketAddr) -> bool {
        let socket = self.flows.get(key).and_then(|flow| flow.app.as_ref());
        socket.is_some_and(|socket| socket.stream().local().is_ok_and(|local| local == destination))
    }

    /// Counts a flow as opened: from now on its end is logged in full.
    pub(super) fn open_record(&mut self, key: Key<Flow>, traffic: Traffic, ends: Ends, judged: Option<Judged>) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let origin = flow.origin;
        let what = (origin.reporter(), traffic);
        let record = Record::open(&mut self.book, &mut self.log, self.now, what, ends);
        flow.story = Story::Told(Box::new(Told { origin, record, judged }));
    }

    /// Finds a tunnel for a flow: one that stands, or one that is to be dialled.
    fn enter_tunnel(&mut self, key: Key<Flow>, hop: Box<Hop>) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let site = flow.site.clone();
        if self.credential(&hop.key.identity).is_none() {
            let identity = hop.key.identity.clone();
            if let Some(flow) = self.flows.get_mut(key) {
                flow.stage = Stage::Parked(Waiting::Certificate(hop));
            }
            self.set_flow_deadline(key, self.now + self.options.deadlines.certificate);
            return self.park_on_certificate(&identity, Waiter::Flow(key));
        }
        let pool_key = hop.key.clone();
        if let Some(flow) = self.flows.get_mut(key) {
            flow.stage = Stage::Pooled(hop);
            flow.deadline = None;
        }
        if site.phase.get() != SitePhase::Open {
            // A draining pod keeps no tunnels, but what it accepted is still served.
            site.pool.borrow_mut().withdraw_all();
        }
        let answer = site.pool.borrow_mut().check_out(self.now, &pool_key, key);
        match answer {
            CheckOut::Reuse(tunnel) => self.ask(key, tunnel),
            CheckOut::Dial => {
                self.wait_for_tunnel(key);
                self.dial_tunnel(&site, pool_key);
            }
            CheckOut::Wait => self.wait_for_tunnel(key),
            CheckOut::Refused(failure) => self.fail_flow(key, failure),
        }
    }

    /// Many may wait for tunnels that are dialled one after the other; nobody waits longer than one dial may take.
    fn wait_for_tunnel(&mut self, key: Key<Flow>) {
        self.set_flow_deadline(key, self.now + self.options.deadlines.tunnel());
    }

    /// Dials a tunnel for the pool. Whatever goes wrong reaches everybody who waits for it.
    fn dial_tunnel(&mut self, site: &Rc<Site>, pool_key: PoolKey) {
        let Some(credential) = self.credential(&pool_key.identity) else {
            let failure =
                Failure::Certificate { identity: pool_key.identity.clone(), reason: "it has just run out".into() };
            return self.pool_failed(site, &pool_key, &failure);
        };
        if let Err(refusal) = site.begin_dial() {
            return self.pool_failed(site, &pool_key, &Failure::Refused(refusal));
        }
        let dialled = credential
            .dial(pool_key.expected.iter().cloned().collect())
            .map_err(Failure::from)
            .and_then(|handshake| Ok((handshake, site.dial(pool_key.hop, None)?)));
        let (handshake, dialling) = match dialled {
            Ok(dialled) => dialled,
            Err(failure) => {
                site.share.give(Kind::Dials);
                site.share.give(Kind::Sockets);
                return self.pool_failed(site, &pool_key, &failure);
            }
        };
        site.keep_alive(&dialling.stream);
        let socket = Socket::connecting(dialling.stream);
        let phase = Phase::Connecting(Box::new(handshake));
        let mut tunnel = Tunnel::new(site.clone(), End::Client(pool_key), phase, socket);
        tunnel.deadline = Some(self.now + self.options.deadlines.connect);
        if let Some(key) = self.watch_tunnel(tunnel)
            && dialling.connected
        {
            self.tunnel_connected(key);
        }
    }

    /// A dialled tunnel stands: whoever waited for it goes on.
    pub(super) fn pool_connected(&mut self, tunnel: Key<Tunnel>, pool_key: &PoolKey) {
        let Some(site) = self.tunnels.get(tunnel).map(|tunnel| tunnel.site.clone()) else { return };
        let connected = site.pool.borrow_mut().connected(self.now, pool_key, tunnel);
        for flow in connected.ready {
            self.ask(flow, tunnel);
        }
        if connected.again {
            self.dial_tunnel(&site, pool_key.clone());
        }
    }

    pub(super) fn pool_failed(&mut self, site: &Rc<Site>, pool_key: &PoolKey, failure: &Failure) {
        let waiting = site.pool.borrow_mut().failed(self.now, pool_key, failure.clone(), failure.speaks_for());
        for flow in waiting {
            self.fail_flow(flow, failure.clone());
        }
    }

    /// The peer has said how many streams it takes.
    pub(super) fn limit_streams(&mut self, key: Key<Tunnel>) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        tunnel.is_greeted = true;
        let Tunnel { site, end: End::Client(pool_key), phase: Phase::Open(session), .. } = tunnel else { return };
        let room = session.connection.request_room();
        if room > 0 {
            let most = session.connection.open_streams() + room;
            site.pool.borrow_mut().limit(pool_key, key, most);
        }
    }

    /// Opens a stream for a flow on a tunnel that counts it already.
    fn ask(&mut self, key: Key<Flow>, tunnel_key: Key<Tunnel>) {
        let now = self.now;
        let Some(flow) = self.flows.get_mut(key) else {
            return self.hand_back(tunnel_key);
        };
        let Stage::Pooled(hop) = std::mem::replace(&mut flow.stage, Stage::Parked(Waiting::Outbound)) else {
            return self.hand_back(tunnel_key);
        };
        let opened = match self.tunnels.get_mut(tunnel_key) {
            Some(tunnel) => match &mut tunnel.phase {
                Phase::Open(session) => {
                    // A burst of requests must not look like a peer that does not read.
                    session.connection.write_control(&mut self.control);
                    self.buffers.fill(&mut tunnel.frames);
                    tunnel.frames.put(&self.control);
                    self.control.clear();
                    session.connection.request(now, &hop.request).map_err(Failure::NoStream)
                }
                Phase::Parked | Phase::Connecting(_) | Phase::Handshaking(_) => Err(Failure::TunnelClosed),
            },
            None => Err(Failure::TunnelClosed),
        };
        match opened {
            Ok(id) => {
                if let Some(tunnel) = self.tunnels.get_mut(tunnel_key) {
                    tunnel.bind(id, key);
                }
                flow.far = Far::Stream { tunnel: tunnel_key, id };
                flow.stage = Stage::Asked(hop);
                self.set_flow_deadline(key, now + self.options.deadlines.answer);
                self.send_early(key);
                self.mark_dirty(tunnel_key);
            }
            Err(failure @ Failure::NoStream(NoStream::TooLarge { .. })) => {
                self.hand_back(tunnel_key);
                self.fail_flow(key, failure);
            }
            Err(failure) => {
                // The tunnel cannot serve: it takes nobody else, and this flow looks for another.
                flow.site.pool.borrow_mut().withdraw(&hop.key, tunnel_key);
                self.tunnel_goes_away(tunnel_key);
                self.again_or_fail(key, hop, failure);
            }
        }
    }

    /// A counted stream was not opened after all.
    fn hand_back(&mut self, key: Key<Tunnel>) {
        if let Some(Tunnel { site, end: End::Client(pool_key), .. }) = self.tunnels.get(key) {
            site.pool.borrow_mut().check_in(pool_key, key);
        }
    }

    fn again_or_fail(&mut self, key: Key<Flow>, mut hop: Box<Hop>, failure: Failure) {
        match hop.retries.checked_sub(1) {
            Some(left) => {
                hop.retries = left;
                self.enter_tunnel(key, hop);
            }
            None => self.fail_flow(key, failure),
        }
    }

    /// Tries a flow that was not answered yet on another tunnel; answers whether it could.
    pub(super) fn try_again(&mut self, key: Key<Flow>, failure: &Failure) -> bool {
        let Some(flow) = self.flows.get_mut(key) else { return false };
        let Stage::Asked(hop) = &flow.stage else { return false };
        // What may have reached an application is not sent to another.
        if hop.retries == 0 || !failure.is_retryable() || (flow.early > 0 && !failure.is_certain()) {
            return false;
        }
        flow.early = 0;
        let (site, pool_key) = (flow.site.clone(), hop.key.clone());
        flow.deadline = None;
        if let Far::Stream { tunnel: tunnel_key, id } = std::mem::replace(&mut flow.far, Far::Nothing)
            && let Some(tunnel) = self.tunnels.get_mut(tunnel_key)
        {
            tunnel.unbind(id);
            // Whoever refused one stream is not asked for the next: the second try goes elsewhere.
            site.pool.borrow_mut().withdraw(&pool_key, tunnel_key);
            self.tunnel_goes_away(tunnel_key);
        }
        let Some(flow) = self.flows.get_mut(key) else { return true };
        if let Stage::Asked(mut hop) = std::mem::replace(&mut flow.stage, Stage::Parked(Waiting::Outbound)) {
            hop.retries -= 1;
            self.enter_tunnel(key, hop);
        }
        true
    }

    /// The peer has answered a CONNECT.
    pub(super) fn answered(&mut self, tunnel: Key<Tunnel>, stream: StreamId, answer: &ConnectAnswer) {
        let Some(key) = self.tunnels.get(tunnel).and_then(|tunnel| tunnel.flow_of(stream)) else { return };
        let Some(flow) = self.flows.get_mut(key) else { return };
        if !answer.is_success() {
            return self.fail_flow(key, Failure::Status(Status(answer.status)));
        }
        flow.stage = Stage::Open;
        flow.deadline = None;
        self.queue_flow(key);
    }

    /// A flow has been in its stage for too long, unless it has left it.
    pub(super) fn flow_alarm(&mut self, key: Key<Flow>) {
        let deadlines = self.options.deadlines;
        let Some(flow) = self.flows.get(key) else { return };
        if flow.deadline.is_none_or(|deadline| deadline > self.now) {
            return;
        }
        let failure = match &flow.stage {
            Stage::Open if matches!(flow.far, Far::Nothing) && !flow.to_app.queue.is_empty() => {
                return self.end_flow(key, Ending::Reset);
            }
            Stage::Open => return,
            Stage::Parked(Waiting::Certificate(hop)) => Failure::Certificate {
                identity: hop.key.identity.clone(),
                reason: format!("none came within {:?}; check the control plane", deadlines.certificate).into(),
            },
            Stage::Parked(_) => return self.parked_in_vain(key),
            Stage::Pooled(hop) => Failure::NoTunnel { to: hop.key.hop, after: deadlines.tunnel() },
            Stage::Asked(_) => return self.unanswered(key),
            Stage::Dialling => Failure::ConnectTimeout { after: deadlines.connect },
        };
        self.fail_flow(key, failure);
    }

    /// Nobody has answered a CONNECT in time. The other proxy gives up on its application sooner than we do on it, so it answers
    /// nobody: the next connection gets another tunnel.
    fn unanswered(&mut self, key: Key<Flow>) {
        let Some(Flow { stage: Stage::Asked(hop), far: Far::Stream { tunnel, .. }, site, .. }) = self.flows.get(key)
        else {
            return;
        };
        let tunnel = *tunnel;
        site.pool.borrow_mut().withdraw(&hop.key, tunnel);
        self.fail_flow(key, Failure::AnswerTimeout(self.options.deadlines.answer));
        self.tunnel_goes_away(tunnel);
    }

    /// The fact a flow is parked for has not come in time. What is known by now may still decide it.
    fn parked_in_vain(&mut self, key: Key<Flow>) {
        let snapshot = self.snapshot();
        let waited = self.options.deadlines.workload;
        let Some(flow) = self.flows.get(key) else { return };
        let pod = &flow.site.pod;
        if snapshot.own(&flow.site.name).is_none() {
            let (namespace, name) = (pod.namespace.as_str().into(), pod.name.as_str().into());
            return self.fail_flow(key, Failure::WorkloadUnknown { namespace, name, waited });
        }
        self.resume_flow(key);
        if self.flows.get(key).is_some_and(|flow| matches!(flow.stage, Stage::Parked(_))) {
            self.fail_flow(key, Failure::Discovery { waited });
        }
    }

    fn connect_request(&mut self, site: &Site, source: SocketAddr, hbone: &Hbone) -> ConnectRequest {
        let host = hbone.traffic.service.as_ref().map(|service| Arc::from(service.hostname.as_str()));
        ConnectRequest {
            authority: Authority::Ip(hbone.authority),
            baggage: site.baggage_of(&hbone.source),
            forwarded: Some(Forwarded { client: Some(source), host }),
            traceparent: Some(TraceParent::new(self.rng.random(), self.rng.random())),
            network: None,
        }
    }

    pub(super) fn sweep_pools(&mut self) {
        for site in self.sites.values().chain(&self.closing).cloned().collect::<Vec<_>>() {
            let expired = site.pool.borrow_mut().expire(self.now);
            for tunnel in expired {
                self.tunnel_goes_away(tunnel);
            }
        }
    }
}

impl Site {
    /// The baggage of a workload, made once as long as its record stays the same.
    pub(super) fn baggage_of(&self, workload: &Arc<Workload>) -> Option<Baggage> {
        if let Some((known, baggage)) = &*self.baggage.borrow()
            && Arc::ptr_eq(known, workload)
        {
            return baggage.clone();
        }
        let fields = BaggageFields {
            cluster: &workload.cluster_id,
            namespace: &workload.namespace,
            workload_kind: workload.workload_type.as_str(),
            workload_name: &workload.workload_name,
            canonical_name: &workload.canonical_name,
            canonical_revision: &workload.canonical_revision,
            region: &workload.locality.region,
            zone: &workload.locality.zone,
        };
        let baggage = fields.to_baggage();
        self.baggage.replace(Some((Arc::clone(workload), baggage.clone())));
        baggage
    }
}

fn is_own_port(number: u16) -> bool {
    [port::OUTBOUND, port::INBOUND_PLAINTEXT, port::INBOUND_HBONE].contains(&number)
}

/// How often a connection that carried nothing yet is moved to another tunnel.
const RETRIES: u8 = 1;
