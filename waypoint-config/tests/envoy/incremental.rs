// SPDX-License-Identifier: Apache-2.0
//! What one change costs, counted in resources.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use waypoint_config::{
    api::{Key, Kind},
    envoy::{
        Renderer, Type, Unit,
        input::{Endpoints, Serving},
    },
    view::{
        AppProtocol, Name,
        rule::{HttpEntry, HttpMatch, HttpRule, Origin, PathMatch, PortRules, Rewrite},
    },
    xds::delta::Catalogs,
};

use crate::{
    judge::profile,
    mesh::{add, empty, rendered, service, workload},
};

fn large() -> Serving {
    let mut serving = empty();
    for n in 0..1000u32 {
        let (high, low) = (n / 250, n % 250);
        let of = service(&format!("s{n}"), &format!("10.96.{high}.{low}"), &[(80, AppProtocol::Http11)]);
        let name = add(&mut serving, of, &format!("10.0.{high}.{low}"));
        let rules = PortRules { http: vec![entry("/a"), entry("/b")], tcp: None };
        serving.services.get_mut(&name).unwrap().rules.insert(80, rules);
    }
    serving
}

fn entry(prefix: &str) -> HttpEntry {
    let route = Key { kind: Kind::Service, namespace: "shop".into(), name: "route".into() };
    let rule = HttpRule {
        origin: Origin { route, rule: 0, name: None },
        is_grpc: false,
        request_headers: Default::default(),
        response_headers: Default::default(),
        redirect: None,
        rewrite: Rewrite::default(),
        mirrors: Vec::new(),
        cors: None,
        timeout: None,
        backend_timeout: None,
        retry: None,
        backends: Vec::new(),
        broken: None,
    };
    let matches = HttpMatch { path: Some(PathMatch::Prefix(prefix.into())), ..HttpMatch::default() };
    HttpEntry { client_namespace: None, matches, rule: Arc::new(rule) }
}

fn pushed(renderer: &Renderer, since: u64) -> BTreeMap<Type, BTreeSet<Arc<str>>> {
    let of = |kind: Type| {
        let catalog = renderer.resources().catalog(kind.url()).unwrap();
        (kind, catalog.changed_since(since).unwrap())
    };
    Type::ALL.into_iter().map(of).filter(|(_, names)| !names.is_empty()).collect()
}

#[test]
fn one_endpoint_among_a_thousand_services_is_one_resource() {
    let mut serving = large();
    let mut renderer = rendered(&serving, profile());
    let before = renderer.resources().generation();
    let name = Name::new("shop", "s500");
    let destination = &mut serving.services.get_mut(&name).unwrap().destination;
    let pod = workload(&destination.service, "new", "10.0.9.9");
    let Endpoints::Workloads(pods) = &mut destination.endpoints else { unreachable!() };
    pods.push(Arc::new(pod));
    assert!(renderer.refresh(&serving, &[Unit::Endpoints(name)].into()));
    assert_eq!(renderer.made(), 1);
    let only = BTreeSet::from(["80||s500.shop.svc.cluster.local".into()]);
    assert_eq!(pushed(&renderer, before), BTreeMap::from([(Type::Endpoints, only)]));
}

#[test]
fn one_rule_among_two_thousand_is_one_resource() {
    let mut serving = large();
    let mut renderer = rendered(&serving, profile());
    let before = renderer.resources().generation();
    let name = Name::new("shop", "s500");
    serving.services.get_mut(&name).unwrap().rules.get_mut(&80).unwrap().http.push(entry("/c"));
    assert!(renderer.refresh(&serving, &[Unit::Rules(name, 80)].into()));
    assert_eq!(renderer.made(), 1);
    let only = BTreeSet::from(["inbound-vip|80|http|s500.shop.svc.cluster.local".into()]);
    assert_eq!(pushed(&renderer, before), BTreeMap::from([(Type::Routes, only)]));
}

#[test]
fn a_service_that_comes_and_goes_leaves_nothing_behind_and_touches_no_other() {
    let mut serving = large();
    let mut renderer = rendered(&serving, profile());
    let before = renderer.resources().clone();
    let name = add(&mut serving, service("late", "10.97.0.1", &[(80, AppProtocol::Http11)]), "10.0.9.9");
    assert!(renderer.refresh(&serving, &[Unit::Service(name.clone())].into()));
    // Its cluster, endpoints, routes, and the two listeners it could stand in.
    assert_eq!(renderer.made(), 5);
    assert_eq!(pushed(&renderer, before.generation()).values().map(BTreeSet::len).sum::<usize>(), 4);
    serving.services.remove(&name);
    assert!(renderer.refresh(&serving, &[Unit::Service(name)].into()));
    for kind in Type::ALL {
        assert!(renderer.resources().all(kind).eq(before.all(kind)), "{kind:?}");
    }
}

#[test]
fn nothing_is_pushed_when_nothing_differs() {
    let serving = large();
    let mut renderer = rendered(&serving, profile());
    let everything = BTreeSet::from([Unit::Waypoint, Unit::Workloads]);
    assert!(!renderer.refresh(&serving, &everything));
}
