// SPDX-License-Identifier: Apache-2.0
//! The way into a world of its own, by starting the calling program again three times.
//!
//! A threaded process cannot unshare a user namespace, and a process namespace begins with the next child, so:
//! *outside* (what cargo started) starts the *door*, which unshares user, mount, network, process, host name and IPC namespaces and starts the *init*,
//! process 1 of the new world, which mounts `/proc` and an empty `/run`, starts *inside* and reaps. When *inside* ends, *init* ends, and with process 1
//! everything else: processes, namespaces, mounts. Each stage dies with the one before it.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl::set_pdeathsig,
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::{AccessFlags, Pid, access, getgid, getuid},
};

/// Exit status of a door that cannot be opened on this machine; the reason is in the state folder.
const NO_WORLD: i32 = 77;
/// This program, even if cargo has put another in its place meanwhile.
const OWN: &str = "/proc/self/exe";

/// What became of an attempt to enter.
#[derive(Debug)]
pub enum Entered {
    /// This process is inside and shall go on.
    Inside,
    /// What was to be done was done, by processes below this one.
    Ended(ExitCode),
    /// This machine does not allow it, for this reason.
    Refused(String),
}

/// Which of the four stages this process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// As cargo or a person started it.
    #[default]
    Outside,
    /// Unshares.
    Door,
    /// Process 1.
    Init,
    /// Where the story runs.
    Inside,
}

/// What a stage hands to the next on the command line.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// The stage this process is.
    #[arg(long, hide = true, value_enum, default_value_t)]
    pub stage: Stage,
    /// The folder for logs and files of this world, on the host's disk.
    #[arg(long, hide = true, default_value = ".")]
    pub state: PathBuf,
}

impl Place {
    /// Starts the stages below this one, if there are any.
    pub fn enter(&self, name: &str) -> Result<Entered> {
        match self.stage {
            Stage::Outside => outside(name),
            Stage::Door => self.door().map(Entered::Ended),
            Stage::Init => self.init().map(Entered::Ended),
            Stage::Inside => Ok(Entered::Inside),
        }
    }

    fn door(&self) -> Result<ExitCode> {
        set_pdeathsig(Signal::SIGKILL)?;
        if let Err(reason) = leave_the_host() {
            fs::write(self.state.join("refusal"), format!("{reason:#}"))?;
            return Ok(ExitCode::from(u8::try_from(NO_WORLD)?));
        }
        Ok(exit_code(self.next("init")?.status()?))
    }

    fn init(&self) -> Result<ExitCode> {
        set_pdeathsig(Signal::SIGKILL)?;
        // Read before the new /proc is there: the number by which people outside know this process.
        fs::write(self.state.join("pid"), fs::read_link("/proc/self")?.to_string_lossy().as_bytes())?;
        furnish()?;
        let inside = Pid::from_raw(self.next("inside")?.spawn()?.id().try_into()?);
        loop {
            match waitpid(None, None) {
                Ok(WaitStatus::Exited(pid, code)) if pid == inside => {
                    return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == inside => bail!("the story was ended by {signal}"),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn next(&self, stage: &str) -> Result<Command> {
        // The stage is the first argument by construction (see `outside`).
        let rest: Vec<OsString> = env::args_os().skip(2).collect();
        let mut command = Command::new(OWN);
        command.arg(format!("--stage={stage}")).args(rest);
        Ok(command)
    }
}

/// A program that was built beside this one.
#[must_use]
pub fn sibling(program: &str) -> PathBuf {
    profile_folder().unwrap_or_default().join(program)
}

/// `target/<profile>`: the folder of the programs of this build.
pub fn profile_folder() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let folder = own.parent().context("a program without a folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().context("deps without a parent")? } else { folder };
    Ok(folder.to_owned())
}

/// Whether this is a test or a bench: cargo keeps those apart from programs.
pub(crate) fn is_test() -> Result<bool> {
    Ok(env::current_exe()?.parent().is_some_and(|folder| folder.ends_with("deps")))
}

fn outside(name: &str) -> Result<Entered> {
    let (state, _lock) = claim(name)?;
    let status = Command::new(OWN)
        .arg("--stage=door")
        .arg(format!("--state={}", state.display()))
        .args(env::args_os().skip(1))
        .status()?;
    if status.code() == Some(NO_WORLD) {
        return Ok(Entered::Refused(fs::read_to_string(state.join("refusal"))?));
    }
    Ok(Entered::Ended(exit_code(status)))
}

/// An empty folder on the host's disk for logs and YAML, in the target folder if that can be written. It is kept until the next run of the same name; one that
/// is in use by another run is left alone.
fn claim(name: &str) -> Result<(PathBuf, Flock<fs::File>)> {
    let target = profile_folder()?.join("../world");
    let writable = fs::create_dir_all(&target).is_ok() && access(&target, AccessFlags::W_OK).is_ok();
    let parent =
        if writable { target.canonicalize()? } else { env::temp_dir().join(format!("lateen-world-{}", getuid())) };
    fs::create_dir_all(&parent)?;
    for number in 1..100 {
        let name = if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
        let lock = fs::File::create(parent.join(format!("{name}.lock")))?;
        if let Ok(lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            let state = parent.join(name);
            if state.exists() {
                fs::remove_dir_all(&state).with_context(|| format!("clear {}", state.display()))?;
            }
            fs::create_dir_all(&state)?;
            return Ok((state, lock));
        }
    }
    bail!("a hundred runs of {name} at once in {}", parent.display())
}

fn leave_the_host() -> Result<()> {
    let (uid, gid) = (getuid(), getgid());
    let rooms = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    match unshare(rooms | CloneFlags::CLONE_NEWUSER) {
        Ok(()) => {
            fs::write("/proc/self/setgroups", "deny").context("deny setgroups")?;
            fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("map the user to root")?;
            fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("map the group to root")?;
        }
        // Real root needs no user namespace to leave the host's network.
        Err(error) if uid.is_root() => {
            unshare(rooms).with_context(|| format!("neither user namespaces ({error}) nor others are allowed here"))?;
        }
        Err(error) => bail!(
            "user namespaces are not allowed here ({error}); allow them (sysctl kernel.unprivileged_userns_clone=1 or user.max_user_namespaces) or run as root"
        ),
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).context(
        "no privileges in the new user namespace (on Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or run as root)",
    )
}

/// An own `/proc`, an empty `/run`, own names.
fn furnish() -> Result<()> {
    // In a container with a masked /proc the kernel refuses a new one; the old one shows the same processes under other numbers, which will do.
    let _ = mount(Some("proc"), "/proc", Some("proc"), MsFlags::MS_NOSUID, None::<&str>);
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755")).context("mount an empty /run")?;
    fs::create_dir_all(crate::netns::FOLDER)?;
    cover("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
    // Names are known from that file or not at all; nobody waits for a name server that cannot be reached.
    cover("/etc/resolv.conf", "options timeout:1 attempts:1\n")?;
    nix::unistd::sethostname("lateen").context("set the host name")?;
    Ok(())
}

/// Puts a file of the world's own over one of the host's.
fn cover(file: &str, text: &str) -> Result<()> {
    let own = Path::new("/run").join(Path::new(file).file_name().unwrap_or_default());
    fs::write(&own, text)?;
    // A link into the /run that was just hidden is as good as none.
    if !Path::new(file).exists() {
        return Ok(());
    }
    mount(Some(&own), file, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("put an own {file} in place"))
}

fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
