// SPDX-License-Identifier: Apache-2.0
//! Network namespaces: made, entered for the length of a closure, and configured with `ip`.
//!
//! Each is kept by a bind mount under `/run/netns` of the world's own mount namespace, where container runtimes keep theirs.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::{enter, tools};

/// Where named network namespaces are mounted.
pub const FOLDER: &str = "/run/netns";

/// A network namespace with a name.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
    mounted: bool,
}

impl Netns {
    /// Makes a new one with its loopback up.
    pub fn create(name: &str) -> Result<Self> {
        let path = Path::new(FOLDER).join(name);
        File::create_new(&path).with_context(|| format!("network namespace {name} exists already"))?;
        let made = on_a_thread(|| -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(())
        });
        made.with_context(|| format!("make network namespace {name}"))?;
        let netns = Self { name: name.to_owned(), file: File::open(&path)?, mounted: true };
        netns.ip("link set lo up")?;
        // Every address here is known to be free: no second of waiting for a duplicate before a link may be used.
        netns.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        netns.sysctl("net/ipv6/conf/default/router_solicitations", "0")?;
        Ok(netns)
    }

    /// The one the calling process lives in.
    pub fn own() -> Result<Self> {
        Ok(Self { name: "control".to_owned(), file: File::open("/proc/self/ns/net")?, mounted: false })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path a container runtime would hand to a CNI plugin.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        if self.mounted { Path::new(FOLDER).join(&self.name) } else { PathBuf::from("/proc/self/ns/net") }
    }

    /// Runs `work` on a thread that lives in this namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_a_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("enter network namespace {}", self.name))?;
            work()
        })
    }

    /// A command that will run in this namespace.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(enter::sibling("peer"));
        command.arg("in").arg(self.path()).arg(program.as_ref());
        command
    }

    /// Runs lines of `ip` in this namespace, all in one call; the first that fails ends it.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let program = tools::IP.path()?;
        // Started by a thread that lives there already: one program less to start, which counts when pods come by the dozen.
        let output = self.run(|| {
            let mut child = Command::new(program)
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?;
            child.stdin.take().ok_or_else(|| anyhow!("ip has no stdin"))?.write_all(lines.as_bytes())?;
            Ok(child.wait_with_output()?)
        })?;
        ensure!(
            output.status.success(),
            "ip in {}: {}\nof:\n{lines}",
            self.name,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Sets a kernel parameter of this namespace, named by its path under `/proc/sys`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.run(|| {
            std::fs::write(Path::new("/proc/sys").join(name), value).with_context(|| format!("set {name} to {value}"))
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.mounted {
            let path = self.path();
            // The namespace lives on as long as something in it does; only the name goes.
            let _ = umount2(&path, MntFlags::MNT_DETACH);
            let _ = std::fs::remove_file(path);
        }
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|_| Err(anyhow!("the thread panicked")))
}
