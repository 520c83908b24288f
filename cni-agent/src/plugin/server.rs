// SPDX-License-Identifier: Apache-2.0
//! The HTTP server: a call in, a [`Request`] to the loop, the loop's [`Answer`] out.

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use mesh_common::admin::{self, Peer, Response, Routes, Server, StatusCode};
use mesh_common::lifecycle::{Drain, Tasks};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot};

use super::socket;
use super::{Answer, Request, Sandbox};
use crate::cni::question::{Question, path};
use crate::names::{is_label, is_subdomain, is_uid};

/// Why the plugin's socket could not be served.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// Something that is no socket has its name.
    #[error("{path} is not a socket: move it away, the CNI plugin has to find the agent's socket there")]
    Occupied {
        /// Where.
        path: PathBuf,
    },
    /// The system refused.
    #[error(
        "cannot listen for the CNI plugin on {path}: check that the directory can be written and the path is shorter than 108 bytes"
    )]
    Bind {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// How many calls were answered, by code.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    requests: Family<Labels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    response_code: u16,
}

impl Counts {
    /// Adds `istio_cni_plugin_requests_total` (cni-agent.md P-12).
    pub fn register(&self, registry: &mut Registry) {
        let about = "Calls of the CNI plugin by the status they were answered with";
        registry.register("istio_cni_plugin_requests", about, self.requests.clone());
    }

    /// How many calls were answered with `code`.
    pub fn answered(&self, code: u16) -> u64 {
        self.requests.get_or_create(&Labels { response_code: code }).get()
    }
}

/// Listens at `socket` for plugins until the drain starts and hands what they ask to `requests`. Must be called inside a tokio runtime.
///
/// A plugin waits while the channel is full. Once the receiver is gone every call is answered 503, on which our plugin decides by itself.
pub fn serve(
    socket: &Path,
    tasks: &Tasks,
    drain: &Drain,
    requests: mpsc::Sender<Request>,
) -> Result<Counts, PluginError> {
    let listener = socket::bind(socket)?;
    let counts = Counts::default();
    let desk = Desk { requests, counts: counts.clone(), owner: nix::unistd::geteuid().as_raw() };
    let routes = Routes::new()
        .any(path::ADD, "a sandbox was made", desk.call(|sandbox, reply| Request::Add { sandbox, reply }))
        .any(path::DELETE, "a sandbox goes away", desk.call(|sandbox, reply| Request::Delete { sandbox, reply }))
        .any(
            path::CHECK,
            "whether a sandbox is as it was left",
            desk.call(|sandbox, reply| Request::Check { sandbox, reply }),
        )
        .any(path::STATUS, "whether the agent takes calls", desk.status());
    Server::on_unix("plugin", listener, routes).serve(tasks, drain);
    tracing::info!(socket = %socket.display(), "listening for the CNI plugin");
    Ok(counts)
}

/// Takes calls, one at a time; clones take them at the same time.
#[derive(Clone)]
struct Desk {
    requests: mpsc::Sender<Request>,
    counts: Counts,
    /// Who may call.
    owner: u32,
}

type Make = fn(Sandbox, oneshot::Sender<Answer>) -> Request;

