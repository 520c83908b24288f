// SPDX-License-Identifier: Apache-2.0
//! Objects that are valid YAML and nonsense, in a directory of a running control plane: each gets a condition with reason and message in its own file, what
//! others are sent stays as it was, and `lateen validate` says the same.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "the test is the main here")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use waypoint_config::control;
use waypoint_config::envoy::{Profile, Type};
use waypoint_config::fleet::Key;
use waypoint_config::line::{self, Feedback, Inputs, Outputs, Published, Statuses, Wish};
use waypoint_config::settings::Loaded;
use waypoint_config::source::files::{Directory, OWN, Options};
use waypoint_config::view::{Mesh, Name};

const PATIENCE: Duration = Duration::from_secs(60);

fn gateway() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"namespace": "shop", "name": "waypoint"},
        "spec": {"gatewayClassName": "istio-waypoint", "addresses": [{"value": "10.95.0.1"}],
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
    })
}

fn service(namespace: &str, name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name, "labels": {"istio.io/use-waypoint": "waypoint"}},
        "spec": {"clusterIP": address, "selector": {"app": name}, "ports": [{"name": "http", "port": 80}]},
    })
}

fn route(name: &str, rules: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"namespace": "shop", "name": name},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "odd"}], "rules": rules},
    })
}

fn to(backend: Value) -> Value {
    json!([{"backendRefs": [backend]}])
}

fn policy(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": {"namespace": "shop", "name": name}, "spec": spec})
}

/// Every nonsense: the object, the condition that is expected, its reason, and what its message holds.
fn nonsense() -> Vec<(Value, &'static str, &'static str, &'static str)> {
    let cart = json!({"name": "cart", "port": 80});
    let header = |value: String| json!([{"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": value}]}}], "backendRefs": [cart]}]);
    let regex = json!([{"matches": [{"path": {"type": "RegularExpression", "value": "/a("}}], "backendRefs": [cart]}]);
    let odd = json!({"kind": "Service", "name": "odd"});
    vec![
        (
            route("kind", to(json!({"group": "example.com", "kind": "Odd", "name": "x", "port": 1}))),
            "ResolvedRefs",
            "InvalidKind",
            "Odd",
        ),
        (route("port", to(json!({"name": "cart", "port": 70000}))), "Accepted", "UnsupportedValue", "70000"),
        (route("no-port", to(json!({"name": "cart", "port": 81}))), "ResolvedRefs", "BackendNotFound", "81"),
        (route("regex", regex), "Accepted", "UnsupportedValue", "/a("),
        (route("rules", json!(vec![json!({"backendRefs": [cart]}); 10_000])), "Accepted", "UnsupportedValue", "10000"),
        (
            route("grant", to(json!({"namespace": "other", "name": "far", "port": 80}))),
            "ResolvedRefs",
            "RefNotPermitted",
            "ReferenceGrant",
        ),
        (route("header", header("x".repeat(5 << 20))), "Accepted", "UnsupportedValue", "5242880"),
        (
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"namespace": "shop", "name": "lost"},
                "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "nowhere"}], "rules": to(json!({"name": "cart", "port": 80}))},
            }),
            "Accepted",
            "NoMatchingParent",
            "nowhere",
        ),
        (
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"namespace": "shop", "name": "at-waypoint"},
                "spec": {"parentRefs": [{"name": "waypoint"}], "rules": to(json!({"name": "cart", "port": 80}))},
            }),
            "Accepted",
            "NotAllowedByListeners",
            "waypoint",
        ),
        (
            policy("AuthorizationPolicy", "rules", json!({"rules": vec![json!({}); 10_000]})),
            "Accepted",
            "Invalid",
            "10000",
        ),
        (
            policy(
                "AuthorizationPolicy",
                "target",
                json!({"targetRefs": [{"kind": "Service", "name": "nowhere"}], "rules": [{}]}),
            ),
            "WaypointAccepted",
            "TargetNotFound",
            "nowhere",
        ),
        (
            policy(
                "AuthorizationPolicy",
                "provider",
                json!({"action": "CUSTOM", "provider": {"name": "nobody"}, "targetRefs": [odd], "rules": [{}]}),
            ),
            "lateen.io/EnforcedAsWritten",
            "NoProvider",
            "nobody",
        ),
        (
            policy(
                "RequestAuthentication",
                "keys",
                json!({"targetRefs": [odd], "jwtRules": [{"issuer": "them", "jwksUri": "https://them.invalid"}]}),
            ),
            "lateen.io/EnforcedAsWritten",
            "NoKeys",
            "them",
        ),
        (
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"namespace": "shop", "name": "edge"},
                "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{"name": "web", "port": 80, "protocol": "HTTP"}]},
            }),
            "Accepted",
            "ListenersNotValid",
            "15008",
        ),
    ]
}

