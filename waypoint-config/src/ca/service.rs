// SPDX-License-Identifier: Apache-2.0
//! `istio.v1.auth.IstioCertificateService`: the call by which workloads and node proxies get certificates.
//!
//! A workload gets a certificate for the identity it proved. A node proxy may ask for the identity of a pod on its own
//! node (`ImpersonatedIdentity`); that the pod is there is checked against what we know of the cluster, never against
//! what the caller says. Refusals tell the caller nothing; our log says why.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_common::telemetry::Seldom;
use mesh_proto::ca::istio_certificate_service_server::IstioCertificateService;
use mesh_proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use mesh_proto::contract::grpc;
use mesh_proto::discovery::string_field;
use mesh_proto::spiffe::Identity;
use thiserror::Error;
use time::OffsetDateTime;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::authority::{Authority, IssueError};
use super::metrics::{CaMetrics, Outcome};
use crate::caller::{Authenticator, Caller, Peer};
use crate::line::Published;
use crate::view::Snapshot;

/// Why a caller does not get another's identity.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not a node proxy's account.
    #[error("{caller} is not one of the trusted node accounts (--trusted-node-accounts)")]
    NotTrusted {
        /// Who asked.
        caller: Identity,
    },
    /// The token is not bound to a pod, so its node is not known.
    #[error("the token of {caller} is not bound to a pod")]
    NoPod {
        /// Who asked.
        caller: Identity,
    },
    /// The caller's own pod is not known, or is another than its token says.
    #[error("pod {namespace}/{name} of the caller is not known, or not with the UID and service account of its token")]
    UnknownCaller {
        /// The caller's namespace.
        namespace: String,
        /// The pod its token names.
        name: String,
    },
    /// The identity asked for is not of this mesh.
    #[error("`{0}` is not an identity of this mesh's trust domain")]
    Identity(String),
    /// No such pod on the caller's node.
    #[error("no running pod with identity {identity} on node {node}")]
    NotOnNode {
        /// What was asked for.
        identity: Identity,
        /// The caller's node.
        node: String,
    },
}

impl Refusal {
    /// Whether news from the cluster could turn it into a yes: a pod that was bound to the node a moment ago.
    const fn may_pass(&self) -> bool {
        matches!(self, Self::NotOnNode { .. } | Self::UnknownCaller { .. })
    }
}

/// Settings of the service.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// Accounts that may ask for other identities, as (namespace, service account) (`CA_TRUSTED_NODE_ACCOUNTS`).
    pub trusted_node_accounts: Vec<(String, String)>,
    /// How long to wait for news of the cluster before a refusal.
    pub patience: Duration,
}

/// What callers can make us say as often as they like.
static REFUSED: Seldom = Seldom::new(20, Duration::from_secs(10));

/// The service.
pub struct CertificateService {
    authority: Arc<Authority>,
    authenticator: Arc<Authenticator>,
    published: watch::Receiver<Published>,
    options: ServiceOptions,
    metrics: CaMetrics,
}

impl CertificateService {
    /// A service that signs with `authority` for callers that `authenticator` knows.
    pub const fn new(
        authority: Arc<Authority>,
        authenticator: Arc<Authenticator>,
        published: watch::Receiver<Published>,
        options: ServiceOptions,
        metrics: CaMetrics,
    ) -> Self {
        Self { authority, authenticator, published, options, metrics }
    }

    /// The identity the certificate is for. News of a pod may be on its way to us, so a refusal that news could turn
    /// waits for some.
    async fn subject(&self, caller: &Caller, requested: Option<&str>) -> Result<Identity, Refusal> {
        let Some(requested) = requested else { return Ok(caller.identity().clone()) };
        let mut published = self.published.clone();
        let deadline = tokio::time::Instant::now() + self.options.patience;
        loop {
            let snapshot = published.borrow_and_update().snapshot.clone();
            let verdict = may_impersonate(caller, requested, &self.options.trusted_node_accounts, &snapshot);
            if !verdict.as_ref().is_err_and(Refusal::may_pass) {
                return verdict;
            }
            match tokio::time::timeout_at(deadline, published.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return verdict,
            }
        }
    }
}

