// SPDX-License-Identifier: Apache-2.0
//! Two nodes, the wire between them, the control plane's place, and the pods of the objects applied to it.
//!
//! Plays the scheduler and the kubelets: a Pod that is applied gets a node, a uid, a network through CNI, and its processes.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::{
    capture::Capture,
    netns::Netns,
    node::{self, CONTROL},
    objects::{self, Objects},
    runtime::{PRIMARY, Sandbox},
    tools, wait,
};
pub use crate::{node::Node, pod::Pod};

/// The whole of it. Dropping it ends every process; the namespaces go with the process that entered.
#[derive(Debug)]
pub struct World {
    /// Where the control plane runs; reached from both nodes.
    pub control: Netns,
    /// The API server's stand-in.
    pub objects: Objects,
    nodes: Vec<Node>,
    pods: BTreeMap<(String, String), Pod>,
    state: PathBuf,
    names: Vec<String>,
    lives: AtomicU32,
}

impl World {
    /// Builds the world inside the namespaces this process was put into; `state` is a folder on the host's disk for logs and YAML.
    pub fn create(state: &Path) -> Result<Self> {
        tools::furnish()?;
        fs::create_dir_all(state.join("logs"))?;
        let control = Netns::own()?;
        control.ip(&format!("link set lo up\naddr add {CONTROL}/32 dev lo\n"))?;
        node::forwarding(&control)?;
        let nodes = vec![Node::create(1, &control)?, Node::create(2, &control)?];
        nodes[0].join(&nodes[1])?;
        let mut objects = Objects::create(&state.join("yaml"))?;
        for node in &nodes {
            objects.put(json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": { "name": node.name, "labels": { "kubernetes.io/hostname": node.name } },
                "status": { "addresses": [{ "type": "InternalIP", "address": node.address().to_string() }] },
            }))?;
        }
        Ok(Self {
            control,
            objects,
            nodes,
            pods: BTreeMap::new(),
            state: state.to_owned(),
            names: Vec::new(),
            lives: AtomicU32::new(0),
        })
    }

    /// The folder on the host's disk.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Where logs go.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// Both nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).ok_or_else(|| anyhow!("no node {name}; there are n1 and n2"))
    }

    /// The pods that run.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// A running pod by `namespace/name`.
    pub fn pod(&self, path: &str) -> Result<&Pod> {
        let (namespace, name) = path.split_once('/').unwrap_or(("default", path));
        self.pods.get(&(namespace.to_owned(), name.to_owned())).ok_or_else(|| anyhow!("no pod {path} runs"))
    }

    /// Listens on the wire between the nodes.
    pub fn listen(&self) -> Result<Capture> {
        Capture::start(&self.nodes[0].netns, node::WIRE)
    }

    /// Applies objects; a Pod that does not run yet is started, one that runs only has its object replaced.
    pub fn apply(&mut self, yaml: &str) -> Result<()> {
        let (pods, others): (Vec<Value>, Vec<Value>) =
            objects::parse(yaml)?.into_iter().partition(|object| object["kind"] == "Pod");
        for object in others {
            self.objects.put(object)?;
        }
        for pod in pods {
            let (_, namespace, name) = objects::key(&pod)?;
            self.objects.put(pod.clone())?;
            if !self.pods.contains_key(&(namespace, name)) {
                self.start(&pod)?;
            }
        }
        self.resolve()
    }

    /// Replaces one object without starting anything.
    pub fn put(&mut self, object: Value) -> Result<()> {
        self.objects.put(object)?;
        self.resolve()
    }

    /// Sets or removes a label of a namespace.
    pub fn label_namespace(&mut self, namespace: &str, label: &str, value: Option<&str>) -> Result<()> {
        self.objects.change("Namespace", "", namespace, |object| objects::set_label(object, label, value))
    }

    /// Starts a pod as a kubelet does: its sandbox is tried again until the network plugins agree.
    pub fn start(&mut self, manifest: &Value) -> Result<()> {
        let (_, namespace, name) = objects::key(manifest)?;
        wait::until(&format!("pod {namespace}/{name} to start"), wait::PATIENCE, || self.start_once(manifest))
    }

    /// Starts a pod with a single try.
    pub fn start_once(&mut self, manifest: &Value) -> Result<()> {
        let mut pod = self.sandbox(manifest)?;
        let started = self.run(&mut pod, manifest);
        self.pods.insert((pod.namespace.clone(), pod.name.clone()), pod);
        started
    }

    /// Starts a pod, with a single try, that stays its maker's: the world does not know it, and several threads may do so at once. Its object is the
    /// maker's too ([`Objects::write`]).
    pub fn raise(&self, manifest: &Value) -> Result<Pod> {
        let mut pod = self.sandbox(manifest)?;
        match self.run(&mut pod, manifest) {
            Ok(()) => Ok(pod),
            Err(error) => Err(match self.bury(&pod) {
                Ok(()) => error,
                Err(left) => error.context(format!("{left:#}")),
            }),
        }
    }

    /// Takes a pod off its node; its processes end when it is dropped.
    pub fn bury(&self, pod: &Pod) -> Result<()> {
        let node = self.node(&pod.node)?;
        node.runtime.call(&node.netns, "DEL", &pod.sandbox)?;
        self.objects.unobserve(&pod.node, &pod.namespace, &pod.name)?;
        node.release(pod.v4);
        Ok(())
    }

    /// Makes a pod up to the point where its processes may start.
    fn sandbox(&self, manifest: &Value) -> Result<Pod> {
        let node = match manifest["spec"]["nodeName"].as_str() {
            Some(node) => self.node(node)?,
            None => &self.nodes[self.pods.len() % self.nodes.len()],
        };
        let (v4, v6) = node.lease()?;
        self.sandbox_at(manifest, node, (v4, v6)).inspect_err(|_| node.release(v4))
    }

    fn sandbox_at(&self, manifest: &Value, node: &Node, (v4, v6): (Ipv4Addr, Ipv6Addr)) -> Result<Pod> {
        let (_, namespace, name) = objects::key(manifest)?;
        let life = self.lives.fetch_add(1, Ordering::Relaxed) + 1;
        let netns = Netns::create(&format!("cni-{namespace}-{name}-{life}"))?;
        let link = node.connect(&netns, v4, v6)?;
        let result = json!({
            "cniVersion": "1.1.0",
            "interfaces": [{ "name": link }, { "name": "eth0", "sandbox": netns.path() }],
            "ips": [
                { "interface": 1, "address": format!("{v4}/32"), "gateway": node.gateway4().to_string() },
                { "interface": 1, "address": format!("{v6}/128"), "gateway": node.gateway6().to_string() },
            ],
            "dns": {},
        });
        let sandbox = Sandbox {
            id: format!("{life:064x}"),
            namespace,
            name,
            uid: format!("5e0c1f7e-0000-4000-8000-{life:012x}"),
            netns: netns.path(),
            result,
        };
        self.objects.observe(&node.name, &Pod::observation(&sandbox, &node.name, None))?;
        let mut pod = Pod::assemble(sandbox, &node.name, netns, (v4, v6))?;
        pod.hold(&self.logs())?;
        if let Err(error) = node.runtime.call(&node.netns, "ADD", &pod.sandbox) {
            // As a runtime does after a failed ADD.
            let _ = node.runtime.call(&node.netns, "DEL", &pod.sandbox);
            return Err(error);
        }
        Ok(pod)
    }

    fn run(&self, pod: &mut Pod, manifest: &Value) -> Result<()> {
        let started = pod.start(manifest, &self.logs());
        self.objects.observe(&pod.node, &Pod::observation(&pod.sandbox, &pod.node, Some((pod.v4, pod.v6))))?;
        started
    }

    /// Reports addresses of a pod as its kubelet, true or not.
    pub fn report_addresses(&self, path: &str, addresses: (Ipv4Addr, Ipv6Addr)) -> Result<()> {
        let pod = self.pod(path)?;
        self.objects.observe(&pod.node, &Pod::observation(&pod.sandbox, &pod.node, Some(addresses)))
    }

    /// Stops a pod and takes its object away.
    pub fn delete_pod(&mut self, path: &str) -> Result<()> {
        let (namespace, name) = path.split_once('/').context("namespace/name")?;
        let pod =
            self.pods.remove(&(namespace.to_owned(), name.to_owned())).ok_or_else(|| anyhow!("no pod {path} runs"))?;
        self.bury(&pod)?;
        self.objects.remove("Pod", namespace, name)
    }

    /// Makes a name known to every process of the world.
    pub fn name(&mut self, address: impl std::fmt::Display, names: &str) -> Result<()> {
        self.names.push(format!("{address} {names}"));
        self.resolve()
    }

    /// Gives every Service its names, as a cluster's DNS would: its own addresses, or its pods' if it is headless.
    fn resolve(&self) -> Result<()> {
        let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
        for line in &self.names {
            text.push_str(line);
            text.push('\n');
        }
        for service in self.objects.all("Service") {
            let (_, namespace, name) = objects::key(service)?;
            for address in self.addresses(service, &namespace) {
                text.push_str(&format!("{address} {name}.{namespace}.svc.cluster.local {name}.{namespace}\n"));
            }
        }
        // In place: the file is a bind mount.
        fs::write("/etc/hosts", text).context("write /etc/hosts")
    }

    fn addresses(&self, service: &Value, namespace: &str) -> Vec<String> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let spec = &service["spec"];
        if spec["clusterIP"] != "None" {
            let several: Vec<String> = spec["clusterIPs"].as_array().into_iter().flatten().filter_map(text).collect();
            return if several.is_empty() { text(&spec["clusterIP"]).into_iter().collect() } else { several };
        }
        let selects = |pod: &&Pod| {
            let labels =
                self.objects.find("Pod", &pod.namespace, &pod.name).map(|object| &object["metadata"]["labels"]);
            let selector = spec["selector"].as_object();
            pod.namespace == namespace
                && selector.is_some_and(|selector| {
                    selector.iter().all(|(key, value)| labels.as_ref().is_ok_and(|labels| labels[key] == *value))
                })
        };
        self.pods.values().filter(selects).map(|pod| pod.v4.to_string()).collect()
    }

    /// Asks every chained plugin of a pod's node to check the pod.
    pub fn check_pod(&self, path: &str) -> Result<()> {
        let pod = self.pod(path)?;
        let node = self.node(&pod.node)?;
        ensure!(!node.runtime.chained()?.is_empty(), "only {PRIMARY} is in the conflist");
        node.runtime.call(&node.netns, "CHECK", &pod.sandbox)
    }
}
