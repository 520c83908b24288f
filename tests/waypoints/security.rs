// SPDX-License-Identifier: Apache-2.0
//! Tokens, authorizers and every attribute of policies, against the real Envoy: what passes, what does not, and the reason in Envoy's access log.

#[path = "security/attributes.rs"]
pub(crate) mod attributes;
#[path = "security/authorizers.rs"]
pub(crate) mod authorizers;
#[path = "security/issuer.rs"]
mod issuer;
#[path = "security/order.rs"]
pub(crate) mod order;
#[path = "security/tokens.rs"]
pub(crate) mod tokens;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use harness::{Bed, objects, wait};
use serde_json::Value;

use super::eventually;

/// The service that shows what it was asked.
const ECHO: &str = "http://10.96.0.20";
pub(crate) const LOG_JSON: &str = "accessLogFile: /dev/stdout\naccessLogEncoding: JSON\n";

/// What the ends of all ids begin with.
pub(crate) const ID: &str = "a5c";

const OBJECTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: other, labels: {istio.io/dataplane-mode: ambient}}}
---
apiVersion: v1
kind: Service
metadata: {namespace: demo, name: echo, labels: {istio.io/use-waypoint: waypoint}}
spec:
  clusterIP: 10.96.0.20
  selector: {app: echo}
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}, {name: http-two, port: 81, targetPort: 8080, appProtocol: http}]
---
apiVersion: v1
kind: Service
metadata: {namespace: demo, name: authz}
spec:
  clusterIP: 10.96.0.21
  selector: {app: authz}
  ports: [{name: http, port: 8000, appProtocol: http}, {name: grpc, port: 9000, appProtocol: grpc}, {name: closed, port: 9999, appProtocol: http}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: echo, labels: {app: echo}}
spec:
  nodeName: n2
  serviceAccountName: web
  containers: [{name: echo, command: [python3, -c, SERVER, echo, '8080'], ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: authz, labels: {app: authz}}
spec:
  nodeName: n1
  serviceAccountName: authz
  containers:
  - {name: http, command: [python3, -c, SERVER, authorize, '8000'], ports: [{containerPort: 8000}]}
  - {name: grpc, command: [peer, authorize, '9000'], ports: [{containerPort: 9000}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: other, name: visitor}
spec: {nodeName: n1, serviceAccountName: visitor}
";

/// Starts what these tests need beside the rest, once, and has an access log written.
pub(crate) fn set_up(bed: &mut Bed) -> Result<()> {
    if bed.pod("demo/echo").is_err() {
        bed.apply(&OBJECTS.replace("SERVER", &server()?))?;
    }
    bed.mesh.configure(LOG_JSON)?;
    eventually("a logged request through the waypoint", || {
        let asked = Ask::path("/").from("demo/client").send(bed)?;
        ensure!(asked.status == "200" && asked.body.contains("x-request-id"), "{asked:?}");
        logged_soon(bed, &asked).map(drop)
    })
}

fn server() -> Result<String> {
    Ok(serde_json::to_string(include_str!("security.py"))?)
}

/// A request to make.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    from: String,
    url: String,
    arguments: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) id: String,
    status: String,
    pub(crate) body: String,
    headers: String,
}

impl Ask {
    pub(crate) fn path(path: &str) -> Self {
        Self { from: "demo/client".into(), url: format!("{ECHO}{path}"), arguments: Vec::new() }
    }

    pub(crate) fn url(url: &str) -> Self {
        Self { url: url.into(), ..Self::path("") }
    }

    fn from(mut self, pod: &str) -> Self {
        self.from = pod.to_owned();
        self
    }

    pub(crate) fn with(mut self, header: &str) -> Self {
        self.arguments.extend(["-H".to_owned(), header.to_owned()]);
        self
    }

    fn method(mut self, method: &str) -> Self {
        self.arguments.extend(["-X".to_owned(), method.to_owned()]);
        self
    }

    fn bearer(self, token: &str) -> Self {
        self.with(&format!("authorization: Bearer {token}"))
    }

