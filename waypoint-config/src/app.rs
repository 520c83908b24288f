// SPDX-License-Identifier: Apache-2.0
//! Builds the program from its configuration, runs it, and ends it in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_common::admin::{AdminError, Listen, Response, Routes, Server as AdminServer};
use mesh_common::lifecycle::{Drain, Drainer, Readiness, Shutdown, Tasks, drain};
use mesh_common::telemetry;
use mesh_proto::ca::istio_certificate_service_server::IstioCertificateServiceServer;
use mesh_proto::discovery::AggregatedDiscoveryServiceServer;
use prometheus_client::registry::Registry;
use thiserror::Error;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tonic::transport::Server;
use tracing::{info, warn};

use crate::ambient::{Resources, Type};
use crate::ca::{Authority, CaMetrics, CertificateService, IssueError, KeyError, ServiceOptions};
use crate::caller::{Authenticator, KeySet};
use crate::config::Config;
use crate::control;
use crate::envoy;
use crate::fleet::{self, Rendered, Waypoints};
use crate::jwks;
use crate::line::{self, Feedback, Inputs, Outputs, Published, Refusal, Statuses};
use crate::listener::{self, Serving, TlsError};
use crate::settings::{self, Loaded, SettingsError};
use crate::source::{Batch, files};
use crate::view::Mesh;
use crate::xds::{DiscoveryService, XdsMetrics};

