// SPDX-License-Identifier: Apache-2.0
//! The knobs of the data threads, as plain values; `config.rs` fills them from the environment (ztunnel.md §1.6).

use std::num::NonZeroUsize;
use std::time::Duration;

use mesh_proto::contract::port;

use super::account::AccessLog;
use super::command::ListenAt;
use super::shares::Most;
use crate::net::socket::{SocketOptions, Transparent, any_address};

/// See the module.
#[derive(Debug, Clone)]
pub struct Options {
    /// Data threads.
    pub threads: NonZeroUsize,
    /// How many of them listen in each pod: more spread a busy pod, fewer save sockets. At most `threads`; 1 without shared ports.
    pub listeners_per_pod: NonZeroUsize,
    /// Options of every socket in a pod (`PACKET_MARK`, `INPOD_PORT_REUSE`, `KEEPALIVE_*`, `USER_TIMEOUT_ENABLED`).
    pub socket: SocketOptions,
    /// `ENABLE_ORIG_SRC`
    pub original_source: Transparent,
    /// Where pods are listened in.
    pub listen: ListenAt,
    /// `POOL_MAX_STREAMS_PER_CONNECTION`
    pub pool_max_streams: u16,
    /// `POOL_UNUSED_RELEASE_TIMEOUT`
    pub pool_unused_release: Duration,
    /// `HTTP2_STREAM_WINDOW_SIZE`: what a stream's window may grow to.
    pub stream_window: u32,
    /// `HTTP2_CONNECTION_WINDOW_SIZE`
    pub connection_window: u32,
    /// `HTTP2_FRAME_SIZE`
    pub frame_size: u32,
    /// `ENABLE_RESPONSE_BAGGAGE`
    pub response_baggage: bool,
    /// `LOCALHOST_APP_TUNNEL`
    pub loopback_app_tunnel: bool,
    /// `LATEEN_EARLY_DATA`: whether what an application says at once goes out with the request for its connection.
    pub early_data: bool,
    /// Deadlines of single steps.
    pub deadlines: Deadlines,
    /// Upper bounds on what peers and applications can make us hold.
    pub limits: Limits,
    /// The access log.
    pub access_log: AccessLog,
}

/// How long single steps may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// A TCP connect (O-31 makes its own text of it).
    pub connect: Duration,
    /// A TLS handshake with the HTTP/2 preface behind it.
    pub handshake: Duration,
    /// From CONNECT to its answer.
    pub answer: Duration,
    /// For a pod's own workload to be discovered.
    pub workload: Duration,
    /// For a certificate to be issued.
    pub certificate: Duration,
}

/// What is held at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `LATEEN_MAX_SOCKETS`: sockets of all connections. `None` leaves some of the process's open files to the control side and takes
    /// the rest. A pod gets no more of these, nor of the next two, than is still free.
    pub sockets: Option<usize>,
    /// `LATEEN_MAX_DIALS`: connections that are being opened. `None` is half of the sockets.
    pub dials: Option<usize>,
    /// `LATEEN_MAX_HANDSHAKES`: inbound TLS handshakes under way. `None` is a quarter of the sockets, and 4096 at most.
    pub handshakes: Option<usize>,
    /// `LATEEN_MAX_HANDSHAKES_PER_POD`: the same for one pod. Addresses that discovery does not know get half of them together.
    pub handshakes_per_pod: usize,
    /// `LATEEN_MAX_HANDSHAKES_PER_SOURCE`: the same for one address that connects to one pod.
    pub handshakes_per_source: usize,
    /// `LATEEN_DENIED_LOG_LINES`: lines per second about failed connections from one address, on each thread; 0 writes them all.
    pub denied_lines: u32,
    /// Bytes buffered for one tunnel's streams.
    pub tunnel_bytes: usize,
    /// Bytes buffered for one pod's streams.
    pub pod_bytes: usize,
    /// Bytes buffered for all streams of the node.
    pub node_bytes: usize,
}

