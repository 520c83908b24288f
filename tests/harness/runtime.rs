// SPDX-License-Identifier: Apache-2.0
//! The container runtime's part of CNI: reads the conflist that is first in the node's folder and calls its plugins in order, handing results on.
//!
//! The primary plugin (the one that makes a pod's link) is played by the world; every other plugin is a real program and called as the specification
//! says: parameters in the environment, configuration on standard input, result on standard output.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use crate::{netns::Netns, process};

/// The `type` of the plugin that the world plays.
pub const PRIMARY: &str = "world-veth";

/// The folders of one node that a runtime looks into.
#[derive(Debug)]
pub struct Runtime {
    /// `/etc/cni/net.d` of the node.
    pub conf_folder: PathBuf,
    /// `/opt/cni/bin` of the node.
    pub bin_folder: PathBuf,
}

/// One sandbox, as CNI sees it.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Container id.
    pub id: String,
    /// Namespace and name of the pod, and its uid.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Uid of the pod.
    pub uid: String,
    /// Path of its network namespace.
    pub netns: PathBuf,
    /// What the primary plugin returned.
    pub result: Value,
}

impl Runtime {
    /// Makes the folders, with the primary network's conflist in them.
    pub fn create(folder: &Path) -> Result<Self> {
        let runtime = Self { conf_folder: folder.join("cni/net.d"), bin_folder: folder.join("cni/bin") };
        fs::create_dir_all(&runtime.conf_folder)?;
        fs::create_dir_all(&runtime.bin_folder)?;
        let list = json!({ "cniVersion": "1.1.0", "name": "world", "plugins": [{ "type": PRIMARY }] });
        runtime.write(&list)?;
        Ok(runtime)
    }

    /// Puts a program into the plugins' folder, and an entry with these members at the end of the conflist.
    pub fn chain(&self, program: &Path, entry: Value) -> Result<()> {
        let kind = program.file_name().and_then(|name| name.to_str()).context("a plugin without a name")?;
        symlink(program, self.bin_folder.join(kind))?;
        let (mut list, mut entry) = (self.conflist()?, entry);
        entry["type"] = json!(kind);
        list["plugins"].as_array_mut().context("a conflist without plugins")?.push(entry);
        self.write(&list)
    }

    fn write(&self, list: &Value) -> Result<()> {
        fs::write(self.conf_folder.join("10-world.conflist"), serde_json::to_string_pretty(list)?)
            .context("write the conflist")
    }

    /// The conflist in force: the first by name that parses.
    pub fn conflist(&self) -> Result<Value> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(&self.conf_folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        files
            .iter()
            .filter(|file| file.extension().is_some_and(|extension| extension == "conflist"))
            .find_map(|file| serde_json::from_slice(&fs::read(file).ok()?).ok())
            .ok_or_else(|| anyhow!("no conflist in {}", self.conf_folder.display()))
    }

    /// The types of the plugins in force behind the primary one.
    pub fn chained(&self) -> Result<Vec<String>> {
        let list = self.conflist()?;
        let plugins = list["plugins"].as_array().cloned().unwrap_or_default();
        Ok(plugins
            .iter()
            .filter_map(|plugin| plugin["type"].as_str())
            .filter(|kind| *kind != PRIMARY)
            .map(str::to_owned)
            .collect())
    }

    /// Calls every chained plugin with `command` (ADD, CHECK or DEL), in the network namespace of the node.
    pub fn call(&self, node: &Netns, command: &str, sandbox: &Sandbox) -> Result<()> {
        let list = self.conflist()?;
        let mut plugins = list["plugins"].as_array().cloned().ok_or_else(|| anyhow!("a conflist without plugins"))?;
        if command == "DEL" {
            plugins.reverse();
        }
        let mut result = sandbox.result.clone();
        for plugin in plugins {
            let kind = plugin["type"].as_str().ok_or_else(|| anyhow!("a plugin without a type"))?.to_owned();
            if kind == PRIMARY {
                continue;
            }
            let mut config = plugin;
            config["name"] = list["name"].clone();
            config["cniVersion"] = list["cniVersion"].clone();
            config["prevResult"] = result.clone();
            let said = self.execute(node, command, sandbox, &config)?;
            if command == "ADD" {
                result = serde_json::from_str(&said).with_context(|| format!("result of {kind}: {said:?}"))?;
                ensure!(
                    result["ips"] == sandbox.result["ips"],
                    "{kind} did not hand on the result of the plugin before it: {result}"
                );
            }
        }
        Ok(())
    }

    fn execute(&self, node: &Netns, command: &str, sandbox: &Sandbox, config: &Value) -> Result<String> {
        let kind = config["type"].as_str().unwrap_or_default();
        let program = self.bin_folder.join(kind);
        ensure!(program.is_file(), "no plugin {kind} in {}", self.bin_folder.display());
        let mut call = node.command(&program);
        call.env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &sandbox.id)
            .env("CNI_NETNS", &sandbox.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.bin_folder)
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
                    sandbox.namespace, sandbox.name, sandbox.id, sandbox.uid
                ),
            );
        let line = format!("{kind} {command} {}/{}", sandbox.namespace, sandbox.name);
        let said = process::run(&line, call, &serde_json::to_vec(config)?, Duration::from_secs(60))?;
        if !said.is_good() {
            let error: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
            bail!(
                "CNI {command} of {}/{} by {kind} failed: {}",
                sandbox.namespace,
                sandbox.name,
                error["msg"]
                    .as_str()
                    .map_or_else(|| said.story(), |msg| format!("{msg} {}", error["details"].as_str().unwrap_or("")))
            );
        }
        Ok(said.stdout)
    }
}
