// SPDX-License-Identifier: Apache-2.0
//! The node agent's socket with real packets and descriptors. The answers are compared with recorded ones.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_common::lifecycle::{Drainer, Readiness, Tasks, drain};
use mesh_proto::zds::{
    AddWorkload, DelWorkload, KeepWorkload, MAX_PACKET, Received, SnapshotSent, WorkloadInfo, WorkloadRequest,
    receive_packet, send_packet, workload_request::Payload,
};
use prost::Message as _;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::sync::mpsc;
use ztunnel::metrics::{WorkloadManager, Zds};
use ztunnel::zds::{Client, Options, Order, Outlets, Report, Standing};

/// The agent's end. Blocks, with a limit.
struct Agent {
    listener: Socket,
    path: PathBuf,
}

struct Link(Socket);

impl Agent {
    fn new(folder: &Path) -> Self {
        let path = folder.join("zds.sock");
        let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(1).unwrap();
        listener.set_read_timeout(Some(LIMIT)).unwrap();
        Self { listener, path }
    }

    /// The next connection, its hello read.
    fn accept(&self) -> Link {
        let (socket, _) = self.listener.accept().unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let link = Link(socket);
        assert_eq!(link.receive().unwrap(), recorded("ZdsHello"));
        link
    }
}

impl Link {
    fn send(&self, payload: Payload, fd: Option<&File>) {
        let bytes = WorkloadRequest { payload: Some(payload) }.encode_to_vec();
        send_packet(self.0.as_fd(), &bytes, fd.map(|fd| fd.as_fd())).unwrap();
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; MAX_PACKET];
        match receive_packet(self.0.as_fd(), &mut buffer)? {
            Received::Packet { len, fd: None } => Ok(buffer[..len].to_vec()),
            Received::Packet { fd: Some(_), .. } => panic!("a descriptor from the proxy"),
            Received::Closed => Ok(Vec::new()),
        }
    }

    fn acked(&self) {
        assert_eq!(self.receive().unwrap(), recorded("WorkloadResponse"));
    }

    fn refused(&self, text: &str) {
        let answer = String::from_utf8_lossy(&self.receive().unwrap()).into_owned();
        assert!(answer.contains(text), "{answer}");
    }
}

struct World {
    agent: Agent,
    orders: mpsc::UnboundedReceiver<Order>,
    reports: mpsc::UnboundedSender<Report>,
    readiness: Readiness,
    standing: Standing,
    tasks: Tasks,
    drainer: Drainer,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let agent = Agent::new(folder.path());
        let (orders, ordered) = mpsc::unbounded_channel();
        let (reports, reported) = mpsc::unbounded_channel();
        let (readiness, standing, tasks) = (Readiness::new(), Standing::default(), Tasks::new());
        let outlets = Outlets {
            orders,
            reports: reported,
            standing: Arc::clone(&standing),
            gate: readiness.gate("workload proxy manager"),
            metrics: (Zds::default(), WorkloadManager::default()),
        };
        let client = Client::new(Options { socket: agent.path.clone() }, outlets);
        let (drainer, draining) = drain();
        drop(tasks.spawn("zds", client.run(draining)));
        Self { agent, orders: ordered, reports, readiness, standing, tasks, drainer, _folder: folder }
    }

    async fn order(&mut self) -> Order {
        tokio::time::timeout(LIMIT, self.orders.recv()).await.expect("too slow").unwrap()
    }

    /// Take the next order as an add, and say how it went.
    async fn open(&mut self, result: Result<(), &str>) -> String {
        let Order::Open { uid, attempt, netns, .. } = self.order().await else { panic!("no add") };
        netns.duplicate().unwrap();
        self.reports.send(Report { uid: uid.clone(), attempt, result: result.map_err(str::to_owned) }).unwrap();
        uid
    }
}

fn add(uid: &str) -> Payload {
    let info = WorkloadInfo { name: uid.into(), namespace: "demo".into(), service_account: "sa".into() };
    Payload::Add(AddWorkload { uid: uid.into(), workload_info: Some(info) })
}

fn netns() -> File {
    File::open("/proc/self/ns/net").unwrap()
}

