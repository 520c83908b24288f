// SPDX-License-Identifier: Apache-2.0
//! Engines, pods and applications for the tests beside this.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use mesh_common::telemetry::Format;
use mesh_proto::spiffe::Identity;

use super::account::{AccessLog, Accounts, Reporter, Totals};
use super::*;
use crate::mesh::{Change, Kind, StaticConfig, Store};
use crate::net::socket::{SocketOptions, Transparent};
use crate::tls::Credential;
use crate::tls::test_ca::{Ca, ca, credential};

/// Two nodes in one process: the client's and the server's.
pub(super) struct World {
    pub(super) ca: Ca,
    net: [u8; 3],
    next_host: AtomicU8,
    pub(super) client: Node,
    pub(super) server: Node,
}

/// One engine with what its control side would hold.
pub(super) struct Node {
    pub(super) handle: Handle,
    pub(super) shared: Shared,
    store: Mutex<Store>,
    pub(super) demands: Mutex<tokio::sync::mpsc::UnboundedReceiver<Demand>>,
    log: Arc<Mutex<Vec<u8>>>,
}

/// Patience of every wait in these tests.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

impl World {
    /// A world where `client` and `server` are HBONE pods with certificates, plus policies in YAML.
    pub(super) fn start(policies: &str) -> Self {
        Self::start_with(policies, |_| {})
    }

    pub(super) fn start_with(policies: &str, tune: impl Fn(&mut Options)) -> Self {
        static WORLDS: AtomicU8 = AtomicU8::new(1);
        // Other test processes on the machine have other process ids, most likely.
        let net = [127, 16 + (std::process::id() % 200) as u8, WORLDS.fetch_add(1, Ordering::Relaxed)];
        let (client, server) = (Node::start(&tune), Node::start(&tune));
        let world = Self { ca: ca(), net, next_host: AtomicU8::new(10), client, server };
        world.publish(policies);
        world.client.certify(credential(&world.ca, &identity("client")));
        world.server.certify(credential(&world.ca, &identity("server")));
        world.server.open(
            "server",
            ListenAt {
                outbound: None,
                inbound: Some(SocketAddr::new(world.host(3), 15008)),
                plaintext: None,
                target_without_redirect: None,
            },
        );
        world
    }

    pub(super) fn host(&self, last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(self.net[0], self.net[1], self.net[2], last))
    }

    /// Replaces the mesh on both nodes: the two pods and these policies.
    pub(super) fn publish(&self, policies: &str) {
        let yaml = self.yaml(policies);
        for node in [&self.client, &self.server] {
            node.publish(&yaml);
        }
    }

    /// The two pods and these policies.
    pub(super) fn yaml(&self, policies: &str) -> String {
        let (client, server) = (self.host(2), self.host(3));
        let listed = if policies.contains("WorkloadSelector") { "authorizationPolicies: [default/listed]" } else { "" };
        format!(
            "workloads:\n\
             - {{uid: client, name: client, namespace: default, serviceAccount: client, workloadIps: [{client}], protocol: HBONE, \
                workloadName: client, canonicalName: client, canonicalRevision: latest}}\n\
             - {{uid: server, name: server, namespace: default, serviceAccount: server, workloadIps: [{server}], protocol: HBONE, \
                workloadName: server, canonicalName: server, canonicalRevision: latest, {listed}}}\n\
             policies:\n{policies}"
        )
    }

    /// An application of the server pod; `serve` runs once per connection.
    pub(super) fn application(&self, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
        serve_at(self.host(3), serve)
    }

    /// A connection of the client pod's application to `target`, by way of the client's engine.
    pub(super) fn connect(&self, target: SocketAddr) -> TcpStream {
        dial(self.door_to(target))
    }

    /// Where the client pod's application connects to in order to be taken for one that connects to `target`.
    pub(super) fn door_to(&self, target: SocketAddr) -> SocketAddr {
        let host = self.next_host.fetch_add(1, Ordering::Relaxed);
        let door = SocketAddr::new(self.host(host), 15001);
        let at =
            ListenAt { outbound: Some(door), inbound: None, plaintext: None, target_without_redirect: Some(target) };
        self.client.open_as(&format!("client-{host}"), "client", at);
        door
    }

    /// Where a plaintext client gets to an application of the server pod.
    pub(super) fn plaintext_door_to(&self, target: SocketAddr) -> SocketAddr {
        let host = self.next_host.fetch_add(1, Ordering::Relaxed);
        let door = SocketAddr::new(self.host(host), 15006);
        let at =
            ListenAt { outbound: None, inbound: None, plaintext: Some(door), target_without_redirect: Some(target) };
        self.server.open_as(&format!("server-{host}"), "server", at);
        door
    }
}

