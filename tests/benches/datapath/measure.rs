// SPDX-License-Identifier: Apache-2.0
//! One measurement: one case on one variant, a warm-up and a window.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{process::Dialogue, wait};
use serde_json::Value;

use crate::{
    case::{Case, Subject, Variant},
    rig::{PORT, Rig},
    usage::{Cpu, Machine, memory, settled},
};

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    pub(crate) held: usize,
}

/// What was seen in one window. A unit is a gigabyte (10^9 bytes) or an operation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Gigabits or operations per second.
    pub(crate) rate: f64,
    /// Seconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Seconds of processor time of both proxies per unit, and the part of it in user space (0 to 1).
    pub(crate) cpu: f64,
    pub(crate) user: f64,
    /// The same of the client's and of the server's proxy.
    pub(crate) sides: [f64; 2],
    /// Bytes per idle connection: the client's proxy and the server's.
    pub(crate) held: [f64; 2],
    /// Connections that failed.
    pub(crate) failures: f64,
    /// Share of the machine's time that its host took away.
    pub(crate) stolen: f64,
    /// Processor time of the mesh's programs while another variant was measured, as a share of one core.
    pub(crate) bystanders: f64,
}

/// What the load program says.
struct Tally {
    seconds: f64,
    bytes: f64,
    operations: f64,
    failures: f64,
    p50: f64,
    p99: f64,
}

/// Measures.
pub(crate) fn measure(rig: &mut Rig, variant: Variant, case: &Case, pace: Pace) -> Result<Sample> {
    match case.subject {
        Subject::Held => hold(rig, variant, case, pace),
        _ => flow(rig, variant, case, pace),
    }
}

fn flow(rig: &mut Rig, variant: Variant, case: &Case, pace: Pace) -> Result<Sample> {
    rig.spotlight(variant)?;
    let proxies = rig.proxies(variant)?;
    let bystanders = if variant == Variant::Ours { Vec::new() } else { rig.mesh_processes() };
    let mut client = client(rig, variant, case, case.connections)?;
    let server = rig.server(variant, case.server)?;
    // A busy machine may take its time.
    wait::until("the first bytes to arrive", wait::PATIENCE, || {
        let seen = if case.work == "up" { ask(server)? } else { ask(&mut client)? };
        ensure!(seen.bytes + seen.operations > 0.0, "none");
        Ok::<(), anyhow::Error>(())
    })?;
    wait::pass(pace.warm_up);
    let (machine, idle) = (Machine::now()?, Cpu::of_all(bystanders.iter().copied())?);
    let before = usage(&proxies)?;
    ask(server)?;
    ask(&mut client)?;
    wait::pass(pace.window);
    let seen = ask(&mut client)?;
    let served = ask(server)?;
    let after = usage(&proxies)?;
    let idle = Cpu::of_all(bystanders.iter().copied())? - idle;
    let (_, stolen) = Machine::now()?.since(machine);
    client.finish();

    let (units, rate) = match case.subject {
        Subject::Bulk => {
            // Counted where they arrive.
            let arrived = if case.work == "up" { &served } else { &seen };
            (arrived.bytes / 1e9, arrived.bytes * 8.0 / 1e9 / arrived.seconds)
        }
        _ => (seen.operations, seen.operations / seen.seconds),
    };
    ensure!(units > 0.0, "{case} on {variant}: nothing went through", case = case.name);
    let spent: Vec<Cpu> = after.iter().zip(&before).map(|(after, before)| *after - *before).collect();
    let total: f64 = spent.iter().map(|cpu| cpu.total()).sum();
    let user: f64 = spent.iter().map(|cpu| cpu.user).sum();
    let side = |place: usize| spent.get(place).map_or(0.0, |cpu| cpu.total() / units);
    Ok(Sample {
        rate,
        p50: seen.p50,
        p99: seen.p99,
        cpu: total / units,
        user: if total > 0.0 { user / total } else { 0.0 },
        sides: [side(0), side(1)],
        failures: seen.failures,
        stolen,
        bystanders: idle.total() / seen.seconds,
        ..Sample::default()
    })
}

/// Growth of both proxies, freshly started, from a first hundred connections to all of them.
fn hold(rig: &mut Rig, variant: Variant, case: &Case, pace: Pace) -> Result<Sample> {
    rig.restart(variant)?;
    let proxies = rig.proxies(variant)?;
    let mut first = client(rig, variant, case, 100)?;
    opened(&mut first, 100)?;
    let before = settled(&proxies, memory)?;
    let mut rest = client(rig, variant, case, pace.held)?;
    opened(&mut rest, pace.held)?;
    let after = settled(&proxies, memory)?;
    let growth = |place: usize| -> Result<f64> {
        let (before, after) = (before.get(place).context("no proxy")?, after.get(place).context("no proxy")?);
        Ok((*after as f64 - *before as f64) / pace.held as f64)
    };
    Ok(Sample { held: [growth(0)?, growth(1)?], ..Sample::default() })
}

/// Waits until a client holds what it was told to.
fn opened(client: &mut Dialogue, connections: usize) -> Result<()> {
    let tally = ask(client)?;
    // It answers when the last one stands.
    ensure!(tally.operations as usize == connections, "{} of {connections} connections stand", tally.operations);
    Ok(())
}

fn client(rig: &Rig, variant: Variant, case: &Case, connections: usize) -> Result<Dialogue> {
    let to = rig.address(variant, case.server)?.to_string();
    let line = ["load", "run", case.work, &to, &PORT.to_string(), &connections.to_string()];
    let mut client = rig.pod(variant, "client")?.talk(&line)?;
    client.hear()?;
    Ok(client)
}

fn usage(pids: &[u32]) -> Result<Vec<Cpu>> {
    pids.iter().map(|pid| Cpu::of(*pid)).collect()
}

fn ask(load: &mut Dialogue) -> Result<Tally> {
    let said: Value = serde_json::from_str(&load.ask("?")?)?;
    let number = |name: &str| said[name].as_f64().with_context(|| format!("no {name} in {said}"));
    Ok(Tally {
        seconds: number("nanos")? / 1e9,
        bytes: number("bytes")?,
        operations: number("operations")?,
        failures: number("failures")?,
        p50: number("p50")? / 1e9,
        p99: number("p99")? / 1e9,
    })
}
