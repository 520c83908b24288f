// SPDX-License-Identifier: Apache-2.0
//! Whatever happened in whatever order: a mesh kept up to date step by step equals one built at once from the objects that are left. And what is
//! told as changed is exactly what differs.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;
use rpds::RedBlackTreeMapSync;
use serde_json::{Value, json};
use waypoint_config::{
    ambient::{Changes, Resource, Type},
    api::{Key, Kind, Object},
    line::Line,
    store::Change,
    view::{Mesh, Name, Snapshot},
};

const NAMESPACES: [&str; 3] = ["istio-system", "a", "b"];
const NODES: [&str; 2] = ["n1", "n2"];

fn pick<T: Clone + std::fmt::Debug + 'static>(values: Vec<T>) -> impl Strategy<Value = T> {
    proptest::sample::select(values)
}

fn labels() -> impl Strategy<Value = Value> {
    let own = pick(vec![
        json!({}),
        json!({"app": "x"}),
        json!({"app": "y"}),
        json!({"app": "x", "tier": "t"}),
        json!({"gateway.networking.k8s.io/gateway-name": "o1"}),
        json!({"gateway.networking.k8s.io/gateway-name": "o2", "app": "x"}),
    ]);
    (own, asking()).prop_map(|(own, asking)| both(own, asking))
}

/// Which waypoint something asks for.
fn asking() -> impl Strategy<Value = Value> {
    pick(vec![
        json!({}),
        json!({}),
        json!({"istio.io/use-waypoint": "none"}),
        json!({"istio.io/use-waypoint": "o1"}),
        json!({"istio.io/use-waypoint": "o2", "istio.io/ingress-use-waypoint": "true"}),
        json!({"istio.io/use-waypoint": "o1", "istio.io/use-waypoint-namespace": "a"}),
    ])
}

fn both(mut one: Value, other: Value) -> Value {
    one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    one
}

fn selector() -> impl Strategy<Value = Value> {
    pick(vec![
        json!(null),
        json!({"matchLabels": {"app": "x"}}),
        json!({"matchLabels": {"app": "x", "tier": "t"}}),
        json!({"matchLabels": {"app": "y"}}),
    ])
}

fn metadata() -> impl Strategy<Value = Value> {
    (pick(NAMESPACES.to_vec()), pick(vec!["o1", "o2"]))
        .prop_map(|(namespace, name)| json!({"namespace": namespace, "name": name}))
}

fn with(mut value: Value, field: &str, inner: Value) -> Value {
    value[field] = inner;
    value
}

fn pod() -> impl Strategy<Value = Value> {
    let status = pick(vec![
        json!({}),
        json!({"phase": "Pending"}),
        json!({"phase": "Running", "podIP": "10.0.0.1"}),
        json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.2"}, {"ip": "fd00::2"}], "conditions": [{"type": "Ready", "status": "True"}]}),
        json!({"phase": "Failed", "podIP": "10.0.0.1"}),
    ]);
    let ports = pick(vec![json!([]), json!([{"name": "web", "containerPort": 8080}])]);
    let annotations = pick(vec![json!({}), json!({"ambient.istio.io/redirection": "enabled"})]);
    let uid = pick(vec![json!(null), json!("u1"), json!("u2")]);
    let spec = (pick(vec![json!(null), json!("n1"), json!("n2")]), pick(vec!["default", "web"]), ports);
    (metadata(), labels(), annotations, uid, spec, status).prop_map(|(metadata, labels, annotations, uid, (node, account, ports), status)| {
        let metadata = with(with(with(metadata, "labels", labels), "annotations", annotations), "uid", uid);
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"nodeName": node, "serviceAccountName": account, "containers": [{"name": "c", "ports": ports}]},
            "status": status,
        })
    })
}

fn service() -> impl Strategy<Value = Value> {
    let selector = pick(vec![json!(null), json!({}), json!({"app": "x"}), json!({"app": "x", "tier": "t"})]);
    let target = pick(vec![json!(null), json!(1000), json!("web")]);
    let address = pick(vec![json!("None"), json!("10.96.0.1"), json!("10.96.0.2")]);
    let kind = pick(vec![json!("ClusterIP"), json!("ClusterIP"), json!("ExternalName")]);
    (metadata(), asking(), selector, target, address, kind).prop_map(|(metadata, labels, selector, target, address, kind)| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": with(metadata, "labels", labels),
            "spec": {"type": kind, "clusterIP": address, "selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": target}]},
        })
    })
}

