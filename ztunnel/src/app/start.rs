// SPDX-License-Identifier: Apache-2.0
//! Start, run, stop.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_common::admin::{AdminError, Listen, Response, Routes, Server, StatusCode};
use mesh_common::lifecycle::{Drain, DrainEnd, Drainer, Readiness, Shutdown, Tasks, drain};
use mesh_common::telemetry;
use mesh_proto::contract;
use tokio::sync::{mpsc, oneshot};

use super::host::{self, HostError};
use super::measure;
use crate::admin::Sources;
use crate::certs::{Authority, Keeper};
use crate::config::{Config, OwnPod};
use crate::engine::{Engine, Handle, ListenAt, Pod, Shared, StartError};
use crate::mesh::{Change, Changed, Kind, StaticConfig};
use crate::metrics::{Counters, Page};
use crate::pods::{Inlets, Outlets, Pods};
use crate::xds::{self, LocalError, Publisher, Synced};
use crate::zds;

/// Why the program did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The static configuration.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A server.
    #[error(transparent)]
    Server(#[from] AdminError),
    /// The data threads.
    #[error("cannot start the data threads")]
    Engine(#[source] StartError),
    /// The runtime, or signals.
    #[error("cannot start the control runtime")]
    Runtime(#[source] io::Error),
    /// A task ended that must not.
    #[error("task {0} panicked; the process cannot go on without it")]
    Task(String),
}

/// Run until asked to stop.
pub fn run(config: Config, telemetry: &telemetry::Handle) -> Result<(), AppError> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %config.shown(config.threads.count(host::cores()).get()), "starting");
    if config.expects_dns {
        tracing::warn!(
            "this version has no DNS proxy: the node agent must not redirect the pods' DNS \
             (ISTIO_META_DNS_CAPTURE=false here says that it does not)"
        );
    }
    host::raise_file_limit();
    host::check_capabilities(config.sockets.mark)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Runtime)?;
    runtime.block_on(serve(config, telemetry))
}

/// What every part is given.
struct Frame {
    tasks: Tasks,
    readiness: Readiness,
    draining: Drain,
    counters: Counters,
}

async fn serve(config: Config, telemetry: &telemetry::Handle) -> Result<(), AppError> {
    let (drainer, draining) = drain();
    let frame = Frame { tasks: Tasks::new(), readiness: Readiness::new(), draining, counters: Counters::default() };
    let shutdown = Shutdown::listen(&frame.tasks).map_err(AppError::Runtime)?;
    let state_gate = frame.readiness.gate("state manager");
    let pods_gate = frame.readiness.gate("workload proxy manager");
    let probes = Routes::new().readiness(contract::path::READY, frame.readiness.clone());
    listen("readiness", everywhere(&config, contract::port::READINESS), probes)
        .await?
        .serve(&frame.tasks, &frame.draining);

    let (demands, demanded) = mpsc::unbounded_channel();
    let shared = Shared { mesh: Arc::default(), credentials: Arc::default(), accounts: Arc::default(), demands };
    let (news, heard) = mpsc::unbounded_channel();
    let (synced, first_sync) = Synced::new(state_gate);
    let static_config = learn(&config, &shared, news, &frame, synced)?;

    let access_log = measure::access_log(telemetry);
    let options = config.engine(host::cores(), access_log);
    let threads = options.threads.get();
    let engine = Arc::new(Engine::start(options, &shared).map_err(AppError::Engine)?);

    let (keeper_orders, ordered) = mpsc::unbounded_channel();
    let (outcomes, came) = mpsc::unbounded_channel();
    let identities = Arc::default();
    let authority = Authority::new(config.certificates.clone());
    let keeper = Keeper::new(authority, Arc::clone(&shared.credentials), Arc::clone(&identities), outcomes)
        .counted(frame.counters.certificates.clone());
    frame.spawn("certificates", keeper.run(ordered));

    let (pod_orders, pods_ordered) = mpsc::unbounded_channel();
    let (reports, reported) = mpsc::unbounded_channel();
    let pod_states = zds::Standing::default();
    let pods = Pods::new(
        Arc::clone(&engine),
        shared.clone(),
        Outlets { reports, keeper: keeper_orders },
        config.node_name.clone(),
    );
    let inlets = Inlets { orders: pods_ordered, news: heard, outcomes: came, demands: demanded };
    let own = config.own_pod.as_ref().map(|own| (own_pod(own), ListenAt::at_home(config.ipv6)));
    let session = zds::Client::new(
        config.zds.clone(),
        zds::Outlets {
            orders: pod_orders,
            reports: reported,
            standing: Arc::clone(&pod_states),
            gate: pods_gate,
            metrics: (frame.counters.zds.clone(), frame.counters.workload_manager.clone()),
        },
    );
    carry(&frame, Carriers { pods, inlets, own, session }, first_sync);

    let sources = Sources {
        mesh: Arc::clone(&shared.mesh),
        static_config: Arc::new(static_config),
        config: Arc::new(config.shown(threads)),
        istio_version: config.istio_version.as_str().into(),
        credentials: Arc::clone(&shared.credentials),
        identities,
        pods: pod_states,
    };
    let admin = admin_routes(sources, telemetry, &shutdown, &frame.tasks);
    listen("admin", Listen::Loopback(config.admin_port), admin).await?.serve(&frame.tasks, &frame.draining);
    let page = Page::new(
        &frame.counters,
        measure::traffic(Arc::clone(&shared.accounts), engine.gauges(), telemetry.clone()),
        &config.istio_version,
    );
    let stats = Routes::new().metrics(move || page.text().unwrap_or_default());
    listen("metrics", everywhere(&config, config.stats_port), stats).await?.serve(&frame.tasks, &frame.draining);

    announce(&frame);
    let ended = tokio::select! {
        reason = shutdown.requested() => {
            tracing::info!(reason, deadline = ?config.drain_deadline, "stopping");
            Ok(())
        }
        name = frame.tasks.panicked() => Err(AppError::Task(name)),
    };
    stop(&frame, drainer, &engine, config.drain_deadline).await;
    ended
}

