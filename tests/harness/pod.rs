// SPDX-License-Identifier: Apache-2.0
//! A pod: a network namespace, a sandbox process that holds it, and the processes of its manifest.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    netns::Netns,
    process::{self, Dialogue, Program, Said},
    runtime::Sandbox,
    tools, wait,
};

/// A running pod.
#[derive(Debug)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node it runs on.
    pub node: String,
    /// IPv4 address.
    pub v4: Ipv4Addr,
    /// IPv6 address.
    pub v6: Ipv6Addr,
    /// Its network.
    pub netns: Netns,
    /// What the container runtime knows.
    pub sandbox: Sandbox,
    folder: PathBuf,
    processes: Vec<Program>,
}

impl Pod {
    /// Puts a pod together: its network is connected already, and nothing runs yet.
    pub(crate) fn assemble(sandbox: Sandbox, node: &str, netns: Netns, (v4, v6): (Ipv4Addr, Ipv6Addr)) -> Result<Self> {
        let folder = PathBuf::from("/run/lateen/pods").join(format!("{}_{}", sandbox.namespace, sandbox.name));
        // A former life's files go with it.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let (namespace, name) = (sandbox.namespace.clone(), sandbox.name.clone());
        Ok(Self { namespace, name, node: node.to_owned(), v4, v6, netns, sandbox, folder, processes: Vec::new() })
    }

    /// Starts the sandbox process, which holds the network namespace as a runtime's pause container does, in a control group named as a kubelet
    /// names them. Making real control groups needs root; what reads `/proc/<pid>/cgroup` cannot tell this from one.
    pub(crate) fn hold(&mut self, logs: &Path) -> Result<()> {
        let (group, holds) = (self.folder.join(".cgroup"), self.folder.join(".holds"));
        fs::write(&group, format!("0::/kubepods/besteffort/pod{}/{}\n", self.sandbox.uid, self.sandbox.id))?;
        let mut command = self.netns.command(crate::enter::sibling("peer"));
        command.arg("pause").arg(group).arg(&holds);
        let mut pause = Program::start("pause", command, &logs.join("pause.log"))?;
        wait::until("a pause process", wait::PATIENCE, || {
            pause.check()?;
            ensure!(holds.exists(), "it does not hold its pod yet");
            Ok::<(), anyhow::Error>(())
        })?;
        self.processes.push(pause);
        Ok(())
    }

    /// Starts the processes of its manifest and waits until they listen on the ports they declare.
    pub(crate) fn start(&mut self, manifest: &Value, logs: &Path) -> Result<()> {
        let log = logs.join(format!("pod-{}-{}.log", self.namespace, self.name));
        for container in manifest["spec"]["containers"].as_array().into_iter().flatten() {
            let words = |field: &str| -> Vec<String> {
                container[field]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|word| word.as_str().map(str::to_owned))
                    .collect()
            };
            let line = [words("command"), words("args")].concat();
            if let Some((program, arguments)) = line.split_first() {
                let mut command = self.command(program);
                command.args(arguments);
                self.processes.push(Program::start(
                    &format!("{}/{}: {program}", self.namespace, self.name),
                    command,
                    &log,
                )?);
            }
        }
        for port in container_ports(manifest) {
            let what = format!("{}/{} to listen on port {port}", self.namespace, self.name);
            wait::until(&what, wait::PATIENCE, || -> Result<()> {
                self.processes.iter_mut().try_for_each(Program::check)?;
                ensure!(listens(&self.netns, port)?, "nothing listens; its log:\n{}", process::tail(&log, 10));
                Ok(())
            })?;
        }
        Ok(())
    }

    /// A command in the pod.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.netns.command(program);
        command
            .current_dir(&self.folder)
            .env("PATH", tools::search_path())
            .env("PYTHONUNBUFFERED", "1")
            .env_remove("RUST_BACKTRACE");
        command
    }

    /// Runs a program in the pod to its end.
    pub fn run(&self, line: &[&str]) -> Result<Said> {
        self.run_for(line, wait::PATIENCE)
    }

    /// The same with another deadline.
    pub fn run_for(&self, line: &[&str], deadline: Duration) -> Result<Said> {
        let (program, arguments) = line.split_first().context("an empty command")?;
        let mut command = self.command(program);
        command.args(arguments);
        process::run(&line.join(" "), command, b"", deadline)
    }

    /// Starts a program in the pod to talk with line by line.
    pub fn talk(&self, line: &[&str]) -> Result<Dialogue> {
        let (program, arguments) = line.split_first().context("an empty command")?;
        let mut command = self.command(program);
        command.args(arguments);
        Dialogue::start(&line.join(" "), command)
    }

    /// `http://` + its IPv4 address + port.
    #[must_use]
    pub fn url(&self, port: u16) -> String {
        format!("http://{}:{port}/", self.v4)
    }

    /// The same with its IPv6 address.
    #[must_use]
    pub fn url6(&self, port: u16) -> String {
        format!("http://[{}]:{port}/", self.v6)
    }

    /// Both addresses.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// What its processes wrote.
    #[must_use]
    pub fn output(&self) -> String {
        self.processes.get(1).map(Program::output).unwrap_or_default()
    }

    /// What a kubelet reports of it. `started` is false until its sandbox stands.
    pub(crate) fn observation(sandbox: &Sandbox, node: &str, addresses: Option<(Ipv4Addr, Ipv6Addr)>) -> Value {
        let status = match addresses {
            None => json!({ "phase": "Pending" }),
            Some((v4, v6)) => json!({
                "phase": "Running",
                "podIP": v4.to_string(),
                "podIPs": [{ "ip": v4.to_string() }, { "ip": v6.to_string() }],
                "conditions": [{ "type": "Ready", "status": "True" }],
            }),
        };
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "namespace": sandbox.namespace, "name": sandbox.name, "uid": sandbox.uid },
            "spec": { "nodeName": node },
            "status": status,
        })
    }
}

fn container_ports(manifest: &Value) -> Vec<u16> {
    let containers = manifest["spec"]["containers"].as_array().into_iter().flatten();
    containers
        .flat_map(|container| container["ports"].as_array().into_iter().flatten())
        .filter_map(|port| port["containerPort"].as_u64()?.try_into().ok())
        .collect()
}

/// Whether any socket in `netns` listens on TCP `port`.
pub fn listens(netns: &Netns, port: u16) -> Result<bool> {
    netns.run(|| {
        let ending = format!(":{port:04X}");
        for table in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
            let text = fs::read_to_string(table)?;
            // Columns: number, local address:port, remote address:port, state; 0A is LISTEN.
            let listening = |line: &str| {
                let mut columns = line.split_whitespace().skip(1);
                columns.next().is_some_and(|local| local.ends_with(&ending)) && columns.nth(1) == Some("0A")
            };
            if text.lines().any(listening) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}