fn slice() -> impl Strategy<Value = Value> {
    let endpoint = pick(vec![
        json!({"addresses": ["192.0.2.1"]}),
        json!({"addresses": ["192.0.2.2", "192.0.2.1"], "conditions": {"ready": false}}),
        json!({"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "o1", "uid": "u1"}}),
        json!({"addresses": ["10.0.0.2"], "targetRef": {"kind": "Pod", "name": "o2"}}),
    ]);
    let service =
        pick(vec![json!({}), json!({"kubernetes.io/service-name": "o1"}), json!({"kubernetes.io/service-name": "o2"})]);
    (metadata(), service, prop::collection::vec(endpoint, 0..3), 1000..1003u16).prop_map(|(metadata, labels, endpoints, port)| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": with(metadata, "labels", labels),
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": port}],
        })
    })
}

fn policy() -> impl Strategy<Value = Value> {
    let action = pick(vec!["ALLOW", "DENY", "AUDIT"]);
    let operation = pick(vec![json!({"ports": ["80"]}), json!({"methods": ["GET"]})]);
    let annotations = pick(vec![json!({}), json!({}), json!({"istio.io/dry-run": "true"})]);
    (metadata(), annotations, selector(), action, operation).prop_map(|(metadata, annotations, selector, action, operation)| {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": with(metadata, "annotations", annotations),
            "spec": {"selector": selector, "action": action, "rules": [{"to": [{"operation": operation}]}]},
        })
    })
}

fn target() -> impl Strategy<Value = Value> {
    let group = pick(vec![
        json!({"kind": "Service"}),
        json!({"group": "networking.istio.io", "kind": "ServiceEntry"}),
        json!({"group": "gateway.networking.k8s.io", "kind": "Gateway"}),
        json!({"group": "gateway.networking.k8s.io", "kind": "GatewayClass"}),
    ]);
    (group, pick(vec!["o1", "o2"])).prop_map(|(target, name)| with(target, "name", json!(name)))
}

fn attached() -> impl Strategy<Value = Value> {
    let time = pick(vec![json!(null), json!("2026-01-01T00:00:00Z")]);
    let kind = pick(vec!["AuthorizationPolicy", "RequestAuthentication"]);
    (metadata(), time, kind, prop::collection::vec(target(), 1..3)).prop_map(|(metadata, time, kind, targets)| {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": kind, "metadata": with(metadata, "creationTimestamp", time),
            "spec": {"targetRefs": targets},
        })
    })
}

fn gateway() -> impl Strategy<Value = Value> {
    let class = (pick(vec!["o1", "o2"]), pick(vec![json!({}), json!({"istio.io/waypoint-for": "all"})])).prop_map(|(name, labels)| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": name, "labels": labels},
            "spec": {"controllerName": "istio.io/mesh-controller"},
        })
    });
    let namespaces = pick(vec![
        json!({"from": "Same"}),
        json!({"from": "All"}),
        json!({"from": "Selector", "selector": {"matchLabels": {"topology.istio.io/network": "net"}}}),
    ]);
    let addresses = pick(vec![
        json!([]),
        json!([{"type": "IPAddress", "value": "10.96.0.7"}]),
        json!([{"type": "Hostname", "value": "w.example.com"}]),
    ]);
    let annotations = pick(vec![json!({}), json!({"ambient.istio.io/waypoint-inbound-binding": "PROXY"})]);
    let traffic = pick(vec![json!({}), json!({"istio.io/waypoint-for": "workload"})]);
    let gateway = (metadata(), pick(vec!["o1", "o2"]), traffic, annotations, namespaces, addresses).prop_map(
        |(metadata, class, labels, annotations, namespaces, addresses)| {
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                "metadata": with(with(metadata, "labels", labels), "annotations", annotations),
                "spec": {
                    "gatewayClassName": class,
                    "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": {"namespaces": namespaces}}],
                },
                "status": {"addresses": addresses},
            })
        },
    );
    prop_oneof![1 => class, 3 => gateway]
}

fn entry() -> impl Strategy<Value = Value> {
    let hosts = pick(vec![
        json!(["x.example.com"]),
        json!(["o1.a.svc.cluster.local", "x.example.com"]),
        json!(["o1.b.svc.cluster.local"]),
    ]);
    let behind = pick(vec![
        json!({"resolution": "STATIC", "endpoints": [{"address": "192.0.2.8", "labels": {"istio.io/use-waypoint": "o1"}}, {"address": "192.0.2.9"}]}),
        json!({"resolution": "STATIC", "endpoints": [{"address": "192.0.2.9", "ports": {"web": 7}}]}),
        json!({"resolution": "STATIC", "workloadSelector": {"labels": {"app": "x"}}}),
        json!({"resolution": "DNS"}),
        json!({"resolution": "NONE", "addresses": ["192.0.2.0/24", "198.51.100.1"]}),
    ]);
    let time = pick(vec![json!(null), json!("2026-01-01T00:00:00Z"), json!("2026-02-01T00:00:00Z")]);
    let service = (metadata(), labels(), time, hosts, behind).prop_map(|(metadata, labels, time, hosts, behind)| {
        let spec = both(behind, json!({"hosts": hosts, "ports": [{"number": 80, "name": "web", "protocol": "HTTP"}]}));
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": with(with(metadata, "labels", labels), "creationTimestamp", time), "spec": spec,
        })
    });
    let address = pick(vec!["192.0.2.10", "vm.example.com"]);
    let workload = (metadata(), labels(), address).prop_map(|(metadata, labels, address)| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": with(metadata, "labels", labels),
            "spec": {"address": address, "ports": {"web": 8}},
        })
    });
    prop_oneof![3 => service, 1 => workload]
}

