// SPDX-License-Identifier: Apache-2.0
//! Two engines talk HBONE over loopback: real sockets, real certificates, real threads. Without redirect rules the target of an
//! outbound connection is told by [`ListenAt::target_without_redirect`].

mod faults;
mod life;
mod policy;
mod streams;
mod world;

use super::*;
