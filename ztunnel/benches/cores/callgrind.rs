// SPDX-License-Identifier: Apache-2.0
//! Runs this program again under callgrind and reads what it counted.
//!
//! No library for it: those need a runner program of their very version to be installed beside them, and what is asked for here is one flag that switches the
//! count on inside one function, and one number from each profile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::case::{COUNTED, Case};

/// Tells this program that it is the one whose instructions are counted.
pub(crate) const FLAG: &str = "--counted";

/// What one case took.
pub(crate) struct Count {
    pub(crate) instructions: u64,
    /// The profile, for `callgrind_annotate` or KCachegrind.
    pub(crate) profile: PathBuf,
}

/// Counts the cases with these words in their names, in their order.
pub(crate) fn count(cases: &[Case], words: &[&str]) -> Result<Vec<Count>, String> {
    let own = std::env::current_exe().map_err(|error| format!("the program's own path: {error}"))?;
    let folder =
        own.ancestors().find(|path| path.ends_with("deps")).and_then(Path::parent).unwrap_or_else(|| Path::new("."));
    let folder = folder.join("cores");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|error| format!("create {}: {error}", folder.display()))?;
    let profile = folder.join("profile");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--combine-dumps=no", "--error-exitcode=3"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--dump-after={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(&own)
        .arg(FLAG)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind: {error}; on Debian: apt-get install valgrind"))?;
    if !output.status.success() {
        return Err(format!("valgrind ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    (1..=cases.len()).map(|number| read(folder.join(format!("profile.{number}")))).collect()
}

/// A profile has a line `totals: N`, or `summary: N` in older versions.
fn read(profile: PathBuf) -> Result<Count, String> {
    let text = fs::read_to_string(&profile).map_err(|error| format!("read {}: {error}", profile.display()))?;
    let total =
        |line: &str| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:"))?.trim().parse().ok();
    let instructions = text.lines().find_map(total).ok_or_else(|| format!("{} has no total", profile.display()))?;
    Ok(Count { instructions, profile })
}
