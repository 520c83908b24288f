// SPDX-License-Identifier: Apache-2.0
//! The launcher with a real Envoy and our own control plane, in a network namespace of its own: Envoy's ports are fixed.
//!
//! Envoy is found by `ENVOY_BIN`, else among the tools of this build; what cannot run here says so, and fails where `CI` is set.
#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mesh_common::lifecycle::{Shutdown, Tasks};
use mesh_common::telemetry;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::KeyPair;
use serde_json::{Value, json};
use waypoint_config::api::{Kind, Object};
use waypoint_config::app::App;
use waypoint_config::config::Config;
use waypoint_config::source::Batch;
use waypoint_config::store::Change;

fn envoy() -> Option<PathBuf> {
    let named = env::var_os("ENVOY_BIN").map(PathBuf::from);
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("tools");
    let unpacked = fs::read_dir(tools).into_iter().flatten().filter_map(Result::ok).map(|one| one.path().join("envoy"));
    named.into_iter().chain(unpacked).find(|path| path.is_file())
}

fn skip(why: &str) {
    eprintln!("skipped: {why}");
    assert!(env::var_os("CI").is_none(), "{why}, and CI counts a skip as a failure");
}

#[test]
fn a_real_envoy_takes_every_golden_bootstrap() {
    let Some(envoy) = envoy() else { return skip("no Envoy: set ENVOY_BIN") };
    let folder = tempfile::tempdir().unwrap();
    for name in ["default", "ROOTCA", "discovery"] {
        fs::write(folder.path().join(format!("{name}.json")), "{}").unwrap();
    }
    for name in ["bootstrap.json", "bootstrap-ipv6.json"] {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let here = folder.path().display().to_string();
        let text = fs::read_to_string(golden).unwrap().replace("/etc/istio/proxy/secrets", &here);
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let output = Command::new(&envoy).args(["--mode", "validate", "-c"]).arg(&path).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_launcher_renews_without_a_restart_and_never_leaves_an_envoy_behind() {
    if envoy().is_none() {
        return skip("no Envoy: set ENVOY_BIN");
    }
    let alone = |line: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--"]).args(line);
        command
    };
    if !alone(&["true"]).output().is_ok_and(|output| output.status.success()) {
        return skip("no network namespace can be made here");
    }
    let own = env::current_exe().unwrap();
    let line = [own.to_str().unwrap(), "inside", "--exact", "--ignored", "--nocapture"];
    assert!(alone(&line).status().unwrap().success());
}

/// Run by the test above, in a network namespace of its own.
#[test]
#[ignore = "needs Envoy's fixed ports for itself: another test makes it a network namespace"]
fn inside() {
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let place = runtime.block_on(Place::create());

    let mut launcher = place.launch();
    let first = place.serial();
    place.until("discovery to take the certificate", || stat("control_plane.connected_state") == Some(1));
    let uptime = launcher.envoy();
    place.until("another certificate", || serials().is_some_and(|serials| !serials.contains(&first)));
    assert_eq!(launcher.envoy(), uptime, "the same Envoy");
    for file in ["default.json", "ROOTCA.json", "discovery.json"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(place.dir.path().join("run/secrets").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    place.until("readiness", || fetch("GET", 15021, "/healthz/ready").is_some_and(|answer| answer.contains(" 200 ")));
    launcher.signal(Signal::SIGTERM);
    assert_eq!(launcher.ended().code(), Some(0));
    assert!(fetch("GET", 15000, "/ready").is_none(), "Envoy is gone");

    let mut launcher = place.launch();
    place.serial();
    launcher.signal(Signal::SIGKILL);
    launcher.ended();
    place.until("Envoy to be gone with its launcher", || fetch("GET", 15000, "/ready").is_none());

    let mut launcher = place.launch();
    place.serial();
    kill(Pid::from_raw(launcher.envoy()), Signal::SIGKILL).unwrap();
    assert_eq!(launcher.ended().code(), Some(137), "Envoy's end is told on");

    let mut launcher =
        place.launch_with(&[("MINIMUM_DRAIN_DURATION", "60"), ("TERMINATION_DRAIN_DURATION_SECONDS", "60")]);
    place.serial();
    launcher.signal(Signal::SIGTERM);
    // One that comes before the first was seen is the same wish.
    place.until("a second wish to kill", || {
        launcher.signal(Signal::SIGTERM);
        launcher.has_ended()
    });
    assert_eq!(launcher.ended().code(), Some(137), "a second wish kills");
    place.shutdown.request("the test is over");
}

/// The Gateway, and the pod the launcher runs in.
fn waypoint() -> Vec<Change> {
    let objects = [
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"namespace": "shop", "name": "waypoint"},
            "spec": {"gatewayClassName": "istio-waypoint", "addresses": [{"value": "10.95.0.1"}],
                "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
        }),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": "waypoint-0", "uid": "u",
                "labels": {"gateway.networking.k8s.io/gateway-name": "waypoint"}},
            "spec": {"serviceAccountName": "waypoint", "containers": []}, "status": {"podIP": "10.0.0.9"},
        }),
    ];
    let text = |object: &Value, field: &str| object[field].as_str().unwrap().to_owned();
    let read = |object: Value| {
        let kind = Kind::of(&text(&object, "apiVersion"), &text(&object, "kind")).unwrap();
        Change::Put(Object::read(kind, object).unwrap())
    };
    objects.into_iter().map(read).collect()
}

