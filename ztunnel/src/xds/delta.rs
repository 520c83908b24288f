// SPDX-License-Identifier: Apache-2.0
//! The client's side of delta xDS as a state machine: no socket, clock or randomness of its own. `client` is its shell.
//!
//! Flow (ztunnel.md §4.1-4.4): connect, ask for every type (wildcard, with the versions already held on a reconnect),
//! then for each response: apply, remember the versions of what was accepted, ACK, or NACK naming each resource that was
//! not. A NACKed response is applied in part: one bad resource never holds back its neighbours.
//!
//! A request that lists more versions than a server reads (Istio's: 4 MiB) would be refused for ever. Such a one is sent
//! without them, and the first answer is taken for all there is, as X-03 has it: what it does not name is gone.
//!
//! Guarantees. What was learnt stays in force while the control plane is away. After a reconnect the server sends again
//! what was rejected, or says that it is gone: the store holds a rejected resource against everybody it may
//! concern, so it must learn of either. The first-sync gate opens when each type was received and applied
//! once.
//!
//! Differences from the peer implementation, on purpose: a NACKed first response opens the gate as well (X-17 does not
//! let it), because the store takes what it refused at its worst and decides nothing without it, and one bad resource
//! must not keep every pod of the node from starting; every delay is jittered; errors that are not the server's (roots,
//! TLS, configuration) back off too instead of spinning (W-10); a stream that ends before it gave anything is no reason
//! to reset the delay.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use mesh_proto::contract;
use mesh_proto::discovery::{Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource, Status};
use prost::Message as _;
use rand::Rng;

use crate::backoff::Backoff;

/// A type of resource ztunnel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Workloads and services.
    Address,
    /// Policies.
    Authorization,
}

impl Kind {
    /// In the order they are asked for.
    pub const ALL: [Self; 2] = [Self::Address, Self::Authorization];

    /// The type URL on the wire.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Address => contract::type_url::ADDRESS,
            Self::Authorization => contract::type_url::AUTHORIZATION,
        }
    }

    fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }
}

/// How a connection or its stream ended; the names are the metric's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// The server was not reached.
    ConnectionError,
    /// The server refused, or something on this side was wrong.
    Error,
    /// The connection went away under the stream.
    Reconnect,
    /// The server ended the stream in order.
    Complete,
}

impl Ended {
    /// The `reason` label of `istio_xds_connection_terminations_total`.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ConnectionError => "ConnectionError",
            Self::Error => "Error",
            Self::Reconnect => "Reconnect",
            Self::Complete => "Complete",
        }
    }
}

/// What the shell has to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Open connection number `id` and a stream on it.
    Connect {
        /// Counts attempts from 1; the `id` of the log span.
        id: u64,
    },
    /// Send a request.
    Send(Box<DeltaDiscoveryRequest>),
    /// Apply an update and report with [`Delta::handle_applied`] before anything else.
    Apply(Receipt, Update),
    /// Every type has been received and applied once.
    Synced,
}

/// What one response carries.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The type.
    pub kind: Kind,
    /// New and changed resources, to be applied in this order, before the removals.
    pub resources: Vec<(String, Option<Any>)>,
    /// Names that are gone.
    pub removed: Vec<String>,
}

/// Stands for a response that is being applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    kind: Kind,
    nonce: String,
    versions: Vec<(String, String)>,
    removed: Vec<String>,
}

/// A resource that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// The protocol; see the module's text.
#[derive(Debug)]
pub struct Delta {
    node: Node,
    watches: [Watch; Kind::ALL.len()],
    link: Link,
    connections: u64,
    backoff: Backoff,
}

#[derive(Debug)]
struct Watch {
    kind: Kind,
    versions: HashMap<String, String>,
    /// The next response holds everything there is, for we did not say what we have.
    whole: bool,
    synced: bool,
}

#[derive(Debug)]
enum Link {
    Waiting { until: Instant },
    Connecting,
    Open { received: bool },
}

