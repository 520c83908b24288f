// SPDX-License-Identifier: Apache-2.0
//! Keeps a certificate for every identity of this node: the shell of `schedule`, and the calls to the CA.
//!
//! Orders come from `pods` and from workload discovery; certificates are published in one shared map, and outcomes
//! follow on a channel, never before the map says the same.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use mesh_proto::ca::IstioCertificateRequest;
use mesh_proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use mesh_proto::contract;
use mesh_proto::discovery::{Struct, string_value};
use mesh_proto::spiffe::Identity;
use tokio::sync::{Mutex, mpsc};
use tonic::transport::Channel;

use super::interest::{Interest, Wanted};
use super::request::{CertificateError, Draft};
use super::schedule::{Action, Priority, Schedule, State, Validity};
use crate::control_plane::{self, ControlPlaneError};
use crate::metrics;
use crate::tls::Credential;

/// How certificates are asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The CA.
    pub control_plane: control_plane::Options,
    /// Validity asked for.
    pub ttl: Duration,
}

/// What others need from the keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A connection waits for this identity's certificate.
    Need(Identity),
    /// This owner will need this identity's certificate, or needs none any more.
    Want(Wanted, Option<Identity>),
}

/// What has become of a certificate. The published map is up to date when this arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A new certificate is in force, or the old one is no longer.
    Changed(Identity),
    /// There is none, and why.
    Refused(Identity, Arc<str>),
}

/// The certificates in force.
pub type Published = Arc<ArcSwap<HashMap<Identity, Arc<Credential>>>>;

/// Every wanted identity's state, for `config_dump`.
pub type Standing = Arc<ArcSwap<BTreeMap<Identity, State>>>;

/// The keeper; see the module's text.
pub struct Keeper {
    authority: Arc<Authority>,
    schedule: Schedule,
    interest: Interest,
    published: Published,
    standing: Standing,
    outcomes: mpsc::UnboundedSender<Outcome>,
    metrics: metrics::Certificates,
    calls: FuturesUnordered<Pin<Box<dyn Future<Output = Call> + Send>>>,
}

type Call = (Identity, Result<Credential, CallError>);

impl Keeper {
    /// A keeper that publishes to `published` and `standing`.
    pub fn new(
        authority: Authority,
        published: Published,
        standing: Standing,
        outcomes: mpsc::UnboundedSender<Outcome>,
    ) -> Self {
        Self {
            authority: Arc::new(authority),
            schedule: Schedule::default(),
            interest: Interest::default(),
            published,
            standing,
            outcomes,
            metrics: metrics::Certificates::default(),
            calls: FuturesUnordered::new(),
        }
    }

    /// The same, counting into these series.
    pub fn counted(self, metrics: metrics::Certificates) -> Self {
        Self { metrics, ..self }
    }

    /// Until `orders` ends.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            let deadline = self.schedule.next_deadline();
            let actions = tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.take(order),
                    None => return,
                },
                Some(call) = self.calls.next() => self.finish(call),
                () = until(deadline) => self.schedule.handle_timeout(Instant::now()),
            };
            for action in actions {
                self.perform(action);
            }
            let states = self.schedule.states().map(|(identity, state)| (identity.clone(), state)).collect();
            if **self.standing.load() != states {
                self.standing.store(Arc::new(states));
            }
        }
    }

    fn take(&mut self, order: Order) -> Vec<Action> {
        let now = Instant::now();
        match order {
            Order::Need(identity) => self.schedule.handle_wanted(now, &identity, Priority::RealTime),
            Order::Want(owner, identity) => {
                let (added, dropped) = self.interest.set(owner, identity);
                let mut actions = Vec::new();
                if let Some(identity) = added {
                    actions.extend(self.schedule.handle_wanted(now, &identity, Priority::Warmup));
                }
                if let Some(identity) = dropped {
                    actions.extend(self.schedule.handle_unwanted(&identity));
                }
                actions
            }
        }
    }

    fn finish(&mut self, (identity, result): Call) -> Vec<Action> {
        let (now, wall, mut rng) = (Instant::now(), SystemTime::now(), rand::rng());
        let issued = result.and_then(|credential| match validity(&credential, wall) {
            Some(validity) => Ok((credential, validity)),
            None => Err(CallError::Expired),
        });
        match issued {
            Ok((credential, validity)) => {
                let (in_force, actions) = self.schedule.handle_issued(now, &identity, validity, &mut rng);
                if in_force {
                    tracing::debug!(%identity, left_s = validity.left.as_secs(), "certificate issued");
                    self.metrics.issued();
                    self.publish(|map| map.insert(identity.clone(), Arc::new(credential)));
                    self.tell(Outcome::Changed(identity));
                }
                actions
            }
            Err(error) => {
                let reason = control_plane::explain(&error);
                self.metrics.failed();
                tracing::warn!(%identity, error = reason, "no certificate; will try again");
                self.schedule.handle_failed(now, &identity, &reason, &mut rng)
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Request(identity) => {
                let authority = Arc::clone(&self.authority);
                self.calls.push(Box::pin(async move {
                    let result = authority.issue(&identity).await;
                    (identity, result)
                }));
            }
            Action::Refuse(identity, reason) => self.tell(Outcome::Refused(identity, reason)),
            Action::Withdraw(identity) => {
                if self.publish(|map| map.remove(&identity)).is_some() {
                    self.tell(Outcome::Changed(identity));
                }
            }
        }
    }

    fn publish<T>(&self, change: impl FnOnce(&mut HashMap<Identity, Arc<Credential>>) -> T) -> T {
        let mut map = HashMap::clone(&self.published.load());
        let result = change(&mut map);
        let ends = map.values().filter_map(|credential| credential.not_after().duration_since(UNIX_EPOCH).ok());
        self.metrics.earliest_end(ends.min().map_or(0.0, |end| end.as_secs_f64()));
        self.published.store(Arc::new(map));
        result
    }

    fn tell(&self, outcome: Outcome) {
        // Nobody listens only while the process ends.
        let _ = self.outcomes.send(outcome);
    }
}

