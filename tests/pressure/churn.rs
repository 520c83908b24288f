// SPDX-License-Identifier: Apache-2.0
//! Pods that come and go, many a second, each with the real plugin called for it. Some talk while they live, and are deleted with a connection open.
//!
//! Plays kubelets that start and stop several pods at once, and the API server for them. As a kubelet does, it tries again when a sandbox is refused.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use harness::{Pod, World, process::Dialogue, wait};
use nix::net::if_::{if_nameindex, if_nametoindex};
use serde_json::{Value, json};

use crate::field::PATIENCE;

/// How many kubelets work at once: most of their time they wait, for the kernel and for the agent.
const THREADS: usize = 12;
/// So many pods stand at any time; the eldest goes when another comes.
const STANDING: usize = 24;
/// How long an agent tries before it refuses a sandbox, which then is tried again: on a machine that is busy enough, that happens.
const AGENT_PATIENCE: Duration = Duration::from_secs(8);
/// Every so many pods one calls out, and another one is called.
const TALKS: u64 = 8;

/// Pods that come and go, and what became of them.
#[derive(Debug, Default)]
pub(crate) struct Churn {
    standing: Mutex<VecDeque<Member>>,
    /// The links of pods that were deleted: node, and number of the link on it.
    deleted: Mutex<Vec<(String, String, u32)>>,
    /// Pods begun.
    begun: AtomicU64,
    made: AtomicU64,
    refused: AtomicU64,
    hasty: AtomicU64,
    refusals: Mutex<Vec<String>>,
    talked: AtomicU64,
    slowest: Mutex<(Duration, Duration)>,
    is_over: AtomicBool,
    /// Proxies are killed meanwhile: what a pod says may have to be said again.
    may_stutter: bool,
}

#[derive(Debug)]
struct Member {
    manifest: Value,
    pod: Pod,
    link: (String, String, u32),
    talk: Option<Dialogue>,
}

/// The figures of a run.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) made: u64,
    deleted: usize,
    /// Sandboxes that were refused and tried again.
    refused: u64,
    /// Of these, those that were not given the time an agent has for a pod.
    pub(crate) hasty: u64,
    refusals: Vec<String>,
    talked: u64,
    took: Duration,
    slowest: (Duration, Duration),
}

impl Churn {
    /// One that proxies do not live through unharmed.
    pub(crate) fn stuttering() -> Self {
        Self { may_stutter: true, ..Self::default() }
    }

