// SPDX-License-Identifier: Apache-2.0
//! The three programs in the world: one control plane, and on each node a proxy and an agent. Started as their charts start them, through the environment.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use crate::{
    access::{self, Connection},
    enter::sibling,
    http,
    netns::Netns,
    node::{CONTROL, Node},
    objects,
    process::Program,
    programs,
    tokens::{Bearer, ISSUER, Issuer},
    tools, wait,
    world::World,
};

/// How long the mesh may take to follow a change.
pub const SETTLING: Duration = Duration::from_secs(20);
/// The name the control plane is known by.
const CONTROL_NAME: &str = "istiod.istio-system.svc";
const SYSTEM: &str = "istio-system";

/// The programs of the mesh, by the names they have in the world: `control`, `n1-agent`, `n1-ztunnel`, ...
#[derive(Debug)]
pub struct Mesh {
    programs: BTreeMap<String, Program>,
    issuer: Issuer,
    folder: PathBuf,
    /// More variables for the proxies.
    settings: Vec<(String, String)>,
}

impl Mesh {
    /// Starts everything and waits until every program says it is ready.
    pub fn start(world: &mut World) -> Result<Self> {
        Self::start_with(world, &[])
    }

    /// The same with more variables in the proxies' environment.
    pub fn start_with(world: &mut World, settings: &[(&str, &str)]) -> Result<Self> {
        let folder = world.state().join("mesh");
        fs::create_dir_all(&folder)?;
        let issuer = Issuer::create()?;
        issuer.write_key_set(&folder.join("jwks.json"))?;
        world.name(CONTROL, &format!("{CONTROL_NAME} istiod.istio-system.svc.cluster.local"))?;
        register(world)?;
        let mut mesh = Self { programs: BTreeMap::new(), issuer, folder, settings: Vec::new() };
        mesh.set(settings);
        mesh.configure("{}")?;
        mesh.start_control(world)?;
        for node in world.nodes() {
            // As a node is installed: the program into the runtime's folder, an entry of its own at the end of the conflist.
            node.runtime.chain(
                &sibling("lateen-cni"),
                json!({ "cni_agent_run_dir": agent_folder(node), "plugin_log_level": "info" }),
            )?;
            mesh.start_agent(world, node)?;
            mesh.start_ztunnel(world, node)?;
        }
        for node in world.nodes() {
            mesh.ready(node)?;
        }
        Ok(mesh)
    }

