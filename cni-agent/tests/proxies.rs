// SPDX-License-Identifier: Apache-2.0
//! The socket of the node proxies, when what connects is broken or means no good: it costs that connection, and nothing
//! of the others, of the list or of our descriptors.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni_agent::find::PodNetns;
use cni_agent::zds::{Event, ListenError, PodInfo, Proxies, bind};
use mesh_common::lifecycle::{Drainer, Tasks, drain};
use mesh_proto::zds::{
    MAX_PACKET, Received, Version, WorkloadRequest, WorkloadResponse, ZdsHello, receive_packet, send_packet,
    workload_request::Payload,
};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use prost::Message as _;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(30);

struct World {
    proxies: Proxies,
    path: PathBuf,
    events: mpsc::UnboundedReceiver<Event>,
    tasks: Tasks,
    drainer: Drainer,
    _folder: tempfile::TempDir,
}

/// Whatever has connected. Blocks, with a limit.
struct Client(Socket);

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ztunnel.sock");
        let (told, events) = mpsc::unbounded_channel();
        let proxies = Proxies::new(path.clone(), told);
        let (tasks, (drainer, draining)) = (Tasks::new(), drain());
        let accepting = proxies.clone().accept(bind(&path).unwrap(), tasks.clone(), draining);
        drop(tasks.spawn("accept", accepting));
        Self { proxies, path, events, tasks, drainer, _folder: folder }
    }

    fn connect(&self) -> Client {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.set_write_timeout(Some(LIMIT)).unwrap();
        socket.connect(&SockAddr::unix(&self.path).unwrap()).unwrap();
        Client(socket)
    }

    /// A proxy that was given the whole list: so many pods.
    fn proxy(&self, pods: usize) -> Client {
        let client = self.connect();
        client.send(&hello());
        for _ in 0..pods {
            client.obey();
        }
        assert!(matches!(client.obey(), Payload::SnapshotSent(_)));
        client
    }

    async fn until_connected(&self, count: usize) {
        soon(async || self.proxies.connected() == count).await;
    }

    async fn end(self) {
        self.drainer.drain(LIMIT).await;
        self.tasks.finished().await;
    }
}

impl Client {
    fn send(&self, bytes: &[u8]) {
        send_packet(self.0.as_fd(), bytes, None).unwrap();
    }

    /// Takes a request and says yes.
    fn obey(&self) -> Payload {
        let payload = self.ask();
        self.send(&WorkloadResponse::done().encode_to_vec());
        payload
    }

    fn ask(&self) -> Payload {
        let mut buffer = [0; MAX_PACKET];
        match receive_packet(self.0.as_fd(), &mut buffer).unwrap() {
            Received::Packet { len, .. } => WorkloadRequest::decode(&buffer[..len]).unwrap().payload.unwrap(),
            Received::Closed => panic!("closed"),
        }
    }

    /// Descriptors beside the bytes, as many as there are.
    fn send_with(&self, bytes: &[u8], files: &[&File]) {
        let fds: Vec<_> = files.iter().map(|file| file.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::empty(), None).unwrap();
    }

    /// Whatever else comes, the connection ends.
    fn ends(&self) {
        let mut buffer = [0; MAX_PACKET];
        loop {
            match receive_packet(self.0.as_fd(), &mut buffer) {
                Ok(Received::Packet { .. }) => {}
                Ok(Received::Closed) => return,
                Err(error) => {
                    let error = io::Error::from(error);
                    assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "it does not end");
                    return;
                }
            }
        }
    }
}

fn hello() -> Vec<u8> {
    ZdsHello { version: Version::V1.into() }.encode_to_vec()
}

fn info(name: &str) -> PodInfo {
    PodInfo { name: name.to_owned(), namespace: "shop".to_owned(), service_account: "till".to_owned() }
}

fn netns() -> PodNetns {
    PodNetns::open(Path::new("/proc/self/ns/net")).unwrap()
}

/// The test's own descriptors.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

async fn soon(mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.expect("too slow");
}

