// SPDX-License-Identifier: Apache-2.0
//! `AggregatedDiscoveryService`: carries one [`Session`] per stream.
//!
//! A stream's task waits for its next request or for a new generation of resources, gives it to the session and sends
//! what the session answers. A client that reads slowly holds up only itself: generations that pass meanwhile are
//! taken in one step. One that never reads, and a caller with too many streams, is cut off.

use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::Stream;
use mesh_common::lifecycle::{Drain, Tasks};
use mesh_common::telemetry::Seldom;
use mesh_proto::contract::grpc;
use mesh_proto::discovery::{
    AggregatedDiscoveryService, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use super::delta::{Catalogs as _, Outcome, Session};
use super::metrics::{TypeLabel, XdsMetrics};
use super::node::{ClientName, NodeError, check_node};
use crate::ambient::Resources;
use crate::caller::{Authenticator, Caller, CallerKey, Peer, Share, Shares};
use crate::line::Published;

/// The service.
pub struct DiscoveryService {
    published: watch::Receiver<Published>,
    authenticator: Arc<Authenticator>,
    tasks: Tasks,
    drain: Drain,
    metrics: XdsMetrics,
    /// Streams of each caller.
    streams: Arc<Shares<CallerKey>>,
}

/// Streams of one caller: it has one, and another while the last one is not known to have ended. Each costs us what it
/// has asked for by name.
const MAX_STREAMS: usize = 8;
/// A client must say who it is in this time.
const FIRST_REQUEST_PATIENCE: Duration = Duration::from_secs(10);
/// A client must take a response in this time: what waits for it is a copy of the mesh.
const SEND_PATIENCE: Duration = Duration::from_secs(120);
/// What callers can make us say as often as they like.
static REFUSED: Seldom = Seldom::new(20, Duration::from_secs(10));
/// The same of one stream.
const SAY: (u32, Duration) = (10, Duration::from_secs(60));

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl DiscoveryService {
    /// A service that sends what is published to callers that `authenticator` knows.
    #[must_use]
    pub fn new(
        published: watch::Receiver<Published>,
        authenticator: Arc<Authenticator>,
        tasks: Tasks,
        drain: Drain,
        metrics: XdsMetrics,
    ) -> Self {
        Self { published, authenticator, tasks, drain, metrics, streams: Shares::new(MAX_STREAMS) }
    }

    /// Who calls, and one of the streams it may have.
    fn caller<T>(&self, request: &Request<T>) -> Result<(Caller, Share<CallerKey>), Status> {
        let peer = request.extensions().get::<Peer>();
        let address = peer.map(Peer::address);
        let authorization = request.metadata().get(grpc::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let refused = |status: Status, why: &dyn std::fmt::Display| {
            self.metrics.refused.inc();
            if let Some(times) = REFUSED.due(Instant::now()) {
                warn!(error = %why, peer = ?address, times, "a discovery stream was refused");
            }
            status
        };
        let caller = self
            .authenticator
            .authenticate(peer.and_then(Peer::certificate), authorization)
            .map_err(|error| refused(Status::unauthenticated("authentication failure"), &error))?;
        let many = |what: &str, most: usize| {
            let why = format!("{} has {most} {what} already", caller.identity());
            refused(Status::resource_exhausted(format!("too many {what}: {most} are open already")), &why)
        };
        if !peer.is_none_or(|peer| peer.admit(&caller)) {
            return Err(many("connections", peer.map_or(0, Peer::most_connections)));
        }
        let address = address.map_or_else(|| Ipv4Addr::UNSPECIFIED.into(), |address| address.ip());
        let stay = self.streams.take(caller.key(address)).ok_or_else(|| many("discovery streams", MAX_STREAMS))?;
        Ok((caller, stay))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for DiscoveryService {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("this server speaks the delta variant: call DeltaAggregatedResources"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (caller, stay) = self.caller(&request)?;
        if !self.published.borrow().synced {
            return Err(Status::unavailable("not all objects have been read yet; try again"));
        }
        let mut requests = request.into_inner();
        let first = tokio::time::timeout(FIRST_REQUEST_PATIENCE, requests.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no first request came"))??
            .ok_or_else(|| Status::invalid_argument("the stream ended before its first request"))?;
        let client = check_node(first.node.as_ref(), caller.identity()).map_err(|error| {
            self.metrics.refused.inc();
            if let Some(times) = REFUSED.due(Instant::now()) {
                warn!(%error, times, "a discovery stream was refused");
            }
            match error {
                NodeError::Missing | NodeError::Form(_) => Status::invalid_argument(error.to_string()),
                NodeError::NotYours { .. } => Status::permission_denied("the node is not that of the caller"),
            }
        })?;
        info!(kind = %client.kind, client = %client.name, "discovery stream opened");
        // One response under way: what changes meanwhile is taken together.
        let (responses, sent) = mpsc::channel(1);
        let stream = DeltaStream {
            session: Session::default(),
            published: self.published.clone(),
            requests,
            responses,
            client,
            metrics: self.metrics.clone(),
            complaints: Seldom::new(SAY.0, SAY.1),
            _stay: stay,
        };
        let drain = self.drain.clone();
        let _ = self.tasks.spawn("discovery stream", async move {
            tokio::select! {
                () = stream.run(first) => {}
                () = drain.started() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(sent))))
    }
}

struct DeltaStream {
    session: Session,
    published: watch::Receiver<Published>,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    client: ClientName,
    metrics: XdsMetrics,
    complaints: Seldom,
    _stay: Share<CallerKey>,
}

impl DeltaStream {
    async fn run(mut self, first: DeltaDiscoveryRequest) {
        self.metrics.connected.inc();
        let reason = self.converse(first).await;
        self.metrics.connected.dec();
        info!(client = %self.client.name, reason, "discovery stream ended");
    }

    /// Answers with why the stream ended.
    async fn converse(&mut self, first: DeltaDiscoveryRequest) -> String {
        let mut request = Some(first);
        let mut generation = None;
        loop {
            let resources = self.published.borrow_and_update().resources.clone();
            let mut responses = Vec::new();
            if let Some(request) = request.take() {
                responses.extend(self.take(&request, &resources));
            }
            if generation.replace(resources.generation()) != Some(resources.generation()) {
                responses.extend(self.session.handle_generation(&resources));
            }
            for response in responses {
                self.metrics.pushes.get_or_create(&TypeLabel::of(&response.type_url, true)).inc();
                debug!(
                    client = %self.client.name, type_url = %response.type_url, nonce = %response.nonce,
                    resources = response.resources.len(), removed = response.removed_resources.len(), "push"
                );
                if let Err(reason) = send(&self.responses, response).await {
                    return reason.to_owned();
                }
            }
            tokio::select! {
                biased;
                next = self.requests.message() => match next {
                    Ok(Some(next)) => request = Some(next),
                    Ok(None) => return "the client closed it".to_owned(),
                    Err(status) => return format!("{}: {}", status.code(), status.message()),
                },
                changed = self.published.changed() => if changed.is_err() {
                    return "the control plane ends".to_owned();
                },
            }
        }
    }

    fn take(&mut self, request: &DeltaDiscoveryRequest, resources: &Resources) -> Option<DeltaDiscoveryResponse> {
        let (outcome, response) = self.session.handle_request(request, resources);
        let client = &self.client.name;
        let type_url = &request.type_url;
        match outcome {
            Outcome::Rejected(reason) => {
                let known = resources.catalog(type_url).is_some();
                self.metrics.rejects.get_or_create(&TypeLabel::of(type_url, known)).inc();
                if let Some(times) = self.complaints.due(Instant::now()) {
                    warn!(%client, %type_url, %reason, times, "the client refused what it was sent; the object named in the reason needs mending");
                }
            }
            Outcome::TooMany(refused) => {
                if let Some(times) = self.complaints.due(Instant::now()) {
                    warn!(%client, %type_url, refused, times, "the client asks for more or longer names than a client may; these are answered as if they did not exist");
                }
            }
            Outcome::Stale => _ = self.metrics.stale.inc(),
            Outcome::UnknownType => debug!(%client, %type_url, "the client asks for a type this server does not have"),
            Outcome::Subscribed | Outcome::Acknowledged => debug!(%client, %type_url, ?outcome, "request"),
        }
        response
    }
}

/// Hands a response to a client that may be slow, but not for ever.
async fn send(
    responses: &mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    response: DeltaDiscoveryResponse,
) -> Result<(), &'static str> {
    match tokio::time::timeout(SEND_PATIENCE, responses.send(Ok(response))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("the client went away"),
        Err(_) => Err("the client does not read what it is sent"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_may_read_slowly_but_not_never() {
        let (responses, mut sent) = mpsc::channel(1);
        assert_eq!(send(&responses, DeltaDiscoveryResponse::default()).await, Ok(()));
        let slow = async {
            tokio::time::sleep(SEND_PATIENCE / 2).await;
            sent.recv().await.unwrap().unwrap();
        };
        let (given, ()) = tokio::join!(send(&responses, DeltaDiscoveryResponse::default()), slow);
        assert_eq!(given, Ok(()));
        let given = send(&responses, DeltaDiscoveryResponse::default()).await;
        assert_eq!(given, Err("the client does not read what it is sent"));
        drop(sent);
        assert_eq!(send(&responses, DeltaDiscoveryResponse::default()).await, Err("the client went away"));
    }
}
