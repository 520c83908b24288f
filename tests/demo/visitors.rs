// SPDX-License-Identifier: Apache-2.0
//! Clients that ask one request after the other while the mesh changes under them: what each was answered, and by which way.

use std::fmt;

use anyhow::{Context, Result, ensure};
use harness::{World, process::Program, wait};

use crate::report::expect;

/// Two of curl's: one that keeps its connection, one with a new connection for every request.
#[derive(Debug)]
pub(crate) struct Visitors {
    keeping: Program,
    coming: Program,
}

/// What clients were answered so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Answers that came directly.
    pub(crate) direct: usize,
    /// Answers that came through the waypoint.
    pub(crate) through: usize,
    /// How the last answers came, counted since the way changed last.
    latest: (Option<Way>, usize),
    /// Requests without a good answer.
    failures: Vec<String>,
}

/// How a request came to its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    Through,
}

/// So many new connections in a row went the new way before it counts as the way.
const ENOUGH: usize = 20;

impl Visitors {
    /// Starts them in pod `from`.
    pub(crate) fn start(world: &World, from: &str, url: &str) -> Result<Self> {
        let pod = world.pod(from)?;
        let start = |name: &str, header: &[&str]| {
            let log = world.logs().join(format!("{name}.log"));
            // A former one's.
            let _ = std::fs::remove_file(&log);
            let mut command = pod.command("curl");
            command.args(["-s", "-N", "--max-time", "10", "-w", " %{http_code} %{errormsg}\n"]);
            command.args(header).arg(format!("{url}?[1-10000000]"));
            Program::start(name, command, &log)
        };
        let keeping = start("visitor-keeping", &[])?;
        let coming = start("visitor-coming", &["-H", "connection: close"])?;
        let visitors = Self { keeping, coming };
        wait::until("the first answers", wait::PATIENCE, || {
            let both = [Tally::of(&visitors.keeping), Tally::of(&visitors.coming)];
            ensure!(both.iter().all(|tally| tally.served() >= ENOUGH), "{both:?}");
            Ok(())
        })?;
        Ok(visitors)
    }

    /// Waits until new connections go this way.
    pub(crate) fn until_new_ones_come(&self, way: Way) -> Result<()> {
        self.until(&self.coming, way)
    }

    /// Waits until the connection that is kept goes this way.
    pub(crate) fn until_the_kept_one_comes(&self, way: Way) -> Result<()> {
        self.until(&self.keeping, way)
    }

    fn until(&self, visitor: &Program, way: Way) -> Result<()> {
        wait::until("requests to go the other way", wait::PATIENCE, || {
            let tally = Tally::of(visitor);
            ensure!(tally.latest.0 == Some(way) && tally.latest.1 >= ENOUGH, "{tally}");
            Ok(())
        })
        .map(drop)
    }

    /// Ends them and counts: with a connection that is kept, and with new ones. Not one request may have failed.
    pub(crate) fn leave(self) -> Result<(Tally, Tally)> {
        let logs = [self.keeping.log().to_owned(), self.coming.log().to_owned()];
        self.keeping.kill().and_then(|()| self.coming.kill()).context("end the visitors")?;
        let [keeping, coming] =
            logs.map(|log| Tally::count(&String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default())));
        for tally in [&keeping, &coming] {
            expect("every request answered", tally, tally.failures.is_empty())?;
        }
        Ok((keeping, coming))
    }
}

impl Tally {
    fn of(visitor: &Program) -> Self {
        Self::count(&visitor.output())
    }

    /// One line for each request: its answer, status and what curl has to say. The last one may be half written.
    fn count(text: &str) -> Self {
        let mut tally = Self::default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            let mut words = line.split_whitespace().skip(1);
            match (words.next(), words.next()) {
                (Some("direct"), Some("200")) => tally.note(Way::Direct),
                (Some("through"), Some("200")) => tally.note(Way::Through),
                _ => tally.failures.push(line.trim().to_owned()),
            }
        }
        tally
    }

    fn note(&mut self, way: Way) {
        match way {
            Way::Direct => self.direct += 1,
            Way::Through => self.through += 1,
        }
        self.latest = if self.latest.0 == Some(way) { (Some(way), self.latest.1 + 1) } else { (Some(way), 1) };
    }

    /// Good answers.
    pub(crate) fn served(&self) -> usize {
        self.direct + self.through
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direct, through, failures, .. } = self;
        write!(formatter, "{direct} directly, {through} through the waypoint, {} failed", failures.len())?;
        for line in failures.iter().take(3) {
            write!(formatter, "\n  {line}")?;
        }
        Ok(())
    }
}
