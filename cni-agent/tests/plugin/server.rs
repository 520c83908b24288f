// SPDX-License-Identifier: Apache-2.0
//! The agent's server against the bytes that Istio's plugin sends.

use std::path::Path;

use cni_agent::plugin::{Answer, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::node::{Node, PATIENCE, ignored, refused};

/// What Go's HTTP client writes.
fn as_istio(method: &str, path: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: unix\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {}\r\nContent-Type: application/json\r\n\
         Accept-Encoding: gzip\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

const ISTIO_BODY: &str = r#"{"Netns":"/var/run/netns/cni-1","PodName":"p","PodNamespace":"n","IPs":[{"Interface":0,"Address":{"IP":"10.0.0.2","Mask":"////AA=="},"Gateway":"10.0.0.1"}]}"#;

/// One exchange on a connection that stays open, as Go's client keeps it: head and body of the answer.
async fn exchange(socket: &Path, request: Vec<u8>) -> (String, String) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let mut answer = String::new();
    loop {
        if let Some((head, body)) = answer.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
            if body.len() >= length.parse::<usize>().unwrap() {
                return (head.lines().next().unwrap().to_owned(), body.to_owned());
            }
        }
        let mut buffer = [0; 1024];
        let length = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert_ne!(length, 0, "the connection ends after {answer:?}");
        answer.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
}

#[tokio::test]
async fn istios_plugin_is_served() {
    let mut node = Node::new();
    let socket = node.socket();
    let agent = node.agent();
    let (said, request) =
        tokio::join!(exchange(&socket, as_istio("POST", "/cmdadd", ISTIO_BODY)), agent.answer(Answer::Enrolled));
    assert_eq!(said, ("HTTP/1.1 200 OK".to_owned(), String::new()));
    let Request::Add { sandbox, .. } = request else { panic!("{request:?}") };
    assert_eq!((sandbox.namespace.as_str(), sandbox.name.as_str()), ("n", "p"));
    assert_eq!((sandbox.uid, sandbox.container_id), (None, None));
    assert_eq!(sandbox.addresses, ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
    // It asks only about pods it has found in the mesh: that we do not is an error there, and so is a refusal.
    for (answer, expected) in [(ignored(), "no label says so"), (refused(), "check ztunnel")] {
        let (said, _) = tokio::join!(exchange(&socket, as_istio("PUT", "/cmdadd", ISTIO_BODY)), agent.answer(answer));
        assert!(said.0.contains("500") && said.1.contains(expected), "{said:?}");
    }
    let nobody = ISTIO_BODY.replace("\"p\"", "\"\"");
    let nowhere = ISTIO_BODY.replace("/var", "var");
    for body in ["", "{", "[]", "{}", &format!("{ISTIO_BODY} junk"), &nobody, &nowhere] {
        let (status, _) = exchange(&socket, as_istio("POST", "/cmdadd", body)).await;
        assert!(status.contains("400"), "{status}");
    }
    let (status, _) = exchange(&socket, as_istio("POST", "/elsewhere", ISTIO_BODY)).await;
    assert!(status.contains("404"), "{status}");
    let (status, _) = exchange(&socket, as_istio("POST", "/cmdadd", &"x".repeat(70_000))).await;
    assert!(status.contains("413"), "{status}");
    let counts = &agent.counts;
    assert_eq!((counts.answered(200), counts.answered(500), counts.answered(400)), (1, 2, 7));
    let mut registry = prometheus_client::registry::Registry::default();
    counts.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("istio_cni_plugin_requests_total{response_code=\"400\"} 7\n"), "{text}");
    node.end().await;
}

#[tokio::test]
async fn a_client_that_gives_up_is_seen_to() {
    let mut node = Node::new();
    let mut stream = UnixStream::connect(node.socket()).await.unwrap();
    stream.write_all(&as_istio("POST", "/cmdadd", ISTIO_BODY)).await.unwrap();
    let Request::Add { mut reply, .. } = node.agent().next().await else { panic!() };
    assert!(!reply.is_closed());
    drop(stream);
    tokio::time::timeout(PATIENCE, reply.closed()).await.unwrap();
    node.end().await;
}

#[tokio::test]
async fn a_name_that_is_a_path_is_refused() {
    let mut node = Node::new();
    let socket = node.socket();
    let agent = node.agent();
    let uid = ISTIO_BODY.replace("\"PodName\"", "\"PodUID\":\"../x\",\"PodName\"");
    for body in [
        &ISTIO_BODY.replace("\"p\"", "\"../../x\""),
        &ISTIO_BODY.replace("\"n\"", "\"..\""),
        &ISTIO_BODY.replace("\"n\"", "\"a/b\""),
        &ISTIO_BODY.replace("\"p\"", &format!("\"{}\"", "p".repeat(300))),
        &ISTIO_BODY.replace("\"p\"", "\"p\\u0000\""),
        &uid,
    ] {
        for path in ["/cmdadd", "/cmddel"] {
            let (status, _) = exchange(&socket, as_istio("POST", path, body)).await;
            assert!(status.contains("400"), "{status} to {body}");
        }
    }
    assert!(agent.requests.try_recv().is_err(), "the loop hears nothing of it");
    node.end().await;
}

#[tokio::test]
async fn callers_that_never_end_their_request_hold_up_nobody() {
    let mut node = Node::new();
    let socket = node.socket();
    let agent = node.agent();
    let whole = as_istio("POST", "/cmdadd", ISTIO_BODY);
    let mut halves = Vec::new();
    for length in 0..600 {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        // Some stop in the head, some in the body, some before they begin.
        stream.write_all(&whole[..length * whole.len() / 600]).await.unwrap();
        halves.push(stream);
    }
    let (said, _) = tokio::join!(exchange(&socket, whole), agent.answer(Answer::Enrolled));
    assert!(said.0.contains("200"), "{said:?}");
    assert!(agent.requests.try_recv().is_err(), "half a request is none");
    drop(halves);
    node.end().await;
}
