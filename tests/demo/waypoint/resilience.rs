// SPDX-License-Identifier: Apache-2.0
//! Routes at the waypoint: what clients do not notice of servers that fail or are slow.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::wait;

use super::{URL, routes::route};
use crate::{
    report::{Report, expect},
    story::Story,
};

const BROKEN: &str = include_str!("broken.yaml");

pub(super) fn retry(story: &mut Story, report: &mut Report) -> Result<()> {
    report.say("kubectl apply -f broken.yaml:  a second pod of web that answers 503 to everything");
    let server = serde_json::to_string(include_str!("server.py"))?;
    story.world.apply(&BROKEN.replace("SERVER", &server))?;
    story.mesh.settle(&story.world)?;
    wait::until("the broken pod to be asked", wait::PATIENCE, || {
        let said = story.ask(&[URL])?;
        ensure!(said.stdout.trim() == "broken through 503", "{}", said.story());
        Ok(())
    })?;
    let failures = |story: &Story| -> Result<usize> {
        let said = story.ask(&[&format!("{URL}?[1-200]")])?;
        Ok(said.stdout.lines().filter(|line| *line != "web through 200").count())
    };
    let line = format!("in pod client on n1:  curl '{URL}?[1-200]'");
    let without = failures(story)?;
    report.say(format!("{line}\n  -> {without} of 200 requests failed"));
    expect("about half of them to fail", without, (50..=150).contains(&without))?;
    report.say("kubectl apply -f route.yaml:  retry with codes [503] and attempts 3");
    let rules = "[{retry: {codes: [503], attempts: 3}, backendRefs: [{name: web, port: 80}]}]";
    let show = |story: &Story| {
        wait::until("the route", wait::PATIENCE, || {
            let said = story.ask(&[&format!("{URL}?[1-20]")])?;
            ensure!(!said.stdout.contains("503"), "still failures");
            Ok(())
        })?;
        let asked = |story: &Story| {
            let heard = story.world.pod("shop/broken")?.output();
            anyhow::Ok(heard.lines().filter(|line| line.starts_with("GET ")).count())
        };
        let before = asked(story)?;
        let with = failures(story)?;
        let hidden = asked(story)? - before;
        report.say(format!("{line}\n  -> {with} of 200 requests failed; the broken pod was asked {hidden} times"));
        expect("no failure", with, with == 0)?;
        expect("the broken pod to be asked", hidden, hidden > 0)
    };
    let shown = story.with_objects(&route(rules), show);
    story.world.delete_pod("shop/broken")?;
    shown?;
    wait::until("the waypoint to forget the broken pod", wait::PATIENCE, || {
        let said = story.ask(&[&format!("{URL}?[1-20]")])?;
        ensure!(said.stdout.lines().all(|line| line == "web through 200"), "{}", said.story());
        Ok(())
    })
}

/// The page takes five seconds by itself.
pub(super) fn timeout(story: &mut Story, report: &mut Report) -> Result<()> {
    let url = format!("{URL}report");
    report.say("kubectl apply -f route.yaml:  timeouts.request 500ms");
    let rules = "[{timeouts: {request: 500ms}, backendRefs: [{name: web, port: 80}]}]";
    let show = |story: &Story| {
        let quickest = wait::until("the timeout", wait::PATIENCE, || {
            let since = Instant::now();
            let said = story.ask(&[&url])?;
            ensure!(said.stdout.trim() == "upstream request timeout 504", "{}", said.story());
            Ok(since.elapsed())
        })?;
        report.say(format!(
            "in pod client on n1:  curl {url}   (takes 5 s)\n  -> upstream request timeout 504, after {:.1} s",
            quickest.as_secs_f32()
        ));
        expect("less than 5 s", format!("{quickest:?}"), quickest < Duration::from_secs(4))?;
        let said = story.ask(&[URL])?;
        expect("quick pages as before", said.story(), said.stdout.trim() == "web through 200")
    };
    story.with_objects(&route(rules), show)
}
