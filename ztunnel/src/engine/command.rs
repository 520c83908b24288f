// SPDX-License-Identifier: Apache-2.0
//! What crosses the border between the control runtime and the data threads: pods and commands one way, demands the other.
//!
//! The control side calls [`crate::engine::Handle`]; the data threads read [`Shared`] and send [`Demand`]s. Nothing here performs I/O.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use hbone::Budget;
use mesh_proto::spiffe::Identity;
use tokio::sync::{mpsc, oneshot};

use super::shares::Share;
use crate::engine::account::Accounts;
use crate::mesh::Snapshot;
use crate::net::{Listener, PodNetns};
use crate::tls::Credential;

/// A pod enrolled on this node, as ZDS told it. The trust domain of its identity comes from its workload record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// ZDS uid; the key of everything that concerns this pod.
    pub uid: String,
    /// Kubernetes name.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes service account.
    pub service_account: String,
}

/// Everything the data threads share with the control side. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    /// The mesh as last published. Store a new one, then call [`crate::engine::Handle::mesh_changed`].
    pub mesh: Arc<ArcSwap<Snapshot>>,
    /// Credentials in force. Store new ones, then call [`crate::engine::Handle::credential_changed`].
    pub credentials: Arc<ArcSwap<Credentials>>,
    /// Counters and the access log, read at scrape.
    pub accounts: Arc<Accounts>,
    /// What the data threads need from the control side.
    pub demands: mpsc::UnboundedSender<Demand>,
}

/// The credential of every identity that has one.
pub type Credentials = HashMap<Identity, Arc<Credential>>;

/// A fact a parked connection waits for. Answers do not name the connection: every parked connection that waits for the same
/// fact is asked to go on, and looks again by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// There is no usable credential for this identity. Answered by `credential_changed` or `credential_failed`.
    Certificate {
        /// Whose.
        identity: Identity,
    },
    /// A pod's own workload is not in the snapshot yet. Answered by `mesh_changed`; connections wait at most 5 s. With plain
    /// wildcard discovery there is nothing to do about it, with on-demand discovery it is a subscription.
    Workload {
        /// Pod namespace.
        namespace: String,
        /// Pod name.
        name: String,
    },
}

/// How a pod is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseHow {
    /// Release: listeners close at once (connections the kernel already accepted are still served), open connections live on
    /// until they end by themselves.
    Drain,
    /// Deletion: listeners and connections close now; peers of its tunnels get GOAWAY as far as the network still carries it.
    Immediate,
}

/// Where a pod's three listeners bind. The default is what a pod gets: the three well-known ports on every address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAt {
    /// Redirected connections that leave the pod (15001).
    pub outbound: Option<SocketAddr>,
    /// HBONE from peers (15008).
    pub inbound: Option<SocketAddr>,
    /// Redirected plaintext that enters the pod (15006).
    pub plaintext: Option<SocketAddr>,
    /// Where a connection accepted on a redirect port goes when the kernel knows no original destination. `None` takes the
    /// socket's local address, which is right under TPROXY.
    pub target_without_redirect: Option<SocketAddr>,
}

/// A command to one data thread.
#[derive(Debug)]
pub(crate) enum Command {
    Open(Box<Opening>),
    Close { uid: String, how: CloseHow, done: Arc<Done> },
    MeshChanged { rejudge: bool },
    CredentialChanged { identity: Identity },
    CredentialFailed { identity: Identity, reason: Arc<str> },
    Drain { deadline: Instant, done: Arc<Done> },
}

/// A pod to be served, its listeners bound.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) pod: Arc<Pod>,
    pub(crate) listeners: Vec<(Role, Listener)>,
    pub(crate) netns: Option<Arc<PodNetns>>,
    pub(crate) at: Arc<ListenAt>,
    /// What the pod may hold, on all threads together.
    pub(crate) budget: Budget,
    /// The same for sockets, dials and handshakes.
    pub(crate) share: Arc<Share>,
    /// How many threads listen for the pod.
    pub(crate) spread: usize,
}

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// 15001.
    Outbound,
    /// 15008.
    Inbound,
    /// 15006.
    Plaintext,
}

/// Completes its receiver when the last clone is dropped: each data thread holds one until its part of a close is done.
#[derive(Debug)]
pub(crate) struct Done(Option<oneshot::Sender<()>>);

impl Done {
    pub(crate) fn new() -> (Arc<Self>, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Arc::new(Self(Some(sender))), receiver)
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            let _ = sender.send(());
        }
    }
}
