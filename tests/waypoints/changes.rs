// SPDX-License-Identifier: Apache-2.0
//! What changes while requests go on, on new connections and on one that is kept: not one of them fails.

use anyhow::{Context, Result, ensure};
use harness::{Bed, objects, wait};
use serde_json::{Map, Value};

use super::{eventually, routes::route};

/// Requests that go on until this is dropped.
struct Traffic(harness::process::Dialogue);

impl Traffic {
    fn start(bed: &Bed, host: &str) -> Result<Self> {
        Ok(Self(bed.pod("demo/client")?.talk(&["python3", "-c", include_str!("traffic.py"), host])?))
    }

    /// Who has answered how often since the last time this was asked.
    fn answers(&mut self) -> Result<Map<String, Value>> {
        let told: Value = serde_json::from_str(&self.0.ask("")?)?;
        let failures = told["failures"].as_array().context("no list of failures")?;
        ensure!(failures.is_empty(), "{} requests failed: {failures:?}", failures.len());
        Ok(told["seen"].as_object().cloned().unwrap_or_default())
    }

    /// Until so many requests after one another have been answered by one of these.
    fn until(&mut self, what: &str, count: u64, by: &[&str]) -> Result<()> {
        let mut all = 0;
        let mut failed = None;
        wait::until(what, wait::LONG_PATIENCE, || {
            let seen = match self.answers() {
                Ok(seen) => seen,
                Err(error) => {
                    // Waiting does not mend it.
                    failed = Some(error);
                    return Ok(());
                }
            };
            all = if seen.keys().all(|one| by.contains(&one.as_str())) { all + total(&seen) } else { 0 };
            ensure!(all >= count, "{all} so far, at last {seen:?}");
            Ok(())
        })?;
        failed.map_or(Ok(()), |error| Err(error.context(format!("while waiting for {what}"))))
    }
}

fn total(seen: &Map<String, Value>) -> u64 {
    seen.values().filter_map(Value::as_u64).sum()
}

const TWO: &str = "10.96.0.11";

fn label(bed: &mut Bed, waypoint: Option<&str>) -> Result<()> {
    bed.world.objects.change("Service", "demo", "two", |service| {
        objects::set_label(service, "istio.io/use-waypoint", waypoint);
    })
}

pub(crate) fn label_on_and_off(bed: &mut Bed) -> Result<()> {
    let mut traffic = Traffic::start(bed, TWO)?;
    traffic.until("requests to go directly", 50, &["two direct"])?;
    for number in 1..=5 {
        label(bed, Some("waypoint"))?;
        // The kept connection stays where it is.
        until_some(&mut traffic, "two through").with_context(|| format!("on, number {number}"))?;
        traffic.until("more requests", 100, &["two through", "two direct"])?;
        label(bed, None)?;
        until_some(&mut traffic, "two direct").with_context(|| format!("off, number {number}"))?;
        traffic.until("more requests", 100, &["two through", "two direct"])?;
    }
    // The end of it: nothing is left of the service in the waypoint, and the kept connection has been told to move.
    let envoy = |bed: &Bed, what: &str| {
        let url = format!("http://127.0.0.1:15000/config_dump?resource={what}");
        bed.pod("demo/waypoint-0")?.run(&["curl", "-sS", "--max-time", "20", &url])?.good()
    };
    let chain = "inbound-vip|80|http|two.demo.svc.cluster.local";
    wait::until("the waypoint to forget the service", wait::LONG_PATIENCE, || {
        traffic.answers()?;
        let there = envoy(bed, "dynamic_listeners")?.contains(chain);
        ensure!(!there, "its chain is there");
        Ok::<_, anyhow::Error>(())
    })?;
    traffic.until("requests to go directly, also on the kept connection", 200, &["two direct"])
}

fn until_some(traffic: &mut Traffic, by: &str) -> Result<()> {
    let mut failed = None;
    wait::until(&format!("an answer of `{by}`"), wait::LONG_PATIENCE, || {
        match traffic.answers() {
            Ok(seen) => ensure!(seen.contains_key(by), "answers of {seen:?}"),
            Err(error) => failed = Some(error),
        }
        Ok(())
    })?;
    failed.map_or(Ok(()), Err)
}

/// A backend is not known to the waypoint before the route that speaks of it.
pub(crate) fn canary(bed: &mut Bed) -> Result<()> {
    let mut traffic = Traffic::start(bed, "10.96.0.10")?;
    let (old, new) = ("one through", "two through");
    traffic.until("requests to reach the old version", 50, &[old])?;
    for number in 1..=10 {
        for (one, two, by) in [(0, 100, &[old, new][..]), (90, 10, &[old, new])] {
            let rules = format!(
                "[{{backendRefs: [{{name: web, port: 80, weight: {one}}}, {{name: two, port: 80, weight: {two}}}]}}]"
            );
            bed.world.put(objects::parse(&route(&rules))?.remove(0))?;
            until_some(&mut traffic, new).with_context(|| format!("{one} to {two}, number {number}"))?;
            // One that was on its way may come late.
            traffic.until(&format!("answers with {one} to {two}"), 30, by)?;
        }
        bed.world.objects.remove("HTTPRoute", "demo", "web")?;
        until_some(&mut traffic, old)?;
        traffic.until("requests to reach the old version again", 30, &[old])?;
    }
    Ok(())
}

/// Its Envoy stays, loses its stream, and has to come back.
pub(crate) fn gateway(bed: &mut Bed) -> Result<()> {
    let mut traffic = Traffic::start(bed, "10.96.0.10")?;
    traffic.until("requests to go through the waypoint", 50, &["one through"])?;
    for _ in 1..=2 {
        let gateway = bed.world.objects.find("Gateway", "demo", "waypoint")?.clone();
        bed.world.objects.remove("Gateway", "demo", "waypoint")?;
        until_some(&mut traffic, "one direct")?;
        traffic.until("more requests", 100, &["one through", "one direct"])?;
        bed.world.put(gateway)?;
        until_some(&mut traffic, "one through")?;
        traffic.until("more requests", 100, &["one through", "one direct"])?;
    }
    drop(traffic);
    eventually("a new connection through the waypoint", || {
        let said = super::curl(bed, "demo/client", &[super::WEB])?;
        ensure!(said.contains("one through"), "{said}");
        Ok(())
    })
}
