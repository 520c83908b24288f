// SPDX-License-Identifier: Apache-2.0
//! Builds the program from its configuration, runs it, and ends it in order. Pods stay as they are when it ends: the next agent takes them up.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh_common::admin::{AdminError, Listen, Response, Routes, Server};
use mesh_common::lifecycle::{Drain, Readiness, Shutdown, Tasks, drain};
use mesh_common::telemetry;
use mesh_proto::contract::path;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde_json::json;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::agent::{Agent, AgentError, Inlets, Options, Overview, State};
use crate::config::Config;
use crate::plugin::{self, PluginError};
use crate::watch::Directory;
use crate::zds::{self, Proxies, ZdsError};

/// Why the program did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The socket of the node proxies.
    #[error(transparent)]
    Zds(#[from] ZdsError),
    /// The socket of the plugin.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The loop.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The run directory.
    #[error("cannot make {}: {source}; --run-dir must name a place the agent can write to", path.display())]
    RunDir {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The HTTP ports.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// Nobody but the agent's user has business there.
const RUN_DIR_MODE: u32 = 0o750;
/// How long what is under way may take at the end.
const DRAIN: Duration = Duration::from_secs(3);

/// Runs the program until it is asked to end.
///
/// # Errors
/// Something it needs cannot be had.
pub async fn run(
    config: &Config,
    telemetry: telemetry::Handle,
    tasks: Tasks,
    shutdown: Shutdown,
) -> Result<(), StartError> {
    let (drainer, drain) = drain();
    let readiness = Readiness::new();
    let mut registry = Registry::default();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(RUN_DIR_MODE)
        .create(&config.run_dir)
        .map_err(|source| StartError::RunDir { path: config.run_dir.clone(), source })?;
    if config.dns_capture {
        warn!(
            "name queries are not captured, whatever AMBIENT_DNS_CAPTURE says: the node proxy does not answer them yet"
        );
    }
    let listener = zds::bind(&config.ztunnel_socket)?;
    let (events, heard) = mpsc::unbounded_channel();
    let proxies = Proxies::new(config.ztunnel_socket.clone(), events);
    let options = Options {
        policy: config.policy(),
        timing: config.timing(),
        rules: config.rules(),
        status: config.own_status(),
        run_dir: config.run_dir.clone(),
        proc: config.host_proc.clone(),
    };
    let mut agent = Agent::new(options, proxies.clone(), listener, tasks.clone(), drain.clone())?;
    agent.opens(readiness.gate("pods and namespaces"));
    registry.register_collector(Box::new(Pods { overview: agent.overview(), proxies }));

    let (requests, asked) = mpsc::channel(64);
    let socket = config.run_dir.join(path::PLUGIN_SOCKET_NAME);
    plugin::serve(&socket, &tasks, &drain, requests)?.register(&mut registry);
    let (news, told) = mpsc::channel(64);
    let directory = Directory {
        objects: config.directory().clone(),
        status: config.status_directory(),
        own: config.own_status(),
        node: config.node_name.clone(),
    };
    let failed = shutdown.clone();
    tasks.spawn_background("watch the directory", async move {
        if let Err(error) = directory.run(news).await {
            error!("{error}");
            failed.request("the source of objects cannot be watched");
        }
    });
    serve_http(
        config,
        registry,
        readiness,
        &agent,
        HttpParts { telemetry, tasks: &tasks, drain: &drain, shutdown: &shutdown },
    )
    .await?;
    let _ = tasks.spawn("pods", agent.run(Inlets { news: told, requests: asked, events: heard }));
    info!(node = config.node_name, "cni-agent is up");

    let reason = tokio::select! {
        reason = shutdown.requested() => reason,
        name = tasks.panicked() => format!("task {name} failed"),
    };
    info!(reason, "ending; pods stay as they are");
    let end = drainer.drain(DRAIN).await;
    info!(?end, "ended");
    tasks.finished().await;
    Ok(())
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
    agent: &Agent,
    parts: HttpParts<'_>,
) -> Result<(), StartError> {
    let health = Routes::new().healthz().readiness("/readyz", readiness);
    Server::bind("health", &[Listen::Exact(config.health)], health).await?.serve(parts.tasks, parts.drain);
    let monitoring = Routes::new().index("cni-agent").metrics(move || {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    });
    Server::bind("monitoring", &[Listen::Exact(config.monitoring)], monitoring).await?.serve(parts.tasks, parts.drain);
    let overview = agent.overview();
    let admin = Routes::new()
        .index("cni-agent")
        .logging(parts.telemetry)
        .tasks(parts.tasks.clone())
        .quit(parts.shutdown.clone())
        .pprof()
        .get("/debug/pods", "every pod of the node: how it stands and why", move |_| {
            let text = format!("{:#}\n", listing(&overview.borrow()));
            async { Response::json(text) }
        });
    Server::bind("admin", &[Listen::Exact(config.admin)], admin).await?.serve(parts.tasks, parts.drain);
    Ok(())
}

fn listing(overview: &Overview) -> serde_json::Value {
    overview
        .pods
        .iter()
        .map(|(pod, report)| {
            json!({
                "namespace": pod.namespace, "name": pod.name, "uid": pod.uid,
                "state": report.state.name(), "reason": report.reason,
            })
        })
        .collect()
}

/// What is counted about pods, read off at each scrape.
#[derive(Debug)]
struct Pods {
    overview: watch::Receiver<Arc<Overview>>,
    proxies: Proxies,
}

impl Collector for Pods {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let overview = Arc::clone(&self.overview.borrow());
        let mut pods = encoder.encode_descriptor(
            "mesh_enrolled_pods",
            "Pods of this node by how they stand",
            None,
            MetricType::Gauge,
        )?;
        for state in [State::Enrolled, State::Pending, State::Releasing, State::Out] {
            let count = i64::try_from(overview.count(state)).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(pods.encode_family(&[("state", state.name())])?)?;
        }
        let repairs = ConstCounter::new(overview.repairs);
        let help = "Times that rules of a pod were found changed by somebody else and put back";
        let encoder_of = encoder.encode_descriptor("mesh_rule_repairs", help, None, MetricType::Counter)?;
        repairs.encode(encoder_of)?;
        let connected = ConstGauge::new(i64::try_from(self.proxies.connected()).unwrap_or(i64::MAX));
        let help = "Node proxies connected to the agent";
        connected.encode(encoder.encode_descriptor("ztunnel_connected", help, None, MetricType::Gauge)?)
    }
}
