// SPDX-License-Identifier: Apache-2.0
//! The control plane's port for discovery and certificates.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use harness::{Bed, mesh, wait};

use crate::{a_pod_comes_and_goes, ask, carried, log_length, said_little, unharmed};

const DENY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {namespace: demo, name: not-client}
spec:
  selector: {matchLabels: {app: far}}
  action: DENY
  rules: [{from: [{source: {serviceAccounts: [client]}}]}]
";

/// More connections than it has handshakes for, from one place, most of them silent.
pub(crate) fn strangers(bed: &mut Bed) -> Result<()> {
    let before = log_length(bed, "control")?;
    unharmed(bed, |bed| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 15012));
        let mut strangers = Vec::new();
        for number in 0..2000 {
            let mut stream = bed
                .world
                .control
                .run(|| Ok(TcpStream::connect_timeout(&address, Duration::from_secs(20))?))
                .with_context(|| format!("connection {number}"))?;
            // One that was closed already is no mistake.
            let _ = match number % 3 {
                0 => stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
                1 => stream.write_all(b"\x16\x03\x01\x40\x00\x01\x00"),
                _ => Ok(()),
            };
            strangers.push(stream);
        }
        bed.world.apply(DENY)?;
        bed.mesh.await_policies(&bed.world, "demo", &["not-client"])?;
        ensure!(!ask(bed)?.is_good(), "a policy made meanwhile is not in force");
        bed.world.objects.remove("AuthorizationPolicy", "demo", "not-client")?;
        bed.mesh.await_policies(&bed.world, "demo", &[])?;
        a_pod_comes_and_goes(bed, "certified")?;
        drop(strangers);
        wait::until("connections to be carried again", mesh::SETTLING, || carried(bed))
    })?;
    said_little(bed, "control", before, 64 * 1024)
}
