// SPDX-License-Identifier: Apache-2.0
//! One discovery stream, of either variant: carries its session.
//!
//! The stream's task waits for its next request or for a new generation of resources, gives it to the session and sends
//! what the session answers. A client that reads slowly holds up only itself: generations that pass meanwhile are
//! taken in one step. One that never reads is cut off.

use std::time::{Duration, Instant};

use mesh_common::telemetry::Seldom;
use mesh_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Node};
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use super::delta::{self, Catalogs, Outcome};
use super::metrics::{TypeLabel, XdsMetrics};
use super::node::ClientName;
use super::scope::{Moment, Scope, Sight};
use super::sotw;
use crate::caller::{CallerKey, Share};
use crate::line::{Complaints, Published, Reader, Refusal};

/// A client must take a response in this time: what waits for it is a copy of the mesh.
const SEND_PATIENCE: Duration = Duration::from_secs(120);
/// What one client can make us say.
const SAY: (u32, Duration) = (10, Duration::from_secs(60));

/// A variant of the protocol: its messages and its session.
pub(super) trait Variant: 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    type Session: Default + Send;
    /// Whether node proxies are served by it.
    const SERVES_THE_MESH: bool;

    fn node(request: &Self::Request) -> Option<&Node>;
    fn type_url(request: &Self::Request) -> &str;
    fn handle_request(
        session: &mut Self::Session,
        request: &Self::Request,
        now: &dyn Catalogs,
    ) -> (Outcome, Option<Self::Response>);
    /// What is to be sent of `now`, which is not before publication `number`; called after every request, too.
    fn advance(
        session: &mut Self::Session,
        before: &dyn Catalogs,
        now: &dyn Catalogs,
        number: u64,
    ) -> Vec<Self::Response>;
    /// When to call that again by itself.
    fn next_deadline(session: &Self::Session) -> Option<Instant>;
    /// The last publication of which the client has taken everything.
    fn taken(session: &mut Self::Session) -> u64;
    fn describe(response: &Self::Response) -> Push<'_>;
    fn refused(session: &Self::Session) -> Vec<Refused<'_>>;
}

/// What is told of a response.
pub(super) struct Push<'a> {
    type_url: &'a str,
    nonce: &'a str,
    resources: usize,
    removed: usize,
}

/// Type, name, reason.
pub(super) type Refused<'a> = (&'a str, &'a std::sync::Arc<str>, &'a std::sync::Arc<str>);

/// The incremental variant.
pub(super) struct Delta;

impl Variant for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    type Session = delta::Session;
    const SERVES_THE_MESH: bool = true;

    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }

    fn type_url(request: &Self::Request) -> &str {
        &request.type_url
    }

    fn handle_request(
        session: &mut Self::Session,
        request: &Self::Request,
        now: &dyn Catalogs,
    ) -> (Outcome, Option<Self::Response>) {
        session.handle_request(request, now)
    }

    fn advance(session: &mut Self::Session, _: &dyn Catalogs, now: &dyn Catalogs, number: u64) -> Vec<Self::Response> {
        session.announce(number);
        session.handle_generation(now, Instant::now())
    }

    fn next_deadline(session: &Self::Session) -> Option<Instant> {
        session.next_deadline()
    }

    fn taken(session: &mut Self::Session) -> u64 {
        session.taken()
    }

    fn describe(response: &Self::Response) -> Push<'_> {
        let (resources, removed) = (response.resources.len(), response.removed_resources.len());
        Push { type_url: &response.type_url, nonce: &response.nonce, resources, removed }
    }

    fn refused(session: &Self::Session) -> Vec<Refused<'_>> {
        session.refused().collect()
    }
}

/// The state-of-the-world variant.
pub(super) struct Whole;

impl Variant for Whole {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    type Session = sotw::Session;
    const SERVES_THE_MESH: bool = false;

    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }

    fn type_url(request: &Self::Request) -> &str {
        &request.type_url
    }

    fn handle_request(
        session: &mut Self::Session,
        request: &Self::Request,
        now: &dyn Catalogs,
    ) -> (Outcome, Option<Self::Response>) {
        session.handle_request(request, now)
    }

    fn advance(
        session: &mut Self::Session,
        before: &dyn Catalogs,
        now: &dyn Catalogs,
        number: u64,
    ) -> Vec<Self::Response> {
        session.announce(number);
        session.handle_generation(before, now)
    }

    fn next_deadline(_: &Self::Session) -> Option<Instant> {
        None
    }

    fn taken(session: &mut Self::Session) -> u64 {
        session.taken()
    }

    fn describe(response: &Self::Response) -> Push<'_> {
        let resources = response.resources.len();
        Push { type_url: &response.type_url, nonce: &response.nonce, resources, removed: 0 }
    }

    fn refused(session: &Self::Session) -> Vec<Refused<'_>> {
        session.refused().collect()
    }
}

/// What becomes known of a client while its stream lasts.
pub(super) struct Said {
    complaints: Complaints,
    progress: Reader,
    seldom: Seldom,
    _stay: Share<CallerKey>,
}

