// SPDX-License-Identifier: Apache-2.0
//! Versions are hashes of content: they must not depend on the order of hash maps.

use std::sync::Arc;

use waypoint_config::{
    envoy::{Flavour, Profile, Type, input::Settings},
    view::AppProtocol,
};

use crate::{
    judge::profile,
    mesh::{add, authentication, authorization, empty, rendered, service, workload},
};

#[test]
fn what_is_made_twice_is_equal_to_the_last_byte() {
    let mut serving = empty();
    let ports =
        [(80, AppProtocol::Http11), (81, AppProtocol::Unknown), (82, AppProtocol::Tcp), (83, AppProtocol::Grpc)];
    let name = add(&mut serving, service("cart", "10.96.0.10", &ports), "10.0.0.10");
    serving.settings =
        Arc::new(Settings { access_log: Some("/dev/stdout".into()), metrics: true, ..Settings::default() });
    let rule = "{from: [{source: {namespaces: [a]}}]}";
    let rules = [rule; 9].join(",");
    serving.access.authorization = ["DENY", "ALLOW", "AUDIT"]
        .map(|action| authorization(action, &format!("{{action: {action}, rules: [{rules}]}}")))
        .into();
    let issuer = "{issuer: a, jwksUri: \"https://a\"}";
    serving.access.authentication = vec![authentication("a", &format!("{{jwtRules: [{}]}}", [issuer; 9].join(",")))];
    serving.workloads = vec![Arc::new(workload(&serving.services[&name].destination.service, "p", "10.0.0.9"))];
    let flavour = Flavour::Istio { hashable_strings: true };
    for profile in [profile(), Profile { flavour, ..profile() }] {
        let first = rendered(&serving, profile.clone());
        for _ in 0..5 {
            let again = rendered(&serving, profile.clone());
            for kind in Type::ALL {
                for (one, other) in first.resources().all(kind).zip(again.resources().all(kind)) {
                    assert_eq!(one.version, other.version, "{}", one.name);
                }
            }
        }
    }
}
