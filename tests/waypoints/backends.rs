// SPDX-License-Identifier: Apache-2.0
//! Who gets a request: weights, receivers that are none, what is spoken to them, and services outside the mesh.

use anyhow::{Result, ensure};
use harness::{Bed, wait};

use super::cases::{check, hold, http_route, mark, marked, row, with_marked, with_rules};

const OK: &str = "HTTP/1.1 200";
const FAILED: &str = "HTTP/1.1 500";

pub(crate) fn weights(bed: &mut Bed) -> Result<()> {
    let only_web = "[{backendRefs: [{name: two, port: 80, weight: 0}, {name: web, port: 80, weight: 1}]}]";
    with_rules(bed, only_web, |bed| {
        (0..20).try_for_each(|_| check(bed, "demo/client", &row("/", &[OK, "one through"])))
    })?;
    let nobody = "[{backendRefs: [{name: two, port: 80, weight: 0}, {name: web, port: 80, weight: 0}]}]";
    hold(bed, nobody, &[row("/", &[FAILED, "demo/case"])])?;
    hold(bed, "[{matches: [{path: {value: /}}]}]", &[row("/", &[FAILED])])
}

/// Half of 200 requests, outside of these bounds in fewer than one of a million runs.
pub(crate) fn invalid(bed: &mut Bed) -> Result<()> {
    for backend in [
        "{name: nobody, port: 80}",
        "{name: two, port: 81}",
        "{name: foreign, namespace: clients, port: 80}",
        "{group: example.com, kind: Bucket, name: two, port: 80}",
    ] {
        hold(bed, &format!("[{{backendRefs: [{backend}]}}]"), &[row("/", &[FAILED])])?;
    }
    let half = "[{backendRefs: [{name: nobody, port: 80}, {name: two, port: 80}]}]";
    with_rules(bed, half, |bed| {
        let line =
            ["curl", "-s", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}\n", "http://web.demo/?[1-200]"];
        let said = bed.pod("demo/client")?.run_for(&line, wait::LONG_PATIENCE)?.good()?;
        let count = |of: &str| said.lines().filter(|line| *line == of).count();
        let (good, bad) = (count("200"), count("500"));
        ensure!(good + bad == 200 && (65..=135).contains(&bad), "{good} good and {bad} bad answers");
        Ok(())
    })?;
    // A rule that cannot be carried out is answered 500, and its neighbours stand.
    let broken = "[{matches: [{path: {value: /broken}}], filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Filter, name: x}}], \
                    backendRefs: [{name: two, port: 80}]}, {backendRefs: [{name: web, port: 80}]}]";
    hold(bed, broken, &[row("/broken", &[FAILED, "demo/case"]), row("/", &[OK, "one through"])])
}

/// With the other namespace's word for it.
pub(crate) fn granted(bed: &mut Bed) -> Result<()> {
    let mark = mark();
    let route = http_route(
        "demo",
        "case",
        &format!("[{}, {{backendRefs: [{{name: foreign, namespace: clients, port: 80}}]}}]", marked(&mark)),
    );
    let grant = "{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {namespace: clients, name: g}, spec: {\
                  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: demo}], to: [{group: '', kind: Service}]}}";
    with_marked(bed, "demo/client", &mark, &[grant, &route].join("\n---\n"), |bed| {
        super::eventually("the grant", || check(bed, "demo/client", &row("/", &[OK, "four through"])))
    })
}

/// The answer to an upgrade, and what comes and goes behind it.
pub(crate) fn websocket(bed: &mut Bed) -> Result<()> {
    let script = "import socket
with socket.create_connection(('web.demo', 80), timeout=20) as stream:
    stream.sendall(b'GET /chat HTTP/1.1\\r\\nhost: web.demo\\r\\nconnection: upgrade\\r\\nupgrade: websocket\\r\\nsec-websocket-version: 13\\r\\n'
                   b'sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n')
    head = b''
    while b'\\r\\n\\r\\n' not in head:
        head += stream.recv(1)
    print(head.decode().lower())
    for word in (b'one', b'two'):
        stream.sendall(word)
        print(stream.recv(1024).decode())";
    for rules in [None, Some("[{backendRefs: [{name: two, port: 80}]}]")] {
        let talk = |bed: &Bed| {
            let said = bed.pod("demo/client")?.run(&["python3", "-c", script])?.good()?;
            let has = |wanted: &str| said.contains(wanted);
            ensure!(
                has("101 switching") && has("s3pplmbitxaq9kygzzhzrbk+xoo=") && said.ends_with("one\ntwo\n"),
                "{said}"
            );
            Ok(())
        };
        match rules {
            None => talk(bed)?,
            Some(rules) => with_rules(bed, rules, talk)?,
        }
    }
    Ok(())
}

