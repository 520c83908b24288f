// SPDX-License-Identifier: Apache-2.0
//! What the kernel charges processes with: processor time and memory, from `/proc`.

use std::{
    fs,
    ops::{AddAssign, Sub},
    time::Duration,
};

use anyhow::{Context, Result};
use harness::wait;

/// Seconds of processor time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Cpu {
    /// Of a process since its start. What the kernel does for it in interrupts and in `ksoftirqd` is charged to nobody, or to whoever ran then.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        // The name in parentheses may hold anything; behind it come the state (field 3) and numbers.
        let rest = text.rsplit_once(')').context("a stat line without a name")?.1;
        let field = |number: usize| -> Result<f64> {
            let text =
                rest.split_whitespace().nth(number - 3).with_context(|| format!("{path} has no field {number}"))?;
            Ok(text.parse::<u64>()? as f64 / TICKS)
        };
        Ok(Self { user: field(14)?, system: field(15)? })
    }

    /// Of several processes together.
    pub(crate) fn of_all(pids: impl IntoIterator<Item = u32>) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            sum += Self::of(pid)?;
        }
        Ok(sum)
    }

    pub(crate) fn total(self) -> f64 {
        self.user + self.system
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { user: self.user - earlier.user, system: self.system - earlier.system }
    }
}

impl AddAssign for Cpu {
    fn add_assign(&mut self, other: Self) {
        self.user += other.user;
        self.system += other.system;
    }
}

/// Bytes of a process that are in memory, whoever else uses them too: what `top` shows.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    kilobytes(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// Bytes of user space that belong to a process, shared pages divided among those who share them.
pub(crate) fn memory(pid: u32) -> Result<u64> {
    kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

fn kilobytes(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name} in {path}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// Memory of each proxy once it no longer changes.
pub(crate) fn settled(proxies: &[u32], memory: fn(u32) -> Result<u64>) -> Result<Vec<u64>> {
    let look = || proxies.iter().map(|pid| memory(*pid)).collect::<Result<Vec<u64>>>();
    let mut last = look()?;
    // If it never rests, the last look is as good as any.
    for _ in 0..20 {
        wait::pass(Duration::from_millis(500));
        let now = look()?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last)
}

/// Processor time of the whole machine: all of it, and what a host took away.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine {
    all: f64,
    idle: f64,
    stolen: f64,
}

impl Machine {
    pub(crate) fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let numbers: Vec<f64> =
            text.lines().next().unwrap_or("").split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        let at = |place: usize| numbers.get(place).copied().unwrap_or(0.0) / TICKS;
        // user, nice, system, idle, iowait, irq, softirq, steal; the guests' time is part of user.
        Ok(Self { all: (0..8).map(at).sum(), idle: at(3) + at(4), stolen: at(7) })
    }

    /// Shares of the time since an earlier look: busy, stolen.
    pub(crate) fn since(self, earlier: Self) -> (f64, f64) {
        let all = (self.all - earlier.all).max(f64::MIN_POSITIVE);
        let stolen = (self.stolen - earlier.stolen) / all;
        (1.0 - (self.idle - earlier.idle) / all - stolen, stolen)
    }
}

/// USER_HZ: a constant of Linux's interface whatever the kernel counts in.
const TICKS: f64 = 100.0;
