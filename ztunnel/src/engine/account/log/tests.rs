// SPDX-License-Identifier: Apache-2.0
//! Lines as Istio's proxy wrote them, recorded on 2026-11-21.

use std::sync::Mutex;

use mesh_proto::spiffe::Identity;

use super::*;
use crate::mesh::Workload;

const RECORDED: &str = r#"{"level":"info","time":"2026-11-21T05:14:49.790380Z","scope":"access","message":"connection complete","src.addr":"10.77.1.2:50694","src.workload":"client","src.namespace":"default","src.identity":"spiffe://cluster.local/ns/default/sa/client","src.cluster":"Kubernetes","dst.addr":"10.77.2.3:15008","dst.hbone_addr":"10.77.2.3:8080","dst.workload":"peer","dst.namespace":"default","dst.identity":"spiffe://cluster.local/ns/default/sa/peer","dst.cluster":"Kubernetes","direction":"outbound","bytes_sent":5,"bytes_recv":5,"duration":"47ms"}"#;
const RECORDED_ERROR: &str = r#"{"level":"error","time":"2026-11-21T05:14:56.815871Z","scope":"access","message":"connection complete","src.addr":"10.77.2.3:48620","src.workload":"peer","src.namespace":"default","src.identity":"spiffe://cluster.local/ns/default/sa/peer","src.cluster":"Kubernetes","dst.addr":"10.77.2.2:15008","dst.hbone_addr":"10.77.2.2:9","dst.workload":"server","dst.namespace":"default","dst.identity":"spiffe://cluster.local/ns/default/sa/server","dst.cluster":"Kubernetes","direction":"inbound","bytes_sent":0,"bytes_recv":0,"duration":"0ms","error":"connection failed: Connection refused (os error 111)"}"#;
const RECORDED_DENIED: &str = r#"{"level":"warn","time":"2026-11-21T05:15:04.046688Z","scope":"access","message":"connection failed","src.addr":"10.77.1.2:25812","dst.addr":"10.96.5.5:80","direction":"outbound","error":"no healthy upstream: 10.96.5.5:80"}"#;

fn log(format: Format, put: impl FnOnce(&mut LogBuffer)) -> String {
    let written = Arc::new(Mutex::new(Vec::new()));
    let into = written.clone();
    let write = Arc::new(move |bytes: &[u8], _: u64| into.lock().unwrap().extend_from_slice(bytes));
    let mut buffer = LogBuffer::new(AccessLog { format, is_enabled: Arc::new(|level| level <= Level::INFO), write });
    put(&mut buffer);
    buffer.flush();
    let bytes = written.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn workload(name: &str) -> Party {
    let yaml = format!("{{name: {name}, namespace: default, workloadIps: [], services: {{}}, clusterId: Kubernetes}}");
    let parsed: Workload = serde_saphyr::from_str(&yaml).unwrap();
    Party::Workload(Arc::new(parsed.complete().unwrap()))
}

fn identity(name: &str) -> Option<Identity> {
    Some(Identity::new("cluster.local", "default", name).unwrap())
}

fn traffic(source: &str, destination: &str) -> Traffic {
    Traffic {
        source: workload(source),
        source_identity: identity(source),
        destination: workload(destination),
        destination_identity: identity(destination),
        service: None,
        security: Security::MutualTls,
    }
}

fn complete<'a>(traffic: &'a Traffic, authority: &'a Authority) -> Complete<'a> {
    Complete {
        reporter: Reporter::Source,
        source: "10.77.1.2:50694".parse().unwrap(),
        destination: "10.77.2.3:15008".parse().unwrap(),
        authority: Some(authority),
        traffic,
        received: 5,
        sent: 5,
        duration: Duration::from_micros(47_900),
        error: None,
    }
}

fn at(seconds: u64, micros: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(seconds, micros * 1000)
}

#[test]
fn a_complete_connection_is_logged_as_istio_logs_it() {
    let (traffic, authority) = (traffic("client", "peer"), "10.77.2.3:8080".parse().unwrap());
    let line = log(Format::Json, |log| log.complete(at(1_795_238_089, 790_380), &complete(&traffic, &authority)));
    assert_eq!(line.trim_end(), RECORDED);
}

#[test]
fn a_failed_connection_is_logged_as_istio_logs_it() {
    let (traffic, authority) = (traffic("peer", "server"), "10.77.2.2:9".parse().unwrap());
    let what = Complete {
        reporter: Reporter::Destination,
        source: "10.77.2.3:48620".parse().unwrap(),
        destination: "10.77.2.2:15008".parse().unwrap(),
        received: 0,
        sent: 0,
        duration: Duration::ZERO,
        error: Some("connection failed: Connection refused (os error 111)"),
        ..complete(&traffic, &authority)
    };
    let line = log(Format::Json, |log| log.complete(at(1_795_238_096, 815_871), &what));
    assert_eq!(line.trim_end(), RECORDED_ERROR);
}

#[test]
fn an_early_denial_is_logged_as_istio_logs_it() {
    let line = Denied {
        reporter: Reporter::Source,
        source: "10.77.1.2:25812".parse().unwrap(),
        destination: "10.96.5.5:80".parse().unwrap(),
        error: "no healthy upstream: 10.96.5.5:80",
    };
    let line = log(Format::Json, |log| log.denied(at(1_795_238_104, 46_688), &line));
    assert_eq!(line.trim_end(), RECORDED_DENIED);
}

#[test]
fn a_plain_line_quotes_texts_only() {
    let (traffic, authority) = (traffic("client", "peer"), "10.77.2.3:8080".parse().unwrap());
    let line = log(Format::Plain, |log| log.complete(at(0, 1), &complete(&traffic, &authority)));
    let expected = "1970-01-01T00:00:00.000001Z\tinfo\taccess\tconnection complete\tsrc.addr=10.77.1.2:50694 src.workload=\"client\" \
                    src.namespace=\"default\" src.identity=\"spiffe://cluster.local/ns/default/sa/client\" src.cluster=\"Kubernetes\" \
                    dst.addr=10.77.2.3:15008 dst.hbone_addr=10.77.2.3:8080 dst.workload=\"peer\" dst.namespace=\"default\" \
                    dst.identity=\"spiffe://cluster.local/ns/default/sa/peer\" dst.cluster=\"Kubernetes\" direction=\"outbound\" \
                    bytes_sent=5 bytes_recv=5 duration=\"47ms\"\n";
    assert_eq!(line, expected);
}

#[test]
fn what_a_peer_chose_cannot_forge_a_line() {
    let line = Denied {
        reporter: Reporter::Destination,
        source: "10.77.1.2:1".parse().unwrap(),
        destination: "10.96.5.5:80".parse().unwrap(),
        error: "bad \"thing\"\n2026\u{1b}[31m",
    };
    let line = log(Format::Json, |log| log.denied(at(0, 0), &line));
    assert!(line.ends_with("\"error\":\"bad \\\"thing\\\"\\n2026\\u001b[31m\"}\n"), "{line}");
}