impl Desk {
    fn call(&self, make: Make) -> impl Fn(admin::Request) -> Reply + Send + Sync + 'static {
        let desk = self.clone();
        move |request| {
            let desk = desk.clone();
            Box::pin(async move {
                let answered = desk.answer(make, &request).await;
                desk.counted(answered)
            })
        }
    }

    fn status(&self) -> impl Fn(admin::Request) -> Reply + Send + Sync + 'static {
        let desk = self.clone();
        move |request| {
            let answered = desk
                .admit(request.peer)
                .and_then(|()| if desk.requests.is_closed() { Err(stopping()) } else { Ok(()) });
            let response = desk.counted(answered.map(|()| Response::empty(StatusCode::OK)));
            Box::pin(async move { response })
        }
    }

    async fn answer(&self, make: Make, request: &admin::Request) -> Result<Response, Response> {
        self.admit(request.peer)?;
        let question: Question = serde_json::from_slice(&request.body).map_err(malformed)?;
        let is_ours = question.container_id.is_some();
        let sandbox = sandbox(question, request.path == path::DELETE).map_err(malformed)?;
        let (reply, answer) = oneshot::channel();
        self.requests.send(make(sandbox, reply)).await.map_err(|_| stopping())?;
        Ok(respond(answer.await.map_err(|_| stopping())?, is_ours))
    }

    /// The socket's mode says the same; this holds even if somebody changes that.
    fn admit(&self, peer: Peer) -> Result<(), Response> {
        match peer {
            Peer::Unix { uid: Some(uid) } if uid == self.owner => Ok(()),
            _ => Err(Response::failed(
                StatusCode::FORBIDDEN,
                "only the user the agent runs as may call: check who runs the CNI plugin",
            )),
        }
    }

    fn counted(&self, answered: Result<Response, Response>) -> Response {
        let response = answered.unwrap_or_else(|refused| refused);
        self.counts.requests.get_or_create(&Labels { response_code: response.status.as_u16() }).inc();
        response
    }
}

type Reply = std::pin::Pin<Box<dyn Future<Output = Response> + Send>>;

/// Istio's plugin asks only about pods that it found to be in the mesh: not to enrol one is an error there (cni-agent.md P-13), and it tries again.
fn respond(answer: Answer, is_ours: bool) -> Response {
    match answer {
        Answer::Enrolled => Response::empty(StatusCode::OK),
        Answer::Ignored { reason } if is_ours => Response::text(reason),
        Answer::Ignored { reason } => Response::failed(
            StatusCode::INTERNAL_SERVER_ERROR,
            format_args!("the agent does not find this pod eligible for the mesh: {reason}"),
        ),
        Answer::Refused { reason } => Response::failed(StatusCode::INTERNAL_SERVER_ERROR, reason),
    }
}

fn stopping() -> Response {
    Response::failed(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping: its successor will answer")
}

fn malformed(why: impl Display) -> Response {
    Response::failed(StatusCode::BAD_REQUEST, format_args!("the body is not what a CNI plugin sends: {why}"))
}

/// The loop need not ask again whether there is a pod, and a namespace to enter.
fn sandbox(question: Question, is_leaving: bool) -> Result<Sandbox, &'static str> {
    // They end up in names of files.
    if !is_label(&question.pod_namespace) || !is_subdomain(&question.pod_name) {
        return Err("it names no pod that Kubernetes could have: check PodNamespace and PodName");
    }
    if question.pod_uid.as_deref().is_some_and(|uid| !uid.is_empty() && !is_uid(uid)) {
        return Err("the pod's uid is none");
    }
    if !is_leaving && !question.netns.is_absolute() {
        return Err("Netns is not an absolute path");
    }
    Ok(Sandbox {
        addresses: question.addresses(),
        namespace: question.pod_namespace,
        name: question.pod_name,
        uid: question.pod_uid,
        container_id: question.container_id,
        interface: question.if_name,
        netns: question.netns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_user_the_agent_runs_as_may_call() {
        let (requests, _asked) = mpsc::channel(1);
        let desk = Desk { requests, counts: Counts::default(), owner: 1000 };
        let refused = |peer| desk.admit(peer).err().map(|response| response.status);
        assert_eq!(refused(Peer::Unix { uid: Some(1000) }), None);
        for peer in [
            Peer::Unix { uid: Some(0) },
            Peer::Unix { uid: Some(1001) },
            Peer::Unix { uid: None },
            Peer::Tcp(([127, 0, 0, 1], 1).into()),
        ] {
            assert_eq!(refused(peer), Some(StatusCode::FORBIDDEN), "{peer:?}");
        }
    }
}
