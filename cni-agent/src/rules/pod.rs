// SPDX-License-Identifier: Apache-2.0
//! What the agent calls for one pod's network namespace: put the plan in place, see what is there, let go in two steps.
//!
//! **Flow.** Enrolling: [`apply`] once ztunnel's listeners stand. Afterwards, again and again: [`observe`], and [`apply`] when it is not
//! [`Observed::InPlace`]. Releasing a running pod: [`release_redirects`]; wait until [`proxied_connections`] is zero or a deadline passes; tell ztunnel; [`remove`].
//!
//! **Guarantees.** The nf_tables part of each call is one transaction. Every call can be repeated. Neither enrolling nor the first half of a release
//! breaks an open connection (cni-agent.md §4.7). [`apply`] returns only after reading back what it wrote.
//!
//! **Caveats.** All calls block, on a thread of their own: a reading for about a millisecond, a writing for some ten, as the kernel waits until nobody
//! goes by the old rules any more. Call them where blocking is allowed; several pods at once do not wait for each other. [`remove`] ends connections
//! that still go through the proxy. Rules written by iptables-legacy are not seen.

use std::os::fd::BorrowedFd;
use std::{fs, io};

use nix::sys::stat::{fstat, stat};

use super::compare::{Observed, judge};
use super::error::RulesError;
use super::foreign::Foreign;
use super::plan::Plan;
use super::sockets::{self, ProxiedConnections};
use super::thread::in_netns;
use super::{nft, routes, transaction};

/// What [`apply`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// All was in place already; nothing was written.
    Unchanged,
    /// The plan was written and read back.
    Written {
        /// What was there before.
        before: Observed,
    },
}

/// Brings the namespace to the plan, whatever stands in it now.
///
/// # Errors
/// When the namespace cannot be entered or is the agent's own, when the kernel refuses, or when what is read back is not the plan.
pub fn apply(netns: BorrowedFd<'_>, plan: &Plan) -> Result<Applied, RulesError> {
    refuse_own(netns)?;
    in_netns(netns, || {
        let (before, foreign) = look(plan)?;
        if before == Observed::InPlace {
            return Ok(Applied::Unchanged);
        }
        // The route first: rules that mark packets for it must not precede it.
        let written = routes::write(&plan.policy_route)
            .and_then(|()| nft::write(transaction::replacement(plan, foreign.as_ref())));
        if let Err(error) = written {
            if before == Observed::Missing {
                // What was clean stays clean; the reason to report is the first one.
                let _ = routes::remove(&plan.policy_route);
            }
            return Err(error);
        }
        match look(plan)?.0 {
            Observed::InPlace => Ok(Applied::Written { before }),
            Observed::Differs(differences) => Err(RulesError::NotAsWritten { differences }),
            Observed::Missing | Observed::Released | Observed::Foreign(_) => Err(RulesError::Unsettled),
        }
    })?
}

/// Reads what stands in the namespace and compares it with the plan.
///
/// # Errors
/// When the namespace cannot be entered or read.
pub fn observe(netns: BorrowedFd<'_>, plan: &Plan) -> Result<Observed, RulesError> {
    in_netns(netns, || look(plan).map(|(observed, _)| observed))?
}

/// First half of a release: new connections are no longer redirected, open ones go on.
///
/// # Errors
/// When the namespace cannot be entered or is the agent's own, or when the kernel refuses.
pub fn release_redirects(netns: BorrowedFd<'_>) -> Result<(), RulesError> {
    refuse_own(netns)?;
    in_netns(netns, || {
        let found = nft::read()?;
        nft::write(transaction::release(&found, Foreign::find(&found).as_ref()))
    })?
}

/// Counts the connections that go through the proxy now.
///
/// # Errors
/// When the namespace cannot be entered or read.
pub fn proxied_connections(netns: BorrowedFd<'_>, plan: &Plan) -> Result<ProxiedConnections, RulesError> {
    in_netns(netns, || sockets::count(plan))?
}

/// Second half of a release: everything is taken out, whether or not the first half happened.
///
/// # Errors
/// When the namespace cannot be entered or is the agent's own, or when the kernel refuses. Whatever could be removed has been.
pub fn remove(netns: BorrowedFd<'_>, plan: &Plan) -> Result<(), RulesError> {
    refuse_own(netns)?;
    in_netns(netns, || {
        let rules =
            nft::read().and_then(|found| nft::write(transaction::removal(&found, Foreign::find(&found).as_ref())));
        // Even if the rules would not go: without marks the route does nothing, and the next attempt finds less to do.
        let routes = routes::remove(&plan.policy_route);
        rules.and(routes)
    })?
}

/// The tables that iptables-legacy has in the namespace. Their rules cannot be seen over nf_tables: a pod that an Istio agent set up through iptables-legacy
/// looks empty to [`observe`], and has its redirects until it is restarted. So this is to be reported, and nothing more can be done.
///
/// # Errors
/// When the namespace cannot be entered, or the kernel's list exists and cannot be read.
pub fn legacy_tables(netns: BorrowedFd<'_>) -> Result<Vec<String>, RulesError> {
    let list = |path| match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        // A kernel without iptables-legacy.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(RulesError::Socket { operation: "read the list of iptables-legacy tables", source }),
    };
    let mut tables = Vec::new();
    for path in LEGACY {
        for table in in_netns(netns, || list(path))??.lines() {
            if !tables.iter().any(|known| known == table) {
                tables.push(table.to_owned());
            }
        }
    }
    Ok(tables)
}

fn look(plan: &Plan) -> Result<(Observed, Option<Foreign>), RulesError> {
    let found = nft::read()?;
    let observed = judge(plan, &found, &routes::read(&plan.policy_route)?);
    let foreign = match &observed {
        Observed::Foreign(foreign) => Some(foreign.clone()),
        _ => None,
    };
    Ok((observed, foreign))
}

/// A pod's rules in the node's network namespace would take the node off the network.
fn refuse_own(netns: BorrowedFd<'_>) -> Result<(), RulesError> {
    let enter = |errno: nix::Error| RulesError::EnterNamespace { source: errno.into() };
    let (asked, own) = (fstat(netns).map_err(enter)?, stat(OWN).map_err(enter)?);
    if (asked.st_dev, asked.st_ino) == (own.st_dev, own.st_ino) { Err(RulesError::OwnNamespace) } else { Ok(()) }
}

/// As the thread that reads them sees them.
const LEGACY: [&str; 2] = ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];
const OWN: &str = "/proc/self/ns/net";
