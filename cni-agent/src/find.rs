// SPDX-License-Identifier: Apache-2.0
//! Finds the network namespace of a running pod.
//!
//! Two ways. The agent usually knows the path, from the CNI ADD that made the pod: [`PodNetns::open`]. For pods it has not seen made, [`Finder`] goes through
//! the node's processes once for all of them: a process belongs to the pod whose UID stands in the path of its control group, as the kubelet names it.
//! A namespace is accepted only if it carries one of the pod's addresses, for a process in transit (a CNI plugin, a debugger) may for a moment be in
//! a pod's control group and in another namespace, or the other way round.
//!
//! Nothing found is ever kept here: a [`PodNetns`] holds the namespace alive, so its owner decides how long.

mod cgroup;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::ifaddrs::getifaddrs;
use nix::sys::stat::{fstat, stat};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::rules::{RulesError, in_netns};

pub use self::cgroup::{Contradiction, pod_uid};

/// A pod's network namespace, held open. While any clone lives, the namespace and its interfaces do.
#[derive(Clone, Debug)]
pub struct PodNetns {
    fd: Arc<OwnedFd>,
    id: NetnsId,
}

/// Tells namespaces apart while they live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetnsId {
    /// The device of the kernel's namespace file system.
    pub device: u64,
    /// The inode on it.
    pub inode: u64,
}

