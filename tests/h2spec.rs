// SPDX-License-Identifier: Apache-2.0
//! h2spec against the HBONE core: the server of `cargo run -p hbone --example echo`, over plain TCP.
//!
//! h2spec speaks to a web server; HBONE is a server that knows CONNECT only. So its requests are turned into CONNECT before they are sent (see
//! [`tool`]), and then every case applies but those named here, each with its reason. What is named must really fail: a case that comes to pass is to be taken off
//! the list.
//!
//! h2spec as it comes runs as well (`h2spec -h 127.0.0.1 -p PORT`): 124 of its 145 cases pass. Of the others four skip themselves, because the answer has no
//! content, and seventeen fail: the four below, and thirteen that want to see what happens to a stream which our 400 to their GET has ended already.
#![expect(clippy::ptr_arg, reason = "the runner hands every test what `run::all` made")]

use std::process::ExitCode;

use anyhow::{Result, ensure};
use harness::Suite;

#[path = "h2spec/report.rs"]
mod report;
#[path = "h2spec/run.rs"]
mod run;
#[path = "h2spec/tool.rs"]
mod tool;

use report::{Case, Outcome};

/// (section, title, why it does not apply)
const NOT_APPLICABLE: &[(&str, &str, &str)] = &[
    (
        "http2/5.3.1",
        "Sends HEADERS frame that depend on itself",
        "RFC 7540's priorities are gone: RFC 9113 §5.3.2 has the fields of HEADERS ignored, and names no error for them",
    ),
    (
        "http2/5.3.1",
        "Sends PRIORITY frame that depend on itself",
        "RFC 9113 §5.3.2 and §6.3: PRIORITY is checked for its size and its stream being none, and otherwise ignored",
    ),
    (
        "http2/8.1.2.6",
        "Sends a HEADERS frame with the \"content-length\" header field which does not equal the DATA frame payload length",
        "a CONNECT has no content (RFC 9110 §9.3.6): its DATA frames are the tunnel's bytes, which no content-length counts",
    ),
    (
        "http2/8.1.2.6",
        "Sends a HEADERS frame with the \"content-length\" header field which does not equal the sum of the multiple DATA frames payload length",
        "a CONNECT has no content (RFC 9110 §9.3.6): its DATA frames are the tunnel's bytes, which no content-length counts",
    ),
];

/// All cases of h2spec 2.2.1: generic, http2 and hpack.
const CASES: usize = 145;

fn main() -> ExitCode {
    Suite::without_world("h2spec", run::all)
        .test("every_case_has_been_run_and_none_skips_itself", complete)
        .test("every_case_that_applies_passes", passes)
        .test("what_is_listed_as_not_applicable_exists_and_fails", listed)
        .main()
}

fn complete(cases: &mut Vec<Case>) -> Result<()> {
    ensure!(cases.len() == CASES, "h2spec reported {} cases, not {CASES}", cases.len());
    let skipped: Vec<&Case> = cases.iter().filter(|case| case.outcome == Outcome::Skipped).collect();
    ensure!(skipped.is_empty(), "h2spec left out {skipped:#?}");
    Ok(())
}

fn passes(cases: &mut Vec<Case>) -> Result<()> {
    let failed: Vec<&Case> =
        cases.iter().filter(|case| matches!(case.outcome, Outcome::Failed(_)) && reason(case).is_none()).collect();
    ensure!(failed.is_empty(), "{} cases fail:\n{failed:#?}", failed.len());
    Ok(())
}

fn listed(cases: &mut Vec<Case>) -> Result<()> {
    for &(section, title, why) in NOT_APPLICABLE {
        let found: Vec<&Case> = cases.iter().filter(|case| case.section == section && case.title == title).collect();
        ensure!(found.len() == 1, "h2spec has no case `{title}` in {section}, or several");
        let failed = matches!(found[0].outcome, Outcome::Failed(_));
        ensure!(failed, "`{title}` of {section} passes: take it off the list, where it says: {why}");
    }
    Ok(())
}

fn reason(case: &Case) -> Option<&'static str> {
    let named = |(section, title, _): &&(&str, &str, &str)| case.section == *section && case.title == *title;
    NOT_APPLICABLE.iter().find(named).map(|&(.., why)| why)
}
