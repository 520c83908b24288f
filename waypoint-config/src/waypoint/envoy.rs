// SPDX-License-Identifier: Apache-2.0
//! Envoy as a child process: it never outlives the launcher, and it logs where the launcher logs. Called by `app`.

#![expect(
    unsafe_code,
    reason = "a child asks the kernel to end it with its parent, which has to happen between fork and exec"
)]

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};
use thiserror::Error;
use tokio::process::{Child, Command};

/// How it is started.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// The program.
    pub(super) program: PathBuf,
    /// Its threads; 0: one for each processor.
    pub(super) concurrency: u16,
    /// What it logs.
    pub(super) log: &'static str,
    /// How long its listeners drain.
    pub(super) drain: Duration,
}

/// It did not start.
#[derive(Debug, Error)]
#[error("cannot start Envoy ({program}): {source}; set ENVOY_BIN to its program")]
pub struct EnvoyError {
    program: PathBuf,
    source: io::Error,
}

/// The running Envoy.
#[derive(Debug)]
pub(super) struct Envoy(Child);

impl Envoy {
    /// Starts it. To be called on the process's first thread: the kernel ends the child when the thread that made it ends.
    pub(super) fn start(options: &Options, bootstrap: &Path) -> Result<Self, EnvoyError> {
        let mut command = Command::new(&options.program);
        command
            .arg("--config-path")
            .arg(bootstrap)
            .arg("--disable-hot-restart")
            // Everybody is told at once, not by chance over the whole time.
            .args(["--drain-strategy", "immediate", "--drain-time-s", &options.drain.as_secs().max(1).to_string()])
            .args(["--log-level", options.log, "--log-format", LOG_FORMAT])
            // As in Istio: who reads the access log along does not wait ten seconds for a line.
            .args(["--file-flush-interval-msec", "1000"])
            // A terminal's interrupt is for the launcher, which drains first.
            .process_group(0)
            .kill_on_drop(true);
        if options.concurrency > 0 {
            command.args(["--concurrency", &options.concurrency.to_string()]);
        }
        let launcher = getpid();
        // SAFETY: between fork and exec only system calls without allocation are made, which are safe there.
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                // The launcher may have ended just before.
                if getppid() == launcher { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
            });
        }
        let spawned = command.spawn();
        spawned.map(Self).map_err(|source| EnvoyError { program: options.program.clone(), source })
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.0.wait().await
    }

    /// Sends it a signal; one that has ended gets none.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0.id().and_then(|pid| pid.try_into().ok()) {
            // It may end at any time.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// What the launcher ends with: Envoy's own code, or that of the signal that ended it, as shells write it.
pub(super) fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| code.try_into().ok()).unwrap_or(u8::MAX)
}

/// The columns of the launcher's own lines.
const LOG_FORMAT: &str = "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n\t%v";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_envoy_is_told_as_shells_tell_it() {
        for (raw, told) in [(0, 0), (3 << 8, 3), (9, 137), (15, 143)] {
            assert_eq!(code(ExitStatus::from_raw(raw)), told);
        }
    }
}
