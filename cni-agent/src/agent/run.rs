// SPDX-License-Identifier: Apache-2.0
//! The loop: hears what happens, tells the table, obeys it. Steps run as tasks of their own, one at a time for each pod; nothing blocks the loop.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mesh_common::lifecycle::{Drain, Gate, Tasks};
use mesh_proto::contract::label;
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::cni::snapshot::{Membership, Snapshot, file};
use crate::enrol::{Namespace, Pod, Policy};
use crate::find::{Finder, PodNetns};
use crate::plugin::{Answer, Request, Sandbox};
use crate::rules;
use crate::watch::News;
use crate::zds::{Event, Proxies};

use super::entry::{Report, State, Step, Timing};
use super::sandboxes::Sandboxes;
use super::status::{StatusError, StatusFolder};
use super::table::{Action, Input, RequestId, Table};
use super::work::{Tools, chain};

/// What the loop is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who is enrolled.
    pub policy: Policy,
    /// How long things take.
    pub timing: Timing,
    /// What rules look like on this node.
    pub rules: rules::Options,
    /// Where this agent tells which pods take HBONE.
    pub status: PathBuf,
    /// Where it remembers what must survive it.
    pub run_dir: PathBuf,
    /// Where the node's `/proc` is.
    pub proc: PathBuf,
}

/// What the loop hears.
pub struct Inlets {
    /// From the source of objects.
    pub news: mpsc::Receiver<News>,
    /// From the CNI plugin.
    pub requests: mpsc::Receiver<Request>,
    /// From the node proxies.
    pub events: mpsc::UnboundedReceiver<Event>,
}

/// Why the loop cannot start.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The status folder.
    #[error("cannot tell the mesh about pods: {0}")]
    Status(String),
    /// The run directory.
    #[error("cannot remember sandboxes in {}: {source}; --run-dir must be writable", path.display())]
    Remember {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl From<StatusError> for AgentError {
    fn from(error: StatusError) -> Self {
        Self::Status(chain(&error))
    }
}

/// How all pods stand, for people and metrics.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Each pod with how it stands.
    pub pods: Vec<(Pod, Report)>,
    /// How often rules had to be put back.
    pub repairs: u64,
}

impl Overview {
    /// How many pods stand so.
    #[must_use]
    pub fn count(&self, state: State) -> usize {
        self.pods.iter().filter(|(_, report)| report.state == state).count()
    }
}

/// The loop.
pub struct Agent {
    table: Table<PodNetns>,
    tools: Tools,
    options: Options,
    sandboxes: Sandboxes,
    proxies: Proxies,
    listener: Option<UnixListener>,
    tasks: Tasks,
    drain: Drain,
    gate: Option<Gate>,
    overview: watch::Sender<Arc<Overview>>,
    pending: HashMap<RequestId, oneshot::Sender<Answer>>,
    requests: u64,
    ended: (mpsc::UnboundedSender<Input<PodNetns>>, mpsc::UnboundedReceiver<Input<PodNetns>>),
}

/// The plugin's snapshot is written anew this often, well within its age limit.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(20);

impl Agent {
    /// A loop that has not begun. `listener` is where node proxies will connect.
    ///
    /// # Errors
    /// Folders that cannot be had.
    pub fn new(
        options: Options,
        proxies: Proxies,
        listener: UnixListener,
        tasks: Tasks,
        drain: Drain,
    ) -> Result<Self, AgentError> {
        let folder = options.run_dir.join("sandboxes");
        let remember = |source| AgentError::Remember { path: folder.clone(), source };
        let sandboxes = Sandboxes::load(folder.clone()).map_err(remember)?;
        let tools = Tools {
            tasks: tasks.clone(),
            finder: Finder::new(&options.proc),
            proxies: proxies.clone(),
            rules: options.rules.clone(),
            status: StatusFolder::create(&options.status)?,
        };
        Ok(Self {
            table: Table::new(options.policy.clone(), options.timing),
            tools,
            options,
            sandboxes,
            proxies,
            listener: Some(listener),
            tasks,
            drain,
            gate: None,
            overview: watch::Sender::new(Arc::default()),
            pending: HashMap::new(),
            requests: 0,
            ended: mpsc::unbounded_channel(),
        })
    }

