// SPDX-License-Identifier: Apache-2.0
//! The stream to the control plane: the shell of `delta`. It obeys the protocol's actions in order and decides nothing.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Instant;

use mesh_common::lifecycle::Gate;
use mesh_proto::discovery::{AggregatedDiscoveryServiceClient, DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use super::delta::{Action, Delta, Ended};
use super::node::NodeOptions;
use super::publish::Publisher;
use crate::control_plane::{self, ControlPlaneError};
use crate::metrics;

/// How the control plane is reached, and who asks.
#[derive(Clone, Debug)]
pub struct Options {
    /// The control plane.
    pub control_plane: control_plane::Options,
    /// Who asks.
    pub node: NodeOptions,
}

/// The client; see the module's text.
pub struct Client {
    options: Options,
    publisher: Publisher,
    metrics: metrics::Xds,
    synced: Option<Synced>,
    delta: Delta,
    link: Link,
    id: u64,
}

/// Tells of the first sync: readiness, and whoever waits to serve.
pub struct Synced {
    gate: Gate,
    waiting: oneshot::Sender<()>,
}

impl Synced {
    /// Opens `gate` and completes the receiver.
    pub fn new(gate: Gate) -> (Self, oneshot::Receiver<()>) {
        let (waiting, told) = oneshot::channel();
        (Self { gate, waiting }, told)
    }

    /// It has come.
    pub fn tell(self) {
        self.gate.open();
        // Nobody waits only while the process ends.
        let _ = self.waiting.send(());
    }
}

/// How far the connection is. What is under way is held here, so that nothing is lost when something else happens first.
enum Link {
    Idle,
    Connecting(Pending<Result<Channel, ControlPlaneError>>),
    Opening(mpsc::Sender<DeltaDiscoveryRequest>, Pending<Result<Response<Streaming<DeltaDiscoveryResponse>>, Opening>>),
    Open(mpsc::Sender<DeltaDiscoveryRequest>, Box<Streaming<DeltaDiscoveryResponse>>),
}

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

enum Opening {
    Metadata(ControlPlaneError),
    Status(Status),
}

/// What the connection has to say.
enum Event {
    Connected(Channel),
    Opened(Box<Streaming<DeltaDiscoveryResponse>>),
    Response(Box<DeltaDiscoveryResponse>),
    Ended(Ended, String),
}

impl Client {
    /// Not connected yet. `synced` is told of the first sync.
    pub fn new(options: Options, publisher: Publisher, metrics: metrics::Xds, synced: Synced) -> Self {
        let delta = Delta::new(Instant::now(), options.node.node());
        Self { options, publisher, metrics, synced: Some(synced), delta, link: Link::Idle, id: 0 }
    }

    /// For ever: even while the last connections end, policies still change.
    pub async fn run(mut self) {
        loop {
            let actions = tokio::select! {
                event = self.link.next() => self.take(event),
                () = until(self.delta.next_deadline()) => self.delta.handle_timeout(Instant::now()),
            };
            self.perform(actions).await;
        }
    }

    fn take(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Connected(channel) => {
                let (requests, queue) = mpsc::channel(REQUEST_QUEUE);
                // The server may not answer before it has read a request: ask first, then wait for the stream.
                let actions = self.delta.handle_connected();
                self.link = Link::Opening(requests, Box::pin(open(self.options.clone(), channel, queue)));
                actions
            }
            Event::Opened(stream) => {
                tracing::info!(id = self.id, "stream to the control plane open");
                self.metrics.connected();
                if let Link::Opening(requests, _) = std::mem::replace(&mut self.link, Link::Idle) {
                    self.link = Link::Open(requests, stream);
                }
                Vec::new()
            }
            Event::Response(response) => {
                let bodies = response.resources.iter().filter_map(|resource| resource.resource.as_ref());
                let bytes = bodies.map(|body| body.value.len() as u64).sum();
                self.metrics.received(&response.type_url, bytes);
                self.delta.handle_response(*response)
            }
            Event::Ended(ended, reason) => {
                self.link = Link::Idle;
                self.metrics.terminated(ended.reason());
                let delay = self.delta.handle_ended(Instant::now(), ended, &mut rand::rng());
                match ended {
                    Ended::Complete | Ended::Reconnect => {
                        tracing::debug!(
                            id = self.id,
                            reason,
                            ?delay,
                            "stream to the control plane ended; connecting again"
                        );
                    }
                    Ended::ConnectionError | Ended::Error => {
                        tracing::warn!(
                            id = self.id,
                            error = reason,
                            ?delay,
                            "no stream to the control plane; will try again"
                        );
                    }
                }
                Vec::new()
            }
        }
    }

    async fn perform(&mut self, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Connect { id } => {
                    self.id = id;
                    let options = self.options.control_plane.clone();
                    self.link = Link::Connecting(Box::pin(async move { control_plane::connect(&options).await }));
                }
                Action::Send(request) => {
                    if let Some(detail) = &request.error_detail {
                        tracing::error!(
                            type_url = request.type_url,
                            error = detail.message,
                            "refused resources of the control plane"
                        );
                    }
                    if let Link::Opening(requests, _) | Link::Open(requests, _) = &self.link {
                        // A stream that has ended says so by itself.
                        let _ = requests.send(*request).await;
                    }
                }
                Action::Apply(receipt, update) => {
                    let kind = update.kind;
                    tracing::debug!(
                        type_url = kind.type_url(),
                        resources = update.resources.len(),
                        removed = update.removed.len(),
                        "update from the control plane"
                    );
                    let rejected = self.publisher.update(update);
                    self.metrics.rejected(kind.type_url(), rejected.len() as u64);
                    actions.extend(self.delta.handle_applied(receipt, &rejected));
                }
                Action::Synced => {
                    tracing::info!("first sync with the control plane complete");
                    if let Some(synced) = self.synced.take() {
                        synced.tell();
                    }
                }
            }
        }
    }
}

