// SPDX-License-Identifier: Apache-2.0
//! Changes in a directory of the running program, timed up to a real Envoy's acknowledgement.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};

use crate::{
    build::resident,
    envoy::{self, Running},
    objects,
};

/// How often each kind of change is made.
const ROUNDS: u32 = 41;
const PATIENCE: Duration = Duration::from_secs(300);

/// What the changes of one kind took.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    /// Up to the push, in ms, each.
    pub(crate) pushed: Vec<f64>,
    /// Up to the acknowledgement, in ms, each.
    pub(crate) acknowledged: Vec<f64>,
    /// Resources of all types sent for each.
    pub(crate) resources: f64,
    /// Their bytes.
    pub(crate) bytes: f64,
}

/// Everything that was measured.
#[derive(Clone, Debug)]
pub(crate) struct Changes {
    pub(crate) endpoint: Kind,
    pub(crate) route: Kind,
    /// From Envoy's start to its acknowledgement of everything, in seconds.
    pub(crate) first: f64,
    /// Memory of the program meanwhile, in bytes.
    pub(crate) resident: u64,
}

const ENDPOINTS: &str = "ClusterLoadAssignment";
const ROUTES: &str = "RouteConfiguration";

pub(crate) fn measure(envoy: &Path, services: u32) -> Changes {
    let world = World::start(envoy, services);
    let change = |kind: &str, write: &dyn Fn(u32)| {
        let (mut pushed, mut acknowledged) = (Vec::new(), Vec::new());
        let first = world.counters();
        for round in 0..ROUNDS {
            let before = world.counters();
            let begun = Instant::now();
            write(round);
            let more = |counter: &'static str| {
                let before = before.of(counter, kind);
                move |now: &Counters| now.of(counter, kind) > before
            };
            pushed.push(world.until(begun, &more("pilot_xds_pushes_total")));
            acknowledged.push(world.until(begun, &more("lateen_xds_acks_total")));
        }
        let last = world.counters();
        let each = |counter: &str| (last.all(counter) - first.all(counter)) / f64::from(ROUNDS);
        let (resources, bytes) = (each("lateen_xds_resources_total"), each("lateen_xds_resource_bytes_total"));
        Kind { pushed, acknowledged, resources, bytes }
    };
    let place = |round: u32| (round * 37) % services;
    let endpoint = change(ENDPOINTS, &|round| {
        world.put(&format!("pod-{}", place(round)), &[objects::pod(place(round), 1 + round)])
    });
    let route = change(ROUTES, &|round| {
        world.put(&format!("service-{}", place(round)), &objects::service(place(round), &format!("/c{round}")));
    });
    Changes { endpoint, route, first: world.first, resident: resident(&world.program.0.id().to_string()) }
}

/// The running program and its Envoy.
struct World {
    dir: tempfile::TempDir,
    monitoring: SocketAddr,
    program: Running,
    _envoy: Running,
    first: f64,
}

impl World {
    fn start(envoy: &Path, services: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mesh = dir.path().join("mesh");
        fs::create_dir(&mesh).unwrap();
        let pair = rcgen::KeyPair::generate().unwrap();
        let signer = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        let jwk = Jwk::from_encoding_key(&signer, Algorithm::ES256).unwrap();
        fs::write(mesh.join("jwks.json"), json!({"keys": [jwk]}).to_string()).unwrap();
        put(&mesh, "waypoint", &objects::waypoint());
        for number in 0..services {
            put(&mesh, &format!("service-{number}"), &objects::service(number, "/a"));
            put(&mesh, &format!("pod-{number}"), &[objects::pod(number, 0)]);
        }
        let [listen, monitoring, admin] = [free(), free(), free()];
        let ca = dir.path().join("ca");
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let program = Command::new(env!("CARGO_BIN_EXE_waypoint-config"))
            .arg("--source")
            .arg(format!("dir:{}", mesh.display()))
            .arg("--ca-dir")
            .arg(&ca)
            .args([
                "--listen",
                &listen.to_string(),
                "--monitoring",
                &monitoring.to_string(),
                "--admin",
                &admin.to_string(),
            ])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let program = Running(program);
        let deadline = Instant::now() + PATIENCE;
        while !ask(monitoring, "/ready").is_some_and(|text| text.starts_with("HTTP/1.1 200")) {
            assert!(Instant::now() < deadline, "never ready: {}", fs::read_to_string(dir.path().join("log")).unwrap());
            sleep(Duration::from_millis(20));
        }
        let token = token(&signer);
        let begun = Instant::now();
        let envoy = envoy::start(envoy, dir.path(), &ca.join("root-cert.pem"), listen, &token);
        let mut world = Self { dir, monitoring, program, _envoy: envoy, first: 0.0 };
        let per_service = |now: &Counters| now.of("lateen_xds_resources_total", ROUTES) >= f64::from(services);
        world.until(begun, &|now| per_service(now) && now.of("lateen_xds_acks_total", ROUTES) > 0.0);
        world.first = begun.elapsed().as_secs_f64();
        world.calm();
        world
    }

    /// Until nothing is sent any more.
    fn calm(&self) {
        let mut before = self.counters();
        loop {
            sleep(Duration::from_secs(3));
            let now = self.counters();
            if now == before {
                return;
            }
            before = now;
        }
    }

    fn put(&self, name: &str, objects: &[Value]) {
        put(&self.dir.path().join("mesh"), name, objects);
    }

    fn counters(&self) -> Counters {
        Counters::of_text(&ask(self.monitoring, "/metrics").unwrap())
    }

    /// Milliseconds until it is so.
    fn until(&self, begun: Instant, is_so: &dyn Fn(&Counters) -> bool) -> f64 {
        loop {
            let now = self.counters();
            if is_so(&now) {
                return begun.elapsed().as_secs_f64() * 1000.0;
            }
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap();
            assert!(begun.elapsed() < PATIENCE, "never acknowledged: {now:?}\n{}", log());
            sleep(Duration::from_micros(200));
        }
    }
}

/// Renamed into place, as a careful program writes.
fn put(folder: &Path, name: &str, objects: &[Value]) {
    let texts: Vec<String> = objects.iter().map(Value::to_string).collect();
    let draft = folder.join(format!(".{name}"));
    fs::write(&draft, texts.join("\n---\n")).unwrap();
    fs::rename(draft, folder.join(format!("{name}.yaml"))).unwrap();
}

fn token(signer: &EncodingKey) -> String {
    let exp = UNIX_EPOCH.elapsed().unwrap().as_secs() + 3600;
    let claims = json!({"sub": "system:serviceaccount:shop:waypoint", "aud": ["istio-ca"], "exp": exp,
        "kubernetes.io": {"namespace": "shop", "pod": {"name": "waypoint-1", "uid": "uid-waypoint-1"}}});
    format!("Bearer {}", jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, signer).unwrap())
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn ask(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Counters by name and type.
#[derive(Clone, Debug, PartialEq)]
struct Counters(BTreeMap<(String, String), f64>);

impl Counters {
    fn of_text(text: &str) -> Self {
        let line = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            let (name, labels) = name.split_once('{')?;
            let kind = labels.split_once("type=\"")?.1.split('"').next()?;
            Some(((name.to_owned(), kind.to_owned()), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect())
    }

    fn of(&self, name: &str, kind: &str) -> f64 {
        self.0.get(&(name.to_owned(), kind.to_owned())).copied().unwrap_or_default()
    }

    fn all(&self, name: &str) -> f64 {
        self.0.iter().filter(|((one, _), _)| one == name).map(|(_, value)| value).sum()
    }
}