fn mode() -> impl Strategy<Value = &'static str> {
    pick(vec!["UNSET", "DISABLE", "PERMISSIVE", "STRICT"])
}

fn peer() -> impl Strategy<Value = Value> {
    let time = pick(vec![json!(null), json!("2026-01-01T00:00:00Z"), json!("2026-02-01T00:00:00Z")]);
    (metadata(), time, selector(), mode(), prop::option::of(mode())).prop_map(|(metadata, time, selector, mode, port)| {
        let ports = if selector.is_null() { json!({}) } else { port.map_or_else(|| json!({}), |mode| json!({"8080": {"mode": mode}})) };
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": with(metadata, "creationTimestamp", time),
            "spec": {"selector": selector, "mtls": {"mode": mode}, "portLevelMtls": ports},
        })
    })
}

fn place() -> impl Strategy<Value = Value> {
    let namespace = (
        pick(NAMESPACES.to_vec()),
        (pick(vec![json!({}), json!({"topology.istio.io/network": "net"})]), asking())
            .prop_map(|(one, other)| both(one, other)),
        pick(vec![json!({}), json!({"networking.istio.io/traffic-distribution": "PreferClose"})]),
    );
    let namespace = namespace.prop_map(|(name, labels, annotations)| {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels, "annotations": annotations}})
    });
    let node = (pick(NODES.to_vec()), pick(vec!["z1", "z2"])).prop_map(|(name, zone)| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}})
    });
    prop_oneof![namespace, node]
}

fn change() -> impl Strategy<Value = Change> {
    let object = prop_oneof![3 => pod(), 2 => service(), 2 => slice(), 2 => policy(), 2 => peer(), 1 => place(), 3 => gateway(), 3 => entry(), 2 => attached()];
    (object, prop::bool::weighted(0.75)).prop_map(|(value, stays)| {
        let text = |field: &str| value[field].as_str().unwrap().to_owned();
        let kind = Kind::of(&text("apiVersion"), &text("kind")).unwrap();
        let object = Object::read(kind, value).unwrap();
        if stays { Change::Put(object) } else { Change::Delete(object.key()) }
    })
}

fn all(line: &Line) -> BTreeMap<(Type, String), Resource> {
    let resources = line.resources();
    let all = Type::ALL.into_iter().flat_map(|kind| resources.all(kind));
    all.map(|one| ((one.kind, one.name.to_string()), (**one).clone())).collect()
}

fn compare(stepwise: &Line, at_once: &Line) -> Result<(), TestCaseError> {
    prop_assert_eq!(all(stepwise), all(at_once));
    let (a, b) = (stepwise.resources(), at_once.resources());
    prop_assert_eq!(a.notices().collect::<Vec<_>>(), b.notices().collect::<Vec<_>>());
    for resource in a.all(Type::Address) {
        let found = |line: &Line, name: &str| {
            line.resources().look_up(name).iter().map(|one| one.name.clone()).collect::<Vec<_>>()
        };
        for name in resource.aliases.iter().chain([&resource.name]) {
            prop_assert_eq!(found(stepwise, name), found(at_once, name));
        }
    }
    let (a, b) = (stepwise.snapshot(), at_once.snapshot());
    prop_assert_eq!(&a.residents, &b.residents);
    prop_assert_eq!(&a.services, &b.services);
    prop_assert_eq!(&a.workloads, &b.workloads);
    prop_assert_eq!(&a.waypoints, &b.waypoints);
    prop_assert_eq!(&a.access, &b.access);
    for object in stepwise.store().objects() {
        prop_assert_eq!(stepwise.status(&object.key()), at_once.status(&object.key()));
    }
    indices(a)?;
    for node in NODES {
        prop_assert_eq!(
            stepwise.resources().on_node(node).collect::<Vec<_>>(),
            at_once.resources().on_node(node).collect::<Vec<_>>()
        );
        for (namespace, account) in NAMESPACES.iter().flat_map(|namespace| [(namespace, "default"), (namespace, "web")])
        {
            prop_assert_eq!(a.is_lodged(node, namespace, account), b.is_lodged(node, namespace, account));
            let lodgers = a.residents.iter().filter(|(name, one)| {
                &*one.node == node
                    && Name::new(one.identity.namespace(), one.identity.service_account())
                        == Name::new(*namespace, account)
                    && name.namespace == (*namespace).into()
            });
            prop_assert_eq!(a.is_lodged(node, namespace, account), lodgers.count() > 0);
        }
    }
    Ok(())
}

