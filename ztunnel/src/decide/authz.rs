// SPDX-License-Identifier: Apache-2.0
//! Whether a connection may reach an application of this node. *Why was this refused?* is answered here.
//!
//! The policies of the workload are those of its namespace, those of the mesh, and those it lists. A DENY that matches
//! wins; then what could not be understood denies (see `mesh::refused`); then, if there is any ALLOW, one must match.
//! Strict mutual TLS is a DENY like any other, for whoever has no identity.
//!
//! The same function judges new connections and, after a change, open ones. It reads the workload's record in the
//! snapshot it is given, so a policy attached to or taken from the workload counts at once.

use std::fmt;
use std::net::SocketAddr;

use mesh_proto::spiffe::Identity;
use thiserror::Error;

use super::matcher::{self, Facts};
use crate::mesh::{Action, Effect, Kind, PodName, PolicyEntry, RefusedPolicy, Snapshot, Text, Workload, canonical};

/// A connection to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Inquiry<'a> {
    /// The pod it arrived in.
    pub pod: &'a PodName,
    /// Where it came from: the other end of the TCP connection.
    pub source: SocketAddr,
    /// The application it is for: never 15008.
    pub destination: SocketAddr,
    /// Who is at the other end, if mutual TLS proves it.
    pub identity: Option<&'a Identity>,
}

/// The verdict that a connection may reach an application. Made by [`authz`] alone; whoever dials an application takes
/// one by value.
#[derive(Debug)]
pub struct Admitted {
    destination: SocketAddr,
    by: Option<Text>,
    dry_run: Vec<DryRun>,
}

/// The verdict that it may not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Denied {
    /// Why.
    pub reason: DenyReason,
    /// What policies on trial would have said.
    pub dry_run: Vec<DryRun>,
}

/// Why a connection was denied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DenyReason {
    /// A DENY policy matches.
    #[error("explicitly denied by: {policy}{}", hint(policy))]
    Explicit {
        /// Its name.
        policy: Text,
    },
    /// There are ALLOW policies, and none of them matches.
    #[error("allow policies exist, but none allowed (candidates: {})", List(candidates))]
    NotAllowed {
        /// Their names.
        candidates: Vec<Text>,
    },
    /// A policy that could not be understood may deny it.
    #[error("policy {policy} could not be understood and may deny this ({reason}); correct it, or update the proxy")]
    NotUnderstood {
        /// Its name.
        policy: Text,
        /// What was not understood.
        reason: Text,
    },
    /// The workload lists a policy that discovery has not sent.
    #[error("the workload is subject to policy {policy}, which discovery has not sent; check the control plane")]
    PolicyMissing {
        /// Its name.
        policy: Text,
    },
    /// Discovery has not sent the policies yet.
    #[error("discovery has not sent the policies yet; check the connection to the control plane")]
    PoliciesMissing,
    /// Discovery has not sent the record of the workload yet, or has removed it.
    #[error("discovery has no workload for pod {}/{}; check the control plane", .0.namespace, .0.name)]
    WorkloadMissing(PodName),
}

/// What a policy on trial would have said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DryRun {
    /// This DENY would have denied.
    Denied(Text),
    /// This ALLOW would have allowed.
    Allowed(Text),
    /// There are only ALLOW policies on trial, and none would have allowed.
    NotAllowed,
}

/// Judges a connection.
pub fn authz(snapshot: &Snapshot, inquiry: &Inquiry<'_>) -> Result<Admitted, Denied> {
    let deny = |reason| Err(Denied { reason, dry_run: Vec::new() });
    let Some(workload) = snapshot.own(inquiry.pod) else {
        return deny(DenyReason::WorkloadMissing(inquiry.pod.clone()));
    };
    if !snapshot.has_received(Kind::Policies) {
        return deny(DenyReason::PoliciesMissing);
    }
    let destination = canonical(inquiry.destination);
    let facts = Facts { identity: inquiry.identity, source: canonical(inquiry.source).ip(), destination };
    let mut trial = Trial::default();
    for name in &workload.authorization_policies {
        match snapshot.policy(name) {
            Some(entry) => trial.hear(entry, facts),
            None => trial.missing = trial.missing.or(Some(name)),
        }
    }
    for entry in snapshot.policies_without_listing(&workload.namespace) {
        trial.hear(entry, facts);
    }
    trial.conclude(snapshot, workload, destination)
}

/// What has been heard so far.
#[derive(Default)]
struct Trial<'a> {
    denied_by: Option<&'a Text>,
    not_understood: Option<&'a RefusedPolicy>,
    missing: Option<&'a Text>,
    has_allow: bool,
    allowed_by: Option<&'a Text>,
    has_allow_on_trial: bool,
    dry_run: Vec<DryRun>,
}

