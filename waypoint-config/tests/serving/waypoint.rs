// SPDX-License-Identifier: Apache-2.0
//! A real Envoy as a waypoint of this control plane, over TLS, in both variants of the protocol: it takes everything, and a change reaches only what it
//! touches. Found by `ENVOY_BIN`, else among the tools of this build; a run without one says so and fails where `CI` is set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

fn envoy() -> Option<PathBuf> {
    let named = std::env::var_os("ENVOY_BIN").map(PathBuf::from);
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("tools");
    let unpacked =
        std::fs::read_dir(tools).into_iter().flatten().filter_map(Result::ok).map(|one| one.path().join("envoy"));
    let found = named.into_iter().chain(unpacked).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("no Envoy: set ENVOY_BIN, or start the tests of mesh-tests once; what needs it is skipped");
        assert!(std::env::var_os("CI").is_none(), "no Envoy, and CI counts a skip as a failure");
    }
    found
}

fn put(object: Value) -> Change {
    let text = |field: &str| object[field].as_str().unwrap().to_owned();
    let kind = Kind::of(&text("apiVersion"), &text("kind")).unwrap();
    Change::Put(Object::read(kind, object).unwrap())
}

fn service(name: &str, address: &str, protocol: &str) -> Change {
    put(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": name, "labels": {"istio.io/use-waypoint": "waypoint"}},
        "spec": {"clusterIP": address, "selector": {"app": name},
            "ports": [{"name": "web", "port": 80, "appProtocol": protocol}, {"name": "tcp", "port": 90}]},
    }))
}

fn endpoint(name: &str, app: &str, address: &str) -> Change {
    put(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": app},
            "annotations": {"ambient.istio.io/redirection": "enabled"}},
        "spec": {"serviceAccountName": app, "containers": []},
        "status": {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
    }))
}

fn route(prefix: &str) -> Change {
    put(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"namespace": "shop", "name": "cart"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "cart", "port": 80}],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
                "backendRefs": [{"name": "cart", "port": 80}]}],
        },
    }))
}

fn shop() -> Vec<Change> {
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"namespace": "shop", "name": "waypoint"},
        "spec": {"gatewayClassName": "istio-waypoint", "addresses": [{"value": "10.95.0.1"}],
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
    });
    let instance = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "waypoint-1", "uid": "uid-waypoint-1",
            "labels": {"gateway.networking.k8s.io/gateway-name": "waypoint"}},
        "spec": {"serviceAccountName": "waypoint", "containers": []}, "status": {"podIP": "10.0.0.9"},
    });
    vec![
        put(gateway),
        put(instance),
        service("cart", "10.96.0.1", "http"),
        endpoint("cart-0", "cart", "10.0.0.1"),
        route("/a"),
    ]
}

