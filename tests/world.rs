// SPDX-License-Identifier: Apache-2.0
//! The test world itself: pods reach each other, a capture hears what is on the wire, and nothing is left behind. No part of the mesh runs here.

use std::{
    collections::BTreeSet,
    env, fs,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Result, ensure};
use harness::{Suite, World, capture::Caught, wait};

const PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: demo}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: client}
spec: {nodeName: n1}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: near}
spec:
  nodeName: n1
  containers:
  - {name: peer, command: [peer, serve, '9000', near], ports: [{containerPort: 9000}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: far}
spec:
  nodeName: n2
  containers:
  - {name: web, command: [sh, -c, 'echo the secret of far > index.html; exec python3 -m http.server 8080 --bind ::'], ports: [{containerPort: 8080}]}
  - {name: peer, command: [peer, serve, '9000', far], ports: [{containerPort: 9000}]}
";

fn main() -> ExitCode {
    Suite::new("world", |mut world| {
        world.apply(PODS)?;
        Ok(world)
    })
    .test("pods_reach_each_other_on_one_node_and_across_in_both_families", reach)
    .test("a_capture_between_the_nodes_finds_what_a_plain_curl_fetches", plaintext)
    .test("a_capture_hears_nothing_of_traffic_on_one_node", near_traffic)
    .test("a_connection_half_closed_by_the_client_still_brings_the_answer", half_close)
    .test("resets_arrive_as_resets_both_ways", resets)
    .test("digests_agree_after_a_large_transfer", transfer)
    .test("a_pod_can_be_deleted_and_made_again", again)
    .test("nothing_of_the_host_is_reachable_or_changed", apart)
    .test("a_world_that_ended_or_was_killed_leaves_nothing_behind", teardown)
    .main()
}

fn reach(world: &mut World) -> Result<()> {
    let client = world.pod("demo/client")?;
    for server in ["demo/near", "demo/far"] {
        for address in world.pod(server)?.addresses() {
            let seen = client.run(&["peer", "who", &std::net::SocketAddr::new(address, 9000).to_string()])?.good()?;
            let own = if address.is_ipv4() { client.v4.to_string() } else { client.v6.to_string() };
            ensure!(seen.trim() == own, "{server} at {address} saw {seen} instead of {own}");
        }
    }
    Ok(())
}

fn curl_and_listen(world: &World, url: &str) -> Result<(String, Caught)> {
    let capture = world.listen()?;
    let body = world.pod("demo/client")?.run(&["curl", "-sS", "--max-time", "10", url])?.good()?;
    Ok((body, capture.stop()?))
}

fn plaintext(world: &mut World) -> Result<()> {
    let far = world.pod("demo/far")?;
    for url in [far.url(8080), far.url6(8080)] {
        let (body, caught) = curl_and_listen(world, &url)?;
        ensure!(body.contains("the secret of far"), "curl {url} said {body:?}");
        ensure!(caught.contains(b"the secret of far"), "not heard on the wire: {}", caught.summary());
        ensure!(caught.bytes_on(8080) > 0 && caught.bytes_on(15008) == 0, "unexpected ports: {}", caught.summary());
    }
    Ok(())
}

fn near_traffic(world: &mut World) -> Result<()> {
    let capture = world.listen()?;
    let near = world.pod("demo/near")?;
    world.pod("demo/client")?.run(&["peer", "who", &format!("{}:9000", near.v4)])?.good()?;
    let caught = capture.stop()?;
    ensure!(caught.packets == 0, "heard {}", caught.summary());
    Ok(())
}

fn half_close(world: &mut World) -> Result<()> {
    let far = world.pod("demo/far")?;
    let said = world.pod("demo/client")?.run(&["peer", "half-close", &format!("{}:9000", far.v4)])?.good()?;
    ensure!(said.trim() == "after the end of 5 bytes", "{said:?}");
    Ok(())
}

fn resets(world: &mut World) -> Result<()> {
    let far = format!("{}:9000", world.pod("demo/far")?.v4);
    let client = world.pod("demo/client")?;
    client.run(&["peer", "await-reset", &far])?.good()?;
    client.run(&["peer", "reset", &far])?.good()?;
    Ok(())
}

fn transfer(world: &mut World) -> Result<()> {
    let far = format!("{}:9000", world.pod("demo/far")?.v4);
    let client = world.pod("demo/client")?;
    client.run(&["peer", "upload", &far, "50000000"])?.good()?;
    client.run(&["peer", "download", &far, "50000000"])?.good()?;
    Ok(())
}

fn again(world: &mut World) -> Result<()> {
    let manifest = world.objects.find("Pod", "demo", "near")?.clone();
    let before = world.pod("demo/near")?.sandbox.uid.clone();
    world.delete_pod("demo/near")?;
    ensure!(world.pod("demo/near").is_err(), "a deleted pod is still there");
    world.objects.put(manifest.clone())?;
    world.start(&manifest)?;
    ensure!(world.pod("demo/near")?.sandbox.uid != before, "a new life has the uid of the former");
    reach(world)
}

fn apart(_: &mut World) -> Result<()> {
    let links: Vec<String> = fs::read_to_string("/proc/net/dev")?
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect();
    ensure!(links == ["lo", "n1", "n2"] || links == ["lo", "n2", "n1"], "links of the control network: {links:?}");
    ensure!(std::process::id() < 100, "not in a process namespace of its own");
    Ok(())
}

/// Processes, mounts and links that can be seen from here.
fn seen() -> Result<BTreeSet<String>> {
    let processes = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let links = fs::read_to_string("/proc/net/dev")?;
    let links = links.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned());
    Ok(processes.chain(mounts.lines().map(str::to_owned)).chain(links).collect())
}

/// A world inside this one, of which this one is the host.
fn teardown(world: &mut World) -> Result<()> {
    let state = world.state().join("nested");
    let world = |filter: &str| -> Result<Command> {
        fs::create_dir_all(&state)?;
        let mut command = Command::new(env::current_exe()?);
        command.arg("--stage=door").arg(format!("--state={}", state.display())).arg(filter).stdout(Stdio::null());
        Ok(command)
    };
    let before = seen()?;
    let gone = || {
        wait::until("everything of the world to be gone", wait::PATIENCE, || -> Result<()> {
            let left: Vec<String> = seen()?.difference(&before).cloned().collect();
            ensure!(left.is_empty(), "still there: {}", left.join(", "));
            Ok(())
        })
    };

    ensure!(world("pods_reach")?.status()?.success(), "the world inside failed");
    gone()?;

    fs::remove_dir_all(&state)?;
    let mut door = world("digests")?.spawn()?;
    wait::until("pods to run in the world inside", wait::PATIENCE, || -> Result<()> {
        ensure!(state.join("logs/pod-demo-far.log").exists(), "not yet");
        Ok(())
    })?;
    ensure!(seen()? != before, "nothing was seen of the world inside");
    door.kill()?;
    door.wait()?;
    gone()
}
