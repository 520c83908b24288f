// SPDX-License-Identifier: Apache-2.0
//! What a bootstrap is made of.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::waypoint::config::Place;

/// What a bootstrap is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// Who it is.
    pub node: Node,
    /// Where discovery is.
    pub discovery: Place,
    /// The file of the secret `default`.
    pub certificate: PathBuf,
    /// The file of the secret `ROOTCA`.
    pub roots: PathBuf,
    /// The file of the roots discovery is verified with.
    pub discovery_roots: PathBuf,
    /// How much it may take.
    pub limits: Limits,
}

/// A waypoint's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The Gateway it is of.
    pub gateway: String,
    /// Its name.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its addresses, the one it is known by first.
    pub addresses: Vec<IpAddr>,
    /// Its node; may be empty.
    pub node: String,
    /// Its network; may be empty.
    pub network: String,
    /// Its cluster.
    pub cluster_id: String,
    /// The DNS suffix of the cluster.
    pub cluster_domain: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// How much Envoy may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of its heap.
    pub heap: Option<u64>,
    /// Connections from outside.
    pub connections: u64,
}
