// SPDX-License-Identifier: Apache-2.0
//! What a waypoint tells of requests: its access log in both forms, metrics, spans.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, anyhow, ensure};
use harness::{Bed, http};

use super::{
    eventually,
    security::{Ask, ID, LOG_JSON, logged, set_up},
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const CLIENT: &str = "spiffe://cluster.local/ns/demo/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/demo/sa/web";

const COLLECTOR: &str = "
apiVersion: v1
kind: Service
metadata: {namespace: demo, name: collector}
spec:
  clusterIP: 10.96.0.22
  selector: {app: collector}
  ports: [{name: grpc, port: 4317, appProtocol: grpc}]
---
apiVersion: v1
kind: Pod
metadata: {namespace: demo, name: collector, labels: {app: collector}}
spec:
  nodeName: n1
  serviceAccountName: collector
  containers: [{name: collector, command: [peer, collect, '4317'], ports: [{containerPort: 4317}]}]
";

pub(crate) fn log(bed: &mut Bed) -> Result<()> {
    set_up(bed)?;
    let asked = Ask::path("/told?a=b").with(&format!("traceparent: {PARENT}")).now(bed, "200")?;
    ensure!(asked.body.contains(&format!("traceparent: {PARENT}")), "trace context goes on as it came: {}", asked.body);
    let line = logged(bed, &asked)?;
    let fields = [
        ("source_identity", CLIENT),
        ("destination_identity", SERVER),
        ("route_name", "default"),
        ("response_flags", "-"),
        ("method", "GET"),
        ("path", "/told?a=b"),
        ("traceparent", PARENT),
        ("authority", "10.96.0.20"),
    ];
    for (name, value) in fields {
        ensure!(line[name] == value, "{name} should be {value:?} in {line}");
    }
    ensure!(line["response_code"] == 200, "{line}");
    let source = bed.pod("demo/client")?.v4.to_string();
    ensure!(line["downstream_remote_address"].as_str().is_some_and(|from| from.starts_with(&source)), "{line}");
    let missing = Ask::url("http://10.96.0.20:81/").now(bed, "200")?;
    logged(bed, &missing).context("the other port")?;

    // The same as a line of text, and as one of the operator's own.
    let line_of = |bed: &Bed, wanted: &[&str]| {
        eventually(&format!("a line with {wanted:?}"), || {
            let asked = Ask::path("/told").now(bed, "200")?;
            let log = bed.mesh.program("demo-waypoint-0")?.output();
            let has = |line: &&str| line.contains(&asked.id) && wanted.iter().all(|one| line.contains(one));
            // The log is written once a second.
            harness::wait::pass(std::time::Duration::from_millis(300));
            let later = bed.mesh.program("demo-waypoint-0")?.output();
            log.lines().chain(later.lines()).find(has).map(drop).ok_or_else(|| anyhow!("none of {}", asked.id))
        })
    };
    bed.mesh.configure("accessLogFile: /dev/stdout")?;
    line_of(bed, &["\"GET /told HTTP/1.1\" 200 - via_upstream", CLIENT, SERVER, "default"])?;
    bed.mesh.configure("{accessLogFile: /dev/stdout, accessLogFormat: 'OWN %REQ(X-REQUEST-ID)% %RESPONSE_CODE%'}")?;
    line_of(bed, &["OWN 00000000-", " 200"])?;
    // What Envoy would not take never reaches it, and is told.
    bed.mesh.configure("{accessLogFile: /dev/stdout, accessLogFormat: 'BAD %NO_SUCH%'}")?;
    eventually("the control plane to refuse a format", || {
        let said = bed.mesh.program("control")?.output();
        ensure!(said.contains("NO_SUCH") && said.contains("the last good state stands"), "nothing said");
        Ok(())
    })?;
    line_of(bed, &["OWN 00000000-", " 200"])?;
    bed.mesh.configure(LOG_JSON)
}

pub(crate) fn metrics(bed: &mut Bed) -> Result<()> {
    set_up(bed)?;
    let path = "/counted";
    for _ in 0..3 {
        Ask::path(path).now(bed, "200")?;
    }
    let scraped = |bed: &Bed| -> Result<String> {
        let pod = bed.pod("demo/waypoint-0")?;
        let page = http::fetch(&pod.netns, "GET", SocketAddr::from((Ipv4Addr::LOCALHOST, 15090)), "/stats/prometheus")?;
        ensure!(page.status == 200, "{page:?}");
        Ok(page.body)
    };
    let wanted = [
        format!("source_principal=\"{CLIENT}\""),
        format!("destination_principal=\"{SERVER}\""),
        "destination_workload=\"echo\"".to_owned(),
        "destination_workload_namespace=\"demo\"".to_owned(),
        "destination_service=\"echo.demo.svc.cluster.local\"".to_owned(),
        "destination_service_name=\"echo\"".to_owned(),
        "destination_service_namespace=\"demo\"".to_owned(),
        "reporter=\"waypoint\"".to_owned(),
        "request_protocol=\"http\"".to_owned(),
        "response_code=\"200\"".to_owned(),
        "connection_security_policy=\"mutual_tls\"".to_owned(),
    ];
    // Histograms are gathered every five seconds.
    eventually("Istio's metrics of requests", || {
        let page = scraped(bed)?;
        for name in ["istio_requests_total{", "istio_request_duration_milliseconds_count{"] {
            let lines = || page.lines().filter(|line| line.starts_with(name));
            let full = lines().find(|line| wanted.iter().all(|label| line.contains(label)));
            let full = full.with_context(|| format!("{name} with all labels in {:?}", lines().collect::<Vec<_>>()))?;
            let count: f64 = full.rsplit(' ').next().unwrap_or_default().parse()?;
            ensure!(count >= 3.0, "{full}");
        }
        ensure!(page.contains("envoy_cluster_upstream_rq_total"), "Envoy's own are there, too");
        Ok(())
    })?;
    bed.mesh.configure(&format!("{LOG_JSON}defaultProviders: {{metrics: []}}\n"))?;
    eventually("requests that are not counted", || {
        let count = |page: &str| {
            page.lines().filter(|line| line.starts_with("istio_requests_total{")).map(str::to_owned).collect::<Vec<_>>()
        };
        let before = count(&scraped(bed)?);
        Ask::path(path).now(bed, "200")?;
        let after = count(&scraped(bed)?);
        ensure!(before == after, "{after:?}");
        Ok(())
    })?;
    bed.mesh.configure(LOG_JSON)
}

pub(crate) fn spans(bed: &mut Bed) -> Result<()> {
    set_up(bed)?;
    bed.apply(COLLECTOR)?;
    let config = |more: &str| {
        format!(
            "{LOG_JSON}extensionProviders: [{{name: otel, opentelemetry: {{service: collector.demo.svc.cluster.local, port: 4317}}}}]\n{more}"
        )
    };
    bed.mesh.configure(&config("enableTracing: true\ndefaultConfig: {tracing: {sampling: 100}}\n"))?;
    let with = |parent: &str| Ask::path("/traced").with(&format!("traceparent: {parent}"));
    eventually("a span at the collector", || {
        let asked = with(PARENT).now(bed, "200")?;
        let sent =
            asked.body.lines().find_map(|line| line.strip_prefix("traceparent: ")).context("no trace context")?;
        // The same trace, and the waypoint's span as the parent.
        ensure!(sent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && sent != PARENT, "{sent}");
        harness::wait::pass(std::time::Duration::from_millis(500));
        let exported = bed.pod("demo/collector")?.output();
        for text in ["opentelemetry.proto.collector.trace", "waypoint.demo", "guid:x-request-id", ID] {
            ensure!(exported.contains(text), "{text:?} is not among what was exported: {exported:.300}");
        }
        Ok(())
    })?;
    let traced = Ask::path("/traced").now(bed, "200")?;
    ensure!(traced.body.contains("traceparent: 00-"), "a trace begins here: {}", traced.body);
    ensure!(logged(bed, &traced)?["trace_id"].as_str().is_some_and(|id| id.len() == 32), "the log names the trace");
    bed.mesh.configure(&config("enableTracing: false\n"))?;
    eventually("no trace to begin", || {
        let asked = Ask::path("/traced").now(bed, "200")?;
        ensure!(!asked.body.contains("traceparent"), "{}", asked.body);
        Ok(())
    })?;
    bed.mesh.configure(LOG_JSON)
}