/// The client speaks HTTP/1.1, or HTTP/2 without TLS; so does the server, as its port declares.
pub(crate) fn cleartext_http2(bed: &mut Bed) -> Result<()> {
    // The server is one of gRPC, and as such knows HTTP/2 only; it refuses what is not gRPC in its own words.
    let to_http2 = "[{backendRefs: [{name: h2c, port: 80}]}]";
    with_rules(bed, to_http2, |bed| {
        let asked = "-X POST -H content-type:application/grpc /test.Echo/Say";
        check(bed, "demo/client", &row(asked, &[OK, "content-type: application/grpc\r\n"]))?;
        check(bed, "demo/client", &row("/", &["grpc-status: 12"]))
    })?;
    let version = |url: &str, flag: &str| -> Result<String> {
        let line = ["curl", "-sS", "--max-time", "10", flag, "-w", "%{http_version} %{http_code}", url];
        bed.pod("demo/client")?.run(&line)?.good()
    };
    let features = bed.pod("demo/client")?.run(&["curl", "--version"])?.good()?;
    ensure!(features.contains("HTTP2"), "this machine's curl has no HTTP/2");
    let said = version("http://web.demo/", "--http2-prior-knowledge")?;
    ensure!(said == "one through\n2 200", "HTTP/2 to a server of HTTP/1.1: {said}");
    // And where nothing is declared: what the client speaks is found out, and spoken to the server.
    let said = version("http://open.demo/", "--http1.1")?;
    ensure!(said == "one through\n1.1 200", "HTTP/1.1 on an undeclared port: {said}");
    Ok(())
}

/// A host outside that is served at a pod: requests for it follow its own routes, and routes of services lead to it.
pub(crate) fn outside(bed: &mut Bed) -> Result<()> {
    let (of_entry_mark, own) = (mark(), mark());
    let entry = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {namespace: demo, name: outside, labels: {istio.io/use-waypoint: waypoint}}, \
                  spec: {hosts: [api.example.com, more.example.com], addresses: [240.240.0.1], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], \
                  workloadSelector: {labels: {app: three}}}}";
    let of_entry = format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{namespace: demo, name: entry}}, spec: {{\
         parentRefs: [{{group: networking.istio.io, kind: ServiceEntry, name: outside}}], rules: [{}, \
         {{matches: [{{path: {{value: /two}}}}], backendRefs: [{{name: two, port: 80}}]}}, \
         {{backendRefs: [{{group: networking.istio.io, kind: Hostname, name: api.example.com, port: 80}}]}}]}}}}",
        marked(&of_entry_mark)
    );
    let by_host =
        |host: &str| format!("backendRefs: [{{group: networking.istio.io, kind: Hostname, name: {host}, port: 80}}]");
    let rules = format!(
        "[{}, {{matches: [{{path: {{value: /more}}}}], {}}}, {{{}}}]",
        marked(&own),
        by_host("more.example.com"),
        by_host("api.example.com")
    );
    let to_entry = http_route("demo", "case", &rules);
    with_marked(bed, "demo/client", &own, &[entry, &of_entry, &to_entry].join("\n---\n"), |bed| {
        check(bed, "demo/client", &row("/", &[OK, "three through"]))?;
        check(bed, "demo/client", &row("/more", &[OK, "three through"]))?;
        let direct = |path: &str| -> Result<String> {
            let url = format!("http://240.240.0.1{path}");
            bed.pod("demo/client")?.run(&["curl", "-sS", "-i", "--max-time", "10", &url])?.good()
        };
        super::eventually("the route of the ServiceEntry", || {
            let said = direct(&of_entry_mark)?;
            ensure!(said.starts_with("HTTP/1.1 302"), "{said}");
            Ok(())
        })?;
        let (two, itself) = (direct("/two")?, direct("/")?);
        ensure!(two.contains("two through") && itself.contains("three through"), "{two}{itself}");
        Ok(())
    })
}
