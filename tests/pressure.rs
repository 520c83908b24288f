// SPDX-License-Identifier: Apache-2.0
//! Pressure on the edges: programs killed at random moments under load, and pods that come and go by the dozen.
//!
//! Longer runs by hand: `PRESSURE_SECONDS=120` for the pods that come and go (20 s otherwise), `PRESSURE_RATE` for how many of them a second (20; a slow machine takes longer),
//! `PRESSURE_ROUNDS` for the killed proxies (6), `PRESSURE_SEED` to have chance choose as in an earlier run.

#[path = "pressure/chance.rs"]
mod chance;
#[path = "pressure/churn.rs"]
mod churn;
#[path = "pressure/control.rs"]
mod control;
#[path = "pressure/field.rs"]
mod field;
#[path = "pressure/load.rs"]
mod load;
#[path = "pressure/pods.rs"]
mod pods;
#[path = "pressure/proxies.rs"]
mod proxies;
#[path = "pressure/usage.rs"]
mod usage;
#[path = "pressure/watch.rs"]
mod watch;

use std::process::ExitCode;

use harness::Suite;

use field::Field;

fn main() -> ExitCode {
    Suite::new("pressure", Field::prepare)
        .test("pods_that_come_and_go_leave_nothing_behind", pods::come_and_go)
        .test("an_agent_killed_while_pods_come_and_go_finds_them_again", pods::agent_killed)
        .test("proxies_killed_while_pods_come_and_go_carry_those_that_stand", pods::proxies_killed)
        .test("a_control_plane_killed_under_load_is_not_missed_and_catches_up", control::killed)
        .test("proxies_killed_under_load_leak_nothing_and_serve_again", proxies::killed)
        .test("after_all_of_it_nobody_has_grown", pods::nobody_has_grown)
        .main()
}
