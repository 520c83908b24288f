// SPDX-License-Identifier: Apache-2.0
//! Child processes of the world: long-running ones with a log, and commands that are run to their end.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait;

/// A long-running program; killed when dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `command` with both outputs appended to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file =
            File::options().create(true).append(true).open(log).with_context(|| format!("open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {name} ({})", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its name in the world.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Everything it said so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// An error, with the end of its log, if it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}); the end of its log:\n{}", self.name, tail(&self.log, 15)),
        }
    }

    /// Its process number inside the world.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().try_into()?), signal)
            .with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        wait::until(&format!("{} to stop", self.name), wait::PATIENCE, || match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("still running".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Ends it without a word, as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a file.
#[must_use]
pub fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// What a command that ran to its end said.
#[derive(Clone, Debug)]
pub struct Said {
    /// The command line, for people.
    pub line: String,
    /// Exit status; none if a signal or the deadline ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// Whether it ended with status 0.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.code == Some(0)
    }

    /// Standard output of a command that must have succeeded.
    pub fn good(self) -> Result<String> {
        ensure!(self.is_good(), "{}", self.story());
        Ok(self.stdout)
    }

    /// The whole of it for an error message.
    #[must_use]
    pub fn story(&self) -> String {
        let code =
            self.code.map_or_else(|| "ended by a signal or the deadline".to_owned(), |code| format!("status {code}"));
        format!("`{}`: {code}; stdout: {:?}; stderr: {:?}", self.line, self.stdout.trim(), self.stderr.trim())
    }
}

/// Runs `command` to its end, or kills it at the deadline.
pub fn run(line: &str, mut command: Command, input: &[u8], deadline: Duration) -> Result<Said> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run `{line}`"))?;
    let pid = Pid::from_raw(child.id().try_into()?);
    let mut stdin = child.stdin.take().ok_or_else(|| anyhow!("no stdin"))?;
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // A command that does not read its input is no mistake.
        let _ = stdin.write_all(&input);
    });
    let (sender, done) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = sender.send(());
        output
    });
    let late = done.recv_timeout(deadline).is_err();
    if late {
        let _ = kill(pid, Signal::SIGKILL);
    }
    let output = waiter.join().map_err(|_| anyhow!("waiting for `{line}` panicked"))??;
    let _ = feeder.join();
    Ok(Said {
        line: line.to_owned(),
        code: if late { None } else { output.status.code() },
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A program one talks with line by line over its standard input and output; killed when dropped.
#[derive(Debug)]
pub struct Dialogue {
    line: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Dialogue {
    /// Starts it.
    pub fn start(line: &str, mut command: Command) -> Result<Self> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().with_context(|| format!("start `{line}`"))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().ok_or_else(|| anyhow!("no stdout"))?);
        Ok(Self { line: line.to_owned(), child, stdin, stdout })
    }

    /// Says a line and returns the line that comes back. The program at the other end keeps the deadline: it must say something or end.
    pub fn ask(&mut self, question: &str) -> Result<String> {
        let stdin = self.stdin.as_mut().ok_or_else(|| anyhow!("`{}`: its input was closed", self.line))?;
        writeln!(stdin, "{question}").and_then(|()| stdin.flush()).with_context(|| format!("`{}` ended", self.line))?;
        self.hear()
    }

    /// The next line it says.
    pub fn hear(&mut self) -> Result<String> {
        let mut answer = String::new();
        let read = self.stdout.read_line(&mut answer)?;
        ensure!(read > 0, "`{}` said no more", self.line);
        Ok(answer.trim_end().to_owned())
    }

    /// Closes its input.
    pub fn finish(&mut self) {
        self.stdin = None;
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