/// Decides whether `caller` may have a certificate for `requested`, and gives the identity rebuilt from its parts.
fn may_impersonate(
    caller: &Caller,
    requested: &str,
    trusted: &[(String, String)],
    cluster: &Snapshot,
) -> Result<Identity, Refusal> {
    let own = caller.identity();
    if !trusted.iter().any(|(namespace, account)| namespace == own.namespace() && account == own.service_account()) {
        return Err(Refusal::NotTrusted { caller: own.clone() });
    }
    let identity: Identity = requested.parse().map_err(|_| Refusal::Identity(requested.to_owned()))?;
    if identity.trust_domain() != cluster.mesh.trust_domain {
        return Err(Refusal::Identity(requested.to_owned()));
    }
    let reference = caller.pod().ok_or_else(|| Refusal::NoPod { caller: own.clone() })?;
    let pod = cluster
        .resident(own.namespace(), &reference.name)
        .filter(|pod| *pod.uid == *reference.uid && pod.identity == *own)
        .ok_or_else(|| Refusal::UnknownCaller {
            namespace: own.namespace().to_owned(),
            name: reference.name.clone(),
        })?;
    if cluster.is_lodged(&pod.node, identity.namespace(), identity.service_account()) {
        Ok(identity)
    } else {
        Err(Refusal::NotOnNode { identity, node: pod.node.to_string() })
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let peer = request.extensions().get::<Peer>();
        let authorization = request.metadata().get(grpc::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let caller =
            self.authenticator.authenticate(peer.and_then(Peer::certificate), authorization).map_err(|error| {
                self.metrics.count(Outcome::Unauthenticated);
                if let Some(times) = REFUSED.due(Instant::now()) {
                    let peer = peer.map(Peer::address);
                    warn!(%error, ?peer, times, "a certificate request was refused: the caller is not known");
                }
                Status::unauthenticated("request authenticate failure")
            })?;
        if let Some(peer) = peer.filter(|peer| !peer.admit(&caller)) {
            self.metrics.count(Outcome::Refused);
            let most = peer.most_connections();
            if let Some(times) = REFUSED.due(Instant::now()) {
                warn!(caller = %caller.identity(), most, times, "a certificate request was refused: the caller has too many connections open");
            }
            return Err(Status::resource_exhausted(format!("too many connections: {most} are open already")));
        }
        let request = request.into_inner();
        let requested = request.metadata.as_ref().and_then(|m| string_field(m, grpc::IMPERSONATED_IDENTITY));
        let identity = self.subject(&caller, requested).await.map_err(|error| {
            self.metrics.count(Outcome::Refused);
            if let Some(times) = REFUSED.due(Instant::now()) {
                warn!(%error, caller = %caller.identity(), times, "a certificate request was refused");
            }
            Status::unauthenticated("request impersonation authentication failure")
        })?;
        let lifetime = time::Duration::seconds(request.validity_duration);
        let chain = self.authority.issue(&request.csr, &identity, lifetime, OffsetDateTime::now_utc());
        let cert_chain = chain.map_err(|error| {
            self.metrics.count(Outcome::Failed);
            if let Some(times) = REFUSED.due(Instant::now()) {
                warn!(%error, %identity, caller = %caller.identity(), times, "a certificate was not issued");
            }
            match error {
                IssueError::Request(_) | IssueError::Key(_) | IssueError::Lifetime { .. } => {
                    Status::invalid_argument(error.to_string())
                }
                IssueError::Identity(_) | IssueError::Expired(_) | IssueError::Sign(_) => {
                    Status::internal("the certificate authority cannot sign; see its log")
                }
            }
        })?;
        self.metrics.count(Outcome::Issued);
        info!(%identity, caller = %caller.identity(), "certificate issued");
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

#[cfg(test)]
#[path = "service/tests.rs"]
mod tests;
