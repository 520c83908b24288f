// SPDX-License-Identifier: Apache-2.0
//! Builds the launcher from its configuration, runs it until Envoy has ended, and says how.

use std::collections::BTreeMap;
use std::fs;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mesh_common::lifecycle::Tasks;
use mesh_proto::spiffe::{Identity, IdentityError};
use nix::sys::signal::Signal as Kill;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::admin;
use super::bootstrap::{self, Bootstrap, Limits};
use super::config::Config;
use super::control_plane::Authority;
use super::drain::{Action, Drain, Patience};
use super::envoy::{self, Envoy, EnvoyError};
use super::keeper::{self, Keeper};
use super::secrets::{Folder, WriteError};

/// Why Envoy could not be started, or was lost.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// Who we are.
    #[error("this pod's identity: {0}; check --trust-domain, --namespace and --service-account")]
    Identity(#[from] IdentityError),
    /// The labels.
    #[error("cannot read the labels from {path}: {source}")]
    Labels {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder.
    #[error(transparent)]
    Folder(#[from] WriteError),
    /// The bootstrap.
    #[error("cannot write {path}: {source}")]
    Bootstrap {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Signals.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    /// It did not start.
    #[error(transparent)]
    Envoy(#[from] EnvoyError),
    /// It started, and cannot be waited for.
    #[error("Envoy cannot be waited for: {0}")]
    Lost(io::Error),
}

/// Runs Envoy to its end, and returns what the process should end with. To be called on the process's first thread.
///
/// # Errors
/// Envoy never came to run.
pub async fn run(config: &Config, tasks: &Tasks) -> Result<u8, LaunchError> {
    let mut wishes = Wishes::listen().map_err(LaunchError::Signals)?;
    let identity = Identity::new(&config.trust_domain, &config.namespace, &config.service_account)?;
    let labels = labels(&config.labels_file)?;
    let folder = Folder::prepare(&config.run_dir)?;
    let keeping = keeper::Options {
        identity,
        lifetime: config.lifetime,
        authority: Authority {
            place: config.ca_address.clone().unwrap_or_else(|| config.xds_address.clone()),
            roots: config.ca_root.clone().unwrap_or_else(|| config.xds_root.clone()),
            token: config.token.clone(),
            cluster_id: config.cluster_id.clone(),
        },
        discovery_roots: config.xds_root.clone(),
        folder: folder.clone(),
    };
    let keeper = tokio::select! {
        keeper = Keeper::first(keeping) => keeper,
        reason = wishes.next() => {
            info!(reason, "ended before there was a certificate");
            return Ok(0);
        }
    };
    let path = config.run_dir.join("envoy.json");
    let text = bootstrap::render(&input(config, labels, &folder));
    fs::write(&path, format!("{text:#}\n")).map_err(|source| LaunchError::Bootstrap { path: path.clone(), source })?;
    let options = envoy::Options {
        program: config.envoy.clone(),
        concurrency: config.concurrency,
        log: config.envoy_log.word(),
        drain: config.drain,
    };
    let envoy = Envoy::start(&options, &path)?;
    tasks.spawn_background("certificate", keeper.run());
    let patience = Patience { least: config.minimum_drain, most: config.drain };
    supervise(envoy, Drain::new(patience), wishes, tasks).await
}

async fn supervise(mut envoy: Envoy, mut drain: Drain, mut wishes: Wishes, tasks: &Tasks) -> Result<u8, LaunchError> {
    let mut failed = false;
    loop {
        let deadline = async {
            match drain.next_deadline() {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => pending().await,
            }
        };
        let actions = tokio::select! {
            biased;
            ended = envoy.ended() => {
                let status = ended.map_err(LaunchError::Lost)?;
                info!(%status, "Envoy has ended");
                return Ok(envoy::code(status));
            }
            reason = wishes.next() => {
                info!(reason, "asked to end");
                drain.handle_asked(Instant::now())
            }
            task = tasks.panicked(), if !failed => {
                failed = true;
                warn!(task, "a part of the launcher failed; ending");
                drain.handle_asked(Instant::now())
            }
            () = deadline => drain.handle_time(Instant::now()),
        };
        let mut actions = actions;
        while let Some(action) = actions.pop() {
            actions.extend(obey(action, &envoy, &mut drain).await);
        }
    }
}

/// Does it, and says what follows.
async fn obey(action: Action, envoy: &Envoy, drain: &mut Drain) -> Vec<Action> {
    match action {
        Action::Drain => {
            if let Err(error) = admin::drain().await {
                warn!(%error, "Envoy cannot be told to drain");
            }
        }
        Action::Count => {
            let open = admin::connections().await;
            if let Err(error) = &open {
                warn!(%error, "Envoy does not say how many connections it has");
            }
            return drain.handle_connections(Instant::now(), open.ok());
        }
        Action::Terminate => envoy.signal(Kill::SIGTERM),
        Action::Kill => {
            warn!("Envoy is killed with what it still carries");
            envoy.signal(Kill::SIGKILL);
        }
    }
    vec![]
}

fn input(config: &Config, labels: BTreeMap<String, String>, folder: &Folder) -> Bootstrap {
    Bootstrap {
        node: bootstrap::Node {
            gateway: config.gateway.clone(),
            pod: config.pod_name.clone(),
            namespace: config.namespace.clone(),
            service_account: config.service_account.clone(),
            addresses: config.address.clone(),
            node: config.node.clone(),
            network: config.network.clone(),
            cluster_id: config.cluster_id.clone(),
            cluster_domain: config.cluster_domain.clone(),
            labels,
        },
        discovery: config.xds_address.clone(),
        certificate: folder.certificate(),
        roots: folder.roots(),
        discovery_roots: folder.discovery_roots(),
        limits: Limits {
            heap: Some(config.max_heap).filter(|bytes| *bytes > 0).or_else(container_heap),
            connections: config.max_connections,
        },
    }
}

/// Nine tenths of what the container may have.
fn container_heap() -> Option<u64> {
    let limit: u64 = fs::read_to_string("/sys/fs/cgroup/memory.max").ok()?.trim().parse().ok()?;
    Some(limit / 10 * 9)
}

fn labels(path: &Path) -> Result<BTreeMap<String, String>, LaunchError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(bootstrap::labels(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(source) => Err(LaunchError::Labels { path: path.to_owned(), source }),
    }
}

/// The signals by which somebody says that it should end; each one counts.
struct Wishes {
    interrupt: Signal,
    terminate: Signal,
}

impl Wishes {
    fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
