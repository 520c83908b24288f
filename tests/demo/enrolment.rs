// SPDX-License-Identifier: Apache-2.0
//! The first act: traffic of programs that know nothing of a mesh, before, in and after it.

use anyhow::{Context, Result};
use harness::{
    capture::Caught,
    process::{Dialogue, Said},
    tools,
};

use crate::{
    report::{LeftOut, Report, Step, expect},
    story::Story,
};

const OBJECTS: &str = include_str!("enrolment.yaml");
const REDIS: &str = include_str!("redis.yaml");
const POLICY: &str = include_str!("policy.yaml");

/// What the web server serves, and a listener on the wire must not see.
const SECRET: &str = "the secret recipe of the demo";
const URL: &str = "http://web.demo:8080/";

/// Connections that outlive steps.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    before: Option<Dialogue>,
    within: Option<Dialogue>,
}

/// The steps in order.
pub(crate) const STEPS: &[Step<Story>] = &[
    Step { title: "Start some pods, outside the mesh", act: start_pods, logs: &["n1-agent", "n2-agent"] },
    Step { title: "Outside the mesh, a listener reads everything", act: plaintext, logs: &["pod-demo-web"] },
    Step { title: "Open a connection that shall outlive what follows", act: open_before, logs: &["pod-demo-web"] },
    Step {
        title: "Label the namespace: its running pods join the mesh",
        act: enrol,
        logs: &["n1-agent", "n2-agent", "n1-ztunnel", "n2-ztunnel", "control"],
    },
    Step {
        title: "The same request, now encrypted and identified",
        act: encrypted,
        logs: &["n1-ztunnel", "n2-ztunnel"],
    },
    Step {
        title: "The connection opened before is still alive",
        act: survived_enrolment,
        logs: &["n1-agent", "n1-ztunnel"],
    },
    Step {
        title: "Redis behind a Service address and a named port",
        act: redis,
        logs: &["n1-ztunnel", "n2-ztunnel", "control"],
    },
    Step { title: "A policy denies one client, and says why", act: policy, logs: &["n2-ztunnel", "control"] },
    Step {
        title: "Take the label away: the pods leave the mesh",
        act: release,
        logs: &["n1-agent", "n2-agent", "control"],
    },
    Step {
        title: "Connections from before and within outlived that too",
        act: survived_release,
        logs: &["n1-agent", "n1-ztunnel", "n2-ztunnel"],
    },
    Step {
        title: "Outside the mesh again, in the clear again",
        act: plaintext_again,
        logs: &["n1-ztunnel", "n2-ztunnel"],
    },
];

impl Story {
    fn curl(&self, from: &str) -> Result<Said> {
        self.world.pod(from)?.run(&["curl", "-sS", "--max-time", "10", URL])
    }

    /// Fetches the page as `demo/client` while listening on the wire.
    fn fetch(&self, report: &mut Report) -> Result<Caught> {
        report.say(format!("in pod client on n1:  curl {URL}"));
        let capture = self.world.listen()?;
        let said = self.curl("demo/client")?;
        let caught = capture.stop()?;
        expect(format!("the page with {SECRET:?}"), said.story(), said.is_good() && said.stdout.contains(SECRET))?;
        report.say(format!("  -> {}", said.stdout.trim()));
        report.say(format!("on the wire between the nodes: {}", caught.summary()));
        Ok(caught)
    }
}

fn start_pods(story: &mut Story, report: &mut Report) -> Result<()> {
    story.world.apply(OBJECTS)?;
    if tools::REDIS_SERVER.find().is_some() && tools::REDIS_CLI.find().is_some() {
        story.world.apply(REDIS)?;
    }
    for pod in story.world.pods() {
        report.say(format!("{}/{:<9} on {}  {}  {}", pod.namespace, pod.name, pod.node, pod.v4, pod.v6));
    }
    story.mesh.settle(&story.world)
}

fn plaintext(story: &mut Story, report: &mut Report) -> Result<()> {
    let caught = story.fetch(report)?;
    expect("the page readable on the wire", caught.summary(), caught.contains(SECRET.as_bytes()))?;
    report.say(format!("the listener read {SECRET:?}"));
    Ok(())
}

fn open(story: &Story) -> Result<Dialogue> {
    let web = format!("{}:9000", story.world.pod("demo/web")?.v4);
    let mut dialogue = story.world.pod("demo/client")?.talk(&["peer", "talk", &web])?;
    dialogue.hear().context("open a connection from client to web")?;
    Ok(dialogue)
}

fn ask(dialogue: Option<&mut Dialogue>, report: &mut Report, which: &str) -> Result<()> {
    let answer = dialogue.context("the connection was never opened")?.ask("still there?")?;
    expect("the server to echo \"still there?\"", &answer, answer == "still there?")?;
    report.say(format!("the connection from {which} still answers"));
    Ok(())
}

fn open_before(story: &mut Story, report: &mut Report) -> Result<()> {
    story.connections.before = Some(open(story)?);
    ask(story.connections.before.as_mut(), report, "just now")
}

fn enrol(story: &mut Story, report: &mut Report) -> Result<()> {
    report.say("kubectl label namespace demo istio.io/dataplane-mode=ambient");
    story.world.label_namespace("demo", "istio.io/dataplane-mode", Some("ambient"))?;
    story.mesh.settle(&story.world)?;
    for pod in story.world.pods() {
        report.say(format!("{}/{:<9} ambient.istio.io/redirection: enabled", pod.namespace, pod.name));
    }
    Ok(())
}

