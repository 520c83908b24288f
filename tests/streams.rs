// SPDX-License-Identifier: Apache-2.0
//! Connections as byte streams: closing one direction, resets, large transfers, many at once.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use harness::{Bed, Suite, wait};

const OBJECTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: demo, labels: {istio.io/dataplane-mode: ambient}}}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: client}
spec: {nodeName: n1, serviceAccountName: client}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: near}
spec:
  nodeName: n1
  serviceAccountName: near
  containers: [{name: peer, command: [peer, serve, '9000', near], ports: [{containerPort: 9000}]}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: far}
spec:
  nodeName: n2
  serviceAccountName: far
  containers: [{name: peer, command: [peer, serve, '9000', far], ports: [{containerPort: 9000}]}]
";

/// One gigabyte.
const LARGE: &str = "1000000000";

fn main() -> ExitCode {
    Suite::new("streams", |world| Bed::start(world, OBJECTS))
        .test("a_connection_half_closed_by_the_client_still_brings_the_answer", half_close)
        .test("a_reset_by_the_client_reaches_the_server_as_a_reset", reset_by_client)
        .test("a_reset_by_the_server_reaches_the_client_as_a_reset", reset_by_server)
        .test("a_gigabyte_goes_up_unchanged", |bed| transfer(bed, "demo/far", "upload", LARGE))
        .test("a_gigabyte_comes_down_unchanged", |bed| transfer(bed, "demo/far", "download", LARGE))
        .test("a_large_transfer_on_one_node_is_unchanged_both_ways", |bed| {
            transfer(bed, "demo/near", "upload", "100000000")?;
            transfer(bed, "demo/near", "download", "100000000")
        })
        .test("a_reader_that_stalls_does_not_stall_its_neighbours", stalled_reader)
        .test("many_connections_at_once_each_get_their_own_answer", many)
        .main()
}

fn both(bed: &Bed) -> Result<Vec<String>> {
    let mut addresses = Vec::new();
    for pod in ["demo/near", "demo/far"] {
        for address in bed.pod(pod)?.addresses() {
            addresses.push(std::net::SocketAddr::new(address, 9000).to_string());
        }
    }
    Ok(addresses)
}

fn half_close(bed: &mut Bed) -> Result<()> {
    for address in both(bed)? {
        let said = bed.pod("demo/client")?.run(&["peer", "half-close", &address])?.good()?;
        ensure!(said.trim() == "after the end of 5 bytes", "{address}: {said:?}");
    }
    Ok(())
}

fn reset_by_client(bed: &mut Bed) -> Result<()> {
    for server in ["demo/near", "demo/far"] {
        let server = bed.pod(server)?;
        bed.pod("demo/client")?.run(&["peer", "reset", &format!("{}:9000", server.v4)])?.good()?;
        wait::until("the server to feel the reset", wait::PATIENCE, || {
            let output = server.output();
            ensure!(output.contains("reset-by-client: ConnectionReset"), "it says {output:?}");
            Ok::<(), anyhow::Error>(())
        })?;
    }
    Ok(())
}

fn reset_by_server(bed: &mut Bed) -> Result<()> {
    for address in both(bed)? {
        bed.pod("demo/client")?.run(&["peer", "await-reset", &address])?.good().context(address)?;
    }
    Ok(())
}

fn transfer(bed: &mut Bed, to: &str, way: &str, bytes: &str) -> Result<()> {
    let address = format!("{}:9000", bed.pod(to)?.v4);
    bed.pod("demo/client")?.run_for(&["peer", way, &address, bytes], Duration::from_secs(240))?.good()?;
    Ok(())
}

/// A client that asks for a lot and reads nothing, with its neighbours on the same tunnel.
fn stalled_reader(bed: &mut Bed) -> Result<()> {
    let far = bed.pod("demo/far")?;
    let client = bed.pod("demo/client")?;
    let mut stalled = client.talk(&["peer", "stall", &format!("{}:9000", far.v4), "200000000"])?;
    ensure!(stalled.hear()? == "stalled", "no connection to stall");
    for _ in 0..20 {
        ensure!(bed.who("demo/client", far.v4.into(), 9000)?.good()?.trim() == client.v4.to_string(), "a wrong answer");
    }
    transfer(bed, "demo/far", "download", "20000000")
}

fn many(bed: &mut Bed) -> Result<()> {
    let address = format!("{}:9000", bed.pod("demo/far")?.v4);
    let mut talks = Vec::new();
    for number in 0..60 {
        let mut talk = bed.pod("demo/client")?.talk(&["peer", "talk", &address])?;
        talk.hear().with_context(|| format!("connection {number}"))?;
        talks.push(talk);
    }
    for round in 0..3 {
        for (number, talk) in talks.iter_mut().enumerate() {
            let question = format!("connection {number} round {round}");
            let answer = talk.ask(&question)?;
            ensure!(answer == question, "asked {question:?}, got {answer:?}");
        }
    }
    Ok(())
}
