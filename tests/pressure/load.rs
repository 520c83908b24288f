// SPDX-License-Identifier: Apache-2.0
//! Load from both client pods to both servers in both families: `peer load` in each, and what they say of how it goes.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    net::SocketAddr,
};

use anyhow::{Context, Result, ensure};
use harness::{Bed, process::Dialogue, wait};
use serde_json::Value;

use crate::field::{CLIENTS, PATIENCE, SERVERS};

/// A running load.
#[derive(Debug)]
pub(crate) struct Load {
    clients: Vec<(&'static str, Dialogue)>,
    servers: BTreeMap<String, &'static str>,
    threads: u64,
}

/// How it went with one server, seen from one client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Operations that succeeded.
    pub(crate) good: u64,
    /// That ended with an error.
    pub(crate) bad: u64,
    /// That did not end in time.
    pub(crate) hung: u64,
    /// The errors.
    pub(crate) errors: BTreeMap<String, u64>,
}

/// Client, server and address.
type Way = (&'static str, &'static str, String);

/// How it went.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report(BTreeMap<Way, Tally>);

impl Load {
    /// Starts it, with so many threads in each client, and a rest of milliseconds between two operations of each.
    pub(crate) fn start(bed: &Bed, threads: u64, rest: u64) -> Result<Self> {
        let mut servers = BTreeMap::new();
        for server in SERVERS {
            for address in bed.pod(server)?.addresses() {
                servers.insert(SocketAddr::new(address, 9000).to_string(), server);
            }
        }
        let (many, pause) = (threads.to_string(), rest.to_string());
        let mut line = vec!["peer", "load", &many, &pause];
        line.extend(servers.keys().map(String::as_str));
        let mut clients = Vec::new();
        for client in CLIENTS {
            clients.push((client, bed.pod(client)?.talk(&line)?));
        }
        Ok(Self { clients, servers, threads })
    }

    /// How it goes.
    pub(crate) fn report(&mut self) -> Result<Report> {
        let mut report = Report::default();
        for (client, talk) in &mut self.clients {
            report.take(client, &self.servers, &talk.ask("report")?)?;
        }
        Ok(report)
    }

    /// Waits until `is_so`, which may compare with what was reported when this was called.
    pub(crate) fn until(&mut self, what: &str, is_so: impl Fn(&Report, &Report) -> bool) -> Result<Report> {
        let before = self.report()?;
        wait::until(what, PATIENCE, || {
            let now = self.report()?;
            ensure!(is_so(&before, &now), "{}", now.since(&before));
            Ok::<Report, anyhow::Error>(now)
        })
    }

    /// Waits until so many more operations have succeeded or failed.
    pub(crate) fn ends(&mut self, many: u64) -> Result<Report> {
        self.until("operations to end", |before, now| now.ended() >= before.ended() + many)
    }

    /// Waits until so many more operations have failed.
    pub(crate) fn fails(&mut self, many: u64) -> Result<Report> {
        self.until("operations to fail", |before, now| now.bad() >= before.bad() + many)
    }

    /// Waits until each client has had so many more successes with each address of each server, not counting those that were under way.
    pub(crate) fn goes_on(&mut self, many: u64) -> Result<Report> {
        let least = self.threads + many;
        self.until("every client to reach every server", |before, now| {
            now.0.iter().all(|(way, tally)| tally.good >= before.0.get(way).map_or(0, |tally| tally.good) + least)
        })
    }

    /// Ends it once every operation has ended.
    pub(crate) fn stop(mut self) -> Result<Report> {
        let mut report = Report::default();
        for (client, talk) in &mut self.clients {
            talk.finish();
            report.take(client, &self.servers, &talk.hear()?)?;
        }
        Ok(report)
    }
}

impl Report {
    fn take(&mut self, client: &'static str, servers: &BTreeMap<String, &'static str>, said: &str) -> Result<()> {
        let said: Value = serde_json::from_str(said).with_context(|| format!("{client} says {said:?}"))?;
        for line in said.as_array().into_iter().flatten() {
            let number = |name: &str| line[name].as_u64().with_context(|| format!("no {name} in {line}"));
            let to = line["to"].as_str().context("no server")?;
            let server = servers.get(to).with_context(|| format!("{client} talks of {to}"))?;
            let errors = line["errors"].as_object().into_iter().flatten();
            let errors = errors.filter_map(|(error, count)| Some((error.clone(), count.as_u64()?))).collect();
            let tally = Tally { good: number("good")?, bad: number("bad")?, hung: number("hung")?, errors };
            self.0.insert((client, server, to.to_owned()), tally);
        }
        Ok(())
    }

    /// All operations that ended.
    pub(crate) fn ended(&self) -> u64 {
        self.0.values().map(|tally| tally.good + tally.bad).sum()
    }

    /// All that failed.
    pub(crate) fn bad(&self) -> u64 {
        self.0.values().map(|tally| tally.bad).sum()
    }

    /// What failed from `client` to `server`.
    pub(crate) fn bad_between(&self, client: &str, server: &str) -> u64 {
        self.0.iter().filter(|((from, to, _), _)| *from == client && *to == server).map(|(_, tally)| tally.bad).sum()
    }

    /// What came since an earlier report.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let less = |way: &Way, tally: &Tally| {
            let before = earlier.0.get(way).cloned().unwrap_or_default();
            let errors = tally.errors.iter().filter_map(|(error, count)| {
                let more = count - before.errors.get(error).copied().unwrap_or_default();
                (more > 0).then(|| (error.clone(), more))
            });
            Tally {
                good: tally.good - before.good,
                bad: tally.bad - before.bad,
                hung: tally.hung - before.hung,
                errors: errors.collect(),
            }
        };
        Self(self.0.iter().map(|(way, tally)| (way.clone(), less(way, tally))).collect())
    }

    /// An error if any operation hung.
    pub(crate) fn none_hung(&self) -> Result<()> {
        ensure!(self.0.values().all(|tally| tally.hung == 0), "operations that did not end:{self}");
        Ok(())
    }

    /// An error if any operation failed.
    pub(crate) fn is_clean(&self) -> Result<()> {
        self.none_hung()?;
        ensure!(self.bad() == 0, "operations failed:{self}");
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((client, server, to), Tally { good, bad, hung, errors }) in &self.0 {
            let mut line = format!("{client} to {server} ({to}): {good} good, {bad} bad, {hung} hung");
            for (error, count) in errors {
                write!(line, "; {count} x {error}")?;
            }
            write!(formatter, "\n    {line}")?;
        }
        Ok(())
    }
}