/// What a real ztunnel sent.
fn recorded(who: &str) -> Vec<u8> {
    let record = include_str!("../wire/zds-ztunnel.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .find(|record| record["who"] == who && record["dir"] == "out")
        .unwrap();
    let hex = record["hex"].as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_whole_session_a_reconnect_and_a_drain() {
    let mut world = World::new();
    let link = world.agent.accept();
    link.send(add("a"), Some(&netns()));
    assert_eq!(world.open(Ok(())).await, "a");
    link.acked();
    assert!(!world.readiness.is_ready());
    link.send(Payload::SnapshotSent(SnapshotSent {}), None);
    link.acked();
    world.readiness.ready().await;

    link.send(add("b"), Some(&netns()));
    world.open(Err("port 15008 is taken")).await;
    link.refused("failure to start proxy : port 15008 is taken");
    link.send(Payload::Del(DelWorkload { uid: "b".into() }), None);
    link.acked();
    assert_eq!(world.standing.load().len(), 1);

    drop(link);
    let link = world.agent.accept();
    assert!(!world.readiness.is_ready());
    link.send(Payload::Keep(KeepWorkload { uid: "a".into() }), None);
    link.acked();
    link.send(Payload::SnapshotSent(SnapshotSent {}), None);
    link.acked();
    world.readiness.ready().await;
    link.send(Payload::Del(DelWorkload { uid: "a".into() }), None);
    link.acked();
    assert!(matches!(world.order().await, Order::Close { uid, .. } if uid == "a"));

    world.drainer.drain(Duration::ZERO).await;
    world.tasks.finished().await;
    assert!(!world.readiness.is_ready(), "shutting down never looks ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn packets_that_break_the_protocol_cost_the_connection_only() {
    let mut world = World::new();
    let link = world.agent.accept();
    link.send(add("a"), Some(&netns()));
    world.open(Ok(())).await;
    link.acked();
    link.send(add("b"), None);
    link.refused("failure to read message : add of pod b came without");
    assert!(link.receive().unwrap().is_empty(), "closed");

    let link = world.agent.accept();
    link.send(Payload::Keep(KeepWorkload { uid: "a".into() }), Some(&netns()));
    link.refused("failure to read message : ");

    let link = world.agent.accept();
    (&link.0).write_all(&[0xff; 20]).unwrap();
    link.refused("failure to read message : ");

    let link = world.agent.accept();
    (&link.0).write_all(&[0; 2000]).unwrap();
    link.refused("failure to read message : ");

    let link = world.agent.accept();
    link.send(Payload::Add(AddWorkload { uid: "c".into(), workload_info: None }), Some(&netns()));
    link.refused("failure to process message : ");

    let link = world.agent.accept();
    link.send(Payload::Keep(KeepWorkload { uid: "a".into() }), None);
    link.acked();
    link.send(Payload::SnapshotSent(SnapshotSent {}), None);
    link.acked();
    world.readiness.ready().await;
    assert_eq!(world.standing.load().len(), 1, "the pod was carried all the time");
}

/// Everything but what the kernel closes by itself: the reader of a pipe sees its end once nobody holds the writer.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn descriptors_that_come_with_broken_packets_are_closed() {
    let mut world = World::new();
    let whole = |payload| WorkloadRequest { payload: Some(payload) }.encode_to_vec();
    let nobody = Payload::Add(AddWorkload { uid: "x".into(), workload_info: None });
    let packets = [
        (vec![0xff; 20], 1),
        (vec![0; 2000], 1),
        (whole(add("x")), 2),
        (whole(add("x")), 4),
        (whole(add("x")), 200),
        (whole(nobody), 1),
        (whole(Payload::SnapshotSent(SnapshotSent {})), 1),
        (whole(Payload::Del(DelWorkload { uid: "x".into() })), 3),
    ];
    for (bytes, count) in packets {
        let (mut reader, writer) = io::pipe().unwrap();
        let link = world.agent.accept();
        let fds = vec![std::os::fd::AsRawFd::as_raw_fd(&writer); count];
        let rights = [nix::sys::socket::ControlMessage::ScmRights(&fds)];
        let (socket, flags) = (std::os::fd::AsRawFd::as_raw_fd(&link.0), nix::sys::socket::MsgFlags::empty());
        nix::sys::socket::sendmsg::<()>(socket, &[io::IoSlice::new(&bytes)], &rights, flags, None).unwrap();
        link.refused("failure to ");
        assert!(link.receive().unwrap().is_empty(), "the connection ends");
        drop((link, writer));
        let ended = world.tasks.spawn_blocking("read", move || io::Read::read(&mut reader, &mut [0; 1]).unwrap());
        let ended = tokio::time::timeout(LIMIT, ended.output()).await.expect("a descriptor was kept").unwrap();
        assert_eq!(ended, 0);
    }
    assert!(world.orders.try_recv().is_err(), "none of it was an order");
    // What is added properly is held, and given back.
    let link = world.agent.accept();
    link.send(add("a"), Some(&netns()));
    world.open(Ok(())).await;
    link.acked();
    link.send(add("a"), Some(&netns()));
    link.acked();
    assert!(world.orders.try_recv().is_err(), "the same again is no order");
    link.send(Payload::SnapshotSent(SnapshotSent {}), None);
    link.acked();
    for _ in 0..2 {
        link.send(Payload::Del(DelWorkload { uid: "a".into() }), None);
        link.acked();
    }
}