/// A control plane over a directory, as `app` puts it together, without its ports.
struct World {
    dir: tempfile::TempDir,
    published: watch::Receiver<Published>,
    _wish: Wish,
}

impl World {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = [
            gateway(),
            service("shop", "cart", "10.96.0.1"),
            service("shop", "odd", "10.96.0.2"),
            service("other", "far", "10.96.0.3"),
        ];
        for (at, object) in world.iter().enumerate() {
            fs::write(dir.path().join(format!("world-{at}.json")), object.to_string()).unwrap();
        }
        let cart = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"namespace": "shop", "name": "cart"},
            "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}], "rules": to(json!({"name": "cart", "port": 80}))},
        });
        fs::write(dir.path().join("cart.json"), cart.to_string()).unwrap();
        let source =
            Directory::open(Options { rescan: Duration::from_millis(200), ..Options::new(dir.path()) }).unwrap();
        let (said, batches) = mpsc::channel(1);
        let (publish, published) = watch::channel(Published::default());
        let (feedback, statuses) = (Feedback::default(), Statuses::default());
        let wish = feedback.demand.wish(Key { waypoint: Name::new("shop", "waypoint"), profile: Profile::default() });
        tokio::spawn(control::files::run(dir.path().join("status").join(OWN), statuses.clone()));
        let (wanted, _) = watch::channel(Arc::default());
        let (_, settings) = watch::channel(Loaded::default());
        let (_, keys) = watch::channel(Arc::default());
        let inputs = Inputs { batches, settings, keys };
        tokio::spawn(line::run(Mesh::default(), inputs, feedback, Outputs { publish, wanted, statuses }));
        tokio::spawn(source.run(said));
        Self { dir, published, _wish: wish }
    }

    fn path(&self, key: (&str, &str)) -> std::path::PathBuf {
        self.dir.path().join("status").join(OWN).join("shop").join(format!("{}_{}.yaml", key.0, key.1))
    }

    /// What stands in the file of an object, once it is so.
    async fn told(&self, kind: &str, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(self.path((kind, name))).unwrap_or_default();
            let value = serde_saphyr::from_str(&text).unwrap_or(Value::Null);
            if is_so(&value) {
                return value;
            }
            assert!(Instant::now() < deadline, "{kind} {name}: {text}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Types, names and versions of what the waypoint and node proxies are sent, of everything but the service `odd`.
    fn sent(&self) -> BTreeMap<(String, Arc<str>), Arc<str>> {
        let published = self.published.borrow();
        let key = Key { waypoint: Name::new("shop", "waypoint"), profile: Profile::default() };
        let rendered = published.waypoints.get(&key).unwrap();
        let of_waypoint = Type::ALL
            .into_iter()
            .flat_map(|kind| rendered.resources.all(kind).map(move |one| (format!("{kind:?}"), one)));
        let of_waypoint = of_waypoint.map(|(kind, one)| ((kind, Arc::clone(&one.name)), Arc::clone(&one.version)));
        let of_nodes = published.resources.all(waypoint_config::ambient::Type::Address);
        let of_nodes = of_nodes.map(|one| (("address".to_owned(), Arc::clone(&one.name)), Arc::clone(&one.version)));
        // All services of a waypoint share its two internal listeners.
        let is_shared = |name: &str| name == "main_internal" || name == "sniff_internal";
        of_waypoint.chain(of_nodes).filter(|((_, name), _)| !name.contains("odd.shop") && !is_shared(name)).collect()
    }
}

/// All conditions of an object, by parent or alone.
fn conditions(document: &Value) -> Vec<&Value> {
    let status = &document["status"];
    let parents = status["parents"].as_array().into_iter().flatten();
    let parents = parents.flat_map(|parent| parent["conditions"].as_array().into_iter().flatten());
    parents.chain(status["conditions"].as_array().into_iter().flatten()).collect()
}

fn has(document: &Value, kind: &str, reason: &str, words: &str) -> bool {
    conditions(document).iter().any(|one| {
        one["type"] == kind
            && one["status"] == "False"
            && one["reason"] == reason
            && one["message"].as_str().is_some_and(|message| message.contains(words))
            && one["lastTransitionTime"].as_str().is_some_and(|time| time.ends_with('Z'))
    })
}

fn named(object: &Value) -> (&str, &str) {
    (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
}

fn validate(dir: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_lateen")).args(["validate", "--dir"]).arg(dir).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_gets_a_condition_and_costs_nobody_else_anything() {
    let mut world = World::start();
    let taken = world.told("HTTPRoute", "cart", |it| !it.is_null()).await;
    let parent = &taken["status"]["parents"][0];
    assert_eq!(parent["parentRef"], json!({"group": "", "kind": "Service", "name": "cart"}));
    assert_eq!(parent["controllerName"], "istio.io/gateway-controller");
    assert!(conditions(&taken).iter().all(|one| one["status"] == "True"), "{taken:#}");
    world.told("Gateway", "waypoint", |it| it["status"]["listeners"][0]["name"] == "mesh").await;
    timeout(PATIENCE, world.published.wait_for(|published| published.waypoints.iter().next().is_some()))
        .await
        .unwrap()
        .unwrap();
    let before = world.sent();
    assert!(before.keys().any(|(_, name)| name.contains("cart.shop")));

    // Each alone, then all of them together: a file of its own each.
    let all = nonsense();
    for (object, kind, reason, words) in &all {
        let (of, name) = named(object);
        fs::write(world.dir.path().join(format!("{of}-{name}.json")), object.to_string()).unwrap();
        world.told(of, name, |document| has(document, kind, reason, words)).await;
        assert_eq!(world.sent(), before, "{of} {name}");
    }
    let names: BTreeSet<_> = all.iter().map(|(object, ..)| named(object)).collect();
    assert_eq!(names.len(), all.len(), "each object has a name of its own");

    // Nothing of what was written came back as an object or as a fault.
    let faults = world.published.borrow().faults.clone();
    assert!(faults.iter().all(|fault| !fault.file.starts_with(world.dir.path().join("status"))), "{faults:?}");

    // The command says the same, and refuses.
    let (code, text) = validate(world.dir.path());
    assert_eq!(code, Some(1));
    for (object, kind, reason, words) in &all {
        let (of, name) = named(object);
        let is_it = |line: &str| {
            let told =
                line.contains(&format!("{kind}=False ({reason})")) || line.contains(&format!("{of}-{name}.json:1: "));
            line.starts_with("bad") && line.contains(&format!("{of} shop/{name}: ")) && told && line.contains(words)
        };
        assert!(
            text.lines().any(is_it),
            "{of} {name}: {kind} {reason} {words}\n{}",
            text.lines().map(|line| line.chars().take(300).collect::<String>() + "\n").collect::<String>()
        );
    }

    // What is mended is told so, and what is gone has no file.
    fs::write(
        world.dir.path().join("HTTPRoute-port.json"),
        route("port", to(json!({"name": "cart", "port": 80}))).to_string(),
    )
    .unwrap();
    let mended = world
        .told("HTTPRoute", "port", |document| {
            conditions(document).iter().all(|one| one["status"] == "True") && !document.is_null()
        })
        .await;
    assert_eq!(mended["status"]["parents"][0]["parentRef"]["name"], "odd");
    fs::remove_file(world.dir.path().join("HTTPRoute-kind.json")).unwrap();
    world.told("HTTPRoute", "kind", Value::is_null).await;
    // A file that turns bad keeps what was in force, and says so.
    fs::write(
        world.dir.path().join("cart.json"),
        route("cart", to(json!({"name": "cart", "port": 70000}))).to_string(),
    )
    .unwrap();
    world.told("HTTPRoute", "cart", |document| has(document, "Accepted", "UnsupportedValue", "stays in force")).await;
    assert_eq!(world.sent(), before);
}
