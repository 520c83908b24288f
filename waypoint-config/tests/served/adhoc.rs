use crate::{judge::bootstrap, mesh::*};
use prost::Message;
use std::sync::Arc;
use waypoint_config::{
    envoy::{Profile, Secrets},
    view::AppProtocol,
};
#[test]
fn adhoc() {
    let Some(dir) = std::env::var_os("ADHOC") else { return };
    let dir = std::path::PathBuf::from(dir);
    let profile = Profile {
        secrets: Secrets::Files {
            certificate: "/tmp/envx/sds-waypoint.yaml".into(),
            roots: "/tmp/envx/rootca.yaml".into(),
        },
        ..Profile::default()
    };
    let cases: Vec<(&str, Vec<String>)> = vec![
        ("none", vec![]),
        ("denypath", vec!["{action: DENY, rules: [{to: [{operation: {paths: [/secret]}}]}]}".into()]),
        ("allowip", vec![r#"{rules: [{from: [{source: {ipBlocks: ["127.0.0.0/8"]}}]}]}"#.into()]),
        ("allowotherip", vec![r#"{rules: [{from: [{source: {ipBlocks: ["9.9.9.9"]}}]}]}"#.into()]),
        ("allowremote", vec![r#"{rules: [{from: [{source: {remoteIpBlocks: ["127.0.0.0/8"]}}]}]}"#.into()]),
        ("denyclient", vec!["{action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/demo/sa/client]}}]}]}".into()]),
        ("allowclient", vec!["{rules: [{from: [{source: {namespaces: [demo], serviceAccounts: [demo/client], trustDomains: [cluster.local]}}]}]}".into()]),
        ("allowport", vec![r#"{rules: [{to: [{operation: {ports: ["83", "80"]}}]}]}"#.into()]),
        ("denydstip", vec![r#"{action: DENY, rules: [{when: [{key: destination.ip, values: ["10.96.0.10"]}]}]}"#.into()]),
        ("denyip", vec![r#"{action: DENY, rules: [{from: [{source: {ipBlocks: ["127.0.0.1"]}}]}]}"#.into()]),
        ("denynotip", vec![r#"{action: DENY, rules: [{from: [{source: {notIpBlocks: ["127.0.0.1"]}}]}]}"#.into()]),
        ("custom", vec!["{action: CUSTOM, provider: {name: http}, rules: [{to: [{operation: {paths: [/secret, /ok]}}]}]}".into()]),
        ("customgrpc", vec!["{action: CUSTOM, provider: {name: grpc}, rules: [{to: [{operation: {paths: [/secret]}}]}]}".into()]),
        ("audit", vec![r#"{action: AUDIT, rules: [{}]}"#.into()]),
        ("dry", vec![r#"{action: DENY, rules: [{}]}"#.into()]),
        ("wrongid", vec![]), ("jwt", vec![r#"{rules: [{from: [{source: {requestPrincipals: ["iss/sub"]}}]}]}"#.into()]),
        ("jwtbad", vec![]),
    ];
    for (name, policies) in cases {
        let mut serving = empty();
        let of = service(
            "cart",
            "10.96.0.10",
            &[(80, AppProtocol::Http11), (83, AppProtocol::Tcp), (85, AppProtocol::Unknown)],
        );
        let key = add(&mut serving, of, "127.0.0.2");
        serving.access.authorization = policies
            .iter()
            .enumerate()
            .map(|(n, p)| authorization(&format!("{}p{n}", if name == "dry" { "dry-" } else { "" }), p))
            .collect();
        if name == "wrongid" {
            let d = &mut serving.services.get_mut(&key).unwrap().destination;
            let mut w = workload(&d.service, "x", "127.0.0.2");
            w.service_account = "evil".into();
            d.endpoints = waypoint_config::envoy::input::Endpoints::Workloads(vec![Arc::new(w)]);
        }
        if name == "jwt" {
            serving.access.authentication = vec![authentication(
                "a",
                &format!(
                    "{{jwtRules: [{{issuer: iss, jwks: '{}', forwardOriginalToken: true, outputClaimToHeaders: [{{header: x-sub, claim: sub}}]}}]}}",
                    std::fs::read_to_string("/tmp/envx/jwks.json").unwrap().trim()
                ),
            )];
        }
        if name == "jwtbad" {
            serving.access.authentication =
                vec![authentication("a", "{jwtRules: [{issuer: iss, jwksUri: 'https://x'}]}")];
        }
        let mut direct = workload(&serving.services[&key].destination.service, "cart-1", "127.0.0.2");
        if name == "wrongid" {
            direct.service_account = "evil".into();
        }
        serving.workloads = vec![Arc::new(direct)];
        serving.settings = Arc::new(waypoint_config::envoy::input::Settings {
            access_log: Some("/dev/stdout".into()),
            ..Default::default()
        });
        let r = rendered(&serving, profile.clone());
        let mut b = bootstrap(r.resources());
        for l in &mut b.static_resources.as_mut().unwrap().listeners {
            if l.name == "connect_terminate" {
                use envoy_types::pb::envoy::config::core::v3::address::Address;
                if let Some(Address::SocketAddress(a)) = l.address.as_mut().unwrap().address.as_mut() {
                    a.address = "127.0.0.1".into();
                }
            }
        }
        std::fs::write(dir.join(format!("{name}.pb")), b.encode_to_vec()).unwrap();
    }
}
