// SPDX-License-Identifier: Apache-2.0
//! The knobs of the data threads, as plain values; `config.rs` fills them from the environment (ztunnel.md §1.6).

use std::num::NonZeroUsize;
use std::time::Duration;

use mesh_proto::contract::port;

use super::account::AccessLog;
use super::command::ListenAt;
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
    /// Inbound TLS handshakes under way per pod and thread: strangers can start them.
    pub handshakes_per_pod: usize,
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

impl Default for Limits {
    fn default() -> Self {
        Self { handshakes_per_pod: 256, tunnel_bytes: 64 << 20, pod_bytes: 128 << 20, node_bytes: 512 << 20 }
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
