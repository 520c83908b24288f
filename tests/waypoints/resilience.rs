// SPDX-License-Identifier: Apache-2.0
//! Timeouts and retries.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::Bed;

use super::cases::{ask, check, hold, row, with_rules};

const OK: &str = "HTTP/1.1 200";
const LATE: &str = "HTTP/1.1 504";

pub(crate) fn timeouts(bed: &mut Bed) -> Result<()> {
    let with = |timeouts: &str| format!("[{{timeouts: {{{timeouts}}}, backendRefs: [{{name: web, port: 80}}]}}]");
    hold(
        bed,
        &with("request: 300ms"),
        &[row("/?wait=2", &[LATE, "upstream request timeout"]), row("/", &[OK, "one through"])],
    )?;
    hold(bed, &with("backendRequest: 300ms"), &[row("/?wait=2", &[LATE]), row("/", &[OK])])?;
    hold(bed, &with("request: 0s"), &[row("/?wait=1", &[OK, "one through"])])?;
    // Each try has its time, and both fit into that of the request.
    let tries = "[{timeouts: {request: 5s, backendRequest: 300ms}, retry: {attempts: 1, codes: [504]}, \
                   backendRefs: [{name: web, port: 80}]}]";
    hold(bed, tries, &[row("/tried?wait=2", &[LATE])])?;
    let heard = ask(bed, "demo/client", "/heard/tried?wait")?;
    ensure!(heard.contains("\r\n\r\n2\n"), "two tries were expected: {heard}");
    // Without retries that of a try is all there is.
    let none = "[{timeouts: {request: 5s, backendRequest: 300ms}, retry: {attempts: 0}, backendRefs: [{name: web, port: 80}]}]";
    hold(bed, none, &[row("/?wait=2", &[LATE])])
}

pub(crate) fn retries(bed: &mut Bed) -> Result<()> {
    let with = |retry: &str| format!("[{{retry: {{{retry}}}, backendRefs: [{{name: web, port: 80}}]}}]");
    const FAILED: &str = "HTTP/1.1 503";
    hold(
        bed,
        &with("codes: [503], attempts: 3, backoff: 10ms"),
        &[row("/?fail=a&times=3", &[OK, "one through"]), row("/?fail=b&times=9", &[FAILED])],
    )?;
    hold(
        bed,
        &with("codes: [503], attempts: 1"),
        &[row("/?fail=c&times=1", &[OK]), row("/?fail=d&times=2", &[FAILED])],
    )?;
    // How often is up to the mesh: twice.
    hold(bed, &with("codes: [503]"), &[row("/?fail=e&times=2", &[OK]), row("/?fail=f&times=3", &[FAILED])])?;
    hold(bed, &with("codes: [502], attempts: 3"), &[row("/?fail=g&times=1", &[FAILED])])?;
    hold(bed, &with("codes: [503], attempts: 0"), &[row("/?fail=h&times=1", &[FAILED])])?;
    // Without a word of retries what was done is not done again.
    hold(bed, "[{backendRefs: [{name: web, port: 80}]}]", &[row("/?fail=i&times=1", &[FAILED])])
}

/// Envoy takes a random part of each pause: the three together are longer than this in one of three runs but for one of 40,000 times.
pub(crate) fn backoff(bed: &mut Bed) -> Result<()> {
    let rules = "[{retry: {codes: [503], attempts: 3, backoff: 400ms}, backendRefs: [{name: web, port: 80}]}]";
    with_rules(bed, rules, |bed| {
        let mut longest = Duration::ZERO;
        for key in ["slow-1", "slow-2", "slow-3"] {
            let since = Instant::now();
            check(bed, "demo/client", &super::cases::Row { asks: "/", brings: &[OK] })?;
            let plain = since.elapsed();
            let since = Instant::now();
            let answer = ask(bed, "demo/client", &format!("/?fail={key}&times=3"))?;
            ensure!(answer.contains(OK), "{answer}");
            longest = longest.max(since.elapsed().saturating_sub(plain));
            if longest > Duration::from_millis(600) {
                return Ok(());
            }
        }
        anyhow::bail!("three retries with a pause of 400 ms and more took no longer than {longest:?}")
    })
}

/// One of two endpoints refuses connections; no client sees it.
pub(crate) fn failing_endpoint(bed: &mut Bed) -> Result<()> {
    let rules = "[{retry: {codes: [503], attempts: 3}, backendRefs: [{name: mixed, port: 80}]}]";
    with_rules(bed, rules, |bed| {
        for _ in 0..20 {
            check(bed, "demo/client", &row("/", &[OK, "two through"]))?;
        }
        Ok(())
    })
}