impl Frame {
    /// A task that goes on through the first step of a drain, and is dropped in the second.
    fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let draining = self.draining.clone();
        drop(self.tasks.spawn(name, async move {
            tokio::select! {
                () = work => {}
                () = draining.forced() => {}
            }
        }));
    }
}

/// Start to learn the mesh: the static file at once, the control plane in a task.
fn learn(
    config: &Config,
    shared: &Shared,
    news: mpsc::UnboundedSender<Changed>,
    frame: &Frame,
    synced: Synced,
) -> Result<StaticConfig, AppError> {
    let node = config.node_name.as_deref().unwrap_or_default();
    let mut publisher = Publisher::new(node, Arc::clone(&shared.mesh), news);
    let mut static_config = StaticConfig::default();
    if let Some(local) = &config.local {
        let (read, changes) = local.read()?;
        static_config = read;
        publisher.apply(changes);
    }
    match &config.xds {
        Some(options) => {
            let client = xds::Client::new(options.clone(), publisher, frame.counters.xds.clone(), synced);
            frame.spawn("xds", client.run());
        }
        None => {
            publisher.apply([Change::Received(Kind::Addresses), Change::Received(Kind::Policies)]);
            synced.tell();
        }
    }
    Ok(static_config)
}

/// Who carries pods.
struct Carriers {
    pods: Pods,
    inlets: Inlets,
    own: Option<(Pod, ListenAt)>,
    session: zds::Client,
}

/// Carry pods, from the first sync on.
fn carry(frame: &Frame, carriers: Carriers, first_sync: oneshot::Receiver<()>) {
    let Carriers { mut pods, inlets, own, session } = carriers;
    let draining = frame.draining.clone();
    let (start, started) = oneshot::channel();
    frame.spawn("pods", async move {
        if first_sync.await.is_ok() {
            if let Some((pod, at)) = own {
                pods.open_own(pod, at);
            }
            let _ = start.send(());
        }
        pods.run(inlets).await;
    });
    frame.spawn("zds", async move {
        if started.await.is_ok() {
            session.run(draining).await;
        }
    });
}

fn own_pod(own: &OwnPod) -> Pod {
    Pod {
        uid: OWN_UID.to_owned(),
        name: own.name.clone(),
        namespace: own.identity.namespace().to_owned(),
        service_account: own.identity.service_account().to_owned(),
    }
}

fn admin_routes(sources: Sources, telemetry: &telemetry::Handle, shutdown: &Shutdown, tasks: &Tasks) -> Routes {
    let dumping = tasks.clone();
    Routes::new()
        .index("ztunnel")
        .any("/config_dump", "everything this ztunnel knows, as JSON", move |_request| {
            // The dump of a large mesh takes a while: discovery and the node agent must not wait for it.
            let sources = sources.clone();
            let dump = dumping.spawn_blocking("config_dump", move || sources.dump());
            async move {
                match dump.output().await {
                    Ok(Ok(json)) => Response::json(json),
                    Ok(Err(error)) => Response::failed(StatusCode::INTERNAL_SERVER_ERROR, error),
                    Err(error) => Response::failed(StatusCode::INTERNAL_SERVER_ERROR, error),
                }
            }
        })
        .logging(telemetry.clone())
        .quit(shutdown.clone())
        .tasks(tasks.clone())
        .pprof()
}

fn everywhere(config: &Config, port: u16) -> Listen {
    if config.ipv6 && Path::new(IPV6).exists() {
        Listen::Everywhere(port)
    } else {
        Listen::Exact(([0, 0, 0, 0], port).into())
    }
}

async fn listen(name: &'static str, at: Listen, routes: Routes) -> Result<Server, AdminError> {
    Server::bind(name, &[at], routes).await
}

fn announce(frame: &Frame) {
    let (readiness, began) = (frame.readiness.clone(), Instant::now());
    frame.tasks.spawn_background("announce", async move {
        readiness.ready().await;
        tracing::info!(after = ?began.elapsed(), "ready");
    });
}

/// Two steps: nothing new and a deadline, then the rest is cut off.
async fn stop(frame: &Frame, drainer: Drainer, engine: &Arc<Handle>, patience: Duration) {
    let hold = frame.draining.hold("connections");
    let drained = engine.drain(Instant::now() + patience);
    drop(frame.tasks.spawn("connections", async move {
        // An error means that the data threads are gone, and with them all connections.
        let _ = drained.await;
        drop(hold);
    }));
    match drainer.drain(patience).await {
        DrainEnd::Complete => tracing::info!("every connection has ended"),
        DrainEnd::Forced { cut_off } => tracing::info!(?cut_off, "the deadline has passed; the rest was cut off"),
        DrainEnd::Stuck { holding } => tracing::warn!(?holding, "some parts did not stop"),
    }
    if tokio::time::timeout(LAST_TASKS, frame.tasks.finished()).await.is_err() {
        tracing::warn!(running = ?frame.tasks.running(), "some tasks did not end");
    }
}

/// The key of our own pod among those of the node agent, which are Kubernetes' UIDs.
const OWN_UID: &str = "ztunnel";
/// There only if the kernel has IPv6.
const IPV6: &str = "/proc/sys/net/ipv6";
/// Tasks that were told to end twice are not waited for any longer than this.
const LAST_TASKS: Duration = Duration::from_secs(2);
