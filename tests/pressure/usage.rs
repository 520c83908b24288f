// SPDX-License-Identifier: Apache-2.0
//! What the programs of the mesh use, and how long their lists are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use harness::{Bed, Node, http, mesh, wait};
use serde_json::Value;

/// What one program uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    descriptors: usize,
    /// Of the descriptors, also those in networks that nobody else can see any more.
    sockets: usize,
    /// Of the sockets, in the networks of nodes and pods.
    listeners: usize,
    threads: usize,
    /// Resident memory.
    kilobytes: u64,
}

/// What each program uses, and what each proxy and agent lists.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    programs: BTreeMap<String, Row>,
    /// By list, named with its program.
    lengths: BTreeMap<String, usize>,
}

/// By how much a program may have grown and still count as having stayed as it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slack {
    /// Descriptors: tunnels that happen to be open.
    pub(crate) descriptors: usize,
    /// Memory.
    pub(crate) kilobytes: u64,
}

/// Threads for slow work of the disk and the kernel, which come by need and go after ten seconds without any: what is looked at every five seconds keeps
/// as many as happened to be there.
const POOLED: usize = 8;
/// How long things that are kept for a while may take to go.
const FORGETTING: Duration = Duration::from_secs(90);

impl Usage {
    /// As it is now.
    pub(crate) fn of(bed: &Bed) -> Result<Self> {
        let mut programs = BTreeMap::new();
        let listening = listening(bed)?;
        for program in bed.mesh.programs() {
            let row = row(program.pid(), &listening).with_context(|| program.name().to_owned())?;
            programs.insert(program.name().to_owned(), row);
        }
        let mut lengths = BTreeMap::new();
        for node in bed.world.nodes() {
            let dump = mesh::config_dump(node)?;
            for list in ["workloads", "services", "policies", "certificates"] {
                lengths.insert(format!("{list} of {}-ztunnel", node.name), mesh::entries(&dump, list).count());
            }
            let carried = dump["workloadState"].as_object().map_or(0, serde_json::Map::len);
            lengths.insert(format!("pods of {}-ztunnel", node.name), carried);
            lengths.insert(format!("pods of {}-agent", node.name), pods(node)?.len());
        }
        Ok(Self { programs, lengths })
    }

    /// Waits until no program uses more than it did, and all lists are as long as they were.
    pub(crate) fn comes_back(&self, bed: &Bed, slack: Slack) -> Result<Self> {
        wait::until("all programs to be as they were", FORGETTING, || {
            let now = Self::of(bed)?;
            self.holds(&now, slack)?;
            Ok::<Self, anyhow::Error>(now)
        })
    }

    fn holds(&self, now: &Self, slack: Slack) -> Result<()> {
        for (list, length) in &now.lengths {
            let before = self.lengths.get(list).copied().unwrap_or_default();
            ensure!(*length == before, "{list}: {before} before, {length} now");
        }
        for (name, now) in &now.programs {
            let before = self.programs.get(name).with_context(|| format!("{name} did not run before"))?;
            let most = before.descriptors + slack.descriptors;
            ensure!(now.descriptors <= most, "{name} had {before}, has {now}");
            ensure!(now.listeners == before.listeners, "{name} had {before}, has {now}");
            ensure!(now.threads <= before.threads + POOLED, "{name} had {before}, has {now}");
            let most = before.kilobytes + slack.kilobytes;
            ensure!(now.kilobytes <= most, "{name} had {before}, has {now}");
        }
        Ok(())
    }
}

/// What an agent says of its pods.
pub(crate) fn pods(node: &Node) -> Result<Vec<Value>> {
    let answer = http::fetch(&node.netns, "GET", SocketAddr::from((Ipv4Addr::LOCALHOST, 9876)), "/debug/pods")?;
    serde_json::from_str(&answer.body).with_context(|| format!("/debug/pods of {}: {:.200}", node.name, answer.body))
}

/// The sockets that listen for TCP in the world, as links in `/proc` name them.
fn listening(bed: &Bed) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let nodes = bed.world.nodes().iter().map(|node| &node.netns);
    let pods = bed.world.pods().map(|pod| &pod.netns);
    for netns in nodes.chain(pods).chain([&bed.world.control]) {
        for table in ["tcp", "tcp6"] {
            let text = netns.run(|| Ok(fs::read_to_string(format!("/proc/thread-self/net/{table}"))?))?;
            // Columns: number, local address, remote address, state (0A is LISTEN), four more, the user, one more, inode.
            let columns = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let inodes = columns.filter(|columns| columns.get(3) == Some(&"0A")).filter_map(|c| c.get(9).copied());
            found.extend(inodes.map(|inode| format!("socket:[{inode}]")));
        }
    }
    Ok(found)
}

fn row(pid: u32, listening: &BTreeSet<String>) -> Result<Row> {
    let (mut descriptors, mut sockets, mut listeners) = (0, 0, 0);
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        descriptors += 1;
        // One that was closed meanwhile is none.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let target = target.to_string_lossy();
        sockets += usize::from(target.starts_with("socket:"));
        listeners += usize::from(listening.contains(&*target));
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let number = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.split_whitespace().next().context("an empty line")?.parse()?)
    };
    let threads = usize::try_from(number("Threads:")?)?;
    Ok(Row { descriptors, sockets, listeners, threads, kilobytes: number("VmRSS:")? })
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { descriptors, sockets, listeners, threads, kilobytes } = self;
        write!(
            formatter,
            "{descriptors} descriptors ({sockets} sockets, {listeners} listen), {threads} threads, {kilobytes} kB"
        )
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, row) in &self.programs {
            writeln!(formatter, "    {name}: {row}")?;
        }
        let lengths: Vec<String> = self.lengths.iter().map(|(list, length)| format!("{length} {list}")).collect();
        write!(formatter, "    {}", lengths.join(", "))
    }
}