fn encrypted(story: &mut Story, report: &mut Report) -> Result<()> {
    let marks = (story.mesh.mark("n1")?, story.mesh.mark("n2")?);
    let caught = story.fetch(report)?;
    expect("no trace of the page on the wire", caught.summary(), !caught.contains(SECRET.as_bytes()))?;
    expect("an HBONE tunnel on port 15008", caught.summary(), caught.bytes_on(15008) > 0)?;
    expect("nothing on the server's own port", caught.summary(), caught.bytes_on(8080) == 0)?;
    report.say("the listener found no trace of the page: it went through a tunnel with mutual TLS");
    let outbound =
        story.mesh.connection("n1", marks.0, |line| line.is_outbound() && line.field("src.workload") == "client")?;
    let inbound =
        story.mesh.connection("n2", marks.1, |line| !line.is_outbound() && line.field("dst.workload") == "web")?;
    let wanted =
        ("spiffe://cluster.local/ns/demo/sa/client".to_owned(), "spiffe://cluster.local/ns/demo/sa/web".to_owned());
    for (node, line) in [("n1", &outbound), ("n2", &inbound)] {
        expect(format!("both identities in the access log of {node}"), line, line.identities() == wanted)?;
        report.detail(line);
    }
    report
        .say(format!("access log of both proxies:  from {}\n                               to {}", wanted.0, wanted.1));
    Ok(())
}

fn survived_enrolment(story: &mut Story, report: &mut Report) -> Result<()> {
    ask(story.connections.before.as_mut(), report, "before the mesh")?;
    story.connections.within = Some(open(story)?);
    ask(story.connections.within.as_mut(), report, "within the mesh")
}

fn redis(story: &mut Story, report: &mut Report) -> Result<()> {
    if story.world.pod("demo/redis").is_err() {
        return Err(LeftOut(format!("redis is not installed (Debian package {})", tools::REDIS_CLI.package)).into());
    }
    let mark = story.mesh.mark("n2")?;
    let capture = story.world.listen()?;
    let client = story.world.pod("demo/client")?;
    let set = client.run(&["redis-cli", "-h", "redis.demo", "set", "recipe", SECRET])?;
    let found = client.run(&["redis-cli", "-h", "redis.demo", "get", "recipe"])?;
    let caught = capture.stop()?;
    expect("OK from redis-cli set", set.story(), set.is_good() && set.stdout.trim() == "OK")?;
    expect(format!("{SECRET:?} from redis-cli get"), found.story(), found.stdout.trim() == SECRET)?;
    expect(
        "no trace of it on the wire",
        caught.summary(),
        !caught.contains(SECRET.as_bytes()) && caught.bytes_on(15008) > 0,
    )?;
    report.say("in pod client on n1:  redis-cli -h redis.demo set recipe ...;  redis-cli -h redis.demo get recipe");
    report.say(format!("  -> {}", found.stdout.trim()));
    report.say(format!("on the wire between the nodes: {}", caught.summary()));
    let line = story.mesh.connection("n2", mark, |line| line.field("dst.workload") == "redis")?;
    report.say(format!("access log: service {}, from {}", line.field("dst.service"), line.field("src.identity")));
    report.detail(line);
    Ok(())
}

fn policy(story: &mut Story, report: &mut Report) -> Result<()> {
    let before = story.curl("demo/intruder")?;
    expect("the intruder to be served without a policy", before.story(), before.is_good())?;
    report.say("kubectl apply -f policy.yaml:  DENY from cluster.local/ns/demo/sa/intruder to app: web");
    story.world.apply(POLICY)?;
    story.mesh.await_policies(&story.world, "demo", &["no-intruders"])?;
    let mark = story.mesh.mark("n2")?;
    let denied = story.curl("demo/intruder")?;
    expect("the intruder to be refused", denied.story(), !denied.is_good())?;
    report.say(format!("in pod intruder:  curl {URL}\n  -> {}", denied.stderr.trim()));
    let line = story
        .mesh
        .connection("n2", mark, |line| line.field("src.workload") == "intruder" && !line.field("error").is_empty())?;
    let reason = line.field("error");
    expect("the policy's name in the reason", &line, reason.contains("no-intruders"))?;
    report.say(format!("access log of n2: {reason}"));
    let served = story.curl("demo/client")?;
    expect("the client to be served as before", served.story(), served.is_good())?;
    report.say("in pod client the same curl is served as before");
    Ok(())
}

fn release(story: &mut Story, report: &mut Report) -> Result<()> {
    report.say("kubectl label namespace demo istio.io/dataplane-mode-");
    story.world.label_namespace("demo", "istio.io/dataplane-mode", None)?;
    story.mesh.settle(&story.world)
}

fn survived_release(story: &mut Story, report: &mut Report) -> Result<()> {
    ask(story.connections.before.as_mut(), report, "before the mesh")?;
    ask(story.connections.within.as_mut(), report, "within the mesh")
}

fn plaintext_again(story: &mut Story, report: &mut Report) -> Result<()> {
    let caught = story.fetch(report)?;
    expect(
        "the page readable on the wire",
        caught.summary(),
        caught.contains(SECRET.as_bytes()) && caught.bytes_on(8080) > 0,
    )?;
    story.mesh.check()
}