/// Why the program did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The authority's keys.
    #[error("certificate authority: {0}")]
    Keys(#[from] KeyError),
    /// The serving certificate.
    #[error("serving certificate: {0}")]
    Serving(#[from] IssueError),
    /// The mesh configuration.
    #[error("the mesh configuration cannot be used")]
    Settings(#[from] SettingsError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The main port.
    #[error("cannot listen on {address}: {source}; is another control plane running there?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The HTTP ports.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// The running program.
pub struct App {
    address: SocketAddr,
    shutdown: Shutdown,
    drainer: Drainer,
    tasks: Tasks,
    patience: Duration,
}

/// How long a certificate request waits for news of its pod.
const IMPERSONATION_PATIENCE: Duration = Duration::from_secs(2);
/// Pings find clients that are gone without a word (control-plane.md §2.1).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long a ping may stay without an answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest discovery request that is read. A node proxy that reconnects lists all it has with versions, some 100
/// bytes each: tonic's 4 MiB would shut out a mesh of 40 000 resources for ever. Callers are authenticated before any
/// request of theirs is read.
const MAX_DISCOVERY_REQUEST: usize = 64 << 20;
/// The largest certificate request that is read, before its caller is known: an RSA key of 8192 bits makes 4 KiB.
const MAX_CERTIFICATE_REQUEST: usize = 64 << 10;
/// When to look again after the serving certificate could not be renewed.
const RENEWAL_RETRY: Duration = Duration::from_secs(60);

impl App {
    /// Starts everything; `batches` is what the source says.
    ///
    /// # Errors
    /// Keys that cannot be used, or an address that cannot be had.
    pub async fn start(
        config: &Config,
        batches: mpsc::Receiver<Batch>,
        telemetry: telemetry::Handle,
        tasks: Tasks,
        shutdown: Shutdown,
    ) -> Result<Self, StartError> {
        for caution in config.cautions() {
            warn!("{caution}");
        }
        let (drainer, drain) = drain();
        let readiness = Readiness::new();
        let mut registry = Registry::default();
        let authority =
            Arc::new(Authority::load_or_create(&config.ca_dir, &config.trust_domain, OffsetDateTime::now_utc())?);
        let serving = serving(config, &authority, &tasks, &drain)?;
        let acceptor = listener::tls(serving, authority.roots())?;
        let (publish, published) = watch::channel(Published::default());
        let feedback = Feedback::default();
        let statuses = Statuses::default();
        let folder = config.status_directory().join(files::OWN);
        tasks.spawn_background("conditions", control::files::run(folder, statuses.clone()));
        let (keep, keys) = watch::channel(Arc::default());
        let (want, wanted) = watch::channel(Arc::default());
        tasks.spawn_background("keys of token issuers", jwks::run(config.fetcher(), wanted, keep));
        let inputs = Inputs { batches, settings: settings(config, &tasks)?, keys };
        let outputs = Outputs { publish, wanted: want, statuses };
        tasks.spawn_background("line", line::run(mesh(config), inputs, feedback.clone(), outputs));
        open_when_synced(&tasks, &readiness, published.clone());

        let listen = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let connections = listener::connections(listener, acceptor, &tasks, drain.clone());

        let authenticator = Arc::new(Authenticator::new(
            config.trust_domain.clone(),
            config.token_audiences.clone(),
            config.token_issuer.clone(),
            KeySet::new(config.key_set()),
        ));
        let discovery = DiscoveryService::new(
            (published.clone(), feedback.clone()),
            Arc::clone(&authenticator),
            tasks.clone(),
            drain.clone(),
            XdsMetrics::register(&mut registry),
        );
        let certificates = CertificateService::new(
            authority,
            authenticator,
            published.clone(),
            ServiceOptions {
                trusted_node_accounts: config.trusted_node_accounts.0.clone(),
                patience: IMPERSONATION_PATIENCE,
            },
            CaMetrics::register(&mut registry),
        );
        let router = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(
                AggregatedDiscoveryServiceServer::new(discovery).max_decoding_message_size(MAX_DISCOVERY_REQUEST),
            )
            .add_service(
                IstioCertificateServiceServer::new(certificates).max_decoding_message_size(MAX_CERTIFICATE_REQUEST),
            );
        let draining = drain.clone();
        let hold = drain.hold("discovery and certificates");
        let _ = tasks.spawn("discovery and certificates", async move {
            let ended = router.serve_with_incoming_shutdown(connections, draining.started());
            tokio::select! {
                ended = ended => if let Err(error) = ended {
                    warn!(%error, "the server of discovery and certificates failed");
                },
                () = draining.forced() => {}
            }
            drop(hold);
        });
        serve_http(
            config,
            registry,
            readiness,
            (published, feedback),
            HttpParts { telemetry, tasks: &tasks, drain: &drain, shutdown: &shutdown },
        )
        .await?;
        info!(%address, "waypoint-config is up");
        Ok(Self { address, shutdown, drainer, tasks, patience: config.drain })
    }

    /// Where discovery and certificates are served.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs until asked to end, then ends in order.
    pub async fn run(self) {
        let reason = tokio::select! {
            reason = self.shutdown.requested() => reason,
            name = self.tasks.panicked() => format!("task {name} failed"),
        };
        info!(reason, "ending");
        let end = self.drainer.drain(self.patience).await;
        info!(?end, "ended");
        self.tasks.finished().await;
    }
}

/// What the mesh's operator decided, followed from now on.
fn settings(config: &Config, tasks: &Tasks) -> Result<watch::Receiver<Loaded>, SettingsError> {
    let Some(path) = &config.mesh_config else {
        return Ok(watch::channel(Loaded { settings: Arc::new(settings::without()), fault: None }).1);
    };
    let (file, first) = settings::File::open(path.clone())?;
    let (say, said) = watch::channel(first);
    tasks.spawn_background("mesh configuration", file.run(say));
    Ok(said)
}

fn mesh(config: &Config) -> Mesh {
    Mesh {
        trust_domain: config.trust_domain.clone(),
        cluster_id: config.cluster_id.clone(),
        cluster_domain: config.cluster_domain.clone(),
        root_namespace: config.system_namespace.clone(),
    }
}

/// The serving certificate, renewed at half of its life.
fn serving(
    config: &Config,
    authority: &Arc<Authority>,
    tasks: &Tasks,
    drain: &Drain,
) -> Result<Arc<Serving>, StartError> {
    let (names, addresses) = config.serving_names();
    let first = authority.serving(&names, &addresses, OffsetDateTime::now_utc())?;
    let mut renew_at = first.renew_at;
    let serving = Arc::new(Serving::new(first)?);
    let (authority, renewed, drain) = (Arc::clone(authority), Arc::clone(&serving), drain.clone());
    tasks.spawn_background("serving certificate", async move {
        loop {
            let wait = (renew_at - OffsetDateTime::now_utc()).try_into().unwrap_or(Duration::ZERO);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = drain.started() => return,
            }
            let now = OffsetDateTime::now_utc();
            let next = authority.serving(&names, &addresses, now).map_err(StartError::from);
            let next = next.and_then(|next| {
                let renew_at = next.renew_at;
                renewed.replace(next).map(|()| renew_at).map_err(StartError::from)
            });
            renew_at = next.unwrap_or_else(|error| {
                warn!(%error, "the serving certificate could not be renewed");
                now + RENEWAL_RETRY
            });
        }
    });
    Ok(serving)
}

fn open_when_synced(tasks: &Tasks, readiness: &Readiness, mut published: watch::Receiver<Published>) {
    let gate = readiness.gate("source");
    tasks.spawn_background("readiness", async move {
        if published.wait_for(|published| published.synced).await.is_ok() {
            gate.open();
            info!("ready");
        }
    });
}

/// What the HTTP servers are made of.
struct HttpParts<'a> {
    telemetry: telemetry::Handle,
    tasks: &'a Tasks,
    drain: &'a Drain,
    shutdown: &'a Shutdown,
}

async fn serve_http(
    config: &Config,
    registry: Registry,
    readiness: Readiness,
    (published, feedback): (watch::Receiver<Published>, Feedback),
    parts: HttpParts<'_>,
) -> Result<(), StartError> {
    let monitoring = Routes::new()
        .index("waypoint-config")
        .metrics(move || {
            let mut text = String::new();
            // Writing to a string cannot fail.
            let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
            text
        })
        .readiness("/ready", readiness.clone())
        .readiness("/healthz/ready", readiness)
        .healthz();
    let monitoring = AdminServer::bind("monitoring", &[Listen::Exact(config.monitoring)], monitoring).await?;
    monitoring.serve(parts.tasks, parts.drain);
    let (faults, waypoints) = (published.clone(), published.clone());
    let admin = Routes::new()
        .index("waypoint-config")
        .logging(parts.telemetry)
        .tasks(parts.tasks.clone())
        .quit(parts.shutdown.clone())
        .pprof()
        .get("/debug/resources", "what node proxies are sent: type, name, version", move |_| {
            let text = listing(&published.borrow().resources);
            async { Response::text(text) }
        })
        .get("/debug/waypoints", "what waypoints are sent: waypoint, type, name, version", move |_| {
            let text = waypoint_listing(&waypoints.borrow().waypoints);
            async { Response::text(text) }
        })
        .get("/debug/xds", "what clients refuse of what they are sent: client, type, name, reason", move |_| {
            let line = |one: Refusal| format!("{}\t{}\t{}\t{}\n", one.client, one.type_url, one.resource, one.reason);
            let text: String = feedback.refusals.all().into_iter().map(line).collect();
            async { Response::text(text) }
        })
        .get("/debug/faults", "what the source could not take in, and why", move |_| {
            let text: String = faults.borrow().faults.iter().map(|fault| format!("{fault}\n")).collect();
            async { Response::text(text) }
        });
    let admin = AdminServer::bind("admin", &[Listen::Exact(config.admin)], admin).await?;
    admin.serve(parts.tasks, parts.drain);
    Ok(())
}

fn listing(resources: &Resources) -> String {
    let of = |kind: Type| {
        resources.all(kind).map(move |resource| format!("{}\t{}\t{}\n", kind.url(), resource.name, resource.version))
    };
    Type::ALL.into_iter().flat_map(of).collect()
}

fn waypoint_listing(waypoints: &Waypoints) -> String {
    let of = |(key, rendered): (&'_ fleet::Key, &'_ Rendered)| -> String {
        let all =
            envoy::Type::ALL.into_iter().flat_map(|kind| rendered.resources.all(kind).map(move |one| (kind, one)));
        all.map(|(kind, one)| format!("{}\t{}\t{}\t{}\n", key.waypoint, kind.url(), one.name, one.version)).collect()
    };
    waypoints.iter().map(of).collect()
}
