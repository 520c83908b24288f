// SPDX-License-Identifier: Apache-2.0
//! What the pure cores may cost: every case of `cargo bench --bench cores` has a budget in instructions.
//!
//! They are counted in the build that `cargo test` makes anyway: an optimised one of everything would take a new machine another quarter of an hour, and
//! what the budgets are for, a scan, a copy or an allocation that was not there before, shows in either. The numbers are for x86-64.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use harness::{Suite, programs, skip, tools};

fn main() -> ExitCode {
    Suite::without_world("budgets", prepare)
        .test("every_core_stays_within_its_budget_of_instructions", within_budget)
        .main()
}

/// The bench, where it can run.
fn prepare() -> Result<PathBuf> {
    if !cfg!(all(target_arch = "x86_64", debug_assertions)) {
        return Err(skip("the budgets are for the test build on x86-64"));
    }
    if tools::VALGRIND.find().is_none() {
        return Err(skip("valgrind is missing; on Debian: apt-get install valgrind"));
    }
    programs::bench("cores")?
        .ok_or_else(|| skip("there is no cargo to build the bench with; start this test with cargo"))
}

fn within_budget(bench: &mut PathBuf) -> Result<()> {
    let output = Command::new(&*bench).arg("--check").output().with_context(|| format!("run {}", bench.display()))?;
    println!("{}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() != Some(2), "nothing could be counted: {said}");
    ensure!(
        output.status.success(),
        "see OVER BUDGET above; if it is worth it, raise the budget in ztunnel/benches/cores and say why in the commit. {said}"
    );
    Ok(())
}
