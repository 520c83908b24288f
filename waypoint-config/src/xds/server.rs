// SPDX-License-Identifier: Apache-2.0
//! `AggregatedDiscoveryService`: decides who may have a stream and of what, and starts it. A caller with too many streams is cut off.

use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_common::lifecycle::{Drain, Tasks};
use mesh_common::telemetry::Seldom;
use mesh_proto::contract::grpc;
use mesh_proto::discovery::{
    AggregatedDiscoveryService, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::metrics::XdsMetrics;
use super::node::{NodeError, check_node};
use super::scope::Scope;
use super::stream::{Delta, Said, Stream, Variant, Whole};
use super::waypoint::{self, ClaimError};
use crate::caller::{Authenticator, Caller, CallerKey, Peer, Share, Shares};
use crate::line::{Feedback, Published};

/// The service.
pub struct DiscoveryService {
    published: watch::Receiver<Published>,
    feedback: Feedback,
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
/// What callers can make us say as often as they like.
static REFUSED: Seldom = Seldom::new(20, Duration::from_secs(10));
/// What a client that is no waypoint and speaks the other variant is told.
const ONLY_DELTA: &str = "this server speaks the delta variant: call DeltaAggregatedResources";

type Responses<T> = Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

impl DiscoveryService {
    /// A service that sends what is published to callers that `authenticator` knows.
    #[must_use]
    pub fn new(
        (published, feedback): (watch::Receiver<Published>, Feedback),
        authenticator: Arc<Authenticator>,
        tasks: Tasks,
        drain: Drain,
        metrics: XdsMetrics,
    ) -> Self {
        Self { published, feedback, authenticator, tasks, drain, metrics, streams: Shares::new(MAX_STREAMS) }
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

    /// A stream of either variant.
    async fn open<V: Variant>(
        &self,
        request: Request<Streaming<V::Request>>,
    ) -> Result<Response<Responses<V::Response>>, Status> {
        let (caller, stay) = self.caller(&request)?;
        if !self.published.borrow().synced {
            return Err(Status::unavailable("not all objects have been read yet; try again"));
        }
        let mut requests = request.into_inner();
        let first = tokio::time::timeout(FIRST_REQUEST_PATIENCE, requests.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no first request came"))??
            .ok_or_else(|| Status::invalid_argument("the stream ended before its first request"))?;
        let node = V::node(&first);
        let refused = |error: &dyn std::fmt::Display, status: Status| {
            self.metrics.refused.inc();
            if let Some(times) = REFUSED.due(Instant::now()) {
                warn!(%error, times, "a discovery stream was refused");
            }
            status
        };
        let client = check_node(node, caller.identity()).map_err(|error| {
            let status = match error {
                NodeError::Missing | NodeError::Form(_) => Status::invalid_argument(error.to_string()),
                NodeError::NotYours { .. } => Status::permission_denied("the node is not that of the caller"),
            };
            refused(&error, status)
        })?;
        let scope = match node.filter(|_| waypoint::KINDS.contains(&client.kind.as_str())) {
            None if !V::SERVES_THE_MESH => return Err(Status::unimplemented(ONLY_DELTA)),
            None => Scope::Mesh,
            Some(node) => {
                let key = waypoint::claim(node, caller.identity(), &self.published.borrow().snapshot);
                let key = key.map_err(|error| {
                    let status = match &error {
                        // It may come: a proxy can be up before its Gateway has an address.
                        ClaimError::NoGateway(_) => Status::unavailable(error.to_string()),
                        ClaimError::NotOurs(_) => Status::failed_precondition(error.to_string()),
                        ClaimError::NotYours { .. } => Status::permission_denied(error.to_string()),
                    };
                    refused(&error, status)
                })?;
                Scope::Waypoint { wish: self.feedback.demand.wish(key), life: None }
            }
        };
        info!(kind = %client.kind, client = %client.name, "discovery stream opened");
        let progress = self.feedback.progress.open(scope.waypoint().cloned());
        // One response under way: what changes meanwhile is taken together.
        let (responses, sent) = mpsc::channel(1);
        let stream = Stream::<V> {
            session: V::Session::default(),
            scope,
            published: self.published.clone(),
            requests,
            responses,
            client,
            metrics: self.metrics.clone(),
            said: Said::new(self.feedback.refusals.open(), progress, stay),
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

#[tonic::async_trait]
impl AggregatedDiscoveryService for DiscoveryService {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open::<Whole>(request).await
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open::<Delta>(request).await
    }
}