    /// Each with an id of its own, by the end of which the access log is searched. It is a UUID, for Envoy keeps its mind about spans in one.
    pub(crate) fn send(&self, bed: &Bed) -> Result<Asked> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let id = format!("{ID}{:09x}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let header = format!("x-request-id: 00000000-0000-4000-8000-{id}");
        let mut line = vec![
            "curl",
            "-sS",
            "--path-as-is",
            "--max-time",
            "20",
            "-D",
            "/dev/stderr",
            "-w",
            "\n%{http_code}",
            "-H",
            &header,
        ];
        line.extend(self.arguments.iter().map(String::as_str));
        line.push(&self.url);
        let said = bed.pod(&self.from)?.run(&line)?;
        ensure!(said.is_good(), "{}", said.story());
        let (body, status) = said.stdout.rsplit_once('\n').context("no status")?;
        Ok(Asked { id, status: status.to_owned(), body: body.to_owned(), headers: said.stderr.clone() })
    }

    /// Sends it until it is answered so.
    fn until(&self, bed: &Bed, status: &str) -> Result<Asked> {
        let mut last = None;
        eventually(&format!("{self:?} to be answered {status}"), || {
            let asked = self.send(bed)?;
            let is_right = asked.status == status;
            let seen = format!("{asked:?}");
            last = Some(asked);
            ensure!(is_right, "{seen}");
            Ok(())
        })?;
        last.context("nothing was asked")
    }

    /// Sends it until it is answered so for this reason.
    fn until_reason(&self, bed: &Bed, status: &str, details: &str) -> Result<()> {
        eventually(&format!("{self:?} to be answered {status} for {details}"), || {
            let line = logged_soon(bed, &self.now(bed, status)?)?;
            has_details(&line, details)
        })
    }

    /// Sends it once.
    pub(crate) fn now(&self, bed: &Bed, status: &str) -> Result<Asked> {
        let asked = self.send(bed)?;
        ensure!(asked.status == status, "{self:?} should be answered {status}: {asked:?}");
        Ok(asked)
    }
}

/// The line of the waypoint's access log about a request, once it is written, which happens every second.
pub(crate) fn logged(bed: &Bed, asked: &Asked) -> Result<Value> {
    logged_within(bed, asked, harness::mesh::SETTLING)
}

/// The same where it is not sure yet that there is a log at all.
pub(crate) fn logged_soon(bed: &Bed, asked: &Asked) -> Result<Value> {
    logged_within(bed, asked, Duration::from_secs(2))
}

fn logged_within(bed: &Bed, asked: &Asked, patience: Duration) -> Result<Value> {
    let found = || {
        let log = bed.mesh.program("demo-waypoint-0")?.output();
        let lines = log.lines().filter(|line| line.contains(&asked.id) && line.starts_with('{'));
        let mut lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines
            .find(|line| line["request_id"].as_str().is_some_and(|id| id.ends_with(&asked.id)))
            .ok_or_else(|| anyhow!("no line of {}", asked.id))
    };
    wait::until("a line of the waypoint's access log", patience, found)
}

/// The details of a refusal, in the log.
fn reason(bed: &Bed, asked: &Asked, wanted: &str) -> Result<()> {
    has_details(&logged(bed, asked)?, wanted)
}

fn has_details(line: &Value, wanted: &str) -> Result<()> {
    let details = line["response_code_details"].as_str().unwrap_or_default();
    ensure!(details.contains(wanted), "expected {wanted:?} in the details of {line}");
    Ok(())
}

/// With objects in force for the length of `check`, which waits for them.
fn with_objects(bed: &mut Bed, yaml: &str, check: impl FnOnce(&Bed) -> Result<()>) -> Result<()> {
    let all = objects::parse(yaml)?;
    let keys = all.iter().map(objects::key).collect::<Result<Vec<_>>>()?;
    for object in all {
        bed.world.put(object)?;
    }
    let checked = check(bed);
    for (kind, namespace, name) in keys {
        bed.world.objects.remove(&kind, &namespace, &name)?;
    }
    checked
}

/// A policy of the echo service.
fn policy(name: &str, spec: &str) -> String {
    annotated(name, "", spec)
}

fn annotated(name: &str, annotations: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{namespace: demo, name: {name}, annotations: {{{annotations}}}}}, \
         spec: {{targetRefs: [{{group: '', kind: Service, name: echo}}], {spec}}}}}\n"
    )
}

/// Tokens of the echo service.
fn authentication(name: &str, rules: &str) -> String {
    format!(
        "---\n{{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {{namespace: demo, name: {name}}}, \
         spec: {{targetRefs: [{{group: '', kind: Service, name: echo}}], jwtRules: [{rules}]}}}}\n"
    )
}
