// SPDX-License-Identifier: Apache-2.0
//! Two engines talk HBONE over loopback: real sockets, real certificates, real threads. Without redirect rules the target of an
//! outbound connection is told by [`ListenAt::target_without_redirect`].

mod early;
mod faults;
mod life;
mod limits;
mod peer;
mod peers;
mod plain;
mod policy;
mod streams;
mod world;

use super::*;

/// Thousands of idle connections are the usual case.
#[test]
fn an_idle_connection_is_small() {
    let flow = size_of::<flow::Flow>() + size_of::<flow::Told>();
    assert!(flow <= 512, "{flow} bytes for a flow and its account");
    assert!(size_of::<tunnel::Tunnel>() <= 640, "{} bytes for a tunnel", size_of::<tunnel::Tunnel>());
}
