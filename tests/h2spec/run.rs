// SPDX-License-Identifier: Apache-2.0
//! Starts the server and lets h2spec loose on it.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};
use harness::{process::Program, wait};

use crate::{report, report::Case, tool};

/// Sections that run side by side: where a case fails h2spec waits for its time to run out, and the machine has nothing to do.
const PARTS: [&[&str]; 4] =
    [&["generic", "hpack"], &["http2/5"], &["http2/8"], &["http2/3", "http2/4", "http2/6", "http2/7"]];

/// Seconds h2spec waits for what a case wants: long enough for a loaded machine.
const PATIENCE: &str = "10";

/// Every case of h2spec against a fresh server. The server greets who comes, because some cases want bytes that nobody asked for; and takes
/// frames of 16 KiB at most, because one case takes that for granted.
pub(crate) fn all() -> Result<Vec<Case>> {
    let (h2spec, echo) = (tool::h2spec()?, tool::echo()?);
    let folder = h2spec.with_file_name(format!("run-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let mut command = Command::new(echo);
    command.args(["serve", "127.0.0.1:0", "--banner", "hello", "--max-frame", "16384"]);
    let mut server = Program::start("echo", command, &folder.join("echo.log"))?;
    let port = wait::until("the server to listen", wait::PATIENCE, || {
        let said = server.output();
        let port = said.lines().find_map(|line| line.strip_prefix("listening on 127.0.0.1:")).map(str::to_owned);
        port.ok_or_else(|| server.check().err().map_or_else(|| "it says nothing".to_owned(), |error| error.to_string()))
    })?;
    let one =
        |(number, sections): (usize, &&[&str])| part(&h2spec, &port, sections, &folder.join(format!("{number}.xml")));
    let cases: Result<Vec<Vec<Case>>> = thread::scope(|scope| {
        let parts: Vec<_> = PARTS.iter().enumerate().map(|each| scope.spawn(move || one(each))).collect();
        parts.into_iter().map(|part| part.join().map_err(|_| anyhow!("a part of h2spec panicked"))?).collect()
    });
    let cases = cases?.into_iter().flatten().collect();
    fs::remove_dir_all(&folder)?;
    Ok(cases)
}

fn part(h2spec: &Path, port: &str, sections: &[&str], xml: &Path) -> Result<Vec<Case>> {
    let output = Command::new(h2spec)
        .args(["--host", "127.0.0.1", "--port", port, "--timeout", PATIENCE, "--junit-report"])
        .arg(xml)
        .args(sections)
        .stdin(Stdio::null())
        .output()
        .context("run h2spec")?;
    // Its status says whether all cases passed, which is for the tests to judge; but a report there must be.
    let report = fs::read(xml).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let report =
        report.with_context(|| format!("h2spec left no report: {}", String::from_utf8_lossy(&output.stderr)))?;
    let cases = report::read(&report);
    ensure!(!cases.is_empty(), "h2spec reported nothing on {}", sections.join(" "));
    Ok(cases)
}
