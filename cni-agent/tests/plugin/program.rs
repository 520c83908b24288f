// SPDX-License-Identifier: Apache-2.0
//! The plugin as a process, called as a container runtime calls it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cni_agent::cni::snapshot;
use cni_agent::plugin::{Answer, Request, Sandbox};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::node::{Agent, Call, Node, PATIENCE, VERSIONS, ignored, previous, refused};

#[tokio::test]
async fn an_add_hands_the_sandbox_to_the_loop_and_the_result_on_in_every_version() {
    let mut node = Node::new();
    for version in VERSIONS {
        let call = node.call("ADD").with(&node.config(version));
        let (said, request) = node.answered(call, Answer::Enrolled).await;
        assert_eq!(said.result(), previous(version));
        let Request::Add { sandbox, .. } = request else { panic!("{request:?}") };
        let expected = Sandbox {
            namespace: "demo".to_owned(),
            name: "client".to_owned(),
            uid: Some("u-1".to_owned()),
            container_id: Some("c0ffee".to_owned()),
            interface: Some("eth0".to_owned()),
            netns: node.netns(),
            addresses: vec!["10.1.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
        };
        assert_eq!(sandbox, expected);
    }
    assert_eq!(node.agent().counts.answered(200), VERSIONS.len() as u64);
    node.end().await;
}

#[tokio::test]
async fn an_add_obeys_the_loop() {
    let mut node = Node::new();
    let (said, _) = node.answered(node.call("ADD"), ignored()).await;
    assert_eq!(said.result(), previous("1.0.0"));
    assert!(said.log.contains("no label says so"), "{}", said.log);
    let (said, _) = node.answered(node.call("ADD"), refused()).await;
    let (code, text) = said.error();
    assert_eq!(code, 100);
    assert!(text.contains("demo/client") && text.contains("check ztunnel on this node"), "{text}");
    assert!(said.log.contains(r#""namespace":"demo","pod":"client""#), "{}", said.log);
    node.end().await;
}

#[tokio::test]
async fn an_add_without_a_result_before_prints_an_empty_one() {
    let mut node = Node::new();
    for version in VERSIONS {
        let mut config = node.config(version);
        config.as_object_mut().unwrap().remove("prevResult");
        let (said, request) = node.answered(node.call("ADD").with(&config), ignored()).await;
        assert_eq!(said.result()["cniVersion"], version);
        assert!(matches!(request, Request::Add { sandbox, .. } if sandbox.addresses.is_empty()));
    }
    node.end().await;
}

#[tokio::test]
async fn a_delete_succeeds_whatever_happens() {
    let mut node = Node::new();
    for version in VERSIONS {
        for answer in [Answer::Enrolled, refused()] {
            let mut call = node.call("DEL").with(&node.config(version));
            call.netns = PathBuf::new();
            let (said, request) = node.answered(call, answer).await;
            said.silent_success();
            let Request::Delete { sandbox, .. } = request else { panic!("{request:?}") };
            assert_eq!((sandbox.netns.as_path(), sandbox.container_id.as_deref()), (Path::new(""), Some("c0ffee")));
        }
    }
    node.end().await;
    let node = Node::without_agent();
    node.call("DEL").run().await.silent_success();
    for input in [&b""[..], b"{", b"{\"cniVersion\":\"7\"}"] {
        Call { input: input.to_owned(), ..node.call("DEL") }.run().await.silent_success();
    }
    Call { arguments: "nonsense".to_owned(), ..node.call("DEL") }.run().await.silent_success();
}

#[tokio::test]
async fn a_check_asks_the_loop_from_the_version_on_that_has_it() {
    let mut node = Node::new();
    for version in VERSIONS {
        let call = node.call("CHECK").with(&node.config(version));
        if version < "0.4.0" {
            assert_eq!(call.run().await.error().0, 1);
            continue;
        }
        for answer in [Answer::Enrolled, ignored()] {
            let (said, request) = node.answered(call.clone(), answer).await;
            said.silent_success();
            assert!(matches!(request, Request::Check { .. }));
        }
        let (said, _) = node.answered(call, refused()).await;
        let (code, text) = said.error();
        assert!(code == 101 && text.contains("check ztunnel on this node"), "{code} {text}");
    }
    node.end().await;
    assert_eq!(Node::without_agent().call("CHECK").run().await.error().0, 11);
}

#[tokio::test]
async fn every_version_can_be_asked_for_all_versions() {
    let node = Node::without_agent();
    for version in VERSIONS {
        let said = node.call("VERSION").with(&json!({ "cniVersion": version })).run().await;
        assert_eq!(said.result(), json!({ "cniVersion": version, "supportedVersions": VERSIONS }));
    }
    let said = Call { input: Vec::new(), ..node.call("VERSION") }.run().await;
    assert_eq!(said.result()["supportedVersions"], json!(VERSIONS));
}

#[tokio::test]
async fn a_status_follows_the_agent() {
    let node = Node::new();
    let gone = Node::without_agent();
    for version in VERSIONS {
        let said = node.call("STATUS").with(&node.config(version)).run().await;
        let without = gone.call("STATUS").with(&gone.config(version)).run().await;
        if version < "1.1.0" {
            assert_eq!((said.error().0, without.error().0), (1, 1));
            continue;
        }
        said.silent_success();
        let (code, text) = without.error();
        assert!(code == 50 && text.contains("check the agent"), "{code} {text}");
        let mut config = gone.config(version);
        config["status_follows_agent"] = json!(false);
        gone.call("STATUS").with(&config).run().await.silent_success();
    }
    node.end().await;
}

#[tokio::test]
async fn garbage_collection_succeeds_from_the_version_on_that_has_it() {
    let node = Node::without_agent();
    for version in VERSIONS {
        let mut config = node.config(version);
        config["cni.dev/valid-attachments"] = json!([{ "containerID": "c0ffee", "ifname": "eth0" }]);
        let said = node.call("GC").with(&config).run().await;
        if version < "1.1.0" { assert_eq!(said.error().0, 1) } else { said.silent_success() }
    }
}

#[tokio::test]
async fn pods_that_are_never_in_the_mesh_start_without_an_agent() {
    let node = Node::without_agent();
    let start = [("kube-system", "coredns-1"), ("istio-system", "istio-cni-node-abcde"), ("", "")];
    for (namespace, name) in start {
        let said = node.call("ADD").about(namespace, name).run().await;
        assert_eq!(said.result(), previous("1.0.0"), "{namespace}/{name}");
    }
    for (namespace, name) in [("default", "istio-cni-node-abcde"), ("istio-system", "other")] {
        assert_eq!(node.call("ADD").about(namespace, name).run().await.error().0, 11, "{namespace}/{name}");
    }
}

#[tokio::test]
async fn without_an_agent_only_a_recent_snapshot_lets_pods_start() {
    let node = Node::without_agent();
    let (code, text) = node.call("ADD").run().await.error();
    assert!(code == 11 && text.contains("left no snapshot") && text.contains("check the agent's pod"), "{text}");
    node.leave_snapshot(5);
    let said = node.call("ADD").run().await;
    assert_eq!(said.result(), previous("1.0.0"));
    assert!(said.log.contains("started outside the mesh by the agent's snapshot"), "{}", said.log);
    for (namespace, why) in [("mesh", "is in the mesh"), ("new", "does not know")] {
        let (code, text) = node.call("ADD").about(namespace, "p").run().await.error();
        assert!(code == 11 && text.contains(why), "{code} {text}");
    }
    node.leave_snapshot(100_000);
    let (code, text) = node.call("ADD").run().await.error();
    assert!(code == 11 && text.contains("old"), "{code} {text}");
    let mut config = node.config("1.0.0");
    config["snapshot_max_age_seconds"] = json!(200_000);
    node.call("ADD").with(&config).run().await.result();
    let path = node.folder.path().join(snapshot::file::NAME);
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    let (code, text) = node.call("ADD").with(&config).run().await.error();
    assert!(code == 11 && text.contains("others may write"), "{code} {text}");
}

#[tokio::test]
async fn an_agent_that_stops_is_no_answer() {
    let mut node = Node::new();
    node.agent().requests.close();
    assert_eq!(node.call("ADD").run().await.error().0, 11);
    node.leave_snapshot(1);
    node.call("ADD").run().await.result();
    let said = node.call("STATUS").with(&node.config("1.1.0")).run().await;
    assert_eq!(said.error().0, 50);
    assert_eq!(node.agent().counts.answered(503), 3);
    // Neither is one that stops while it is asked.
    let mut node = Node::new();
    let call = node.call("ADD");
    let agent = node.agent.as_mut().unwrap();
    let (said, ()) = tokio::join!(call.run(), async { drop(agent.next().await) });
    assert_eq!(said.error().0, 11);
}

#[tokio::test]
async fn an_agent_that_starts_meanwhile_is_found() {
    let mut node = Node::without_agent();
    let call = node.call("ADD");
    let mut process = call.process();
    // The plugin reads its configuration before it looks for the agent.
    let mut child = process.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let later = Node::new();
    fs::rename(later.socket(), node.socket()).unwrap();
    node.agent = later.agent;
    input.write_all(&call.input).await.unwrap();
    drop(input);
    let (output, _) = tokio::join!(child.wait_with_output(), node.agent.as_mut().unwrap().answer(ignored()));
    assert!(output.unwrap().status.success());
}

#[tokio::test]
async fn a_loop_that_is_slow_is_given_up_and_learns_it() {
    let (mut node, mut other) = (Node::new(), Node::new());
    node.leave_snapshot(1);
    let (add, delete) = (node.call("ADD").about("mesh", "p"), other.call("DEL"));
    let waits = async |agent: &mut Agent| match agent.next().await {
        Request::Add { mut reply, .. } | Request::Delete { mut reply, .. } | Request::Check { mut reply, .. } => {
            tokio::time::timeout(PATIENCE, reply.closed()).await.expect("the reply is dropped");
        }
    };
    let before = Instant::now();
    let (added, deleted, (), ()) = tokio::join!(
        add.run(),
        delete.run(),
        waits(node.agent.as_mut().unwrap()),
        waits(other.agent.as_mut().unwrap())
    );
    assert!(before.elapsed() >= Duration::from_secs(10));
    let (code, text) = added.error();
    assert!(code == 11 && text.contains("in time") && text.contains("is in the mesh"), "{code} {text}");
    deleted.silent_success();
    node.end().await;
    other.end().await;
}

#[tokio::test]
async fn an_agent_that_accepts_nobody_is_given_up() {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
    use std::os::fd::AsRawFd;
    let node = Node::without_agent();
    let open = |flags| socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    let address = UnixAddr::new(&node.socket()).unwrap();
    let listener = open(SockFlag::SOCK_CLOEXEC);
    bind(listener.as_raw_fd(), &address).unwrap();
    listen(&listener, Backlog::new(1).unwrap()).unwrap();
    let mut waiting = Vec::new();
    loop {
        let client = open(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
        if connect(client.as_raw_fd(), &address).is_err() {
            break;
        }
        waiting.push(client);
    }
    node.call("DEL").run().await.silent_success();
    let (code, text) = node.call("STATUS").with(&node.config("1.1.0")).run().await.error();
    assert!(code == 50 && text.contains("in time"), "{code} {text}");
}

#[tokio::test]
async fn the_nodes_own_namespace_is_not_a_sandbox() {
    let node = Node::without_agent();
    for command in ["ADD", "CHECK"] {
        let said = Call { netns: "/proc/self/ns/net".into(), ..node.call(command) }.run().await;
        assert_eq!(said.error().0, 8);
        let said = Call { netns: "/nowhere".into(), ..node.call(command) }.run().await;
        assert_eq!(said.error().0, 8);
    }
}

#[tokio::test]
async fn hostile_input_is_an_error_with_the_code_of_its_fault() {
    let node = Node::without_agent();
    let nested = format!("{{\"name\":\"n\",\"x\":{}", "[".repeat(200_000));
    let inputs: [(&[u8], u64); 7] = [
        (b"", 6),
        (b"{\"name\":", 6),
        (b"\xff\xfe", 6),
        (nested.as_bytes(), 6),
        (b"{}", 7),
        (b"{\"name\":\"n\",\"prevResult\":3}", 7),
        (b"{\"name\":\"n\",\"cniVersion\":\"2.0.0\"}", 1),
    ];
    for command in ["ADD", "CHECK", "STATUS", "GC"] {
        for (input, code) in inputs {
            let said = Call { input: input.to_owned(), ..node.call(command) }.run().await;
            assert_eq!(said.error().0, code, "{command} {:.40}", String::from_utf8_lossy(input));
        }
    }
    let endless = vec![b' '; 17 * 1024 * 1024];
    assert_eq!(Call { input: endless, ..node.call("ADD") }.run().await.error().0, 7);
    for (name, value) in
        [("CNI_COMMAND", "UPDATE"), ("CNI_CONTAINERID", ""), ("CNI_IFNAME", "a/b"), ("CNI_ARGS", "A=b")]
    {
        let call = node.call("ADD");
        let mut process = call.process();
        process.env(name, value);
        let (code, text) = call.run_as(process).await.error();
        assert!(code == 4 && text.contains(name), "{name}: {code} {text}");
    }
    let mut config = node.config("1.0.0");
    config["prevResult"]["ips"][0]["address"] = json!("all of them");
    assert_eq!(node.call("ADD").with(&config).run().await.error().0, 7);
}

#[tokio::test]
async fn a_result_that_cannot_be_written_is_no_success() {
    let node = Node::without_agent();
    let call = node.call("ADD").about("kube-system", "p");
    let mut process = call.process();
    process.stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let said = call.run_as(process).await;
    assert_eq!(said.status, Some(1));
    assert!(said.log.contains("cannot write the result"), "{}", said.log);
}

#[tokio::test]
async fn calls_are_taken_at_the_same_time() {
    let mut node = Node::new();
    let calls: Vec<Call> = (0..6).map(|number| node.call("ADD").about("demo", &format!("p{number}"))).collect();
    let agent = node.agent.as_mut().unwrap();
    let loop_side = async {
        let mut open = Vec::new();
        while open.len() < 6 {
            let Request::Add { sandbox, reply } = agent.next().await else { panic!() };
            open.push((sandbox.name, reply));
        }
        for (name, reply) in open {
            reply.send(Answer::Refused { reason: format!("this is {name}") }).unwrap();
        }
    };
    let (said, ()) = tokio::join!(futures_util::future::join_all(calls.iter().map(Call::run)), loop_side);
    for (number, said) in said.iter().enumerate() {
        assert!(said.error().1.contains(&format!("this is p{number};")), "{said:?}");
    }
    node.end().await;
}
