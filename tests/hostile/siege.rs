// SPDX-License-Identifier: Apache-2.0
//! The bed of these tests, and the frame every attack is put into: what it cost the proxies, what they said, how the neighbours fared.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, Result, anyhow, ensure};
use harness::{
    Bed, World,
    mesh::{SETTLING, root_certificate},
    process::Dialogue,
    skip, wait,
};

const OBJECTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: demo, labels: {istio.io/dataplane-mode: ambient}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: plain}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: demo, name: alice}, spec: {nodeName: n1, serviceAccountName: alice}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: demo, name: mallory}, spec: {nodeName: n1, serviceAccountName: mallory}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: demo, name: carol}, spec: {nodeName: n1, serviceAccountName: carol}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: demo, name: dave}, spec: {nodeName: n1, serviceAccountName: dave}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: plain, name: attacker}, spec: {nodeName: n1}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: plain, name: visitor}, spec: {nodeName: n1}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: plain, name: poser}, spec: {nodeName: n2}}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: server}
spec:
  nodeName: n2
  serviceAccountName: server
  containers: [{name: peer, command: [peer, serve, '9000', server], ports: [{containerPort: 9000}]}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: other}
spec:
  nodeName: n2
  serviceAccountName: other
  containers: [{name: peer, command: [peer, serve, '9000', other], ports: [{containerPort: 9000}]}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: bait}
spec:
  nodeName: n2
  serviceAccountName: bait
  containers: [{name: peer, command: [peer, serve, '9000', bait], ports: [{containerPort: 9000}]}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: sleeper}
spec:
  nodeName: n2
  serviceAccountName: sleeper
  containers: [{name: peer, command: [peer, serve, '9000', sleeper], ports: [{containerPort: 9000}]}]
";

/// Both nodes; each has a proxy.
pub(crate) const NODES: [&str; 2] = ["n1", "n2"];
/// Sockets a proxy may have. One pod gets half of them if it tries, so 2,000 connections fit, and 3,000 do not.
const SOCKETS: &str = "5000";
/// What streams of one pod may hold.
const POD_BYTES: &str = "33554432";
/// The port all applications of these tests serve.
pub(crate) const APP: u16 = 9000;
const HBONE: u16 = 15008;

/// What a proxy may grow by while it is attacked with something that is not about memory.
pub(crate) const LITTLE: usize = 48 << 20;
/// Tunnels of the neighbours come and go.
const FEW: usize = 24;

/// The bed, with neighbours who talk all the time.
pub(crate) struct Siege {
    pub(crate) bed: Bed,
    standing: Vec<(&'static str, Dialogue)>,
    start: BTreeMap<&'static str, Cost>,
}

/// What a proxy holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Bytes of memory now, and the most there were since [`Siege::watch`].
    pub(crate) memory: usize,
    pub(crate) peak: usize,
    pub(crate) files: usize,
    pub(crate) threads: usize,
}

/// What an attack showed.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// How each of its parts ended.
    pub(crate) fates: BTreeMap<String, Vec<String>>,
    /// How many frames were looked at, within how many seconds.
    pub(crate) taken: Vec<(u64, u64)>,
}

impl Siege {
    pub(crate) fn prepare(world: World) -> Result<Self> {
        // Every reason is asked for here; that a flood of them does not drown the log is shown by its own test.
        let settings = [
            ("LATEEN_DENIED_LOG_LINES", "0"),
            ("LATEEN_MAX_SOCKETS", SOCKETS),
            ("LATEEN_POD_BYTES", POD_BYTES),
            ("LATEEN_ANSWER_TIMEOUT", "15s"),
            ("POOL_UNUSED_RELEASE_TIMEOUT", "3s"),
        ];
        let bed = Bed::start_with(world, OBJECTS, &settings)?;
        let mut siege = Self { bed, standing: Vec::new(), start: BTreeMap::new() };
        // Between other pods; from another pod to the victim; and one that is no pod of the mesh.
        for (from, to) in
            [("demo/alice", "demo/other"), ("demo/mallory", "demo/server"), ("plain/visitor", "demo/server")]
        {
            let mut talk = siege.bed.pod(from)?.talk(&["peer", "talk", &siege.app(to)?])?;
            talk.hear()?;
            siege.standing.push((from, talk));
        }
        // Whatever is made once, is made before the first look.
        siege.neighbours()?;
        for node in NODES {
            let cost = siege.cost(node)?;
            siege.start.insert(node, cost);
        }
        Ok(siege)
    }