    /// Opens this gate once node proxies are accepted.
    pub fn opens(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    /// How all pods stand, kept up to date.
    #[must_use]
    pub fn overview(&self) -> watch::Receiver<Arc<Overview>> {
        self.overview.subscribe()
    }

    /// Runs until the drain starts. Pods stay as they are: the next agent takes them up.
    pub async fn run(mut self, mut inlets: Inlets) {
        let remembered: Vec<_> = self.sandboxes.iter().cloned().collect();
        for known in remembered {
            let (namespace, name, uid, netns) = (known.namespace, known.name, known.uid, known.netns);
            self.hear(Input::SandboxAdded { request: None, namespace, name, uid, netns });
        }
        let drain = self.drain.clone();
        let mut snapshot = tokio::time::interval(SNAPSHOT_EVERY);
        loop {
            let deadline = self.table.next_deadline(Instant::now());
            let input = tokio::select! {
                biased;
                () = drain.started() => return,
                Some(ended) = self.ended.1.recv() => ended,
                Some(event) = inlets.events.recv() => match event {
                    Event::Changed => Input::ProxyChanged,
                    Event::Listening { uid } => Input::Listening { uid },
                },
                Some(request) = inlets.requests.recv() => match self.asked(request) {
                    Some(input) => input,
                    None => continue,
                },
                Some(news) = inlets.news.recv() => {
                    let namespaces = matches!(news, News::Namespace(_) | News::NamespaceGone { .. } | News::Synced);
                    self.hear(input_of(news));
                    if namespaces {
                        snapshot.reset_immediately();
                    }
                    continue;
                }
                _ = snapshot.tick() => {
                    self.leave_snapshot();
                    for gone in self.sandboxes.vanished() {
                        self.hear(Input::SandboxGone { netns: gone.netns });
                    }
                    continue;
                }
                () = until(deadline) => {
                    let actions = self.table.handle_timeout(Instant::now());
                    self.obey(actions);
                    continue;
                }
            };
            self.hear(input);
        }
    }

    fn hear(&mut self, input: Input<PodNetns>) {
        let actions = self.table.handle(Instant::now(), input);
        self.obey(actions);
    }

    fn obey(&mut self, actions: Vec<Action<PodNetns>>) {
        for action in actions {
            match action {
                Action::Take { pod, netns, step } => {
                    let (tools, ended) = (self.tools.clone(), self.ended.0.clone());
                    let _ = self.tasks.spawn("a step for a pod", async move {
                        let (uid, namespace, name) = (pod.uid.clone(), pod.namespace.clone(), pod.name.clone());
                        let outcome = tools.take(pod, netns, step).await;
                        match &outcome {
                            Ok(_) => tracing::debug!(namespace, pod = name, %step, "done"),
                            // Normal while a pod starts, or was started before this agent.
                            Err(reason) if step == Step::FindNetns => {
                                tracing::debug!(namespace, pod = name, reason, "not found yet")
                            }
                            Err(reason) => warn!(namespace, pod = name, %step, reason, "failed, will be tried again"),
                        }
                        // A loop that is gone means that the agent ends.
                        let _ = ended.send(Input::Ended { uid, step, outcome });
                    });
                }
                Action::Reply { request, answer } => {
                    if let Some(reply) = self.pending.remove(&request) {
                        // A plugin that gave up needs no answer.
                        let _ = reply.send(answer);
                    }
                }
                Action::AcceptProxies { keep } => self.accept(keep),
            }
        }
        self.publish();
    }

    fn accept(&mut self, keep: Vec<String>) {
        keep.into_iter().for_each(|uid| self.proxies.keep(uid));
        if let Err(error) = self.tools.status.keep_only(self.table.reports().map(|(_, pod, _)| pod)) {
            warn!(error = chain(&error), "what was told of pods that are gone stays");
        }
        if let Some(listener) = self.listener.take() {
            let accepting = self.proxies.clone().accept(listener, self.tasks.clone(), self.drain.clone());
            let _ = self.tasks.spawn("accept node proxies", accepting);
        }
        if let Some(gate) = self.gate.take() {
            gate.open();
            info!("ready");
        }
    }

    fn asked(&mut self, request: Request) -> Option<Input<PodNetns>> {
        match request {
            Request::Add { sandbox, reply } => {
                let netns = match self.remember(&sandbox) {
                    Ok(netns) => netns,
                    Err(reason) => {
                        let _ = reply.send(Answer::Refused { reason });
                        return None;
                    }
                };
                self.requests += 1;
                let request = RequestId(self.requests);
                self.pending.insert(request, reply);
                let Sandbox { namespace, name, uid, .. } = sandbox;
                Some(Input::SandboxAdded { request: Some(request), namespace, name, uid, netns })
            }
            Request::Delete { sandbox, reply } => {
                let known = self.sandboxes.remove(&sandbox);
                let _ = reply.send(Answer::Enrolled);
                known.map(|known| Input::SandboxGone { netns: known.netns })
            }
            Request::Check { sandbox, reply } => {
                let _ = reply.send(self.check(&sandbox));
                None
            }
        }
    }

    fn remember(&mut self, sandbox: &Sandbox) -> Result<PodNetns, String> {
        let netns = PodNetns::open(&sandbox.netns).map_err(|error| chain(&error))?;
        self.tools.finder.must_be_a_pods(&netns, &sandbox.netns).map_err(|error| chain(&error))?;
        self.sandboxes
            .add(sandbox, netns.clone())
            .map_err(|error| format!("cannot remember the sandbox in {}: {error}", self.options.run_dir.display()))?;
        Ok(netns)
    }

    fn check(&self, sandbox: &Sandbox) -> Answer {
        match self.table.report(&sandbox.namespace, &sandbox.name) {
            Some(Report { state: State::Enrolled, .. }) => Answer::Enrolled,
            Some(Report { state: State::Out, reason }) => Answer::Ignored { reason: reason.unwrap_or_default() },
            Some(Report { state, reason }) => Answer::Refused {
                reason: format!("the pod is {}: {}", state.name(), reason.as_deref().unwrap_or("steps are under way")),
            },
            None => Answer::Refused {
                reason: "the agent does not know the pod: does its source have it, with this node's name?".to_owned(),
            },
        }
    }

    fn leave_snapshot(&self) {
        let written_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let namespaces = self.table.namespaces().map(|namespace| (namespace.name.clone(), self.membership(namespace)));
        let snapshot = Snapshot { written_at, namespaces: namespaces.collect() };
        if let Err(error) = file::write(&self.options.run_dir, &snapshot) {
            warn!(error = chain(&error), "the CNI plugin will hold all pods while this agent is away");
        }
    }

    fn membership(&self, namespace: &Namespace) -> Membership {
        let mode = namespace.labels.get(label::DATAPLANE_MODE).map(String::as_str);
        if self.options.policy.excluded_namespaces.contains(&namespace.name) {
            Membership::Excluded
        } else if mode == Some(label::DATAPLANE_MODE_AMBIENT) {
            Membership::Ambient
        } else {
            Membership::Outside
        }
    }

    fn publish(&self) {
        let pods = self.table.reports().map(|(_, pod, report)| (pod.clone(), report)).collect();
        self.overview.send_replace(Arc::new(Overview { pods, repairs: self.table.repairs() }));
    }
}

fn input_of(news: News) -> Input<PodNetns> {
    match news {
        News::Pod(pod) => Input::Pod(pod),
        News::PodGone { uid } => Input::PodGone { uid },
        News::Namespace(namespace) => Input::Namespace(namespace),
        News::NamespaceGone { name } => Input::NamespaceGone { name },
        News::Synced => Input::Synced,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
