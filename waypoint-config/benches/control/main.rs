// SPDX-License-Identifier: Apache-2.0
//! `cargo bench --bench control`: how soon what a person writes into the directory is in force in a real Envoy, and what a whole mesh costs to build.
//!
//! 1,000 services with two routes each stand behind one waypoint, served by the real program over delta xDS. An endpoint or a route changes, again and again,
//! each time in a file that is renamed into place; the program's own counters (`/metrics`, asked all the time) tell when the change was pushed and when
//! Envoy had acknowledged it, and how many resources and bytes it took. What lies between push and acknowledgement is Envoy's. A second process builds 10,000
//! services of the same shape in memory and tells how long that took and what it holds.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod build;
mod change;
mod envoy;
mod objects;
mod report;

use std::process::ExitCode;

use report::Report;

/// Services of the waypoint whose changes are timed.
const SERVICES: u32 = 1_000;
/// Services of the mesh that is built at once.
const BUILT: u32 = 10_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|one| one != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => measure(false),
        ["--json"] => measure(true),
        ["--build", count] => build::here(count.parse().unwrap()),
        _ => {
            println!(
                "cargo bench --bench control [-- --json]\n\nTimes changes of a waypoint's mesh up to Envoy's acknowledgement, and the building of a large mesh."
            );
            ExitCode::SUCCESS
        }
    }
}

fn measure(json: bool) -> ExitCode {
    let Some(envoy) = envoy::found() else {
        eprintln!("no Envoy: set ENVOY_BIN, or start the tests of mesh-tests once");
        return ExitCode::FAILURE;
    };
    let changes = change::measure(&envoy, SERVICES);
    let built = build::apart(BUILT);
    let report = Report::new(SERVICES, changes, BUILT, built);
    match json {
        true => println!("{}", report.json()),
        false => print!("{report}"),
    }
    ExitCode::SUCCESS
}