/// What is found by an index is what is found by looking at everything.
fn indices(snapshot: &Snapshot) -> Result<(), TestCaseError> {
    for name in snapshot.waypoints.keys() {
        let services =
            snapshot.services.iter().filter(|(_, one)| one.waypoint.as_ref() == Some(name)).map(|(key, _)| key);
        prop_assert_eq!(snapshot.services_through(name).collect::<Vec<_>>(), services.collect::<Vec<_>>());
        let workloads =
            snapshot.workloads.iter().filter(|(_, one)| one.waypoint.as_ref() == Some(name)).map(|(id, _)| id);
        prop_assert_eq!(snapshot.workloads_through(name).collect::<Vec<_>>(), workloads.collect::<Vec<_>>());
    }
    for (key, service) in &snapshot.services {
        prop_assert_eq!(key, &service.key(&snapshot.mesh));
        let endpoints = snapshot.workloads.values().filter(|one| one.services.contains_key(&service.id()));
        prop_assert_eq!(snapshot.endpoints(key).collect::<Vec<_>>(), endpoints.collect::<Vec<_>>());
        prop_assert_eq!(snapshot.service_of_host(&key.namespace, &service.hostname), Some(service));
        let meant = snapshot.services.values().filter(|one| one.canonical && one.hostname == service.hostname);
        let meant: Vec<_> = meant.collect();
        prop_assert_eq!(meant.len(), 1, "one meaning for everybody");
        prop_assert_eq!(snapshot.service_of_host("elsewhere", &service.hostname), Some(meant[0]));
    }
    Ok(())
}

/// What is told as touched is what differs: neither less nor, where it says so, more.
fn touched(before: &Snapshot, line: &Line) -> Result<(), TestCaseError> {
    fn differing<K: Ord + Clone, V: PartialEq>(
        a: &RedBlackTreeMapSync<K, Arc<V>>,
        b: &RedBlackTreeMapSync<K, Arc<V>>,
    ) -> BTreeSet<K> {
        a.keys().chain(b.keys()).filter(|key| a.get(*key) != b.get(*key)).cloned().collect()
    }
    let (now, touched) = (line.snapshot(), line.touched());
    prop_assert_eq!(&touched.services, &differing(&before.services, &now.services));
    prop_assert_eq!(&touched.workloads, &differing(&before.workloads, &now.workloads));
    prop_assert_eq!(&touched.waypoints, &differing(&before.waypoints, &now.waypoints));
    prop_assert_eq!(&touched.access, &differing(&before.access, &now.access));
    for key in before.services.keys().chain(now.services.keys()).filter(|key| !touched.endpoints.contains(*key)) {
        prop_assert_eq!(before.endpoints(key).collect::<Vec<_>>(), now.endpoints(key).collect::<Vec<_>>());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn step_by_step_equals_all_at_once(batches in prop::collection::vec(prop::collection::vec(change(), 1..4), 1..25)) {
        let mut stepwise = Line::new(Mesh::default());
        let mut objects: BTreeMap<Key, Object> = BTreeMap::new();
        for batch in batches {
            for change in &batch {
                match change {
                    Change::Put(object) => _ = objects.insert(object.key(), object.clone()),
                    Change::Delete(key) => _ = objects.remove(key),
                }
            }
            let (before, generation) = (all(&stepwise), stepwise.resources().generation());
            let snapshot = stepwise.snapshot().clone();
            let said: BTreeMap<_, _> = stepwise.store().objects().map(|object| (object.key(), stepwise.status(&object.key()))).collect();
            let differs = stepwise.apply(batch);
            touched(&snapshot, &stepwise)?;
            for object in stepwise.store().objects().filter(|object| !stepwise.touched().judged.contains(&object.key())) {
                let key = object.key();
                prop_assert_eq!(said.get(&key), Some(&stepwise.status(&key)), "{} was not told of", key);
            }
            let after = all(&stepwise);
            prop_assert!(differs || before == after);
            for kind in Type::ALL {
                let keys: BTreeSet<_> = before.keys().chain(after.keys()).filter(|key| key.0 == kind).collect();
                let expected: BTreeSet<_> = keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).map(|key| key.1.as_str().into()).collect();
                prop_assert_eq!(stepwise.resources().changed_since(kind, generation), Changes::Names(expected));
            }
            let mut at_once = Line::new(Mesh::default());
            at_once.apply(objects.values().cloned().map(Change::Put));
            compare(&stepwise, &at_once)?;
        }
        stepwise.apply(objects.into_keys().map(Change::Delete));
        prop_assert_eq!(all(&stepwise), BTreeMap::new());
    }
}
