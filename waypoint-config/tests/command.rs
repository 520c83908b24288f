// SPDX-License-Identifier: Apache-2.0
//! The program `lateen` over directories.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, process::Command};

use serde_json::Value;

fn lateen(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_lateen")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn directory(port: u16) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{namespace: shop, name: waypoint}}
spec: {{gatewayClassName: istio-waypoint, addresses: [{{value: 10.95.0.1}}], listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]}}
---
apiVersion: v1
kind: Service
metadata: {{namespace: shop, name: cart, labels: {{istio.io/use-waypoint: waypoint}}}}
spec: {{clusterIP: 10.96.0.1, ports: [{{name: http, port: {port}}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{namespace: shop, name: cart}}
spec: {{parentRefs: [{{group: '', kind: Service, name: cart}}], rules: [{{backendRefs: [{{name: cart, port: {port}}}]}}]}}
"
    );
    fs::write(dir.path().join("objects.yaml"), text).unwrap();
    dir
}

fn path(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

#[test]
fn what_is_rendered_twice_is_equal_and_names_what_differs_elsewhere() {
    let (one, other) = (directory(80), directory(81));
    let first = lateen(&["render", "--dir", path(one.path())]);
    assert_eq!((first.0, first.2.as_str()), (Some(0), ""));
    assert!(first.1.contains("inbound-vip|80|http|cart.shop.svc.cluster.local"), "{}", first.1);
    assert_eq!(first, lateen(&["render", "--dir", path(one.path())]));
    let json = lateen(&["render", "--output", "json", "--dir", path(one.path())]);
    let json: Value = serde_json::from_str(&json.1).unwrap();
    assert_eq!(json["waypoints"]["shop/waypoint"]["listeners"].as_object().unwrap().len(), 4);
    let service = &json["workloads"]["addresses"]["shop/cart.shop.svc.cluster.local"]["service"];
    assert_eq!(service["addresses"][0]["address"], "10.96.0.1", "{service:#}");
    let only = lateen(&["render", "--output", "json", "--waypoint", "shop/waypoint", "--dir", path(one.path())]);
    assert_eq!(serde_json::from_str::<Value>(&only.1).unwrap(), json["waypoints"]["shop/waypoint"]);
    let same = lateen(&["render", "--dir", path(one.path()), "--diff", path(one.path())]);
    assert_eq!(same, (Some(0), String::new(), String::new()));
    let differs = lateen(&["render", "--dir", path(one.path()), "--diff", path(other.path())]);
    assert_eq!(differs.0, Some(1));
    for (mark, port) in [("-", 80), ("+", 81)] {
        let start = format!("{mark} waypoints > shop/waypoint > routes > inbound-vip|{port}|");
        assert!(differs.1.lines().any(|line| line.starts_with(&start)), "{start}: {}", differs.1);
    }
}

#[test]
fn what_is_well_is_told_and_what_is_refused_ends_with_a_mark_of_its_own() {
    let dir = directory(80);
    let (code, told, errors) = lateen(&["validate", "--dir", path(dir.path())]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{told}");
    assert!(told.contains("ok   HTTPRoute shop/cart: parent Service cart: Accepted=True (Accepted)"), "{told}");
    assert!(told.contains("ok   Gateway shop/waypoint: listener mesh: Programmed=True"), "{told}");
    assert_eq!(lateen(&["validate", "--quiet", "--dir", path(dir.path())]), (Some(0), String::new(), String::new()));
    fs::write(
        dir.path().join("bad.yaml"),
        "apiVersion: v1\nkind: Service\nmetadata: {namespace: shop, name: x}\nspec: 7\n",
    )
    .unwrap();
    let lost = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {namespace: shop, name: lost}\n\
        spec: {parentRefs: [{group: '', kind: Service, name: nowhere}], rules: [{backendRefs: [{name: cart, port: 80}]}]}\n";
    fs::write(dir.path().join("lost.yaml"), lost).unwrap();
    let (code, told, _) = lateen(&["validate", "--quiet", "--dir", path(dir.path())]);
    assert_eq!(code, Some(1));
    assert!(told.contains("bad.yaml:1: Service shop/x: spec: "), "{told}");
    let wanted = "bad  HTTPRoute shop/lost: parent Service nowhere: Accepted=False (NoMatchingParent)";
    assert!(told.contains(wanted), "{told}");
    assert_eq!(told.lines().count(), 2, "{told}");
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let dir = directory(80);
    let (code, _, told) = lateen(&["render", "--dir", path(dir.path()), "--waypoint", "shop/other"]);
    assert!(code == Some(2) && told.contains("no waypoint shop/other; there are: shop/waypoint."), "{told}");
    let (code, _, told) = lateen(&["validate", "--dir", "/nowhere/at/all"]);
    assert!(code == Some(2) && told.contains("/nowhere/at/all is not a directory"), "{told}");
    let (code, _, told) = lateen(&["render", "--dir", path(dir.path()), "--diff", "/nowhere/at/all"]);
    assert!(code == Some(2) && told.contains("/nowhere/at/all is not a directory"), "{told}");
    let (code, _, told) = lateen(&["render", "--dir", path(dir.path()), "--waypoint", "other"]);
    assert!(code == Some(2) && told.contains("NAMESPACE/NAME"), "{told}");
    let (_, help, _) = lateen(&["--help"]);
    assert!(help.contains("render") && help.contains("validate"), "{help}");
}