/// Everything at once, for descriptors are counted and those are the process's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_broken_costs_its_connection_only() {
    let mut world = World::new();
    world.proxies.hold("held", info("held"), netns());
    let good = world.proxy(1);
    world.until_connected(1).await;
    let before = descriptors();

    broken(&world);
    world.until_connected(1).await;
    silent(&world);
    soon(async || descriptors() == before).await;

    // The good one never noticed.
    let (listened, asked) = tokio::join!(world.proxies.listen("new", info("new"), netns()), async {
        tokio::task::block_in_place(|| good.obey())
    });
    listened.unwrap();
    assert!(matches!(asked, Payload::Add(add) if add.uid == "new"));
    world.proxies.leave("new").await_with(&good).await;

    wedged(&mut world, &good).await;
    soon(async || descriptors() == before).await;
    drop(good);
    world.end().await;
}

trait AwaitWith: Future<Output = ()> + Sized {
    /// While a proxy says yes to one request.
    async fn await_with(self, proxy: &Client) {
        tokio::join!(self, async { tokio::task::block_in_place(|| drop(proxy.obey())) });
    }
}

impl<F: Future<Output = ()>> AwaitWith for F {}

/// Packets that are none, of every kind.
fn broken(world: &World) {
    let file = File::open("/dev/null").unwrap();
    let strangers: [&dyn Fn(&Client); 9] = [
        &|client| client.send(b"\xff\xff\xff"),
        &|client| client.send(b"GET / HTTP/1.1\r\n\r\n"),
        &|client| client.send(&ZdsHello { version: 7 }.encode_to_vec()),
        &|client| _ = client.0.send(&[0; 2000]).unwrap(),
        &|client| _ = client.0.send(&[]).unwrap(),
        &|client| client.send_with(&hello(), &[&file]),
        &|client| client.send_with(&hello(), &[&file, &file, &file]),
        &|client| client.send_with(&hello(), &[&file; 100]),
        &|client| client.0.shutdown(std::net::Shutdown::Write).unwrap(),
    ];
    for stranger in strangers {
        let client = world.connect();
        stranger(&client);
        client.ends();
    }
    let proxies: [&dyn Fn(&Client); 6] = [
        &|client| client.send(b"\xff\xff\xff"),
        &|client| client.send(&[8, 1]),
        &|client| _ = client.0.send(&[1; 2000]).unwrap(),
        &|client| client.send_with(&WorkloadResponse::done().encode_to_vec(), &[&file, &file]),
        // More answers than questions, all of them no.
        &|client| {
            let no = WorkloadResponse::failed(&"no ".repeat(2000)).encode_to_vec();
            while send_packet(client.0.as_fd(), &no, None).is_ok() {}
        },
        &|client| client.0.shutdown(std::net::Shutdown::Both).unwrap(),
    ];
    for proxy in proxies {
        let client = world.connect();
        client.send(&hello());
        client.ask();
        proxy(&client);
        client.ends();
    }
}

/// More connections than there can be proxies: those that say nothing make room, those that say hello are counted.
fn silent(world: &World) {
    let silent: Vec<Client> = (0..300).map(|_| world.connect()).collect();
    let proxy = world.proxy(1);
    for client in &silent[..280] {
        client.ends();
    }
    let proxies: Vec<Client> = (0..6).map(|_| world.proxy(1)).collect();
    let one_more = world.connect();
    one_more.send(&hello());
    one_more.ends();
    drop((proxy, proxies, silent));
}

/// The newest proxy gets new pods; one that never answers is cut off, and the one before it is asked again.
async fn wedged(world: &mut World, good: &Client) {
    world.until_connected(1).await;
    let wedged = world.connect();
    wedged.send(&hello());
    world.until_connected(2).await;
    let lost = world.proxies.listen("late", info("late"), netns()).await.unwrap_err();
    assert!(matches!(lost, ListenError::Lost), "{lost}");
    wedged.ends();
    world.until_connected(1).await;
    assert!(world.events.try_recv().is_ok(), "who asked is told that there is another newest one");
    let (listened, ()) = tokio::join!(world.proxies.listen("late", info("late"), netns()), async {
        tokio::task::block_in_place(|| drop(good.obey()))
    });
    listened.unwrap();
    world.proxies.leave("late").await_with(good).await;
}