/// A control plane, and what a launcher needs.
struct Place {
    dir: tempfile::TempDir,
    address: std::net::SocketAddr,
    shutdown: Shutdown,
}

struct Launcher(Child);

impl Place {
    async fn create() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pair = KeyPair::generate().unwrap();
        let signer = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        let jwk = Jwk::from_encoding_key(&signer, Algorithm::ES256).unwrap();
        fs::write(dir.path().join("jwks.json"), json!({"keys": [jwk]}).to_string()).unwrap();
        let exp = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 600;
        let claims: Value = json!({"sub": "system:serviceaccount:shop:waypoint", "aud": ["istio-ca"], "exp": exp,
            "kubernetes.io": {"namespace": "shop", "pod": {"name": "waypoint-0", "uid": "u"}}});
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &signer).unwrap();
        fs::write(dir.path().join("token"), token).unwrap();
        let (source, ca) = (format!("dir:{}", dir.path().display()), dir.path().join("ca"));
        let any = "127.0.0.1:0";
        let flags = ["waypoint-config", "--source", &source, "--ca-dir", ca.to_str().unwrap(), "--listen", any];
        let flags = flags.into_iter().chain(["--monitoring", any, "--admin", any]);
        let config = <Config as clap::Parser>::try_parse_from(flags).unwrap();
        let (batches, received) = tokio::sync::mpsc::channel(8);
        let shutdown = Shutdown::new();
        let telemetry = telemetry::init(&telemetry::Options::default()).unwrap();
        let app = App::start(&config, received, telemetry, Tasks::new(), shutdown.clone()).await.unwrap();
        let address = app.address();
        batches.send(Batch { changes: waypoint(), faults: Arc::default(), synced: true }).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test is the main here")]
        tokio::spawn(async move {
            app.run().await;
            drop(batches);
        });
        Self { dir, address, shutdown }
    }

    fn launch(&self) -> Launcher {
        self.launch_with(&[])
    }

    fn launch_with(&self, more: &[(&str, &str)]) -> Launcher {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lateen-waypoint"));
        command
            .current_dir(self.dir.path())
            .env("GATEWAY_NAME", "waypoint")
            .env("POD_NAME", "waypoint-0")
            .env("POD_NAMESPACE", "shop")
            .env("SERVICE_ACCOUNT", "waypoint")
            .env("INSTANCE_IP", "127.0.0.1")
            .env("XDS_ADDRESS", self.address.to_string())
            .env("XDS_ROOT_CA", "ca/root-cert.pem")
            .env("AUTH_TOKEN", "token")
            .env("SECRET_TTL", "8s")
            .env("ENVOY_BIN", envoy().unwrap())
            .env("LATEEN_RUN_DIR", "run")
            .env("ENVOY_CONCURRENCY", "1")
            .env("MINIMUM_DRAIN_DURATION", "1")
            .envs(more.iter().copied());
        Launcher(command.spawn().unwrap())
    }

    /// The serial number of the certificate Envoy uses.
    fn serial(&self) -> String {
        let mut found = None;
        self.until("a certificate in Envoy", || {
            found = serials().and_then(|serials| serials.into_iter().next());
            found.is_some()
        });
        found.unwrap()
    }

    fn until(&self, what: &str, mut look: impl FnMut() -> bool) {
        let start = Instant::now();
        while !look() {
            assert!(start.elapsed() < PATIENCE, "waited for {what}");
            pause();
        }
    }
}

impl Launcher {
    fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// The process number of its one child.
    fn envoy(&self) -> i32 {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid())).unwrap();
        children.trim().parse().unwrap()
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the launcher does not end");
            pause();
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The serial numbers of leaves Envoy uses.
fn serials() -> Option<Vec<String>> {
    let answer = fetch("GET", 15000, "/certs")?;
    let body: Value = serde_json::from_str(&answer[answer.find('{')?..=answer.rfind('}')?]).ok()?;
    let chains = body["certificates"].as_array()?.iter().flat_map(|one| one["cert_chain"].as_array());
    Some(chains.flatten().filter_map(|leaf| leaf["serial_number"].as_str().map(str::to_owned)).collect())
}

fn stat(name: &str) -> Option<u64> {
    let answer = fetch("GET", 15000, &format!("/stats?filter={name}"))?;
    answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.trim().parse().ok())
}

fn fetch(method: &str, port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream
        .write_all(format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[expect(clippy::disallowed_methods, reason = "between two looks at a condition with a deadline")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

const PATIENCE: Duration = Duration::from_secs(40);
