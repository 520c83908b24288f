// SPDX-License-Identifier: Apache-2.0
//! Everything of one waypoint as text, so that a reader of a change sees what Envoy will. A test that fails leaves what it got and says how to accept it.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use waypoint_config::{
    envoy::{Flavour, Profile, Renderer, Secrets, Type, Viewer, input::Settings},
    shown,
    view::{AppProtocol, Locality, Preference},
};

use crate::mesh::{add, authentication, authorization, empty, rendered, service, workload};

fn check(name: &str, renderer: &Renderer) {
    let all: BTreeMap<String, BTreeMap<String, serde_json::Value>> = Type::ALL
        .into_iter()
        .map(|kind| {
            let of = renderer.resources().all(kind);
            let of = of.map(|one| (one.name.to_string(), shown::json(&one.body).unwrap()));
            (format!("{kind:?}"), of.collect())
        })
        .collect();
    let found = serde_json::to_string_pretty(&all).unwrap() + "\n";
    let golden =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/served/golden").join(name).with_extension("json");
    let draft = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name).with_extension("json");
    // One that outlives its run would be accepted by mistake.
    let _ = fs::remove_file(&draft);
    if found != fs::read_to_string(&golden).unwrap_or_default() {
        fs::write(&draft, &found).unwrap();
        panic!("{name} differs; look at it and accept it with\n  cp {} {}", draft.display(), golden.display());
    }
}

fn profile(flavour: Flavour) -> Profile {
    let secrets = Secrets::Files { certificate: "sds/certificate.yaml".into(), roots: "sds/roots.yaml".into() };
    let viewer = Viewer { region: "r".into(), zone: "z1".into(), ..Viewer::default() };
    Profile { flavour, secrets, viewer, ipv6: false }
}

fn small() -> waypoint_config::envoy::input::Serving {
    let mut serving = empty();
    let name = add(&mut serving, service("cart", "10.96.0.10", &[(80, AppProtocol::Http11)]), "10.0.0.10");
    let served = serving.services.get_mut(&name).unwrap();
    served.access.authorization = vec![
        authorization("deny", "{action: DENY, rules: [{to: [{operation: {paths: [/admin*]}}]}]}"),
        authorization("allow", "{rules: [{from: [{source: {namespaces: [shop], ipBlocks: [10.0.0.0/8]}}]}]}"),
    ];
    served.access.authentication = vec![authentication("tokens", "{jwtRules: [{issuer: a, jwksUri: \"https://a\"}]}")];
    serving.settings = Arc::new(Settings { access_log: Some("/dev/stdout".into()), ..Settings::default() });
    serving
}

#[test]
fn http_with_policies_on_stock_envoy() {
    check("http", &rendered(&small(), profile(Flavour::Stock)));
}

#[test]
fn http_with_policies_on_istios_envoy() {
    check("http-istio", &rendered(&small(), profile(Flavour::Istio { hashable_strings: true })));
}

#[test]
fn bytes_undeclared_ports_and_near_endpoints() {
    let mut serving = empty();
    let ports = [(5432, AppProtocol::Tcp), (9000, AppProtocol::Unknown)];
    let of = waypoint_config::view::Service { preference: Preference::SameZone, ..service("db", "10.96.0.11", &ports) };
    let pods = [("10.0.0.1", "z1"), ("10.0.0.2", "z2"), ("10.0.0.3", "z1")].map(|(address, zone)| {
        let mut pod = workload(&of, address, address);
        pod.locality = Locality { region: "r".into(), zone: zone.into(), subzone: String::new() };
        Arc::new(pod)
    });
    let name = add(&mut serving, of, "10.0.0.1");
    let served = serving.services.get_mut(&name).unwrap();
    serving.workloads = vec![Arc::clone(&pods[0])];
    served.destination.endpoints = waypoint_config::envoy::input::Endpoints::Workloads(pods.to_vec());
    served.access.authorization =
        vec![authorization("allow", "{rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/cart]}}]}]}")];
    check("bytes", &rendered(&serving, profile(Flavour::Stock)));
}