impl Delta {
    /// No connection yet; the first deadline is `now`.
    pub fn new(now: Instant, node: Node) -> Self {
        Self {
            node,
            watches: Kind::ALL.map(|kind| Watch { kind, versions: HashMap::new(), whole: false, synced: false }),
            link: Link::Waiting { until: now },
            connections: 0,
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY),
        }
    }

    /// The stream is open: asks for every type.
    pub fn handle_connected(&mut self) -> Vec<Action> {
        self.link = Link::Open { received: false };
        let node = &self.node;
        self.watches.iter_mut().map(|watch| Action::Send(Box::new(watch.request(node.clone())))).collect()
    }

    /// A response. A type nobody asked for is refused; there is nothing to apply.
    pub fn handle_response(&mut self, response: DeltaDiscoveryResponse) -> Vec<Action> {
        let Link::Open { received } = &mut self.link else { return Vec::new() };
        *received = true;
        let Some(kind) = Kind::of(&response.type_url) else {
            let detail = format!("{}: this type was not asked for", response.type_url);
            return vec![Action::Send(Box::new(answer(&response.type_url, response.nonce, Some(detail))))];
        };
        let versions: Vec<(String, String)> =
            response.resources.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect();
        let resources =
            response.resources.into_iter().map(|Resource { name, resource, .. }| (name, resource)).collect();
        let mut removed = response.removed_resources;
        let watch = &mut self.watches[kind as usize];
        if std::mem::take(&mut watch.whole) {
            removed.extend(watch.unnamed(&versions));
        }
        let receipt = Receipt { kind, nonce: response.nonce, versions, removed: removed.clone() };
        vec![Action::Apply(receipt, Update { kind, resources, removed })]
    }

    /// An update was applied, but for `rejected`.
    pub fn handle_applied(&mut self, receipt: Receipt, rejected: &[Rejected]) -> Vec<Action> {
        let was_synced = self.is_synced();
        let watch = &mut self.watches[receipt.kind as usize];
        let bad: HashSet<&str> = rejected.iter().map(|rejected| rejected.name.as_str()).collect();
        let held = |(name, version): (String, String)| {
            let version = if bad.contains(name.as_str()) { REFUSED.to_owned() } else { version };
            (name, version)
        };
        watch.versions.extend(receipt.versions.into_iter().map(held));
        for name in &receipt.removed {
            watch.versions.remove(name);
        }
        watch.synced = true;
        let detail = (!rejected.is_empty()).then(|| detail(rejected));
        let mut actions = vec![Action::Send(Box::new(answer(receipt.kind.type_url(), receipt.nonce, detail)))];
        if !was_synced && self.is_synced() {
            actions.push(Action::Synced);
        }
        actions
    }

    /// The connection could not be made, or the stream ended. Gives the delay before the next try, for the log.
    pub fn handle_ended(&mut self, now: Instant, ended: Ended, rng: &mut impl Rng) -> Duration {
        let gave = matches!(self.link, Link::Open { received: true });
        let delay = match ended {
            Ended::Complete | Ended::Reconnect if gave => {
                self.backoff.reset();
                crate::backoff::spread(RECONNECT_DELAY, 0.5, rng)
            }
            Ended::ConnectionError | Ended::Error | Ended::Complete | Ended::Reconnect => self.backoff.delay(rng),
        };
        self.link = Link::Waiting { until: now + delay };
        delay
    }

    /// A deadline of [`Self::next_deadline`] may have passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Action> {
        match self.link {
            Link::Waiting { until } if until <= now => {
                self.link = Link::Connecting;
                self.connections += 1;
                vec![Action::Connect { id: self.connections }]
            }
            Link::Waiting { .. } | Link::Connecting | Link::Open { .. } => Vec::new(),
        }
    }

    /// When [`Self::handle_timeout`] has to be called at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.link {
            Link::Waiting { until } => Some(until),
            Link::Connecting | Link::Open { .. } => None,
        }
    }

    /// Was every type received and applied once?
    pub fn is_synced(&self) -> bool {
        self.watches.iter().all(|watch| watch.synced)
    }
}

impl Watch {
    /// Asks for everything, and says what is here already as long as that can be read at the other end.
    fn request(&mut self, node: Node) -> DeltaDiscoveryRequest {
        let mut request = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: self.kind.type_url().to_owned(),
            initial_resource_versions: self.versions.clone(),
            ..Default::default()
        };
        self.whole = request.encoded_len() > LONGEST_REQUEST;
        if self.whole {
            request.initial_resource_versions = HashMap::new();
        }
        request
    }

    /// What is here and not among `named`.
    fn unnamed(&self, named: &[(String, String)]) -> Vec<String> {
        let named: HashSet<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
        self.versions.keys().filter(|name| !named.contains(name.as_str())).cloned().collect()
    }
}

/// Which resources were refused, and why: as many as the server, and whoever reads its log, can be expected to take.
fn detail(rejected: &[Rejected]) -> String {
    let cut = |text: &str| match text.floor_char_boundary(LONGEST_IN_DETAIL) {
        end if end < text.len() => format!("{}...", &text[..end]),
        _ => text.to_owned(),
    };
    let mut text = String::new();
    for (count, Rejected { name, reason }) in rejected.iter().enumerate() {
        if text.len() > LONGEST_DETAIL {
            text += &format!("; and {} more", rejected.len() - count);
            break;
        }
        let separator = if text.is_empty() { "" } else { "; " };
        text += &format!("{separator}{}: {}", cut(name), cut(reason));
    }
    text
}

fn answer(type_url: &str, nonce: String, detail: Option<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        response_nonce: nonce,
        error_detail: detail.map(|message| Status { code: 0, message, details: Vec::new() }),
        ..Default::default()
    }
}

/// First delay after a failure (X-14: 10 ms doubled once).
const FIRST_DELAY: Duration = Duration::from_millis(20);
/// Longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(15);
/// After a stream that worked, around this long: servers end streams regularly, and all their clients' at once.
const RECONNECT_DELAY: Duration = Duration::from_millis(20);
/// Istio's server reads requests of up to 4 MiB.
const LONGEST_REQUEST: usize = 3 << 20;
/// About as long as a refusal gets, and each name and reason in it.
const LONGEST_DETAIL: usize = 8 << 10;
const LONGEST_IN_DETAIL: usize = 512;
/// The version a reconnect gives for what was refused. No server gives it to anything, so it sends what it has, or that it
/// has nothing.
const REFUSED: &str = "refused";

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