    /// Where the application of a pod is.
    pub(crate) fn app(&self, pod: &str) -> Result<String> {
        Ok(SocketAddr::new(IpAddr::V4(self.bed.pod(pod)?.v4), APP).to_string())
    }

    /// Where the proxy in front of a pod takes tunnels.
    pub(crate) fn tunnel(&self, pod: &str) -> Result<String> {
        Ok(SocketAddr::new(IpAddr::V4(self.bed.pod(pod)?.v4), HBONE).to_string())
    }

    /// The folder of the mesh's authority.
    fn authority(&self) -> Result<String> {
        let root = root_certificate(self.bed.world.state());
        Ok(root.parent().context("a root in no folder")?.display().to_string())
    }

    /// The words of an attack on `to`, whose tunnels lead to the application of `victim`.
    pub(crate) fn words(&self, victim: &str, to: &str, how: &[&str]) -> Result<Vec<String>> {
        let (authority, target) = (self.authority()?, self.app(victim)?);
        let words =
            ["peer", "attack", "--ca", &authority, "--target", &target, to].into_iter().chain(how.iter().copied());
        Ok(words.map(str::to_owned).collect())
    }

    /// Starts an attack from a pod.
    pub(crate) fn launch(&self, from: &str, words: &[String]) -> Result<Dialogue> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.bed.pod(from)?.talk(&words)
    }

    /// Everything every neighbour wants: connections that stand, and new ones between other pods, to the attacked pod in plaintext and through the mesh, with a
    /// handshake of their own, and between the attacker and the attacked.
    pub(crate) fn neighbours(&mut self) -> Result<()> {
        self.others()?;
        self.visit("plain/attacker")
    }

    /// The same without the attacker's own.
    pub(crate) fn others(&mut self) -> Result<()> {
        for (from, talk) in &mut self.standing {
            let answer = talk.ask("still there?").with_context(|| format!("the standing connection of {from}"))?;
            ensure!(answer == "still there?", "the standing connection of {from}: {answer}");
        }
        for (from, to) in
            [("demo/alice", "demo/other"), ("demo/alice", "demo/server"), ("plain/visitor", "demo/server")]
        {
            let said = self.bed.who(from, self.bed.pod(to)?.v4.into(), APP)?;
            said.good().with_context(|| format!("a new connection of {from} to {to}"))?;
        }
        self.visit("plain/visitor")
    }

    /// A tunnel with a handshake of its own.
    fn visit(&self, from: &str) -> Result<()> {
        let words = self.words("demo/server", &self.tunnel("demo/server")?, &["visit"])?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.bed.pod(from)?.run(&words)?.good().with_context(|| format!("a new tunnel of {from}")).map(drop)
    }

    /// The proxy of a node now.
    pub(crate) fn cost(&self, node: &str) -> Result<Cost> {
        let process = format!("/proc/{}", self.bed.mesh.program(&format!("{node}-ztunnel"))?.pid());
        let status = fs::read_to_string(format!("{process}/status")).context("the proxy's status")?;
        if !status.starts_with("Name:\tztunnel") {
            return Err(skip("/proc is of another process namespace here: what a proxy costs cannot be seen"));
        }
        let number = |name: &str| -> Result<usize> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| anyhow!("no {name}"))?;
            Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
        };
        Ok(Cost {
            memory: number("VmRSS:")? << 10,
            peak: number("VmHWM:")? << 10,
            files: fs::read_dir(format!("{process}/fd"))?.count(),
            threads: number("Threads:")?,
        })
    }

    /// Begins to look for the highest memory of a proxy, and says what it holds now.
    pub(crate) fn watch(&self, node: &str) -> Result<Cost> {
        let pid = self.bed.mesh.program(&format!("{node}-ztunnel"))?.pid();
        // Forgets the highest so far.
        fs::write(format!("/proc/{pid}/clear_refs"), "5").context("begin to look for the highest memory")?;
        self.cost(node)
    }

    /// What a proxy held at most since `before`, which must not be more than `room` above; and what it keeps of it: no descriptor, no thread.
    pub(crate) fn bounded(&self, node: &str, before: Cost, room: usize) -> Result<()> {
        let peak = self.cost(node)?.peak;
        let most = before.memory + room;
        ensure!(peak <= most, "the proxy of {node} grew from {} MiB to {} MiB", before.memory >> 20, peak >> 20);
        self.returns(node, before)
    }

    fn returns(&self, node: &str, before: Cost) -> Result<()> {
        wait::until(&format!("the proxy of {node} to close what the attack opened"), wait::PATIENCE, || {
            let now = self.cost(node)?;
            ensure!(now.files <= before.files + FEW, "{} descriptors, {} before", now.files, before.files);
            // The control side's runtime has a thread or two that come and go.
            ensure!(now.threads <= before.threads + 2, "{} threads, {} before", now.threads, before.threads);
            Ok::<(), anyhow::Error>(())
        })
    }

    /// Puts an attack that repeats itself between two looks at everything.
    pub(crate) fn endure(&mut self, from: &str, words: &[String]) -> Result<Report> {
        let before = NODES.map(|node| self.watch(node));
        let mut attack = self.launch(from, words)?;
        let mut report = Report::default();
        loop {
            let line = attack.hear()?;
            if line == "under way" {
                break;
            }
            report.note(&line);
        }
        let fared = self.neighbours();
        attack.finish();
        loop {
            let line = attack.hear()?;
            if line.starts_with("rounds ") {
                break;
            }
            report.note(&line);
        }
        fared.with_context(|| format!("during {:?}", &words[7..]))?;
        for (node, before) in NODES.into_iter().zip(before) {
            self.bounded(node, before?, LITTLE)?;
        }
        Ok(report)
    }

    /// Where the log of a node's proxy ends now.
    pub(crate) fn mark(&self, node: &str) -> Result<usize> {
        self.bed.mesh.mark(node)
    }

    /// Waits until the proxy of a node has logged all of these reasons behind `mark`.
    pub(crate) fn logged(&self, node: &str, mark: usize, reasons: &[&str]) -> Result<()> {
        let log = self.bed.mesh.program(&format!("{node}-ztunnel"))?.log().to_owned();
        wait::until(&format!("the proxy of {node} to say why"), SETTLING, || {
            let bytes = fs::read(&log)?;
            let text = String::from_utf8_lossy(bytes.get(mark..).unwrap_or_default()).into_owned();
            let missing: Vec<&&str> = reasons.iter().filter(|reason| !text.contains(**reason)).collect();
            ensure!(
                missing.is_empty(),
                "{missing:?} in none of {} lines; the last:\n{}",
                text.lines().count(),
                last(&text)
            );
            Ok::<(), anyhow::Error>(())
        })
    }
}