/// Why a network namespace was not found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The path cannot be opened.
    #[error(
        "cannot open network namespace {}: check that the pod still exists, and that the agent sees the node's /proc and /var/run/netns (mounts with \
         HostToContainer propagation) and has CAP_SYS_PTRACE", path.display()
    )]
    Open {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// There is a namespace, and it cannot be entered.
    #[error("cannot use network namespace {}", path.display())]
    Enter {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: RulesError,
    },
    /// There is something at the path, and it is no network namespace.
    #[error(
        "{} is not a network namespace: a bind mount may not have reached the agent (it needs HostToContainer propagation), or the container \
         runtime named another file", path.display()
    )]
    NotNetns {
        /// The path.
        path: PathBuf,
    },
    /// It is the node's own.
    #[error("{} is the node's own network namespace, which no pod with a network of its own can have", path.display())]
    Node {
        /// The path.
        path: PathBuf,
    },
    /// The node's own namespace cannot be told from a pod's.
    #[error("cannot read {}: without it the node's own network namespace cannot be told from a pod's; the agent needs CAP_SYS_PTRACE and the node's /proc", path.display())]
    HostNetns {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The list of processes cannot be read.
    #[error("cannot list the node's processes in {}: check the agent's mount of the node's /proc", path.display())]
    Processes {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl PodNetns {
    /// Opens a namespace by its path, as the container runtime gives it to a CNI plugin.
    ///
    /// # Errors
    /// When there is nothing, or something else than a network namespace.
    pub fn open(path: &Path) -> Result<Self, FindError> {
        let opened = |source| FindError::Open { path: path.to_owned(), source };
        // Without waiting: whatever is at the path may be a pipe, on which an ordinary open would wait for ever.
        let fd = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(opened)?;
        let fd = OwnedFd::from(fd);
        let no_netns = || FindError::NotNetns { path: path.to_owned() };
        if fstatfs(&fd).map_err(|errno| opened(errno.into()))?.filesystem_type() != NSFS_MAGIC {
            return Err(no_netns());
        }
        let found = fstat(&fd).map_err(|errno| opened(errno.into()))?;
        // Other kinds of namespaces lie on the same file system, and only a network namespace can be entered as one.
        in_netns(fd.as_fd(), || ()).map_err(|error| match error {
            RulesError::EnterNamespace { source } if source.raw_os_error() == Some(libc::EINVAL) => no_netns(),
            other => FindError::Enter { path: path.to_owned(), source: other },
        })?;
        Ok(Self { fd: Arc::new(fd), id: NetnsId { device: found.st_dev, inode: found.st_ino } })
    }

    /// Tells this namespace from others.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Does an interface in it have one of these addresses?
    fn carries(&self, addresses: &[IpAddr]) -> bool {
        let listed = in_netns(self.as_fd(), || {
            getifaddrs()
                .map(|list| list.filter_map(|one| one.address.as_ref().and_then(address_of)).collect::<Vec<_>>())
        });
        let Ok(Ok(carried)) = listed else { return false };
        addresses.iter().any(|address| carried.contains(&address.to_canonical()))
    }
}

impl PartialEq for PodNetns {
    /// Whether it is the same namespace. While either is held, no other can have its number.
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl AsFd for PodNetns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A pod whose namespace is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `metadata.uid`
    pub uid: String,
    /// `status.podIPs`. A pod without any is not looked for: nothing could prove a namespace to be its own.
    pub addresses: Vec<IpAddr>,
}

/// Goes through a node's processes.
#[derive(Clone, Debug)]
pub struct Finder {
    proc: PathBuf,
}

impl Finder {
    /// `proc`: where the node's `/proc` is mounted.
    #[must_use]
    pub fn new(proc: impl Into<PathBuf>) -> Self {
        Self { proc: proc.into() }
    }

    /// Goes through all processes once. Pods without a running process are not in the answer. Where a pod's processes are in several namespaces,
    /// the oldest process counts: it is the sandbox.
    ///
    /// # Errors
    /// When processes cannot be listed, or the node's own namespace cannot be told. A process that ends meanwhile is no error.
    pub fn find(&self, wanted: &[Wanted]) -> Result<HashMap<String, PodNetns>, FindError> {
        let host = self.host()?;
        let entries =
            fs::read_dir(&self.proc).map_err(|source| FindError::Processes { path: self.proc.clone(), source })?;
        let mut oldest: HashMap<&str, (u64, PodNetns)> = HashMap::new();
        for entry in entries.flatten() {
            if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                continue;
            }
            let Some(process) = Process::read(&entry.path(), &host) else { continue };
            let Some(pod) = wanted.iter().find(|pod| same_uid(&pod.uid, &process.uid)) else { continue };
            match oldest.get_mut(pod.uid.as_str()) {
                Some((start, _)) if *start <= process.start => {}
                Some((start, netns)) if netns.id() == process.netns => *start = process.start,
                _ => {
                    if let Some(netns) = process.open(&entry.path()).filter(|netns| netns.carries(&pod.addresses)) {
                        oldest.insert(&pod.uid, (process.start, netns));
                    }
                }
            }
        }
        Ok(oldest.into_iter().map(|(uid, (_, netns))| (uid.to_owned(), netns)).collect())
    }

    /// Refuses the node's own namespace and the agent's: to take one for a pod's would put the whole node behind the
    /// proxy.
    ///
    /// # Errors
    /// It is one of them. One that cannot be told is not compared.
    pub fn must_be_a_pods(&self, netns: &PodNetns, path: &Path) -> Result<(), FindError> {
        if self.hosts().iter().filter_map(|host| id_at(host).ok()).any(|host| host == netns.id()) {
            return Err(FindError::Node { path: path.to_owned() });
        }
        Ok(())
    }

    /// The namespaces no pod can own: the node's, and the agent's.
    fn host(&self) -> Result<[NetnsId; 2], FindError> {
        let identify = |path: PathBuf| id_at(&path).map_err(|source| FindError::HostNetns { path, source });
        let [node, agent] = self.hosts();
        Ok([identify(node)?, identify(agent)?])
    }

    fn hosts(&self) -> [PathBuf; 2] {
        [self.proc.join("1").join(NETNS), Path::new("/proc/self").join(NETNS)]
    }
}

/// A process in some pod.
struct Process {
    uid: String,
    start: u64,
    netns: NetnsId,
}

impl Process {
    /// `None` for processes of the node itself, and for those that are ending.
    fn read(path: &Path, host: &[NetnsId]) -> Option<Self> {
        let netns = id_at(&path.join(NETNS)).ok()?;
        if host.contains(&netns) {
            return None;
        }
        let start = start_time(&fs::read_to_string(path.join("stat")).ok()?)?;
        match pod_uid(&fs::read_to_string(path.join("cgroup")).ok()?) {
            Ok(uid) => Some(Self { uid: uid?, start, netns }),
            Err(error) => {
                tracing::debug!(process = %path.display(), %error, "passed over a process");
                None
            }
        }
    }

    /// Opens its namespace. The process may have ended and its number been given away: then the start time has changed.
    fn open(&self, path: &Path) -> Option<PodNetns> {
        let netns = PodNetns::open(&path.join(NETNS)).ok()?;
        let start = start_time(&fs::read_to_string(path.join("stat")).ok()?)?;
        (netns.id() == self.netns && start == self.start).then_some(netns)
    }
}

fn id_at(path: &Path) -> io::Result<NetnsId> {
    let found = stat(path)?;
    Ok(NetnsId { device: found.st_dev, inode: found.st_ino })
}

/// Field 22 of `/proc/<pid>/stat`, in clock ticks since the node started. The second field is the program's name in parentheses and may hold anything.
fn start_time(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(START_TIME - 3)?.parse().ok()
}

/// Static pods have their UID without hyphens in some paths.
fn same_uid(wanted: &str, found: &str) -> bool {
    wanted.eq_ignore_ascii_case(found) || wanted.replace('-', "").eq_ignore_ascii_case(&found.replace('-', ""))
}

fn address_of(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()).to_canonical()))
}

const NETNS: &str = "ns/net";
const START_TIME: usize = 22;

#[cfg(test)]
mod tests;
