// SPDX-License-Identifier: Apache-2.0
//! Runs each test in a child process that first leaves the host's namespaces, and counts what cannot run as skipped.
//!
//! Output and flags are libtest's as far as they matter here. With `CI=true` a skipped test is a failed one.

use std::env;
use std::fs;
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};

use crate::raw;

#[derive(Clone, Copy)]
pub(crate) struct Test {
    name: &'static str,
    run: fn(),
}

pub(crate) const fn test(name: &'static str, run: fn()) -> Test {
    Test { name, run }
}

#[derive(Parser)]
struct Arguments {
    /// Run only tests whose name contains one of these.
    filters: Vec<String>,
    /// Filters are whole names.
    #[arg(long)]
    exact: bool,
    /// Leave out tests whose name contains this.
    #[arg(long)]
    skip: Vec<String>,
    /// Print the names and stop.
    #[arg(long)]
    list: bool,
    /// Whether a skipped test is a failed one.
    #[arg(long, env = "CI", value_parser = clap::builder::FalseyValueParser::new())]
    strict: bool,
    /// The child: run this one test here.
    #[arg(long, hide = true)]
    inside: Option<String>,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    no_capture: bool,
    #[arg(long, hide = true)]
    include_ignored: bool,
    /// No test is ignored beforehand.
    #[arg(long, hide = true)]
    ignored: bool,
    #[arg(long, short, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    show_output: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
    #[arg(long, hide = true)]
    format: Option<String>,
    #[arg(long, hide = true)]
    color: Option<String>,
}

pub(crate) fn main(tests: &[Test]) -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(name) = &arguments.inside {
        return inside(tests, name);
    }
    if arguments.list {
        tests.iter().for_each(|test| println!("{}: test", test.name));
        return ExitCode::SUCCESS;
    }
    let hit =
        |name: &str, filter: &String| if arguments.exact { filter == name } else { name.contains(filter.as_str()) };
    let wanted: Vec<&Test> = tests
        .iter()
        .filter(|test| arguments.filters.is_empty() || arguments.filters.iter().any(|filter| hit(test.name, filter)))
        .filter(|test| !arguments.ignored && !arguments.skip.iter().any(|filter| hit(test.name, filter)))
        .collect();
    println!("\nrunning {} tests", wanted.len());
    let (mut passed, mut skipped, mut failed) = (0, 0, Vec::new());
    for test in &wanted {
        let child = Command::new(env::current_exe().expect("a running program has a path"))
            .args(["--inside", test.name])
            .stdin(Stdio::null())
            .output()
            .expect("the test program can be started again");
        let said = String::from_utf8_lossy(&child.stderr);
        match child.status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(0) => {
                passed += 1;
                println!("test {} ... ok", test.name);
            }
            Some(SKIPPED) if !arguments.strict => {
                skipped += 1;
                println!("test {} ... ignored, {}", test.name, said.trim());
            }
            _ => {
                failed.push(test.name);
                println!("test {} ... FAILED\n{}", test.name, said.trim_end());
            }
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; {skipped} ignored; 0 measured; {} filtered out\n",
        failed.len(),
        tests.len() - wanted.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// This process has one thread until here.
fn inside(tests: &[Test], name: &str) -> ExitCode {
    if let Err(reason) = leave_the_host() {
        eprintln!("{reason}");
        return ExitCode::from(SKIPPED);
    }
    let test = tests.iter().find(|test| test.name == name).expect("the parent names a test of the list");
    (test.run)();
    ExitCode::SUCCESS
}

fn leave_the_host() -> Result<(), String> {
    let (uid, gid) = (getuid(), getgid());
    match unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET) {
        Ok(()) => {
            let write = |file: &str, text: String| {
                fs::write(format!("/proc/self/{file}"), text).map_err(|error| format!("{file}: {error}"))
            };
            write("uid_map", format!("0 {uid} 1"))?;
            write("setgroups", "deny".to_owned())?;
            write("gid_map", format!("0 {gid} 1"))?;
        }
        // Root does not need the user namespace.
        Err(_) if uid.is_root() && unshare(CloneFlags::CLONE_NEWNET).is_ok() => {}
        Err(error) => {
            return Err(format!(
                "user namespaces are not allowed here ({error}): see sysctl user.max_user_namespaces, or the container's seccomp profile"
            ));
        }
    }
    raw::probe().map_err(|error| {
        format!("no nf_tables in a network namespace of our own ({error}): the kernel may lack it, or AppArmor restrict user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0)")
    })
}

const SKIPPED: u8 = 77;