impl Said {
    pub(super) fn new(complaints: Complaints, progress: Reader, stay: Share<CallerKey>) -> Self {
        Self { complaints, progress, seldom: Seldom::new(SAY.0, SAY.1), _stay: stay }
    }
}

/// A stream.
pub(super) struct Stream<V: Variant> {
    pub(super) session: V::Session,
    pub(super) scope: Scope,
    pub(super) published: watch::Receiver<Published>,
    pub(super) requests: Streaming<V::Request>,
    pub(super) responses: mpsc::Sender<Result<V::Response, Status>>,
    pub(super) client: ClientName,
    pub(super) metrics: XdsMetrics,
    pub(super) said: Said,
}

impl<V: Variant> Stream<V> {
    pub(super) async fn run(mut self, first: V::Request) {
        self.metrics.connected.inc();
        let reason = self.converse(first).await;
        self.metrics.connected.dec();
        info!(client = %self.client.name, reason, "discovery stream ended");
    }

    /// Answers with why the stream ended.
    async fn converse(&mut self, first: V::Request) -> String {
        let mut request = Some(first);
        let mut before: Option<Moment> = None;
        loop {
            let (sight, number) = {
                let published = self.published.borrow_and_update();
                (self.scope.look(&published), published.number)
            };
            let now = match sight {
                Sight::Now(moment) => moment,
                Sight::Gone(reason) => return reason.to_owned(),
                Sight::Wait => match self.published.changed().await {
                    Ok(()) => continue,
                    Err(_) => return ENDS.to_owned(),
                },
            };
            let mut responses = Vec::new();
            if let Some(request) = request.take() {
                responses.extend(self.take(&request, &now));
            }
            let old = before.replace(now.clone());
            responses.extend(V::advance(&mut self.session, old.as_ref().unwrap_or(&now), &now, number));
            for response in responses {
                let push = V::describe(&response);
                self.metrics.pushes.get_or_create(&TypeLabel::of(push.type_url, true)).inc();
                debug!(
                    client = %self.client.name, type_url = %push.type_url, nonce = %push.nonce,
                    resources = push.resources, removed = push.removed, "push"
                );
                if let Err(reason) = send(&self.responses, response).await {
                    return reason.to_owned();
                }
            }
            self.said.progress.set(V::taken(&mut self.session));
            let deadline = V::next_deadline(&self.session).map(tokio::time::Instant::from_std);
            let late = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                next = self.requests.message() => match next {
                    Ok(Some(next)) => request = Some(next),
                    Ok(None) => return "the client closed it".to_owned(),
                    Err(status) => return format!("{}: {}", status.code(), status.message()),
                },
                changed = self.published.changed() => if changed.is_err() {
                    return ENDS.to_owned();
                },
                () = late => debug!(client = %self.client.name, "the client is slow to take what it was sent; what waits for that is sent now"),
            }
        }
    }

    fn take(&mut self, request: &V::Request, now: &Moment) -> Option<V::Response> {
        let (outcome, response) = V::handle_request(&mut self.session, request, now);
        let client = &self.client.name;
        let type_url = V::type_url(request);
        match &outcome {
            Outcome::Rejected(reason) => {
                let known = now.catalog(type_url).is_some();
                self.metrics.rejects.get_or_create(&TypeLabel::of(type_url, known)).inc();
                if let Some(times) = self.said.seldom.due(Instant::now()) {
                    warn!(%client, %type_url, %reason, times, "the client refused what it was sent; the object named in the reason needs mending");
                }
            }
            Outcome::TooMany(refused) => {
                if let Some(times) = self.said.seldom.due(Instant::now()) {
                    warn!(%client, %type_url, refused, times, "the client asks for more or longer names than a client may; these are answered as if they did not exist");
                }
            }
            Outcome::Stale => _ = self.metrics.stale.inc(),
            Outcome::UnknownType => debug!(%client, %type_url, "the client asks for a type this server does not have"),
            Outcome::Subscribed | Outcome::Acknowledged => debug!(%client, %type_url, ?outcome, "request"),
        }
        self.said.complaints.set(self.refusals());
        response
    }

    fn refusals(&self) -> Vec<Refusal> {
        let waypoint = match &self.scope {
            Scope::Waypoint { wish, .. } => Some(wish.key().waypoint.clone()),
            Scope::Mesh => None,
        };
        let refusal = |(type_url, resource, reason): Refused<'_>| Refusal {
            client: self.client.name.as_str().into(),
            waypoint: waypoint.clone(),
            type_url: type_url.to_owned(),
            resource: resource.clone(),
            reason: reason.clone(),
        };
        V::refused(&self.session).into_iter().map(refusal).collect()
    }
}

const ENDS: &str = "the control plane ends";

/// Hands a response to a client that may be slow, but not for ever.
async fn send<T>(responses: &mpsc::Sender<Result<T, Status>>, response: T) -> Result<(), &'static str> {
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
