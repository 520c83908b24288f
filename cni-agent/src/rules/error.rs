// SPDX-License-Identifier: Apache-2.0
//! What can go wrong while a pod's rules are written, read or removed, in words that say what to look at next.
//!
//! The agent adds which pod it was and reports the whole once.

use std::io;

use super::compare::Difference;

/// Rules could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// `setns` failed, or no thread could be started.
    #[error(
        "cannot enter the pod's network namespace: check that it still exists, and that the agent has CAP_SYS_ADMIN over the user namespace that owns it"
    )]
    EnterNamespace {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The namespace is the agent's own.
    #[error(
        "refused to write pod rules into the agent's own network namespace: the namespace found for the pod is wrong (a hostNetwork pod, or a process \
         in transit); check the pod's sandbox in the container runtime"
    )]
    OwnNamespace,
    /// The work inside the namespace panicked.
    #[error(
        "the work inside the pod's network namespace panicked; this is a defect of the agent, please report it with the log"
    )]
    Panicked,
    /// A netlink socket could not be opened, written or read.
    #[error("netlink: cannot {operation}")]
    Socket {
        /// What was attempted.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a message, and with it the whole transaction.
    #[error("the kernel refused to {what}: {source}{}; {advice}", said.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// What the message was to do.
        what: String,
        /// The error number.
        #[source]
        source: io::Error,
        /// The kernel's own words, where it had any.
        said: Option<String>,
        /// What to check next.
        advice: &'static str,
    },
    /// A transaction was sent and not every part of it was answered.
    #[error(
        "the kernel did not acknowledge everything ({missing} of {sent} messages are unanswered): the socket's receive buffer may be too small, see net.core.rmem_default"
    )]
    Unanswered {
        /// How many messages wait for an answer.
        missing: usize,
        /// How many were sent.
        sent: usize,
    },
    /// Rules kept changing while they were read.
    #[error(
        "the rules in the pod changed again and again while they were read: look for a program that rewrites nftables in a loop (`nft monitor`)"
    )]
    Unsettled,
    /// An answer does not have the form netlink gives it.
    #[error("a netlink answer cannot be understood ({what}); this kernel may be newer than the agent")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
    /// Written, read back, and not the same.
    #[error(
        "the rules were accepted but read back differently: {}; look for another program that writes nftables in this pod",
        differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    NotAsWritten {
        /// What differs.
        differences: Vec<Difference>,
    },
}

/// What to check when the kernel answers with this error number.
pub(super) fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "the agent needs CAP_NET_ADMIN over the pod's network namespace; if it has that, another process owns the table (flag owner in `nft list tables`)"
        }
        Some(libc::ENOENT) => {
            "something was removed meanwhile, or the kernel lacks an nf_tables module (nft_redir, nft_nat, nft_ct: try modprobe)"
        }
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => {
            "the kernel lacks a part of nf_tables or of policy routing: NAT in the inet family needs 5.2 or newer; check lsmod for nft_nat and nft_redir"
        }
        Some(libc::EEXIST) => {
            "a chain or table of the same name and another kind exists; look with `nft list ruleset` in the pod"
        }
        Some(libc::EBUSY) => "something still refers to it; look with `nft list ruleset` in the pod",
        Some(libc::ENETDOWN) => {
            "the pod's loopback interface is down; the container runtime brings it up before the CNI plugins run"
        }
        Some(libc::ENODEV) => "the interface does not exist in the pod",
        Some(libc::ENOMEM | libc::ENOBUFS) => "the node is short of memory, or the pod's memory cgroup is",
        Some(libc::EMFILE | libc::ENFILE) => "too many open files: raise the agent's limit",
        _ => "look with `nft list ruleset` and `ip rule` in the pod",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_check_fits_what_the_kernel_said() {
        for (codes, word) in [
            (&[libc::EPERM, libc::EACCES][..], "CAP_NET_ADMIN"),
            (&[libc::ENOENT], "modprobe"),
            (&[libc::EOPNOTSUPP, libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT], "needs 5.2"),
            (&[libc::EEXIST], "another kind"),
            (&[libc::EBUSY], "refers to it"),
            (&[libc::ENETDOWN], "loopback interface is down"),
            (&[libc::ENODEV], "does not exist in the pod"),
            (&[libc::ENOMEM, libc::ENOBUFS], "short of memory"),
            (&[libc::EMFILE, libc::ENFILE], "limit"),
            (&[libc::EINVAL], "`ip rule`"),
        ] {
            for code in codes {
                let said = advice(&io::Error::from_raw_os_error(*code));
                assert!(said.contains(word), "{code}: {said}");
            }
        }
    }
}
