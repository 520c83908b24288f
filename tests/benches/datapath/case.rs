// SPDX-License-Identifier: Apache-2.0
//! What is measured: the cases, and the four ways a pair of pods is connected.

use std::fmt;

/// What a case is about, which decides what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Bytes: throughput and CPU per gigabyte.
    Bulk,
    /// Operations: rate, latency and CPU per operation.
    Operations,
    /// Connections that are kept: memory.
    Held,
}

/// Where the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The other pod of the pair.
    Peer,
    /// A pod outside the mesh, without rules and without a proxy.
    Plain,
}

/// One case.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) subject: Subject,
    /// What the load program is told to do.
    pub(crate) work: &'static str,
    pub(crate) connections: usize,
    pub(crate) server: Server,
}

const fn case(
    name: &'static str,
    subject: Subject,
    work: &'static str,
    connections: usize,
    meaning: &'static str,
) -> Case {
    Case { name, meaning, subject, work, connections, server: Server::Peer }
}

/// All of them, in the order of the tables.
pub(crate) const CASES: &[Case] = &[
    case("up1", Subject::Bulk, "up", 1, "one connection, client to server"),
    case("up8", Subject::Bulk, "up", 8, "eight connections, client to server"),
    case("down1", Subject::Bulk, "down", 1, "one connection, server to client"),
    case("down8", Subject::Bulk, "down", 8, "eight connections, server to client"),
    case("rr1", Subject::Operations, "rr", 1, "64 bytes there and back, one at a time"),
    case("rr32", Subject::Operations, "rr", 32, "64 bytes there and back, on 32 connections"),
    case("crr1", Subject::Operations, "crr", 1, "connect, 64 bytes there and back, close; one at a time"),
    case("crr16", Subject::Operations, "crr", 16, "connect, 64 bytes there and back, close; 16 at a time"),
    Case { server: Server::Plain, ..case("pass-up1", Subject::Bulk, "up", 1, "to a pod outside the mesh") },
    Case { server: Server::Plain, ..case("pass-down1", Subject::Bulk, "down", 1, "from a pod outside the mesh") },
    case("hold", Subject::Held, "hold", HELD, "idle connections, one tunnel for each 100"),
];

/// Connections held if nobody says otherwise.
pub(crate) const HELD: usize = 3000;

/// How the pods are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Variant {
    /// Not in a mesh.
    Direct,
    /// The pair of ordinary proxies of `benches/baseline`.
    Baseline,
    /// Envoy as the same pair.
    Envoy,
    /// The three programs of this repository.
    Ours,
}

impl Variant {
    pub(crate) const ALL: [Self; 4] = [Self::Direct, Self::Baseline, Self::Envoy, Self::Ours];

    /// Its name, which is also that of its pods' namespace.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Baseline => "baseline",
            Self::Envoy => "envoy",
            Self::Ours => "ours",
        }
    }

    /// Whether a case can be measured this way. Without proxies nothing passes through them; the baseline takes every destination for one in the mesh.
    pub(crate) fn takes(self, case: &Case) -> bool {
        match (case.subject, case.server) {
            (Subject::Held, _) => self != Self::Direct,
            (_, Server::Plain) => matches!(self, Self::Envoy | Self::Ours),
            _ => true,
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}
