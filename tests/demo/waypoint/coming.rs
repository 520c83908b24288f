// SPDX-License-Identifier: Apache-2.0
//! A waypoint comes, is bound to a service, and goes again.

use std::{net::Ipv4Addr, time::Instant};

use anyhow::{Context, Result};
use harness::{http, objects};

use super::URL;
use crate::{
    report::{Report, expect},
    story::Story,
    visitors::{Visitors, Way},
};

const SHOP: &str = include_str!("shop.yaml");
const WAYPOINT: &str = include_str!("waypoint.yaml");

pub(super) fn open(story: &mut Story, report: &mut Report) -> Result<()> {
    let server = serde_json::to_string(include_str!("server.py"))?;
    story.world.apply(&SHOP.replace("SERVER", &server))?;
    story.mesh.settle(&story.world)?;
    let mark = story.mesh.mark("n2")?;
    story.ask_until(&[URL], "web direct 200")?;
    let said = story.ask(&[URL])?;
    report.say(format!("in pod client on n1:  curl {URL}\n  -> {}", said.stdout.trim()));
    let line = story.mesh.connection("n2", mark, |line| !line.is_outbound() && line.field("dst.workload") == "web")?;
    report.say(format!("access log of n2:  from {}", line.identities().0));
    report.detail(line);
    Ok(())
}

pub(super) fn appear(story: &mut Story, report: &mut Report) -> Result<()> {
    let since = Instant::now();
    report.say("kubectl apply -f waypoint.yaml:  a Gateway of class istio-waypoint, its Service, and a pod for it");
    story.world.apply(WAYPOINT)?;
    story.mesh.start_waypoint(&story.world, "shop/waypoint-0", "waypoint")?;
    story.mesh.waypoint_is_ready(&story.world, "shop/waypoint-0")?;
    report.say(format!(
        "lateen-waypoint made a key, had it certified and started Envoy; ready after {:.1} s",
        since.elapsed().as_secs_f32()
    ));
    let pod = story.world.pod("shop/waypoint-0")?;
    let version = http::fetch(&pod.netns, "GET", (Ipv4Addr::LOCALHOST, 15000).into(), "/server_info")?;
    let version: serde_json::Value = serde_json::from_str(&version.body).context("Envoy's /server_info")?;
    report.say(format!("Envoy says it is {}", version["version"].as_str().unwrap_or("nothing")));
    story.mesh.settle(&story.world)
}

pub(super) fn bind(story: &mut Story, report: &mut Report) -> Result<()> {
    report.say(format!("two clients ask for {URL} all the time, one with a new connection for every request"));
    let visitors = Visitors::start(&story.world, "shop/client", URL)?;
    report.say("kubectl label -n shop service web istio.io/use-waypoint=waypoint");
    let since = Instant::now();
    label(story, Some("waypoint"))?;
    visitors.until_new_ones_come(Way::Through)?;
    let took = since.elapsed();
    let (keeping, coming) = visitors.leave()?;
    report.say(format!("after {:.2} s every new connection went through the waypoint", took.as_secs_f32()));
    report.say(format!("new connections:  {coming}\nthe one that was open before:  {keeping}"));
    let said = story.ask(&[URL])?;
    expect("a page through the waypoint", said.story(), said.stdout.trim() == "web through 200")?;
    report.say(format!("in pod client on n1:  curl {URL}\n  -> {}", said.stdout.trim()));
    Ok(())
}

pub(super) fn leave(story: &mut Story, report: &mut Report) -> Result<()> {
    let visitors = Visitors::start(&story.world, "shop/client", URL)?;
    report.say("kubectl label -n shop service web istio.io/use-waypoint-");
    let since = Instant::now();
    label(story, None)?;
    visitors.until_new_ones_come(Way::Direct)?;
    report.say(format!("after {:.2} s every new connection went directly", since.elapsed().as_secs_f32()));
    report.say("kubectl delete -f waypoint.yaml:  the launcher drains Envoy, then ends it");
    story.mesh.take("shop-waypoint-0")?.stop()?;
    visitors.until_the_kept_one_comes(Way::Direct)?;
    let (keeping, coming) = visitors.leave()?;
    report.say(format!("new connections:  {coming}\nthe one that was open before:  {keeping}"));
    story.world.delete_pod("shop/waypoint-0")?;
    for kind in ["Gateway", "Service"] {
        story.world.objects.remove(kind, "shop", "waypoint")?;
    }
    let said = story.ask(&[URL])?;
    expect("a page without the waypoint", said.story(), said.stdout.trim() == "web direct 200")?;
    story.mesh.check()
}

fn label(story: &mut Story, waypoint: Option<&str>) -> Result<()> {
    story.world.objects.change("Service", "shop", "web", |object| {
        objects::set_label(object, "istio.io/use-waypoint", waypoint);
    })
}