impl Node {
    pub(super) fn start(tune: &impl Fn(&mut Options)) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let into = log.clone();
        let access_log = AccessLog {
            format: Format::Json,
            is_enabled: Arc::new(|level| level <= tracing::Level::INFO),
            write: Arc::new(move |lines, _| into.lock().unwrap().extend_from_slice(lines)),
        };
        let mut options = Options::new(NonZeroUsize::new(2).unwrap(), access_log);
        options.socket = SocketOptions { mark: None, ..SocketOptions::default() };
        options.original_source = Transparent::Never;
        tune(&mut options);
        let (demands, receiver) = tokio::sync::mpsc::unbounded_channel();
        let shared = Shared {
            mesh: Arc::default(),
            credentials: Arc::default(),
            accounts: Arc::new(Accounts::default()),
            demands,
        };
        let handle = Engine::start(options, &shared).unwrap();
        Self { handle, shared, store: Mutex::new(Store::new("")), demands: Mutex::new(receiver), log }
    }

    pub(super) fn publish(&self, yaml: &str) {
        self.publish_and(yaml, [Change::Received(Kind::Addresses), Change::Received(Kind::Policies)]);
    }

    /// Publishes the mesh of a control plane that may not have sent everything yet.
    pub(super) fn publish_and(&self, yaml: &str, received: impl IntoIterator<Item = Change>) {
        let config: StaticConfig = serde_saphyr::from_str(yaml).unwrap();
        let mut store = self.store.lock().unwrap();
        let gone: Vec<_> = store.snapshot().policies().map(|(name, _)| Change::RemovePolicy(name.clone())).collect();
        let changes = gone.into_iter().chain(config.into_changes().unwrap()).chain(received);
        let applied = store.apply(changes);
        self.shared.mesh.store(applied.snapshot);
        self.handle.mesh_changed(applied.changed.must_judge_again());
    }

    pub(super) fn certify(&self, credential: Credential) {
        let identity = credential.identity().clone();
        let mut all = Credentials::clone(&self.shared.credentials.load());
        all.insert(identity.clone(), Arc::new(credential));
        self.shared.credentials.store(Arc::new(all));
        self.handle.credential_changed(&identity);
    }

    pub(super) fn open(&self, name: &str, at: ListenAt) {
        self.open_as(name, name, at);
    }

    fn open_as(&self, uid: &str, name: &str, at: ListenAt) {
        let pod = Pod { uid: uid.into(), name: name.into(), namespace: "default".into(), service_account: name.into() };
        self.handle.open_at(Arc::new(pod), None, at).unwrap();
    }

    pub(super) fn log(&self) -> String {
        String::from_utf8(self.log.lock().unwrap().clone()).unwrap()
    }

    /// Waits for an access-log line that contains all of these.
    pub(super) fn logged(&self, parts: &[&str]) -> String {
        let mut found = None;
        wait_for(
            &format!("a log line with {parts:?}"),
            || {
                let log = self.log();
                found = log.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned);
                found.is_some()
            },
            || self.log(),
        );
        found.unwrap()
    }

    /// The sums of all series of one reporter.
    pub(super) fn totals(&self, reporter: Reporter) -> Totals {
        let mut sum = Totals::default();
        for series in self.shared.accounts.series().iter().filter(|series| series.labels.reporter == reporter) {
            sum.opened += series.totals.opened;
            sum.closed += series.totals.closed;
            sum.failed += series.totals.failed;
            sum.received += series.totals.received;
            sum.sent += series.totals.sent;
        }
        sum
    }
}

pub(super) fn identity(name: &str) -> String {
    Identity::new("cluster.local", "default", name).unwrap().to_string()
}

/// Waits for a condition.
pub(super) fn wait_for(what: &str, mut fulfilled: impl FnMut() -> bool, state: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    let (_keep, never) = mpsc::channel::<()>();
    while !fulfilled() {
        assert!(Instant::now() < deadline, "no {what}:\n{}", state());
        let _ = never.recv_timeout(Duration::from_millis(2));
    }
}

pub(super) fn serve_at(host: IpAddr, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((host, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.unwrap(), serve.clone());
            patient(&stream);
            thread::spawn(move || serve(stream));
        }
    });
    address
}

pub(super) fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    patient(&stream);
    stream
}

fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

/// Sends back what comes, in capitals, and finishes when the client has.
pub(super) fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            break;
        }
        buffer[..count].make_ascii_uppercase();
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// Asks and reads the answer.
pub(super) fn ask(stream: &mut TcpStream, question: &[u8]) -> Vec<u8> {
    stream.write_all(question).unwrap();
    let mut answer = vec![0; question.len()];
    stream.read_exact(&mut answer).unwrap();
    answer
}

/// Asserts that the connection was ended by a reset, not by a FIN and not by silence.
pub(super) fn expect_reset(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let error = stream.read_to_end(&mut rest).expect_err("ended by FIN");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// Closes with RST.
pub(super) fn abort(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}