impl Options {
    /// The defaults of the contract for that many threads.
    pub fn new(threads: NonZeroUsize, access_log: AccessLog) -> Self {
        Self {
            threads,
            listeners_per_pod: threads.min(NonZeroUsize::MIN.saturating_add(1)),
            socket: SocketOptions { mark: Some(mesh_proto::contract::mark::PROXY), ..SocketOptions::default() },
            original_source: Transparent::Auto,
            listen: ListenAt::in_pods(true),
            pool_max_streams: 100,
            pool_unused_release: Duration::from_secs(300),
            stream_window: 4 << 20,
            connection_window: 16 << 20,
            frame_size: 1 << 20,
            response_baggage: true,
            loopback_app_tunnel: true,
            early_data: true,
            deadlines: Deadlines::default(),
            limits: Limits::default(),
            access_log,
        }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        let ten = Duration::from_secs(10);
        Self { connect: ten, handshake: ten, answer: ten + ten, workload: ten / 2, certificate: ten }
    }
}

impl Limits {
    /// What there is when the process may have so many open files.
    pub(super) fn most(&self, files: u64) -> Most {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let reserve = Self::reserve(files);
        let sockets = self.sockets.unwrap_or_else(|| files.saturating_sub(reserve).max(LEAST_SOCKETS));
        Most {
            sockets,
            dials: self.dials.unwrap_or(sockets / 2),
            handshakes: self.handshakes.unwrap_or_else(|| (sockets / 4).min(MOST_HANDSHAKES)),
            handshakes_per_pod: self.handshakes_per_pod,
        }
    }

    /// The pipes of each of so many threads: together they take half of what is left to others than sockets.
    pub(super) fn pipes(files: u64, threads: NonZeroUsize) -> usize {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        (Self::reserve(files) / 4 / threads).min(MOST_PIPES)
    }

    fn reserve(files: usize) -> usize {
        (files / 10).clamp(RESERVE.0, RESERVE.1)
    }
}

impl Deadlines {
    /// For a tunnel to stand.
    pub(super) fn tunnel(&self) -> Duration {
        self.connect + self.handshake
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sockets: None,
            dials: None,
            handshakes: None,
            handshakes_per_pod: 1024,
            handshakes_per_source: 128,
            denied_lines: 10,
            tunnel_bytes: 64 << 20,
            pod_bytes: 128 << 20,
            node_bytes: 512 << 20,
        }
    }
}

impl ListenAt {
    /// What pods get: the three ports on every address, or on every IPv4 address.
    pub fn in_pods(ipv6: bool) -> Self {
        Self {
            outbound: Some(any_address(ipv6, port::OUTBOUND)),
            inbound: Some(any_address(ipv6, port::INBOUND_HBONE)),
            plaintext: Some(any_address(ipv6, port::INBOUND_PLAINTEXT)),
            target_without_redirect: None,
        }
    }

    /// What the proxy's own pod gets: HBONE only.
    pub fn at_home(ipv6: bool) -> Self {
        Self { outbound: None, plaintext: None, ..Self::in_pods(ipv6) }
    }
}

/// Open files left to the control side, to pods' namespaces and to what data threads have besides sockets: a tenth within these bounds.
const RESERVE: (usize, usize) = (64, 1024);
/// Pipes of a thread: more large connections than these do not move bytes at the same moment.
const MOST_PIPES: usize = 128;
/// What connections get even if the limit of open files says otherwise.
const LEAST_SOCKETS: usize = 64;
/// Handshakes are begun by strangers, cost memory and end within seconds: more than a node can shake in that time are of no use.
const MOST_HANDSHAKES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_open_files() {
        let limits = Limits::default();
        let of = |files| {
            let most = limits.most(files);
            (most.sockets, most.dials, most.handshakes)
        };
        assert_eq!(of(1 << 20), ((1 << 20) - 1024, ((1 << 20) - 1024) / 2, 4096));
        assert_eq!(of(1024), (922, 461, 230));
        assert_eq!(of(100), (64, 32, 16));
        assert_eq!(of(u64::MAX).2, 4096);
        let pipes = |files, threads| Limits::pipes(files, NonZeroUsize::new(threads).unwrap());
        assert_eq!((pipes(1 << 20, 2), pipes(1 << 20, 16), pipes(1024, 2), pipes(100, 64)), (128, 16, 12, 0));
        let set = Limits { sockets: Some(10), dials: Some(5), handshakes: Some(3), ..limits };
        assert_eq!(set.most(1 << 20), Most { sockets: 10, dials: 5, handshakes: 3, handshakes_per_pod: 1024 });
    }
}
