// SPDX-License-Identifier: Apache-2.0
//! The programs of this repository, built with the profile and into the target folder of the program that asks.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, ensure};

use crate::enter::{is_test, profile_folder, sibling};

const PROGRAMS: [&str; 5] = ["ztunnel", "cni-agent", "lateen-cni", "waypoint-config", "peer"];

/// Another `ztunnel` than the one built beside this program.
static ZTUNNEL: OnceLock<PathBuf> = OnceLock::new();

/// From now on the mesh runs this `ztunnel`: to measure one build beside another.
pub fn use_ztunnel(path: PathBuf) -> Result<()> {
    ensure!(path.is_file(), "no program {}", path.display());
    ensure!(ZTUNNEL.set(path).is_ok(), "another ztunnel was chosen before");
    Ok(())
}

/// The `ztunnel` the mesh runs.
#[must_use]
pub fn ztunnel() -> PathBuf {
    ZTUNNEL.get().cloned().unwrap_or_else(|| sibling("ztunnel"))
}

/// Builds them, and `more` of this package, if cargo is about; started without cargo, what was built before is used. To be called outside, before a
/// world is entered. With `shows` cargo's progress is seen: the first time it takes minutes.
pub fn build(more: &[&str], shows: bool) -> Result<()> {
    let programs = || PROGRAMS.iter().chain(more);
    let Some(cargo) = env::var_os("CARGO") else {
        let missing: Vec<&str> = programs().copied().filter(|program| !sibling(program).is_file()).collect();
        ensure!(missing.is_empty(), "not built beside this program: {}; start it with cargo", missing.join(", "));
        return Ok(());
    };
    let mut command = cargo_build(cargo)?;
    // One by one, for the program that asks must not be linked again while it runs.
    programs().for_each(|program| {
        command.args(["--bin", program]);
    });
    if !shows {
        command.arg("--quiet");
    }
    let status = command.status().context("run cargo build")?;
    ensure!(status.success(), "the programs do not build");
    Ok(())
}

/// Builds a bench with the profile of the program that asks, and says where it is; none without cargo.
pub fn bench(name: &str) -> Result<Option<PathBuf>> {
    let Some(cargo) = env::var_os("CARGO") else { return Ok(None) };
    let mut command = cargo_build(cargo)?;
    command.args(["--bench", name, "--quiet", "--message-format=json"]).stderr(Stdio::inherit());
    let output = command.output().context("run cargo build")?;
    ensure!(output.status.success(), "the bench {name} does not build");
    let messages = output.stdout.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let path = |message: serde_json::Value| {
        let is_it = message["target"]["name"] == name && message["target"]["kind"][0] == "bench";
        message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    };
    Ok(Some(messages.filter_map(path).next().with_context(|| format!("cargo built no bench {name}"))?))
}

fn cargo_build(cargo: OsString) -> Result<Command> {
    let folder = profile_folder()?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let mut command = Command::new(cargo);
    command
        .args(["build", "--profile", profile, "--workspace"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .env("CARGO_TARGET_DIR", folder.parent().context("a profile folder without a parent")?)
        .stdin(Stdio::null());
    if is_test()? {
        // Named, so that cargo takes the features that `cargo test` takes, and nothing is built twice in two ways. It also links every program of this
        // package again, which must not happen to one that asks.
        command.args(["--test", "world"]);
    }
    Ok(command)
}
