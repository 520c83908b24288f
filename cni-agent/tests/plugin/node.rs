// SPDX-License-Identifier: Apache-2.0
//! A node as the plugin sees it: a run directory, the agent's real server on its socket with the test as the loop behind it, and a runtime that calls.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cni_agent::cni::snapshot::{self, Membership, Snapshot};
use cni_agent::plugin::{self, Answer, Counts, Request};
use mesh_common::lifecycle::{Drainer, Tasks, drain};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};

pub(crate) const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A run directory with, perhaps, an agent behind its socket.
pub(crate) struct Node {
    pub(crate) folder: TempDir,
    pub(crate) agent: Option<Agent>,
}

/// The real server; the test plays the loop behind it.
pub(crate) struct Agent {
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) counts: Counts,
    pub(crate) tasks: Tasks,
    pub(crate) drainer: Drainer,
}

impl Node {
    pub(crate) fn without_agent() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Any file but the namespace of the test itself does for one: the plugin only compares.
        fs::write(folder.path().join("netns"), "").unwrap();
        Self { folder, agent: None }
    }

    pub(crate) fn new() -> Self {
        let mut node = Self::without_agent();
        let (tasks, (drainer, draining)) = (Tasks::new(), drain());
        let (sender, requests) = mpsc::channel(8);
        let counts = plugin::serve(&node.socket(), &tasks, &draining, sender).unwrap();
        node.agent = Some(Agent { requests, counts, tasks, drainer });
        node
    }

    pub(crate) fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().unwrap()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("pluginevent.sock")
    }

    pub(crate) fn netns(&self) -> PathBuf {
        self.folder.path().join("netns")
    }

    /// A configuration as the agent's installer writes it, in the form that a runtime hands to the plugin.
    pub(crate) fn config(&self, version: &str) -> Value {
        json!({
            "cniVersion": version, "name": "cluster", "type": "lateen-cni", "plugin_log_level": "debug",
            "cni_agent_run_dir": self.folder.path(), "exclude_namespaces": ["kube-system"],
            "pod_namespace": "istio-system", "ipam": {}, "dns": {}, "prevResult": previous(version),
        })
    }

    pub(crate) fn call(&self, command: &str) -> Call {
        Call {
            command: command.to_owned(),
            arguments: arguments("demo", "client"),
            netns: self.netns(),
            input: self.config("1.0.0").to_string().into_bytes(),
        }
    }

    pub(crate) fn leave_snapshot(&self, age: u64) {
        let namespaces = [("mesh", Membership::Ambient), ("demo", Membership::Outside)];
        let written_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - age;
        let namespaces = namespaces.map(|(name, membership)| (name.to_owned(), membership)).into();
        snapshot::file::write(self.folder.path(), &Snapshot { written_at, namespaces }).unwrap();
    }

    /// The call while the loop gives `answer`, and what the loop was asked.
    pub(crate) async fn answered(&mut self, call: Call, answer: Answer) -> (Said, Request) {
        let agent = self.agent.as_mut().unwrap();
        tokio::join!(call.run(), agent.answer(answer))
    }

    pub(crate) async fn end(self) {
        let agent = self.agent.unwrap();
        drop(agent.requests);
        agent.drainer.drain(PATIENCE).await;
        agent.tasks.finished().await;
    }
}

impl Agent {
    pub(crate) async fn next(&mut self) -> Request {
        tokio::time::timeout(PATIENCE, self.requests.recv()).await.expect("the loop is asked").unwrap()
    }

    /// Answers the next request, and gives it back with another place for an answer.
    pub(crate) async fn answer(&mut self, answer: Answer) -> Request {
        let (nobody, _) = oneshot::channel();
        let (request, reply) = match self.next().await {
            Request::Add { sandbox, reply } => (Request::Add { sandbox, reply: nobody }, reply),
            Request::Delete { sandbox, reply } => (Request::Delete { sandbox, reply: nobody }, reply),
            Request::Check { sandbox, reply } => (Request::Check { sandbox, reply: nobody }, reply),
        };
        reply.send(answer).unwrap();
        request
    }
}

/// One call of the plugin by a runtime.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) command: String,
    pub(crate) arguments: String,
    pub(crate) netns: PathBuf,
    pub(crate) input: Vec<u8>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) log: String,
}

impl Call {
    pub(crate) fn about(mut self, namespace: &str, name: &str) -> Self {
        self.arguments = arguments(namespace, name);
        self
    }

    pub(crate) fn with(mut self, input: &Value) -> Self {
        self.input = input.to_string().into_bytes();
        self
    }

    pub(crate) fn process(&self) -> Command {
        let mut process = Command::new(env!("CARGO_BIN_EXE_lateen-cni"));
        process
            .env_clear()
            .env("CNI_COMMAND", &self.command)
            .env("CNI_CONTAINERID", "c0ffee")
            .env("CNI_NETNS", &self.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", &self.arguments)
            .env("CNI_PATH", "/opt/cni/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        process
    }

    pub(crate) async fn run(&self) -> Said {
        self.run_as(self.process()).await
    }

    pub(crate) async fn run_as(&self, mut process: Command) -> Said {
        let mut child = process.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let written = self.input.clone();
        let (_, output) = tokio::join!(
            async move { input.write_all(&written).await },
            tokio::time::timeout(PATIENCE, child.wait_with_output())
        );
        let output = output.expect("the plugin ends").unwrap();
        Said {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            log: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Said {
    /// The result. There is nothing beside it, and every line of the log is an object.
    pub(crate) fn result(&self) -> Value {
        assert_eq!(self.status, Some(0), "{self:?}");
        for line in self.log.lines() {
            assert!(serde_json::from_str::<Value>(line).unwrap().is_object());
        }
        serde_json::from_str(&self.out).unwrap()
    }

    pub(crate) fn silent_success(&self) {
        assert_eq!((self.status, self.out.as_str()), (Some(0), ""), "{self:?}");
    }

    /// The error's code and text.
    pub(crate) fn error(&self) -> (u64, String) {
        assert_eq!(self.status, Some(1), "{self:?}");
        let error: Value = serde_json::from_str(&self.out).unwrap();
        let text = |member: &str| error[member].as_str().unwrap_or_default().to_owned();
        (error["code"].as_u64().unwrap(), format!("{}; {}", text("msg"), text("details")))
    }
}

pub(crate) fn arguments(namespace: &str, name: &str) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID=u-1"
    )
}

/// A result in the form of a version, with a member nobody knows.
pub(crate) fn previous(version: &str) -> Value {
    if version < "0.3.0" {
        return json!({
            "cniVersion": version, "ip4": { "ip": "10.1.0.5/24", "gateway": "10.1.0.1" }, "ip6": { "ip": "fd00::5/64" },
            "dns": { "nameservers": ["10.0.0.10"] }, "ours": [1, 2],
        });
    }
    json!({
        "cniVersion": version, "interfaces": [{ "name": "eth0", "mac": "00:11:22:33:44:55", "sandbox": "/x", "mtu": 1450 }],
        "ips": [{ "address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 0 }, { "address": "fd00::5/64" }],
        "routes": [{ "dst": "0.0.0.0/0", "mtu": 1400 }], "dns": {}, "ours": [1, 2],
    })
}

pub(crate) fn ignored() -> Answer {
    Answer::Ignored { reason: "no label says so".to_owned() }
}

pub(crate) fn refused() -> Answer {
    Answer::Refused { reason: "no proxy is connected: check ztunnel on this node".to_owned() }
}