impl Link {
    async fn next(&mut self) -> Event {
        match self {
            Self::Idle => std::future::pending().await,
            Self::Connecting(connecting) => match connecting.await {
                Ok(channel) => Event::Connected(channel),
                Err(error) => Event::Ended(not_connected(&error), control_plane::explain(&error)),
            },
            Self::Opening(_, opening) => match opening.await {
                Ok(response) => Event::Opened(Box::new(response.into_inner())),
                Err(Opening::Metadata(error)) => Event::Ended(Ended::Error, control_plane::explain(&error)),
                Err(Opening::Status(status)) => Event::Ended(ended(&status), explain(&status)),
            },
            Self::Open(_, stream) => match stream.message().await {
                Ok(Some(response)) => Event::Response(Box::new(response)),
                Ok(None) => Event::Ended(Ended::Complete, "the server closed the stream".to_owned()),
                Err(status) => Event::Ended(ended(&status), explain(&status)),
            },
        }
    }
}

async fn open(
    options: Options,
    channel: Channel,
    requests: mpsc::Receiver<DeltaDiscoveryRequest>,
) -> Result<Response<Streaming<DeltaDiscoveryResponse>>, Opening> {
    let mut request = Request::new(ReceiverStream::new(requests));
    *request.metadata_mut() = control_plane::metadata(&options.control_plane).await.map_err(Opening::Metadata)?;
    AggregatedDiscoveryServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_LIMIT)
        .delta_aggregated_resources(request)
        .await
        .map_err(Opening::Status)
}

fn not_connected(error: &ControlPlaneError) -> Ended {
    match error {
        ControlPlaneError::Connect { .. } => Ended::ConnectionError,
        _ => Ended::Error,
    }
}

/// which statuses mean that the connection went away, and not that the server says no.
fn ended(status: &Status) -> Ended {
    let gone = || {
        let message = status.message();
        GONE.iter().any(|text| message.contains(text)) || std::error::Error::source(status).is_some()
    };
    match status.code() {
        Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => Ended::Reconnect,
        Code::Unavailable if gone() => Ended::Reconnect,
        // A transport error has a cause; a status the server sent has none.
        Code::Internal if std::error::Error::source(status).is_some() => Ended::Reconnect,
        _ => Ended::Error,
    }
}

fn explain(status: &Status) -> String {
    let hint = match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => "; check the control plane logs",
        _ => "",
    };
    let cause = std::error::Error::source(status).map(|cause| format!(": {}", control_plane::explain(cause)));
    format!("{:?}: {}{}{hint}", status.code(), status.message(), cause.unwrap_or_default())
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// What a server's own goodbye says.
const GONE: [&str; 2] = ["transport is closing", "received prior goaway"];
/// One response can hold the whole mesh.
const MESSAGE_LIMIT: usize = 200 << 20;
/// Answers that wait to be sent.
const REQUEST_QUEUE: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_sorted_by_who_ended_it() {
        let sorted = |code, message: &str| ended(&Status::new(code, message));
        assert_eq!(sorted(Code::Unknown, ""), Ended::Reconnect);
        assert_eq!(sorted(Code::Unavailable, "transport is closing"), Ended::Reconnect);
        assert_eq!(sorted(Code::Unavailable, "overloaded"), Ended::Error);
        assert_eq!(sorted(Code::Unauthenticated, "no"), Ended::Error);
        assert!(explain(&Status::unauthenticated("no")).contains("check the control plane logs"));
    }
}