    /// What proxies that are started from now on get besides the usual variables.
    pub fn set(&mut self, settings: &[(&str, &str)]) {
        self.settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    /// What the mesh's operator decides from now on, in the words of Istio's MeshConfig.
    pub fn configure(&self, yaml: &str) -> Result<()> {
        let draft = self.folder.join("draft.yaml");
        fs::write(&draft, yaml)?;
        fs::rename(&draft, self.mesh_config()).context("replace the mesh configuration")
    }

    fn mesh_config(&self) -> PathBuf {
        self.folder.join("mesh-config.yaml")
    }

    /// Starts the control plane and waits for it.
    pub fn start_control(&mut self, world: &World) -> Result<()> {
        let mut command = world.control.command(sibling("waypoint-config"));
        command
            .arg("--source")
            .arg(format!("dir:{}", world.objects.folder().display()))
            .arg("--ca-dir")
            .arg(self.folder.join("ca"))
            .arg("--jwks")
            .arg(self.folder.join("jwks.json"))
            .arg("--mesh-config")
            .arg(self.mesh_config())
            .env("LATEEN_TOKEN_ISSUER", ISSUER)
            .env("CA_TRUSTED_NODE_ACCOUNTS", "istio-system/ztunnel");
        self.launch(world, "control", command)?;
        let root = self.folder.join("ca/root-cert.pem");
        self.wait_for("control", || {
            ensure!(root.is_file(), "no {} yet", root.display());
            answers(&world.control, 15014, "/ready")
        })
    }

    /// Starts the agent of a node.
    pub fn start_agent(&mut self, world: &World, node: &Node) -> Result<()> {
        let mut command = node.netns.command(sibling("cni-agent"));
        command
            .arg("--source")
            .arg(format!("dir:{}", world.objects.folder().display()))
            .env("NODE_NAME", &node.name)
            .env("ZTUNNEL_UDS_ADDRESS", zds_socket(node))
            .env("CNI_AGENT_RUN_DIR", agent_folder(node));
        self.launch(world, &format!("{}-agent", node.name), command)
    }

    /// Starts the proxy of a node.
    pub fn start_ztunnel(&mut self, world: &World, node: &Node) -> Result<()> {
        let pod = format!("ztunnel-{}", node.name);
        let token = self.folder.join(format!("{}.token", node.name));
        let bearer = Bearer {
            namespace: SYSTEM,
            service_account: "ztunnel",
            pod: &pod,
            uid: &ztunnel_uid(node),
            node: &node.name,
        };
        fs::write(&token, self.issuer.token(&bearer)?)?;
        let root = self.folder.join("ca/root-cert.pem");
        let mut command = node.netns.command(programs::ztunnel());
        command
            .env("NODE_NAME", &node.name)
            .env("POD_NAME", &pod)
            .env("POD_NAMESPACE", SYSTEM)
            .env("SERVICE_ACCOUNT", "ztunnel")
            .env("XDS_ADDRESS", format!("https://{CONTROL_NAME}:15012"))
            .env("CA_ADDRESS", format!("https://{CONTROL_NAME}:15012"))
            .env("XDS_ROOT_CA", &root)
            .env("CA_ROOT_CA", &root)
            .env("AUTH_TOKEN", &token)
            .env("INPOD_UDS", zds_socket(node))
            .env("ISTIO_META_DNS_CAPTURE", "false")
            .env("LOG_FORMAT", "json")
            .envs(self.settings.iter().map(|(name, value)| (name, value)));
        self.launch(world, &format!("{}-ztunnel", node.name), command)
    }

    /// Starts the launcher of a waypoint, and with it an Envoy, in a pod that runs and holds nothing else: as a chart would deploy it.
    pub fn start_waypoint(&mut self, world: &World, path: &str, gateway: &str) -> Result<()> {
        let pod = world.pod(path)?;
        let manifest = world.objects.find("Pod", &pod.namespace, &pod.name)?;
        let account = manifest["spec"]["serviceAccountName"].as_str().unwrap_or("default");
        let name = format!("{}-{}", pod.namespace, pod.name);
        let token = self.folder.join(format!("{name}.token"));
        let bearer = Bearer {
            namespace: &pod.namespace,
            service_account: account,
            pod: &pod.name,
            uid: &pod.sandbox.uid,
            node: &pod.node,
        };
        fs::write(&token, self.issuer.token(&bearer)?)?;
        let program = sibling("lateen-waypoint");
        let mut command = pod.command(&program.to_string_lossy());
        command
            .env("GATEWAY_NAME", gateway)
            .env("POD_NAME", &pod.name)
            .env("POD_NAMESPACE", &pod.namespace)
            .env("SERVICE_ACCOUNT", account)
            .env("INSTANCE_IP", format!("{},{}", pod.v4, pod.v6))
            .env("NODE_NAME", &pod.node)
            .env("XDS_ADDRESS", format!("{CONTROL_NAME}:15012"))
            .env("XDS_ROOT_CA", self.folder.join("ca/root-cert.pem"))
            .env("AUTH_TOKEN", &token)
            .env("ENVOY_BIN", tools::ENVOY.find()?)
            .env("LATEEN_RUN_DIR", "proxy")
            .env("MINIMUM_DRAIN_DURATION", "1")
            .env("TERMINATION_DRAIN_DURATION_SECONDS", "10");
        self.launch(world, &name, command)
    }

    /// Waits until a waypoint is ready.
    pub fn waypoint_is_ready(&mut self, world: &World, path: &str) -> Result<()> {
        let pod = world.pod(path)?;
        self.wait_for(&format!("{}-{}", pod.namespace, pod.name), || answers(&pod.netns, 15021, "/healthz/ready"))
    }

    /// Waits until agent and proxy of a node are ready.
    pub fn ready(&mut self, node: &Node) -> Result<()> {
        let proxy = format!("{}-ztunnel", node.name);
        let agent = format!("{}-agent", node.name);
        self.wait_for(&agent, || answers(&node.netns, 8000, "/readyz"))?;
        self.wait_for(&proxy, || answers(&node.netns, 15021, "/healthz/ready"))?;
        Ok(())
    }

    /// A program by its name.
    pub fn program(&self, name: &str) -> Result<&Program> {
        self.programs.get(name).ok_or_else(|| anyhow!("no program {name}"))
    }

    /// Takes a program out of the mesh, to stop or kill it.
    pub fn take(&mut self, name: &str) -> Result<Program> {
        self.programs.remove(name).ok_or_else(|| anyhow!("no program {name}"))
    }

    /// Every program.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        self.programs.values()
    }