/// The CA, as its client.
pub struct Authority {
    options: Options,
    links: Mutex<Links>,
}

/// The link in use, and how many there were.
#[derive(Default)]
struct Links {
    current: Option<Link>,
    made: u64,
}

/// The channel, and the roots it was made with: other roots, another channel.
struct Link {
    channel: Channel,
    roots: Option<Vec<u8>>,
}

/// Why a call gave no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The CA was not reached.
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    /// The CA said no.
    #[error("the CA refused: {}{}", .0.message(), refusal_hint(.0))]
    Refused(tonic::Status),
    /// The CA did not answer.
    #[error("the CA did not answer within {} s", CALL_LIMIT.as_secs())]
    Timeout,
    /// The answer is not usable.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The answer is over already.
    #[error("the CA sent a certificate that has expired; compare the clocks")]
    Expired,
}

impl CallError {
    /// Whether the CA did what a CA does, whatever we think of the result.
    fn is_an_answer(&self) -> bool {
        use tonic::Code;
        match self {
            Self::Refused(status) => matches!(
                status.code(),
                Code::Unauthenticated
                    | Code::PermissionDenied
                    | Code::InvalidArgument
                    | Code::FailedPrecondition
                    | Code::NotFound
            ),
            Self::ControlPlane(_) | Self::Timeout => false,
            Self::Certificate(_) | Self::Expired => true,
        }
    }
}

impl Authority {
    /// No connection is made before the first call.
    pub fn new(options: Options) -> Self {
        Self { options, links: Mutex::default() }
    }

    /// One call for one identity.
    pub async fn issue(&self, identity: &Identity) -> Result<Credential, CallError> {
        let mut used = None;
        let called = tokio::time::timeout(CALL_LIMIT, self.call(identity, &mut used)).await;
        let result = called.unwrap_or(Err(CallError::Timeout));
        if let (Err(error), Some(used)) = (&result, used)
            && !error.is_an_answer()
        {
            self.forget(used).await;
        }
        result
    }

    /// Says which link it uses as soon as it does.
    async fn call(&self, identity: &Identity, used: &mut Option<u64>) -> Result<Credential, CallError> {
        let draft = Draft::new(identity.clone())?;
        let impersonated = string_value(identity.as_uri());
        let fields = [(contract::grpc::IMPERSONATED_IDENTITY.to_owned(), impersonated)].into();
        let mut request = tonic::Request::new(IstioCertificateRequest {
            csr: draft.csr().to_owned(),
            validity_duration: i64::try_from(self.options.ttl.as_secs()).unwrap_or(i64::MAX),
            metadata: Some(Struct { fields }),
        });
        *request.metadata_mut() = control_plane::metadata(&self.options.control_plane).await?;
        let (channel, number) = self.channel().await?;
        *used = Some(number);
        let answer = IstioCertificateServiceClient::new(channel)
            .create_certificate(request)
            .await
            .map_err(CallError::Refused)?
            .into_inner();
        Ok(draft.check(&answer.cert_chain, SystemTime::now())?)
    }

    /// Calls that come while one connects wait for the same channel.
    async fn channel(&self) -> Result<(Channel, u64), ControlPlaneError> {
        let roots = self.options.control_plane.roots.text().await.ok();
        let mut links = self.links.lock().await;
        if let Some(link) = links.current.as_ref().filter(|link| roots.is_none() || link.roots == roots) {
            return Ok((link.channel.clone(), links.made));
        }
        let channel = control_plane::connect(&self.options.control_plane).await?;
        links.made += 1;
        links.current = Some(Link { channel: channel.clone(), roots });
        Ok((channel, links.made))
    }

    /// Whoever is at the other end of this link does not do its work: the next call connects anew, perhaps to another.
    async fn forget(&self, number: u64) {
        let mut links = self.links.lock().await;
        if links.made == number {
            links.current = None;
        }
    }
}

fn validity(credential: &Credential, now: SystemTime) -> Option<Validity> {
    let left = credential.not_after().duration_since(now).ok().filter(|left| !left.is_zero())?;
    let total = credential.not_after().duration_since(credential.not_before()).unwrap_or(left);
    Some(Validity { total, left })
}

fn refusal_hint(status: &tonic::Status) -> &'static str {
    match status.code() {
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => {
            "; is the token valid, and does a pod with this identity run on this node?"
        }
        tonic::Code::Unavailable => "; is the control plane running?",
        _ => "",
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// One call, connecting included.
const CALL_LIMIT: Duration = Duration::from_secs(10);
