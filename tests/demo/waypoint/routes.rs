// SPDX-License-Identifier: Apache-2.0
//! Routes at the waypoint: where requests go.

use anyhow::{Context, Result, ensure};
use harness::wait;

use super::URL;
use crate::{
    report::{Report, expect},
    story::Story,
};

/// A route of the shop with these rules.
pub(super) fn route(rules: &str) -> String {
    format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{namespace: shop, name: web}}, \
         spec: {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: {rules}}}}}"
    )
}

/// Of 1,000 requests 100 are expected, with a standard deviation of 9.5: outside of these bounds in fewer than one of ten million runs.
pub(super) fn canary(story: &mut Story, report: &mut Report) -> Result<()> {
    report.say("kubectl apply -f route.yaml:  backendRefs web with weight 90, canary with weight 10");
    let rules = "[{backendRefs: [{name: web, port: 80, weight: 90}, {name: canary, port: 80, weight: 10}]}]";
    let show = |story: &Story| {
        story.ask_until(&[URL], "canary through 200")?;
        let said = story.ask(&[&format!("{URL}?[1-1000]")])?;
        let count = |of: &str| said.stdout.lines().filter(|line| *line == of).count();
        let (web, canary) = (count("web through 200"), count("canary through 200"));
        let counted = format!("{web} answers of web, {canary} of canary");
        report.say(format!("in pod client on n1:  curl '{URL}?[1-1000]'\n  -> {counted}"));
        expect("1,000 answers", &counted, web + canary == 1000)?;
        expect("about a tenth of them from canary", &counted, (50..=180).contains(&canary))
    };
    story.with_objects(&route(rules), show)
}

pub(super) fn header(story: &mut Story, report: &mut Report) -> Result<()> {
    report.say("kubectl apply -f route.yaml:  with the header x-tester: yes to canary, others to web");
    let rules = "[{matches: [{headers: [{name: x-tester, value: 'yes'}]}], backendRefs: [{name: canary, port: 80}]}, \
                  {backendRefs: [{name: web, port: 80}]}]";
    let show = |story: &Story| {
        story.ask_until(&["-H", "x-tester: yes", URL], "canary through 200")?;
        report.say(format!("in pod client on n1:  curl -H 'x-tester: yes' {URL}\n  -> canary through 200"));
        let said = story.ask(&[URL])?;
        report.say(format!("without the header\n  -> {}", said.stdout.trim()));
        expect("an answer of web", said.story(), said.stdout.trim() == "web through 200")
    };
    story.with_objects(&route(rules), show)
}

pub(super) fn mirror(story: &mut Story, report: &mut Report) -> Result<()> {
    report.say("kubectl apply -f route.yaml:  backendRefs web, RequestMirror to canary");
    let rules = "[{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: canary, port: 80}}}], \
                  backendRefs: [{name: web, port: 80}]}]";
    let copies = |story: &Story, path: &str| -> Result<usize> {
        let heard = story.world.pod("shop/canary")?.output();
        Ok(heard.lines().filter(|line| line.contains(path)).count())
    };
    let show = |story: &Story| {
        wait::until("a copy", wait::PATIENCE, || {
            story.ask(&[&format!("{URL}copied-yet")])?;
            ensure!(copies(story, "/copied-yet")? > 0, "canary has heard nothing");
            Ok(())
        })?;
        let said = story.ask(&[&format!("{URL}copy-[1-100]")])?;
        let answers = said.stdout.lines().filter(|line| *line == "web through 200").count();
        expect("100 answers, all of web", format!("{answers} of web"), answers == 100)?;
        wait::until("the copies", wait::PATIENCE, || {
            let heard = copies(story, "/copy-")?;
            ensure!(heard == 100, "canary has heard {heard} of 100");
            Ok(())
        })?;
        let heard = story.world.pod("shop/canary")?.output();
        let one = heard.lines().find(|line| line.contains("/copy-1")).context("no copy in the log of canary")?;
        report.say(format!("in pod client on n1:  curl '{URL}copy-[1-100]'\n  -> {answers} answers, all of web"));
        report.say(format!("canary heard all of it, too: {one}"));
        Ok(())
    };
    story.with_objects(&route(rules), show)
}