    /// An error if any program has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        self.programs.values_mut().try_for_each(Program::check)
    }

    /// Waits until every running pod is in or out of the mesh as its labels say, and every proxy knows.
    pub fn settle(&self, world: &World) -> Result<()> {
        for pod in world.pods() {
            let path = format!("{}/{}", pod.namespace, pod.name);
            let wanted = wants(world, &pod.namespace, &pod.name)?;
            wait::until(
                &format!("the agent of {} to {} {path}", pod.node, if wanted { "enrol" } else { "release" }),
                SETTLING,
                || {
                    let seen = world.objects.redirection(&pod.node, &pod.namespace, &pod.name);
                    ensure!(
                        (seen.as_deref() == Some("enabled")) == wanted,
                        "annotation ambient.istio.io/redirection: {seen:?}"
                    );
                    Ok(())
                },
            )?;
            let protocol = if wanted { "HBONE" } else { "TCP" };
            for node in world.nodes() {
                self.until_dump(node, &format!("{path} as {protocol}"), |dump| {
                    let known = entries(dump, "workloads")
                        .find(|workload| {
                            workload["uid"].as_str().is_some_and(|uid| uid.ends_with(&format!("/Pod/{path}")))
                        })
                        .ok_or_else(|| anyhow!("no such workload"))?;
                    let addresses = known["workloadIps"].to_string();
                    ensure!(addresses.contains(&pod.v4.to_string()), "an earlier life with {addresses}");
                    ensure!(known["protocol"] == protocol, "protocol {}", known["protocol"]);
                    ensure!(known["status"] == "Healthy", "status {}", known["status"]);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// Waits until the configuration a proxy dumps is as `look` wants it.
    pub fn until_dump(&self, node: &Node, what: &str, look: impl Fn(&Value) -> Result<()>) -> Result<()> {
        wait::until(&format!("the proxy of {} to know {what}", node.name), SETTLING, || look(&config_dump(node)?))
    }

    /// Waits until both proxies know exactly these policies of a namespace.
    pub fn await_policies(&self, world: &World, namespace: &str, names: &[&str]) -> Result<()> {
        for node in world.nodes() {
            self.until_dump(node, &format!("policies {names:?} of {namespace}"), |dump| {
                let mut known: Vec<&str> = entries(dump, "policies")
                    .filter(|policy| policy["namespace"] == namespace)
                    .filter_map(|policy| policy["name"].as_str())
                    .collect();
                known.sort_unstable();
                ensure!(known == names, "{known:?}");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The end of the access log of a node now: what comes later is new.
    pub fn mark(&self, node: &str) -> Result<usize> {
        Ok(usize::try_from(fs::metadata(self.program(&format!("{node}-ztunnel"))?.log())?.len())?)
    }

    /// Waits for a connection in the access log of `node` behind `mark` that `matches`.
    pub fn connection(&self, node: &str, mark: usize, matches: impl Fn(&Connection) -> bool) -> Result<Connection> {
        let log = self.program(&format!("{node}-ztunnel"))?.log().to_owned();
        wait::until(&format!("the proxy of {node} to log a connection"), SETTLING, || {
            let all = access::connections(&log, mark);
            all.iter().find(|connection| matches(connection)).cloned().ok_or_else(|| {
                anyhow!(
                    "{} others{}",
                    all.len(),
                    all.iter().map(|connection| format!("\n{connection}")).collect::<String>()
                )
            })
        })
    }

    fn launch(&mut self, world: &World, name: &str, command: std::process::Command) -> Result<()> {
        let program = Program::start(name, command, &world.logs().join(format!("{name}.log")))?;
        if self.programs.insert(name.to_owned(), program).is_some() {
            bail!("{name} ran already");
        }
        Ok(())
    }

    fn wait_for(&mut self, name: &str, look: impl Fn() -> Result<()>) -> Result<()> {
        let program = self.programs.get_mut(name).ok_or_else(|| anyhow!("no program {name}"))?;
        let waited = wait::until(&format!("{name} to be ready"), wait::PATIENCE, || {
            if let Err(ended) = program.check() {
                return Ok(Err(ended));
            }
            look().map(Ok)
        });
        waited.with_context(|| format!("the end of its log:\n{}", crate::process::tail(program.log(), 15)))?
    }
}

/// Whether a pod belongs into the mesh by its own label and its namespace's.
pub fn wants(world: &World, namespace: &str, name: &str) -> Result<bool> {
    let mode = |object: &Value| object["metadata"]["labels"]["istio.io/dataplane-mode"].as_str().map(str::to_owned);
    let own = mode(world.objects.find("Pod", namespace, name)?);
    let outer = world.objects.find("Namespace", "", namespace).ok().and_then(mode);
    Ok(own.or(outer).as_deref() == Some("ambient"))
}

/// What a node's proxy knows.
pub fn config_dump(node: &Node) -> Result<Value> {
    let answer = http::fetch(&node.netns, "GET", SocketAddr::from((Ipv4Addr::LOCALHOST, 15000)), "/config_dump")?;
    serde_json::from_str(&answer.body).with_context(|| format!("config_dump of {}: {:.200}", node.name, answer.body))
}

/// What a node's proxy counted.
pub fn metrics(node: &Node) -> Result<String> {
    Ok(http::fetch(&node.netns, "GET", SocketAddr::from((Ipv4Addr::LOCALHOST, 15020)), "/metrics")?.body)
}

/// The entries of one list of a configuration dump.
pub fn entries<'d>(dump: &'d Value, list: &str) -> impl Iterator<Item = &'d Value> {
    dump[list].as_array().into_iter().flatten()
}

/// Where a node's agent and proxy meet.
#[must_use]
pub fn zds_socket(node: &Node) -> PathBuf {
    node.folder.join("ztunnel.sock")
}

/// Where a node's agent has its sockets and what survives its restart.
fn agent_folder(node: &Node) -> PathBuf {
    node.folder.join("agent")
}

/// Makes the proxies known as pods: the certificate authority wants to see on which node its callers run.
fn register(world: &mut World) -> Result<()> {
    world.objects.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": SYSTEM } }))?;
    let nodes: Vec<(String, String, String)> =
        world.nodes().iter().map(|node| (node.name.clone(), node.address().to_string(), ztunnel_uid(node))).collect();
    for (node, address, uid) in nodes {
        world.objects.put(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "namespace": SYSTEM, "name": format!("ztunnel-{node}"), "labels": { "app": "ztunnel" }, "uid": uid },
            "spec": { "nodeName": node, "hostNetwork": true, "serviceAccountName": "ztunnel", "containers": [] },
            "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "conditions": [{ "type": "Ready", "status": "True" }] },
        }))?;
    }
    let account =
        objects::parse("{apiVersion: v1, kind: ServiceAccount, metadata: {namespace: istio-system, name: ztunnel}}")?;
    account.into_iter().try_for_each(|object| world.objects.put(object))
}

fn ztunnel_uid(node: &Node) -> String {
    format!("2718281c-0000-4000-8000-0000000000{:02x}", node.name.as_bytes().last().copied().unwrap_or_default())
}

fn answers(netns: &Netns, port: u16, path: &str) -> Result<()> {
    let answer = http::fetch(netns, "GET", SocketAddr::from((Ipv4Addr::LOCALHOST, port)), path)?;
    ensure!(answer.status == 200, "{path} on port {port} says {}: {}", answer.status, answer.body.trim());
    Ok(())
}

/// The root certificate of the mesh.
#[must_use]
pub fn root_certificate(state: &Path) -> PathBuf {
    state.join("mesh/ca/root-cert.pem")
}
