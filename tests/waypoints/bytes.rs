// SPDX-License-Identifier: Apache-2.0
//! What is carried beside short answers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::Bed;

/// Twenty of twenty: what was lost here was lost most of the time, not always.
pub(crate) fn large(bed: &mut Bed) -> Result<()> {
    for path in ["/large", "/large/unmeasured"] {
        for number in 1..=20 {
            let url = format!("http://10.96.0.10{path}");
            let line =
                ["curl", "-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", &url];
            let said = bed.pod("demo/client")?.run(&line)?;
            ensure!(said.is_good() && said.stdout == "200 300000", "number {number}: {}", said.story());
        }
    }
    Ok(())
}

/// The same for bytes without HTTP, with the digest compared. No more than fit into a stream's window (256 KiB): what is beyond it when the server closes,
/// Envoy 1.40 drops where it ends the tunnel.
pub(crate) fn large_without_http(bed: &mut Bed) -> Result<()> {
    for number in 1..=20 {
        let said = bed.pod("demo/client")?.run(&["peer", "download", "10.96.0.12:9000", "200000"])?;
        said.good().with_context(|| format!("number {number}"))?;
    }
    Ok(())
}

/// Nobody waits for what the client of a declared port says; on the other one the waypoint does, for as long as it takes to detect a protocol.
pub(crate) fn server_first(bed: &mut Bed) -> Result<()> {
    let script = "import socket, sys
with socket.create_connection(('10.96.0.12', int(sys.argv[1])), timeout=20) as stream:
    print(stream.recv(1024).decode(), end='')
    stream.sendall(b'thanks')
    print(stream.recv(1024).decode())";
    let quickest = |port: &str| {
        let mut quickest = Duration::MAX;
        for _ in 0..3 {
            let start = Instant::now();
            let said = bed.pod("demo/client")?.run(&["python3", "-c", script, port])?.good()?;
            quickest = quickest.min(start.elapsed());
            ensure!(said == "welcome\nthanks\n", "port {port}: {said}");
        }
        Ok(quickest)
    };
    let (declared, undeclared) = (quickest("25")?, quickest("26")?);
    ensure!(declared < undeclared, "the declared port answers after {declared:?}, the other one after {undeclared:?}");
    Ok(())
}