fn last(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

impl Report {
    fn note(&mut self, line: &str) {
        if let Some((name, fate)) = line.split_once(": ") {
            self.fates.entry(name.to_owned()).or_default().push(fate.to_owned());
        } else if let Some((_, taken)) = line.split_once(" took ")
            && let Some((frames, seconds)) = taken.split_once(" within ")
            && let (Ok(frames), Ok(seconds)) = (frames.parse(), seconds.parse())
        {
            self.taken.push((frames, seconds));
        }
    }

    /// Every attack ended as expected, every time. Only a GOAWAY may be lost now and then: a connection that is closed while the other end still writes is
    /// reset, and the reset may overtake the last words.
    pub(crate) fn all(&self, expected: &[(&str, &str)]) -> Result<()> {
        let mut wrong = String::new();
        for (name, fate) in expected {
            let fates = self.fates.get(*name).cloned().unwrap_or_default();
            let lost = |other: &String| other.starts_with("ended: ") && fate.starts_with("goaway ");
            let as_expected = fates.iter().any(|other| other == fate);
            if !as_expected || !fates.iter().all(|other| other == fate || lost(other)) {
                wrong.push_str(&format!("\n{name}: {fates:?}, expected {fate:?}"));
            }
        }
        ensure!(wrong.is_empty(), "these ended otherwise:{wrong}");
        Ok(())
    }
}

/// Connections have ended, and with them everything they held: descriptors and threads are those of the start, and memory nearly.
pub(crate) fn aftermath(siege: &mut Siege) -> Result<()> {
    siege.neighbours()?;
    for node in NODES {
        let start = siege.start[node];
        siege.returns(node, start)?;
        // The allocator takes some seconds to give back what it has.
        wait::until(&format!("the proxy of {node} to give memory back"), wait::PATIENCE, || {
            let now = siege.cost(node)?.memory;
            ensure!(now <= start.memory + LITTLE, "it has {} MiB, {} at the start", now >> 20, start.memory >> 20);
            Ok::<(), anyhow::Error>(())
        })?;
    }
    Ok(())
}
