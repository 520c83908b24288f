// SPDX-License-Identifier: Apache-2.0
//! What the plugin asks the agent's loop, and what the loop answers.

use std::net::IpAddr;
use std::path::PathBuf;

use tokio::sync::oneshot;

/// One pod's network sandbox, as the container runtime described it to the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Uid of the pod. Istio's plugin does not tell it.
    pub uid: Option<String>,
    /// The runtime's id of the sandbox. Istio's plugin does not tell it. Two lives of one pod have different ones.
    pub container_id: Option<String>,
    /// The interface inside the sandbox. Istio's plugin does not tell it.
    pub interface: Option<String>,
    /// The file of the network namespace, as a path on the node. Empty in a [`Request::Delete`] if the namespace is gone already.
    pub netns: PathBuf,
    /// The addresses the plugins before ours gave it, IPv4 ones never in IPv6 notation. Empty in a [`Request::Delete`] if nobody knows them any more.
    pub addresses: Vec<IpAddr>,
}

/// One call of the plugin. The plugin waits for ten seconds (Istio's for five); when it gives up, the receiver of `reply` is dropped.
#[derive(Debug)]
pub enum Request {
    /// A sandbox was made and nothing runs in it yet. The answer decides whether anything ever will.
    ///
    /// Sent for every pod on the node that is not excluded by the plugin's configuration, in the mesh or not: the loop remembers the network namespace even
    /// of pods it ignores, for the day they are to be enrolled.
    Add {
        /// Which.
        sandbox: Sandbox,
        /// Where the answer goes.
        reply: oneshot::Sender<Answer>,
    },
    /// The sandbox goes away. Whatever the answer, the runtime goes on; the same sandbox may be deleted several times, or without having been added.
    Delete {
        /// Which.
        sandbox: Sandbox,
        /// Where the answer goes.
        reply: oneshot::Sender<Answer>,
    },
    /// Whether the sandbox still is as an `Add` left it.
    Check {
        /// Which.
        sandbox: Sandbox,
        /// Where the answer goes.
        reply: oneshot::Sender<Answer>,
    },
}

/// What the loop says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The pod is in the mesh: rules and listeners are in place. To a `Delete`: it is forgotten.
    Enrolled,
    /// The pod is not to be in the mesh and may start without it.
    Ignored {
        /// Why.
        reason: String,
    },
    /// The pod is to be in the mesh and is not: it must not start. The runtime tries again after a while.
    Refused {
        /// What failed, and what the operator should look at next. Ends up in the events of the pod.
        reason: String,
    },
}