/// A running Envoy.
struct Running {
    child: Child,
    dir: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Envoy with a certificate of our own CA, its discovery pointed at us.
async fn start(world: &World, envoy: &Path, variant: &str) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let token = world.token("shop:waypoint", "waypoint-1");
    let (chain, key) = certify(world.channel(None).await, Some(&token), None).await.unwrap();
    let root = world.dir.path().join("ca/root-cert.pem");
    let secret = |name: &str, field: &str, value: Value| {
        let kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
        let text = json!({"resources": [{"@type": kind, "name": name, field: value}]}).to_string();
        let path = dir.path().join(format!("{name}.json"));
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let inline = |text: String| json!({"inline_string": text});
    let certificate = secret(
        "default",
        "tls_certificate",
        json!({"certificate_chain": inline(chain.concat()), "private_key": inline(key.serialize_pem())}),
    );
    let roots = std::fs::read_to_string(&root).unwrap();
    let roots = secret("ROOTCA", "validation_context", json!({"trusted_ca": inline(roots)}));
    let any = |kind: &str, rest: Value| {
        let mut value = rest;
        value["@type"] = json!(format!("type.googleapis.com/{kind}"));
        value
    };
    let http = any(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        json!({"explicit_http_config": {"http2_protocol_options": {}}}),
    );
    let tls = any(
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        json!({"sni": "istiod.istio-system.svc",
            "common_tls_context": {"validation_context": {"trusted_ca": {"filename": root.display().to_string()}}}}),
    );
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": world.address.port()}});
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    let bootstrap = json!({
        "node": {"id": "waypoint~10.0.0.9~waypoint-1.shop~shop.svc.cluster.local", "cluster": "waypoint.shop",
            "metadata": {"NAMESPACE": "shop", "LATEEN_CERTIFICATE_FILE": certificate, "LATEEN_ROOTS_FILE": roots}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "bootstrap_extensions": [{"name": "internal", "typed_config":
            any("envoy.extensions.bootstrap.internal_listener.v3.InternalListener", json!({}))}],
        "dynamic_resources": {
            "cds_config": ads, "lds_config": ads,
            "ads_config": {"api_type": variant, "transport_api_version": "V3", "grpc_services": [{
                "envoy_grpc": {"cluster_name": "xds"},
                "initial_metadata": [{"key": "authorization", "value": token}]}]},
        },
        "static_resources": {"clusters": [{
            "name": "xds", "type": "STATIC", "connect_timeout": "5s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http},
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
            "load_assignment": {"cluster_name": "xds",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
        }]},
    });
    let path = dir.path().join("bootstrap.json");
    std::fs::write(&path, bootstrap.to_string()).unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let child = Command::new(envoy)
        .args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning", "-c"])
        .arg(&path)
        .arg("--admin-address-path")
        .arg(dir.path().join("admin"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    Running { child, dir }
}

impl Running {
    async fn ask(&self, path: &str) -> std::io::Result<String> {
        let address = std::fs::read_to_string(self.dir.path().join("admin"))?;
        let mut stream = TcpStream::connect(address.trim()).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    /// Counters and gauges.
    async fn stats(&self) -> BTreeMap<String, u64> {
        let filter = "update_success|update_rejected|listener_m|cluster_m|active_clusters|listeners_active|warming";
        let text = self.ask(&format!("/stats?filter={filter}")).await.unwrap_or_default();
        let line = |line: &str| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        text.lines().filter_map(line).collect()
    }

    /// The counters once they are so.
    async fn until(&self, what: &str, is_so: impl Fn(&BTreeMap<String, u64>) -> bool) -> BTreeMap<String, u64> {
        // Below the fifteen seconds after which Envoy uses a cluster without having got its endpoints.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(12);
        loop {
            let stats = self.stats().await;
            let rejected: Vec<_> =
                stats.iter().filter(|(name, value)| name.ends_with("update_rejected") && **value > 0).collect();
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(rejected.is_empty(), "{what}: {rejected:?}\n{}", log());
            if is_so(&stats) {
                return stats;
            }
            assert!(tokio::time::Instant::now() < deadline, "never {what}: {stats:#?}\n{}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn sum(stats: &BTreeMap<String, u64>, start: &str, middle: &str) -> u64 {
    let of = |name: &str| name.starts_with(start) && name.contains(middle) && name.ends_with("update_success");
    stats.iter().filter(|(name, _)| of(name)).map(|(_, value)| value).sum()
}

fn at(stats: &BTreeMap<String, u64>, name: &str) -> u64 {
    stats.get(name).copied().unwrap_or_default()
}

const LDS: &str = "listener_manager.lds.update_success";
const CDS: &str = "cluster_manager.cds.update_success";

fn eds(stats: &BTreeMap<String, u64>) -> u64 {
    sum(stats, "cluster.", "")
}

fn rds(stats: &BTreeMap<String, u64>) -> u64 {
    sum(stats, "http.", ".rds.")
}

async fn takes_everything_and_only_what_differs(variant: &str) {
    let Some(envoy) = envoy() else { return };
    let world = world().await;
    world.say(shop()).await;
    drop(until_synced(&world).await);
    let running = start(&world, &envoy, variant).await;
    let up = |stats: &BTreeMap<String, u64>| {
        at(stats, "listener_manager.total_listeners_active") == 4
            && at(stats, "listener_manager.total_listeners_warming") == 0
            && at(stats, "cluster_manager.warming_clusters") == 0
            && rds(stats) >= 1
    };
    let first = running.until("up", up).await;

    world.say(vec![route("/b")]).await;
    let second = running.until("given its route", |stats| rds(stats) > rds(&first)).await;
    assert_eq!((at(&second, LDS), at(&second, CDS), eds(&second)), (at(&first, LDS), at(&first, CDS), eds(&first)));
    assert!(running.ask("/config_dump?resource=dynamic_route_configs").await.unwrap().contains("\"/b\""));

    world.say(vec![endpoint("cart-1", "cart", "10.0.0.2")]).await;
    let third = running.until("given its endpoint", |stats| eds(stats) > eds(&second)).await;
    assert_eq!((at(&third, LDS), at(&third, CDS), rds(&third)), (at(&first, LDS), at(&first, CDS), rds(&second)));
    assert!(running.ask("/clusters").await.unwrap().contains("10.0.0.2"));

    // A cluster that changes is not used before its endpoints have been sent again.
    world.say(vec![service("cart", "10.96.0.1", "kubernetes.io/h2c")]).await;
    let changed = |stats: &BTreeMap<String, u64>| {
        at(stats, "cluster_manager.cluster_modified") > at(&third, "cluster_manager.cluster_modified")
            && at(stats, "cluster_manager.warming_clusters") == 0
    };
    running.until("given its changed cluster", changed).await;
    assert!(running.ask("/clusters").await.unwrap().contains("10.0.0.2"));

    // One service comes as another goes.
    let gone = ["cart-0", "cart-1"].map(|name| Change::Delete(Key::new(Kind::Pod, "shop", name)));
    let mut changes = vec![
        Change::Delete(Key::new(Kind::Service, "shop", "cart")),
        Change::Delete(Key::new(Kind::HttpRoute, "shop", "cart")),
        service("till", "10.96.0.2", "http"),
        endpoint("till-0", "till", "10.0.0.3"),
    ];
    changes.extend(gone);
    world.say(changes).await;
    let swapped = |stats: &BTreeMap<String, u64>| {
        at(stats, "cluster_manager.cluster_removed") > 0 && at(stats, "cluster_manager.warming_clusters") == 0
    };
    running.until("rid of what is gone", swapped).await;
    let clusters = running.ask("/clusters").await.unwrap();
    assert!(clusters.contains("till.shop") && !clusters.contains("cart.shop"), "{clusters}");
    drop(running);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_that_speaks_delta_takes_everything_and_only_what_differs() {
    takes_everything_and_only_what_differs("DELTA_GRPC").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_that_speaks_of_whole_states_takes_everything_and_only_what_differs() {
    takes_everything_and_only_what_differs("GRPC").await;
}