impl<'a> Trial<'a> {
    fn hear(&mut self, entry: &'a PolicyEntry, facts: Facts<'_>) {
        match entry {
            PolicyEntry::Known { name, policy } => match (policy.action, policy.dry_run) {
                (Action::Deny, false) => {
                    if self.denied_by.is_none() && matcher::matches(policy, facts) {
                        self.denied_by = Some(name);
                    }
                }
                (Action::Allow, false) => {
                    self.has_allow = true;
                    if self.allowed_by.is_none() && matcher::matches(policy, facts) {
                        self.allowed_by = Some(name);
                    }
                }
                (Action::Deny, true) => {
                    if matcher::matches(policy, facts) {
                        self.note(DryRun::Denied(name.clone()));
                    }
                }
                (Action::Allow, true) => {
                    self.has_allow_on_trial = true;
                    if matcher::matches(policy, facts) {
                        self.note(DryRun::Allowed(name.clone()));
                    }
                }
            },
            PolicyEntry::Refused(refused) => match refused.effect {
                Effect::Nothing => {}
                Effect::AdmitsNobody => self.has_allow = true,
                Effect::DeniesAll => self.not_understood = self.not_understood.or(Some(refused)),
            },
        }
    }

    /// A policy may be heard twice: listed, and for its scope.
    fn note(&mut self, one: DryRun) {
        if !self.dry_run.contains(&one) {
            self.dry_run.push(one);
        }
    }

    fn conclude(
        mut self,
        snapshot: &Snapshot,
        workload: &Workload,
        destination: SocketAddr,
    ) -> Result<Admitted, Denied> {
        let would_allow = self.dry_run.iter().any(|one| matches!(one, DryRun::Allowed(_)));
        if self.has_allow_on_trial && !self.has_allow && !would_allow {
            self.dry_run.push(DryRun::NotAllowed);
        }
        let reason = if let Some(policy) = self.denied_by {
            DenyReason::Explicit { policy: policy.clone() }
        } else if let Some(refused) = self.not_understood {
            DenyReason::NotUnderstood { policy: refused.name.clone(), reason: refused.reason.clone() }
        } else if let Some(policy) = self.missing {
            DenyReason::PolicyMissing { policy: policy.clone() }
        } else if self.has_allow && self.allowed_by.is_none() {
            DenyReason::NotAllowed { candidates: candidates(snapshot, workload) }
        } else {
            return Ok(Admitted { destination, by: self.allowed_by.cloned(), dry_run: self.dry_run });
        };
        Err(Denied { reason, dry_run: self.dry_run })
    }
}

/// The enforced ALLOW policies of a workload.
fn candidates(snapshot: &Snapshot, workload: &Workload) -> Vec<Text> {
    let listed = workload.authorization_policies.iter().filter_map(|name| snapshot.policy(name));
    let entries = listed.chain(snapshot.policies_without_listing(&workload.namespace));
    let mut names: Vec<Text> =
        entries.filter(|entry| is_enforced_allow(entry)).map(|entry| entry.name().clone()).collect();
    names.sort();
    names.dedup();
    names
}

fn is_enforced_allow(entry: &PolicyEntry) -> bool {
    match entry {
        PolicyEntry::Known { policy, .. } => policy.action == Action::Allow && !policy.dry_run,
        PolicyEntry::Refused(refused) => refused.effect == Effect::AdmitsNobody,
    }
}

impl Admitted {
    /// The application that may be reached.
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// The ALLOW policy that matched; none if there is no ALLOW at all.
    pub fn by(&self) -> Option<&Text> {
        self.by.as_ref()
    }

    /// What policies on trial would have said.
    pub fn dry_run(&self) -> &[DryRun] {
        &self.dry_run
    }
}

impl Denied {
    /// Whether discovery may lift the reason by itself any moment. A new connection may wait for it a few seconds
    /// instead of being refused at once. An open one may be kept that long, since it was admitted by what was known
    /// then; if the reason is still there after that, it must be closed.
    pub fn is_provisional(&self) -> bool {
        match self.reason {
            DenyReason::PolicyMissing { .. } | DenyReason::PoliciesMissing | DenyReason::WorkloadMissing(_) => true,
            DenyReason::Explicit { .. } | DenyReason::NotAllowed { .. } | DenyReason::NotUnderstood { .. } => false,
        }
    }

    /// The one policy that denied, if it was one.
    pub fn policy(&self) -> Option<&Text> {
        match &self.reason {
            DenyReason::Explicit { policy }
            | DenyReason::NotUnderstood { policy, .. }
            | DenyReason::PolicyMissing { policy } => Some(policy),
            DenyReason::NotAllowed { .. } | DenyReason::PoliciesMissing | DenyReason::WorkloadMissing(_) => None,
        }
    }
}

impl fmt::Display for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(policy) => write!(f, "dry-run: deny policy match: {policy}"),
            Self::Allowed(policy) => write!(f, "dry-run: allow policy match: {policy}"),
            Self::NotAllowed => f.write_str("dry-run: no allow policies match"),
        }
    }
}

/// Control planes turn strict mutual TLS into policies with these names; an operator looks for the setting, not for them.
fn hint(policy: &str) -> &'static str {
    let name = policy.rsplit_once('/').map_or(policy, |(_, name)| name);
    if name == STRICT || name.starts_with(STRICT_FOR_PORTS) {
        " (mutual TLS is required here; is the client in the mesh?)"
    } else {
        ""
    }
}

const STRICT: &str = "istio_converted_static_strict";
const STRICT_FOR_PORTS: &str = "converted_peer_authentication_";

struct List<'a>(&'a [Text]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, text) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            write!(f, "{separator}{text}")?;
        }
        Ok(())
    }
}
