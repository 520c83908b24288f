// SPDX-License-Identifier: Apache-2.0
//! What the pure cores cost, counted in instructions by valgrind's callgrind: the same number on every run and however busy the machine is.
//!
//! `cargo bench --bench cores` prints the table of the optimised build. `tests/budgets.rs` runs the same cases in the build that `cargo test` makes
//! anyway, with `--check`: there every case has a budget, and to be above it is a failure. Words on the command line choose cases by their name.
#![allow(clippy::unwrap_used)]

mod account;
mod callgrind;
mod case;
mod decide;
mod hbone;
mod mesh;

use std::process::ExitCode;

use case::Case;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let words: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |case: &Case| words.is_empty() || words.iter().any(|word| case.name.contains(word));
    let cases: Vec<Case> = all().into_iter().filter(wanted).collect();
    if has(callgrind::FLAG) {
        cases.into_iter().for_each(Case::run);
        return ExitCode::SUCCESS;
    }
    match callgrind::count(&cases, &words) {
        Ok(counts) => report(&cases, &counts, has("--check")),
        Err(why) => {
            eprintln!("cores: {why}");
            ExitCode::from(2)
        }
    }
}

fn all() -> Vec<Case> {
    [hbone::cases(), decide::cases(), account::cases()].into_iter().flatten().collect()
}

/// The table; with `checks`, whether every case is within its budget.
fn report(cases: &[Case], counts: &[callgrind::Count], checks: bool) -> ExitCode {
    let width = cases.iter().map(|case| case.name.len()).max().unwrap_or(0);
    println!("{:width$}  {:>12}{}", "", "instructions", if checks { "      budget" } else { "" });
    let mut over = Vec::new();
    for (case, count) in cases.iter().zip(counts) {
        let each = count.instructions / case.times;
        if !checks {
            println!("{:width$}  {each:>12}", case.name);
            continue;
        }
        let share = each as f64 / case.budget as f64 * 100.0;
        println!("{:width$}  {each:>12}  {:>10}  {share:>3.0} %", case.name, case.budget);
        if each > case.budget {
            over.push(format!(
                "{}: {each} instructions, budget {}; where they go: callgrind_annotate {}",
                case.name,
                case.budget,
                count.profile.display()
            ));
        }
    }
    over.iter().for_each(|line| println!("OVER BUDGET  {line}"));
    if over.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