    /// Has so many pods come and go, `rate` of them a second if the machine can, as long as nobody says that it is over; in the end the last ones stand.
    pub(crate) fn run(&self, world: &World, rate: u64, count: u64) -> Result<Figures> {
        let (start, first) = (Instant::now(), self.begun.load(Ordering::Acquire));
        let (made, gone) = (self.made(), lock(&self.deleted).len());
        let due = |number: u64| Duration::from_micros((number - first) * 1_000_000 / rate);
        let kubelet = || -> Result<()> {
            loop {
                let number = self.begun.fetch_add(1, Ordering::AcqRel);
                let is_over = || self.is_over.load(Ordering::Acquire) || number - first >= count;
                while start.elapsed() < due(number) && !is_over() {
                    wait::pause();
                }
                if is_over() {
                    return Ok(());
                }
                self.one(world, number).inspect_err(|_| self.end())?;
            }
        };
        thread::scope(|scope| {
            let kubelets: Vec<_> = (0..THREADS).map(|_| scope.spawn(kubelet)).collect();
            let join = |kubelet: thread::ScopedJoinHandle<'_, Result<()>>| {
                kubelet.join().unwrap_or_else(|_| Err(anyhow!("a kubelet panicked")))
            };
            kubelets.into_iter().map(join).collect::<Vec<_>>().into_iter().collect::<Result<()>>()
        })?;
        Ok(Figures {
            made: self.made() - made,
            deleted: lock(&self.deleted).len() - gone,
            refused: self.refused.load(Ordering::Acquire),
            hasty: self.hasty.load(Ordering::Acquire),
            refusals: lock(&self.refusals).clone(),
            talked: self.talked.load(Ordering::Acquire),
            took: start.elapsed(),
            slowest: *lock(&self.slowest),
        })
    }

    /// Has pods come and go, not quite as fast, until `work` is done.
    pub(crate) fn during(&self, world: &World, work: impl FnOnce() -> Result<()>) -> Result<()> {
        thread::scope(|scope| {
            let running = scope.spawn(|| self.run(world, 8, u64::MAX));
            let done = work();
            self.end();
            let figures = running.join().map_err(|_| anyhow!("the churn panicked"))?;
            // What went wrong with a pod explains why something waited in vain.
            println!("    {}", figures?);
            done
        })
    }

    /// Waits until so many more pods are made.
    pub(crate) fn makes(&self, more: u64) -> Result<()> {
        let wanted = self.made() + more;
        wait::until("pods to be made", PATIENCE, || self.reached(self.made(), wanted))
    }

    /// Waits until so many more sandboxes are refused.
    pub(crate) fn is_refused(&self, more: u64) -> Result<()> {
        let refused = || self.refused.load(Ordering::Acquire);
        let wanted = refused() + more;
        wait::until("sandboxes to be refused", PATIENCE, || self.reached(refused(), wanted))
    }

    fn reached(&self, now: u64, wanted: u64) -> Result<(), String> {
        // A kubelet that gave up ends it for all.
        if now >= wanted || self.is_over.load(Ordering::Acquire) { Ok(()) } else { Err(format!("{now} of {wanted}")) }
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    fn made(&self) -> u64 {
        self.made.load(Ordering::Acquire)
    }

    /// The pods that stand: node, name and uid.
    pub(crate) fn standing(&self) -> Vec<(String, String, String)> {
        let one = |member: &Member| (member.pod.node.clone(), member.pod.name.clone(), member.pod.sandbox.uid.clone());
        lock(&self.standing).iter().map(one).collect()
    }

    /// Deletes the pods that stand.
    pub(crate) fn clear(&self, world: &World) -> Result<()> {
        while let Some(member) = { lock(&self.standing).pop_front() } {
            self.delete(world, member)?;
        }
        Ok(())
    }

    /// Waits until the link of every pod that was deleted is gone. Nobody removes a link here: it goes with the pod's network namespace, and that goes when
    /// nobody has a socket in it any more, nor a descriptor of it.
    pub(crate) fn is_gone(&self, world: &World) -> Result<Duration> {
        let since = Instant::now();
        for node in world.nodes() {
            wait::until("the networks of deleted pods to go", PATIENCE, || {
                let links =
                    node.netns.run(|| Ok(if_nameindex()?.iter().map(|link| link.index()).collect::<Vec<_>>()))?;
                let deleted = lock(&self.deleted);
                let left: Vec<_> =
                    deleted.iter().filter(|(at, _, link)| *at == node.name && links.contains(link)).collect();
                ensure!(left.is_empty(), "{} of {}: {left:?}", left.len(), deleted.len());
                Ok::<(), anyhow::Error>(())
            })?;
        }
        Ok(since.elapsed())
    }

    fn one(&self, world: &World, number: u64) -> Result<()> {
        let (calls, is_called) = (number.is_multiple_of(TALKS), number % TALKS == TALKS / 2);
        let node = &world.nodes()[usize::try_from(number)? % 2];
        let name = format!("pod-{number}");
        let mut manifest = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "namespace": "churn", "name": name },
            "spec": { "nodeName": node.name, "serviceAccountName": format!("account-{}", number % 3), "containers": [] },
        });
        if is_called {
            manifest["spec"]["containers"] = json!([{ "name": "peer", "command": ["peer", "serve", "9000", name], "ports": [{ "containerPort": 9000 }] }]);
        }
        world.objects.write(&manifest)?;
        let since = Instant::now();
        let pod = wait::until(&format!("{name} to start"), PATIENCE, || {
            let since = Instant::now();
            world.raise(&manifest).inspect_err(|error| {
                if since.elapsed() < AGENT_PATIENCE {
                    self.hasty.fetch_add(1, Ordering::AcqRel);
                }
                self.refused.fetch_add(1, Ordering::AcqRel);
                lock(&self.refusals).push(format!("{name}: {error:#}"));
            })
        })?;
        let took = since.elapsed();
        let longest = |slowest: &mut Duration| *slowest = took.max(*slowest);
        longest(&mut lock(&self.slowest).0);
        self.made.fetch_add(1, Ordering::AcqRel);
        let link = pod.sandbox.result["interfaces"][0]["name"].as_str().context("a pod without a link")?;
        let index = node.netns.run(|| Ok(if_nametoindex(link)?))?;
        let link = (node.name.clone(), name.clone(), index);
        let mut member = Member { manifest, pod, link, talk: None };
        let talk = match (calls, is_called) {
            (true, _) => self.calls(world, &member),
            (_, true) => self.is_called(world, &member),
            _ => Ok(None),
        };
        member.talk = talk.with_context(|| format!("{name} on {}", node.name))?;
        let eldest = {
            let mut standing = lock(&self.standing);
            standing.push_back(member);
            (standing.len() > STANDING).then(|| standing.pop_front()).flatten()
        };
        eldest.map_or(Ok(()), |eldest| self.delete(world, eldest))
    }

    /// The first thing the pod does is to call a server of the other node. With the proxies alive that is not refused, however young it is.
    fn calls(&self, world: &World, member: &Member) -> Result<Option<Dialogue>> {
        let server = world.pod(if member.pod.node == "n1" { "demo/server2" } else { "demo/server1" })?;
        if self.may_stutter {
            return wait::until("a new pod to reach a server", PATIENCE, || self.talk(&member.pod, server)).map(Some);
        }
        self.talk(&member.pod, server).map(Some)
    }

    /// A client of the other node calls the pod, as soon as it has heard of it.
    fn is_called(&self, world: &World, member: &Member) -> Result<Option<Dialogue>> {
        let client = world.pod(if member.pod.node == "n1" { "demo/client2" } else { "demo/client1" })?;
        wait::until("a client to reach a new pod", PATIENCE, || self.talk(client, &member.pod)).map(Some)
    }

    fn talk(&self, from: &Pod, to: &Pod) -> Result<Dialogue> {
        let mut talk = from.talk(&["peer", "talk", &format!("{}:9000", to.v4)])?;
        talk.hear()?;
        let answer = talk.ask("hello")?;
        ensure!(answer == "hello", "{} asks {}: {answer}", from.name, to.name);
        self.talked.fetch_add(1, Ordering::AcqRel);
        Ok(talk)
    }

    fn delete(&self, world: &World, member: Member) -> Result<()> {
        let since = Instant::now();
        let Member { manifest, pod, link, talk } = member;
        // With its connection open still.
        world.bury(&pod).with_context(|| format!("delete {}", pod.name))?;
        drop(talk);
        drop(pod);
        world.objects.erase(&manifest)?;
        lock(&self.deleted).push(link);
        let mut slowest = lock(&self.slowest);
        slowest.1 = slowest.1.max(since.elapsed());
        Ok(())
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { made, deleted, refused, refusals, talked, took, slowest: (start, stop), .. } = self;
        let (seconds, made_each) = (took.as_secs_f64(), *made as f64 / took.as_secs_f64());
        write!(
            formatter,
            "{made} pods made in {seconds:.0} s ({made_each:.1} a second), {deleted} deleted, {talked} talked, {refused} sandboxes refused; \
             the slowest took {start:.1?} to start and {stop:.1?} to stop"
        )?;
        refusals.iter().take(3).try_for_each(|refusal| write!(formatter, "\n    {refusal}"))
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
