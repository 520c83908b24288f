// SPDX-License-Identifier: Apache-2.0
//! Leaving the world up: how to get in, and following a person's directory of YAML while they change it.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result};
use harness::{
    Mesh, Pod, World, mesh,
    objects::{self, Key},
    process::tail,
    wait,
};
use serde_json::Value;

/// Writes a script that enters a pod or a node by name, and says how to use it.
pub(crate) fn explain(world: &World, followed: Option<&Path>) -> Result<()> {
    let pid = fs::read_to_string(world.state().join("pid"))?;
    let inside = Path::new("/run/in");
    // `nsenter --net` opens its path before it enters the mount namespace; hence the second step inside.
    fs::write(
        inside,
        format!(
            "#!/bin/sh\nplace=$1; shift\nexport PATH={}\nexec peer in /run/netns/$(ls /run/netns | grep -x -e \"$place\" -e \"cni-$place-[0-9]*\" | tail -1) \"${{@:-sh}}\"\n",
            harness::tools::search_path()
        ),
    )?;
    fs::set_permissions(inside, fs::Permissions::from_mode(0o755))?;
    let enter = format!("nsenter --preserve-credentials -U -m -p -i -u -t {} /run/in", pid.trim());
    println!("The world stays up until you press Ctrl-C. From another terminal (as the same user):\n");
    println!("  a shell in a pod or on a node");
    for pod in world.pods() {
        println!("    {enter} {}-{} sh", pod.namespace, pod.name);
    }
    for node in world.nodes() {
        println!("    {enter} {} sh", node.name);
    }
    println!("  what a proxy knows\n    {enter} n1 curl -s localhost:15000/config_dump");
    println!("  its metrics\n    {enter} n1 curl -s localhost:15020/metrics");
    println!("  logs\n    tail -f {}/*.log", world.logs().display());
    match followed {
        Some(folder) => {
            println!("  your objects: add, edit and remove files, pods and mesh follow\n    {}\n", folder.display())
        }
        None => println!(
            "  the objects: edit labels, policies and Services, the mesh follows\n    {}\n",
            world.objects.folder().display()
        ),
    }
    Ok(())
}

/// Prints every pod, and whether it is in the mesh.
pub(crate) fn table(world: &World) -> Result<()> {
    println!("  {:<28} {:<5} {:<15} {:<26} mesh", "pod", "node", "IPv4", "IPv6");
    for pod in world.pods() {
        let state = world.objects.redirection(&pod.node, &pod.namespace, &pod.name);
        let wanted = mesh::wants(world, &pod.namespace, &pod.name)?;
        let state = match (state.as_deref(), wanted) {
            (None, false) if gateway(world, pod)?.is_some() => "waypoint",
            (Some("enabled"), true) => "enrolled",
            (None, false) => "outside",
            (_, true) => "joining",
            (_, false) => "leaving",
        };
        println!(
            "  {:<28} {:<5} {:<15} {:<26} {state}",
            format!("{}/{}", pod.namespace, pod.name),
            pod.node,
            pod.v4.to_string(),
            pod.v6.to_string()
        );
    }
    println!();
    Ok(())
}

/// The Gateway that a pod says it is a waypoint of.
fn gateway<'w>(world: &'w World, pod: &Pod) -> Result<Option<&'w str>> {
    let manifest = world.objects.find("Pod", &pod.namespace, &pod.name)?;
    Ok(manifest["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"].as_str())
}

/// A person's directory, as it was applied last.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    applied: BTreeMap<Key, Value>,
    /// The programs of its waypoints.
    waypoints: Vec<String>,
}

impl Directory {
    /// Applies what is new or changed in `folder`, and removes what is gone. Returns whether anything was done.
    pub(crate) fn follow(&mut self, folder: &Path, world: &mut World) -> Result<bool> {
        let mut found = BTreeMap::new();
        let mut files: Vec<_> = fs::read_dir(folder)
            .with_context(|| format!("read {}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|file| file.extension().is_some_and(|ending| ending == "yaml" || ending == "yml"))
            .collect();
        files.sort();
        for file in files {
            let text = fs::read_to_string(&file)?;
            for object in objects::parse(&text).with_context(|| file.display().to_string())? {
                found.insert(objects::key(&object)?, object);
            }
        }
        let mut changed = false;
        let gone: Vec<Key> = self.applied.keys().filter(|key| !found.contains_key(*key)).cloned().collect();
        for (kind, namespace, name) in gone {
            changed = true;
            if kind == "Pod" {
                world.delete_pod(&format!("{namespace}/{name}"))?;
            } else {
                world.objects.remove(&kind, &namespace, &name)?;
            }
            self.applied.remove(&(kind, namespace, name));
        }
        let new = found.into_iter().filter(|(key, object)| self.applied.get(key) != Some(object)).collect::<Vec<_>>();
        for (_, object) in &new {
            changed = true;
            world.put(object.clone())?;
        }
        for (key, object) in new {
            if key.0 == "Pod" && world.pod(&format!("{}/{}", key.1, key.2)).is_err() {
                world.start(&object)?;
            }
            self.applied.insert(key, object);
        }
        Ok(changed)
    }

    /// Runs a waypoint in every pod that says it is one, and none where the pod is gone.
    pub(crate) fn waypoints(&mut self, world: &World, mesh: &mut Mesh) -> Result<()> {
        let mut wanted = BTreeMap::new();
        for pod in world.pods() {
            if let Some(gateway) = gateway(world, pod)? {
                wanted.insert(
                    format!("{}-{}", pod.namespace, pod.name),
                    (format!("{}/{}", pod.namespace, pod.name), gateway),
                );
            }
        }
        for program in std::mem::take(&mut self.waypoints) {
            if wanted.remove(&program).is_some() {
                self.waypoints.push(program);
            } else {
                // Its network went with its pod.
                mesh.take(&program)?.kill()?;
            }
        }
        for (program, (path, gateway)) in wanted {
            mesh.start_waypoint(world, &path, gateway)?;
            self.waypoints.push(program);
            mesh.waypoint_is_ready(world, &path)?;
        }
        Ok(())
    }
}

/// Follows a person's directory until the process is ended, printing the table after every change.
pub(crate) fn stay(world: &mut World, mesh: &mut Mesh, mut following: Option<(Directory, &Path)>) -> Result<()> {
    loop {
        // About three looks a second.
        (0..30).for_each(|_| wait::pause());
        if let Some((directory, folder)) = &mut following {
            match directory.follow(folder, world) {
                Ok(false) => {}
                Ok(true) => {
                    let settled = directory.waypoints(world, mesh).and_then(|()| mesh.settle(world));
                    if let Err(error) = settled {
                        println!("  ✗ {error:#}");
                        for program in mesh.programs() {
                            println!("  -- {}\n{}", program.log().display(), tail(program.log(), 4));
                        }
                    }
                    table(world)?;
                }
                // A file that is being edited.
                Err(error) => println!("  ✗ {error:#}"),
            }
        }
    }
}
