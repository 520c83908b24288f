// SPDX-License-Identifier: Apache-2.0
//! What the data threads hold at most and wait at most. These are our own, hence the prefix of their names.

use std::time::Duration;

use super::args::Args;
use super::mistakes::Mistakes;
use super::value;
use crate::engine::{Deadlines, Limits};

/// How much is held.
pub(super) fn limits(args: &Args, mistakes: &mut Mistakes) -> Limits {
    Limits {
        sockets: mistakes.read_some("LATEEN_MAX_SOCKETS", &args.max_sockets, some),
        dials: mistakes.read_some("LATEEN_MAX_DIALS", &args.max_dials, some),
        handshakes: mistakes.read_some("LATEEN_MAX_HANDSHAKES", &args.max_handshakes, some),
        handshakes_per_pod: mistakes.read("LATEEN_MAX_HANDSHAKES_PER_POD", &args.max_handshakes_per_pod, some),
        handshakes_per_source: mistakes.read("LATEEN_MAX_HANDSHAKES_PER_SOURCE", &args.max_handshakes_per_source, some),
        denied_lines: mistakes.read("LATEEN_DENIED_LOG_LINES", &args.denied_log_lines, value::number),
        tunnel_bytes: mistakes.read("LATEEN_TUNNEL_BYTES", &args.tunnel_bytes, some),
        pod_bytes: mistakes.read("LATEEN_POD_BYTES", &args.pod_bytes, some),
        node_bytes: mistakes.read("LATEEN_NODE_BYTES", &args.node_bytes, some),
    }
}

/// How long is waited.
pub(super) fn deadlines(args: &Args, mistakes: &mut Mistakes) -> Deadlines {
    Deadlines {
        connect: mistakes.read("LATEEN_CONNECT_TIMEOUT", &args.connect_timeout, patience),
        handshake: mistakes.read("LATEEN_HANDSHAKE_TIMEOUT", &args.handshake_timeout, patience),
        answer: mistakes.read("LATEEN_ANSWER_TIMEOUT", &args.answer_timeout, patience),
        ..Deadlines::default()
    }
}

fn some(text: &str) -> Result<usize, String> {
    match value::number(text)? {
        0 => Err("with a limit of 0 nothing gets through; leave it out for the default".to_owned()),
        count => Ok(count),
    }
}

fn patience(text: &str) -> Result<Duration, String> {
    match value::duration(text)? {
        short if short < SHORTEST => Err(format!("{short:?} is too short for a network; at least {SHORTEST:?}")),
        long if long > LONGEST => Err(format!("{long:?} is too long to wait; at most {LONGEST:?}")),
        time => Ok(time),
    }
}

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(600);
