// SPDX-License-Identifier: Apache-2.0
//! The socket on which the agent is asked by the CNI plugin.

use std::{io::Write as _, os::unix::net::UnixStream};

use anyhow::Result;
use harness::Bed;

use crate::{a_pod_comes_and_goes, log_length, said_little, unharmed};

pub(crate) fn half_requests(bed: &mut Bed) -> Result<()> {
    let before = log_length(bed, "n1-agent")?;
    unharmed(bed, |bed| {
        let path = bed.world.node("n1")?.folder.join("agent/pluginevent.sock");
        let body = r#"{"Netns":"/dev/zero","PodName":"x","PodNamespace":"demo","IPs":[]}"#;
        let whole = format!("POST /cmdadd HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let mut halves = Vec::new();
        for number in 0..600 {
            let mut stream = UnixStream::connect(&path)?;
            // The last of them are whole, and about a network that is none.
            let _ = stream.write_all(&whole.as_bytes()[..(number * whole.len() / 590).min(whole.len())]);
            halves.push(stream);
        }
        a_pod_comes_and_goes(bed, "started")
    })?;
    said_little(bed, "n1-agent", before, 64 * 1024)
}
