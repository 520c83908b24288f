// SPDX-License-Identifier: Apache-2.0
//! Outbound routes.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::super::{Lookup, Query, Route, RouteError, Security, Via, route};
use super::{leg, over_hbone, pair, rejected, routed};
use crate::mesh::sample::{address_of, changes, mesh, pod};
use crate::mesh::{Change, Kind, PodName, Snapshot, Store};

/// A client, an HBONE server and a plain one on both nodes, a waypoint, and services before them.
fn shop() -> Snapshot {
    mesh(SHOP)
}

const SHOP: &str = "
workloads:
- {uid: c//Pod/d/client, name: client, namespace: d, serviceAccount: client, node: n1, workloadIps: [10.0.1.1, 'fd00::1:1'], protocol: HBONE}
- {uid: c//Pod/d/near, name: near, namespace: d, serviceAccount: server, node: n1, workloadIps: [10.0.1.2], protocol: HBONE}
- {uid: c//Pod/d/far, name: far, namespace: d, serviceAccount: server, node: n2, workloadIps: [10.0.2.2, 'fd00::2:2'], protocol: HBONE, services: {d/web: {80: 8080}, d/headless: {80: 8080}}}
- {uid: c//Pod/d/plain-near, name: plain-near, namespace: d, node: n1, workloadIps: [10.0.1.3]}
- {uid: c//Pod/d/plain, name: plain, namespace: d, node: n2, workloadIps: [10.0.2.3], services: {d/plain: {80: 8080}}}
- {uid: c//Pod/d/host, name: host, namespace: d, node: n2, networkMode: HostNetwork, workloadIps: [192.168.0.2], services: {d/host: {80: 8080}}}
- {uid: c//Pod/d/wp, name: wp, namespace: d, serviceAccount: wp, node: n2, workloadIps: [10.0.2.9], services: {d/wp: {15008: 15008}}}
- {uid: c//Pod/d/guarded, name: guarded, namespace: d, node: n2, workloadIps: [10.0.2.4, 'fd00::2:4'], protocol: HBONE, waypoint: {destination: d/wp}}
- {uid: c//Pod/d/guarded-by-ip, name: guarded-by-ip, namespace: d, workloadIps: [10.0.2.5, 'fd00::2:5'], protocol: HBONE, waypoint: {destination: /10.0.2.9}}
- {uid: c//Pod/d/lost, name: lost, namespace: d, workloadIps: [10.0.2.6], protocol: HBONE, waypoint: {destination: d/nowhere}}
services:
- {name: web, namespace: d, hostname: web, vips: [/10.9.0.1, '/fd00:9::1'], ports: {80: 8080, 81: 0}, subjectAltNames: [spiffe://cluster.local/ns/d/sa/alias]}
- {name: headless, namespace: d, hostname: headless, vips: [], ports: {80: 8080}}
- {name: plain, namespace: d, hostname: plain, vips: [/10.9.0.2], ports: {80: 8080}}
- {name: empty, namespace: d, hostname: empty, vips: [/10.9.0.3], ports: {80: 8080}}
- {name: host, namespace: d, hostname: host, vips: [/10.9.0.4], ports: {80: 8080}}
- {name: wp, namespace: d, hostname: wp, vips: [/10.9.0.9], ports: {15008: 15008}, subjectAltNames: [spiffe://cluster.local/ns/d/sa/wp-service]}
- {name: guarded, namespace: d, hostname: guarded, vips: [/10.9.0.5], ports: {80: 8080}, waypoint: {destination: d/wp}}
- {name: guarded-by-vip, namespace: d, hostname: guarded-by-vip, vips: [/10.9.0.6], ports: {80: 8080}, waypoint: {destination: /10.9.0.9}}
- {name: lost, namespace: d, hostname: lost, vips: [/10.9.0.7], ports: {80: 8080}, waypoint: {destination: /10.9.9.9}}
- {name: outside, namespace: d, hostname: outside, vips: [/10.9.0.8, /10.0.2.2], ports: {80: 80}, loadBalancer: {mode: Passthrough}}
- {name: guarded-outside, namespace: d, hostname: guarded-outside, vips: [/10.9.0.10], ports: {80: 80}, loadBalancer: {mode: Passthrough}, waypoint: {destination: d/wp}}
";

#[test]
fn what_is_not_in_the_mesh_is_passed_through_unlabelled() {
    let Route::Passthrough { hop, traffic } = routed(&shop(), "client", "1.2.3.4:443") else { panic!() };
    assert_eq!(hop.to_string(), "1.2.3.4:443");
    assert!(!traffic.destination.is_known() && traffic.service.is_none() && traffic.source_identity.is_none());
    assert_eq!(traffic.security, Security::Unknown);
}

#[test]
fn a_workload_outside_the_mesh_is_reached_directly_on_any_node() {
    for (ip, name) in [("10.0.1.3", "plain-near"), ("10.0.2.3", "plain")] {
        let Route::Direct { hop, traffic } = routed(&shop(), "client", &format!("{ip}:81")) else { panic!() };
        assert_eq!(hop.to_string(), format!("{ip}:81"));
        assert_eq!(traffic.destination.log_name(), name);
    }
}

#[test]
fn an_hbone_pod_is_reached_at_its_own_port_15008_on_any_node() {
    assert_eq!(leg(&shop(), "client", "10.0.1.2:80"), pair("10.0.1.2:15008", "10.0.1.2:80"));
    assert_eq!(leg(&shop(), "client", "10.0.2.2:80"), pair("10.0.2.2:15008", "10.0.2.2:80"));
    assert_eq!(leg(&shop(), "client", "[fd00::2:2]:80"), pair("[fd00::2:2]:15008", "[fd00::2:2]:80"));
    let hbone = over_hbone(&shop(), "client", "10.0.2.2:80");
    assert_eq!(hbone.identity.as_uri(), "spiffe://cluster.local/ns/d/sa/client");
    assert_eq!(hbone.expected.to_string(), "spiffe://cluster.local/ns/d/sa/server");
    assert_eq!((hbone.via, hbone.source.name.as_str()), (Via::Workload, "client"));
    assert_eq!(hbone.traffic.security, Security::MutualTls);
    assert_eq!(hbone.traffic.source_identity, Some(hbone.identity));
}

#[test]
fn a_v4_address_that_a_dual_stack_listener_reports_is_the_same_address() {
    assert_eq!(leg(&shop(), "client", "[::ffff:10.0.2.2]:80"), pair("10.0.2.2:15008", "10.0.2.2:80"));
}

#[test]
fn a_service_is_reached_at_an_endpoint_and_its_target_port() {
    let hbone = over_hbone(&shop(), "client", "10.9.0.1:80");
    assert_eq!((hbone.hop.to_string(), hbone.authority.to_string()), pair("10.0.2.2:15008", "10.0.2.2:8080"));
    assert_eq!(hbone.traffic.service.as_ref().unwrap().hostname, "web");
    let alias = "spiffe://cluster.local/ns/d/sa/alias".parse().unwrap();
    assert!(hbone.expected.accepts(&alias), "a name of the service will do");
    assert!(hbone.expected.accepts(hbone.traffic.destination_identity.as_ref().unwrap()), "and that of the pod");
    assert!(!hbone.expected.accepts(&hbone.identity));

    let Route::Direct { hop, traffic } = routed(&shop(), "client", "10.9.0.2:80") else { panic!() };
    assert_eq!(hop.to_string(), "10.0.2.3:8080");
    assert_eq!(traffic.service.unwrap().hostname, "plain");
}

#[test]
fn the_address_family_of_the_client_is_kept_where_the_endpoint_has_it() {
    assert_eq!(leg(&shop(), "client", "[fd00:9::1]:80"), pair("[fd00::2:2]:15008", "[fd00::2:2]:8080"));
    assert_eq!(leg(&shop(), "client", "10.9.0.1:80"), pair("10.0.2.2:15008", "10.0.2.2:8080"));
}

#[test]
fn a_service_that_allows_one_family_is_reached_by_that_one_alone() {
    let families = |families: &str, ips: &str| {
        mesh(&format!(
            "
workloads:
- {{uid: a, name: client, namespace: d, workloadIps: [], protocol: HBONE}}
- {{uid: b, name: b, namespace: d, workloadIps: [{ips}], protocol: HBONE, services: {{d/s: {{80: 80}}}}}}
services: [{{name: s, namespace: d, hostname: s, vips: [/10.9.0.1, '/fd00:9::1'], ports: {{80: 80}}{families}}}]
"
        ))
    };
    let both = "10.0.0.2, 'fd00::2'";
    let hop = |snapshot: &Snapshot, target| over_hbone(snapshot, "client", target).hop.to_string();
    for any in ["", ", ipFamilies: Dual"] {
        assert_eq!(hop(&families(any, both), "10.9.0.1:80"), "10.0.0.2:15008");
        assert_eq!(hop(&families(any, both), "[fd00:9::1]:80"), "[fd00::2]:15008");
        assert_eq!(hop(&families(any, "10.0.0.2"), "[fd00:9::1]:80"), "10.0.0.2:15008", "the other family will do");
    }
    assert_eq!(hop(&families(", ipFamilies: IPv4", both), "[fd00:9::1]:80"), "10.0.0.2:15008");
    assert_eq!(hop(&families(", ipFamilies: IPv6", both), "10.9.0.1:80"), "[fd00::2]:15008");
    let error = rejected(&families(", ipFamilies: IPv6", "10.0.0.2"), "client", "10.9.0.1:80");
    assert_eq!(error, RouteError::NoAddress("b".into()));
}

#[test]
fn a_service_without_a_usable_endpoint_is_rejected_not_passed_through() {
    let error = rejected(&shop(), "client", "10.9.0.3:80");
    assert!(error.to_string().starts_with("no healthy upstream: d/empty port 80 (0 endpoints"), "{error}");
    let error = rejected(&shop(), "client", "10.9.0.1:99");
    assert!(matches!(error, RouteError::NoSuchPort { port: 99, .. }));
}

#[test]
fn a_named_port_leads_only_to_pods_that_have_it() {
    let snapshot = mesh(
        "
workloads:
- {uid: a, name: client, namespace: d, workloadIps: [], protocol: HBONE}
- {uid: b, name: b, namespace: d, workloadIps: [10.0.0.2], protocol: HBONE, services: {d/s: {80: 1234}}}
- {uid: c, name: c, namespace: d, workloadIps: [10.0.0.3], protocol: HBONE, services: {d/s: {81: 1235}}}
services: [{name: s, namespace: d, hostname: s, vips: [/10.9.0.1], ports: {80: 0, 81: 0, 82: 0, 83: 8383}}]
",
    );
    assert_eq!(leg(&snapshot, "client", "10.9.0.1:80"), pair("10.0.0.2:15008", "10.0.0.2:1234"));
    assert_eq!(leg(&snapshot, "client", "10.9.0.1:81"), pair("10.0.0.3:15008", "10.0.0.3:1235"));
    assert!(matches!(rejected(&snapshot, "client", "10.9.0.1:82"), RouteError::NoHealthyUpstream { endpoints: 2, .. }));
    assert_eq!(over_hbone(&snapshot, "client", "10.9.0.1:83").authority.port(), 8383, "a number needs no pod to tell");
}

#[test]
fn a_pod_of_a_headless_service_is_reached_by_its_address() {
    assert_eq!(leg(&shop(), "client", "10.0.2.2:8080"), pair("10.0.2.2:15008", "10.0.2.2:8080"));
}

#[test]
fn a_pod_on_the_hosts_network_is_known_through_its_service_only() {
    assert!(matches!(routed(&shop(), "client", "192.168.0.2:8080"), Route::Passthrough { .. }));
    let Route::Direct { hop, .. } = routed(&shop(), "client", "10.9.0.4:80") else { panic!() };
    assert_eq!(hop.to_string(), "192.168.0.2:8080");
}

#[test]
fn a_waypoint_of_a_service_gets_the_virtual_address_as_authority() {
    for (vip, name) in
        [("10.9.0.5:80", "guarded"), ("10.9.0.6:80", "guarded-by-vip"), ("10.9.0.10:80", "guarded-outside")]
    {
        let hbone = over_hbone(&shop(), "client", vip);
        assert_eq!((hbone.hop.to_string(), hbone.authority.to_string()), pair("10.0.2.9:15008", vip));
        assert_eq!(hbone.via, Via::Waypoint);
        assert_eq!(hbone.traffic.service.as_ref().unwrap().hostname, name, "the service that was asked for");
        assert_eq!(hbone.traffic.destination.log_name(), "wp");
        let expected: Vec<_> = hbone.expected.iter().map(|one| one.service_account()).collect();
        assert_eq!(expected, ["wp", "wp-service"], "the waypoint's identities, not those of the service asked for");
    }
}

#[test]
fn a_waypoint_of_a_workload_gets_the_pods_address_as_authority() {
    assert_eq!(leg(&shop(), "client", "10.0.2.4:80"), pair("10.0.2.9:15008", "10.0.2.4:80"));
    assert_eq!(leg(&shop(), "client", "10.0.2.5:80"), pair("10.0.2.9:15008", "10.0.2.5:80"));
}

#[test]
fn a_v6_client_may_be_sent_to_a_v4_waypoint() {
    for target in ["[fd00::2:4]:80", "[fd00::2:5]:80"] {
        assert_eq!(leg(&shop(), "client", target), pair("10.0.2.9:15008", target));
    }
}

#[test]
fn the_waypoint_of_the_client_itself_does_not_count() {
    assert_eq!(leg(&shop(), "guarded", "10.0.2.2:80"), pair("10.0.2.2:15008", "10.0.2.2:80"));
}

#[test]
fn the_waypoint_itself_goes_straight_to_what_it_guards() {
    assert_eq!(leg(&shop(), "wp", "10.0.2.4:80"), pair("10.0.2.4:15008", "10.0.2.4:80"));
    assert_eq!(leg(&shop(), "wp", "10.0.2.5:80"), pair("10.0.2.5:15008", "10.0.2.5:80"));
    assert!(
        matches!(rejected(&shop(), "wp", "10.9.0.5:80"), RouteError::NoHealthyUpstream { .. }),
        "and not to itself"
    );
}

#[test]
fn what_has_a_waypoint_nobody_knows_is_rejected() {
    for target in ["10.0.2.6:80", "10.9.0.7:80"] {
        let error = rejected(&shop(), "client", target);
        assert!(matches!(error, RouteError::UnknownWaypoint(_)), "{error}");
    }
}

#[test]
fn a_waypoint_without_a_healthy_pod_is_no_reason_to_go_round_it() {
    let snapshot = mesh(
        "
workloads:
- {uid: a, name: client, namespace: d, workloadIps: [], protocol: HBONE}
- {uid: w, name: w, namespace: d, workloadIps: [10.0.0.9], status: Unhealthy, services: {d/wp: {15008: 15008}}}
- {uid: b, name: b, namespace: d, workloadIps: [10.0.0.2], services: {d/s: {80: 80}}}
services:
- {name: wp, namespace: d, hostname: wp, vips: [], ports: {15008: 15008}}
- {name: s, namespace: d, hostname: s, vips: [/10.9.0.1], ports: {80: 80}, waypoint: {destination: d/wp}}
",
    );
    let error = rejected(&snapshot, "client", "10.9.0.1:80");
    assert!(error.to_string().contains("waypoint d/wp:15008 cannot be used: no healthy upstream"), "{error}");
}

#[test]
fn a_waypoint_whose_service_has_no_such_port_is_found_by_its_application_tunnel() {
    let waypoint = |tunnel: &str| {
        mesh(&format!(
            "
workloads:
- {{uid: a, name: client, namespace: d, workloadIps: [], protocol: HBONE}}
- {{uid: w, name: w, namespace: d, workloadIps: [10.0.0.9], services: {{d/wp: {{}}}}{tunnel}}}
services:
- {{name: wp, namespace: d, hostname: wp, vips: [], ports: {{80: 80}}}}
- {{name: s, namespace: d, hostname: s, vips: [/10.9.0.1], ports: {{80: 80}}, waypoint: {{destination: d/wp}}}}
"
        ))
    };
    let with_port = waypoint(", applicationTunnel: {protocol: PROXY, port: 15088}");
    assert_eq!(leg(&with_port, "client", "10.9.0.1:80"), pair("10.0.0.9:15008", "10.9.0.1:80"));
    for (without, why) in [("", "no tunnel"), (", applicationTunnel: {protocol: PROXY}", "a tunnel that names no port")]
    {
        let error = rejected(&waypoint(without), "client", "10.9.0.1:80");
        assert!(matches!(error, RouteError::Waypoint { .. }), "{why}: {error:?}");
    }
}

#[test]
fn a_waypoint_whose_service_has_no_such_port_is_not_dialled_at_one_its_pod_lists() {
    let snapshot = mesh(
        "
workloads:
- {uid: a, name: client, namespace: d, workloadIps: [], protocol: HBONE}
- {uid: w, name: w, namespace: d, workloadIps: [10.0.0.9], services: {d/wp: {15008: 15008}}}
services:
- {name: wp, namespace: d, hostname: wp, vips: [], ports: {80: 80}}
- {name: s, namespace: d, hostname: s, vips: [/10.9.0.1], ports: {80: 80}, waypoint: {destination: d/wp}}
",
    );
    assert!(matches!(rejected(&snapshot, "client", "10.9.0.1:80"), RouteError::Waypoint { .. }));
}

#[test]
fn weighted_waypoints_share_the_connections() {
    let snapshot = |weights: [u32; 2]| {
        mesh(&format!("
workloads:
- {{uid: a, name: client, namespace: d, workloadIps: [], protocol: HBONE}}
- {{uid: w1, name: w1, namespace: d, workloadIps: [10.0.0.8]}}
- {{uid: w2, name: w2, namespace: d, workloadIps: [10.0.0.9]}}
- {{uid: w3, name: w3, namespace: d, workloadIps: [10.0.0.7]}}
services:
- name: s
  namespace: d
  hostname: s
  vips: [/10.9.0.1]
  ports: {{80: 80}}
  waypoint: {{destination: /10.0.0.7}}
  weightedWaypoints: [{{destination: {{destination: /10.0.0.8}}, weight: {}}}, {{destination: {{destination: /10.0.0.9}}, weight: {}}}]
", weights[0], weights[1]))
    };
    let share = |snapshot: &Snapshot, waypoint: &str| {
        let mut rng = StdRng::seed_from_u64(1);
        let query = Query { pod: &pod(snapshot, "client"), target: "10.9.0.1:80".parse().unwrap() };
        let hits = (0..2000).filter(|_| match route(snapshot, query, &mut rng) {
            Route::Hbone(hbone) => hbone.hop.ip().to_string() == waypoint,
            other => panic!("{other:?}"),
        });
        hits.count()
    };
    let nine_to_one = snapshot([90, 10]);
    assert!((1700..1900).contains(&share(&nine_to_one, "10.0.0.8")));
    assert_eq!(share(&snapshot([0, 5]), "10.0.0.9"), 2000);
    assert_eq!(share(&snapshot([0, 0]), "10.0.0.7"), 2000, "without weights the single one stands");
}

#[test]
fn waypoints_without_weight_are_not_gone_round() {
    let snapshot = mesh(
        "
workloads:
- {uid: a, name: client, namespace: d, workloadIps: [], protocol: HBONE}
- {uid: w1, name: w1, namespace: d, workloadIps: [10.0.0.8]}
- {uid: e, name: e, namespace: d, workloadIps: [10.0.0.1], services: {d/s: {80: 80}}}
services:
- name: s
  namespace: d
  hostname: s
  vips: [/10.9.0.1]
  ports: {80: 80}
  weightedWaypoints: [{destination: {destination: /10.0.0.8}, weight: 0}]
",
    );
    assert_eq!(leg(&snapshot, "client", "10.9.0.1:80"), pair("10.0.0.8:15008", "10.9.0.1:80"));
}

#[test]
fn a_passthrough_service_goes_where_the_client_said() {
    let Route::Passthrough { hop, traffic } = routed(&shop(), "client", "10.9.0.8:81") else { panic!() };
    assert_eq!(hop.to_string(), "10.9.0.8:81");
    assert_eq!(traffic.service.unwrap().hostname, "outside");
}

#[test]
fn an_hbone_pod_named_by_a_passthrough_service_is_still_secured() {
    assert_eq!(leg(&shop(), "client", "10.0.2.2:80"), pair("10.0.2.2:15008", "10.0.2.2:80"));
    assert_eq!(over_hbone(&shop(), "client", "10.0.2.2:80").traffic.service.unwrap().hostname, "outside");
}

#[test]
fn what_is_addressed_to_a_service_does_not_use_the_waypoint_of_the_pod() {
    let snapshot = mesh(
        "
workloads:
- {uid: a, name: client, namespace: d, workloadIps: [10.0.0.1], protocol: HBONE}
- {uid: b, name: b, namespace: d, workloadIps: [10.0.0.2], protocol: HBONE, waypoint: {destination: /10.0.0.9}, services: {d/s: {80: 80}}}
- {uid: w, name: w, namespace: d, workloadIps: [10.0.0.9]}
services:
- {name: s, namespace: d, hostname: s, vips: [/10.9.0.1], ports: {80: 80}}
- {name: p, namespace: d, hostname: p, vips: [], cidrVips: [{network: '', cidr: 10.0.0.0/24}], ports: {}, loadBalancer: {mode: Passthrough}}
",
    );
    assert_eq!(leg(&snapshot, "client", "10.9.0.1:80"), pair("10.0.0.2:15008", "10.0.0.2:80"));
    assert_eq!(leg(&snapshot, "client", "10.0.0.2:80"), pair("10.0.0.2:15008", "10.0.0.2:80"), "a passthrough service");
}

#[test]
fn an_entry_with_the_address_of_a_pod_does_not_take_it_out_of_the_mesh() {
    let snapshot = mesh(
        "
workloads:
- {uid: a, name: client, namespace: d, workloadIps: [10.0.0.1], protocol: HBONE}
- {uid: c//Pod/d/b, name: b, namespace: d, serviceAccount: b, workloadIps: [10.0.0.2], protocol: HBONE}
- {uid: entry, name: entry, namespace: d, workloadIps: [10.0.0.2], services: {d/s: {80: 8080}}}
services: [{name: s, namespace: d, hostname: s, vips: [/10.9.0.1], ports: {80: 80}}]
",
    );
    let hbone = over_hbone(&snapshot, "client", "10.9.0.1:80");
    assert_eq!((hbone.hop.to_string(), hbone.authority.to_string()), pair("10.0.0.2:15008", "10.0.0.2:8080"));
    assert_eq!(hbone.expected.to_string(), "spiffe://cluster.local/ns/d/sa/b");
}

#[test]
fn an_endpoint_in_the_mesh_answers_in_its_own_name_even_where_a_pod_has_its_address() {
    let snapshot = mesh(
        "
workloads:
- {uid: a, name: client, namespace: d, workloadIps: [10.0.0.1], protocol: HBONE}
- {uid: c//Pod/d/b, name: b, namespace: d, serviceAccount: b, workloadIps: [10.0.0.2], protocol: HBONE}
- {uid: entry, name: entry, namespace: d, serviceAccount: entry, workloadIps: [10.0.0.2], protocol: HBONE, services: {d/s: {80: 8080}}}
services: [{name: s, namespace: d, hostname: s, vips: [/10.9.0.1], ports: {80: 80}}]
",
    );
    let hbone = over_hbone(&snapshot, "client", "10.9.0.1:80");
    assert_eq!(hbone.expected.to_string(), "spiffe://cluster.local/ns/d/sa/entry");
}

#[test]
fn a_call_to_the_proxys_own_ports_on_loopback_is_a_loop() {
    for target in ["127.0.0.1:15001", "127.5.5.5:15006", "[::1]:15008", "[::ffff:127.0.0.1]:15008"] {
        assert_eq!(rejected(&shop(), "client", target), RouteError::SelfCall);
    }
    assert!(matches!(routed(&shop(), "client", "127.0.0.1:80"), Route::Passthrough { .. }));
}

#[test]
fn a_pod_whose_record_is_not_there_waits_for_it() {
    let pod = PodName { name: "x".into(), namespace: "d".into(), service_account: "x".into() };
    let query = Query { pod: &pod, target: "1.2.3.4:80".parse().unwrap() };
    assert_eq!(route(&shop(), query, &mut StdRng::seed_from_u64(1)), Route::Need(Lookup::OwnWorkload(pod.clone())));
}

#[test]
fn nothing_is_passed_through_before_the_mesh_is_known() {
    let mut store = Store::new("");
    let early = store.apply(changes(SHOP)).snapshot;
    let need = Route::Need(Lookup::Everything(Kind::Addresses));
    assert_eq!(routed(&early, "client", "1.2.3.4:80"), need);
    assert_eq!(routed(&early, "client", "10.9.0.8:80"), need, "nor behind a passthrough service");
    assert!(matches!(routed(&early, "client", "10.0.2.2:80"), Route::Hbone(_)), "what is known is known");
}

#[test]
fn what_was_not_understood_gets_no_plaintext() {
    let mut store = Store::new("");
    store.apply(changes(SHOP));
    store.apply([Change::Received(Kind::Addresses)]);
    let legacy = |uid: &str, ip: [u8; 4]| {
        Change::address(
            uid,
            &address_of(mesh_proto::workload::Workload {
                uid: uid.into(),
                namespace: "d".into(),
                addresses: vec![ip.to_vec()],
                tunnel_protocol: 2,
                ..Default::default()
            }),
        )
    };
    let after =
        store.apply([legacy("new", [10, 0, 7, 7]), legacy("other", [10, 0, 2, 3]), legacy("third", [10, 0, 2, 2])]);
    let snapshot = after.snapshot;
    let error = rejected(&snapshot, "client", "10.0.7.7:80");
    assert!(error.to_string().contains("belongs to new") && error.to_string().contains("tunnel_protocol"), "{error}");
    assert!(
        matches!(rejected(&snapshot, "client", "10.0.2.3:80"), RouteError::NotUnderstood { .. }),
        "shared with a plain workload"
    );
    assert!(
        matches!(rejected(&snapshot, "client", "10.9.0.2:80"), RouteError::NotUnderstood { .. }),
        "as an endpoint, too"
    );
    assert!(matches!(routed(&snapshot, "client", "10.0.2.2:80"), Route::Hbone(_)), "HBONE proves who answers");
    let snapshot = store.apply([Change::address("d/plain", &[0xff])]).snapshot;
    assert!(matches!(rejected(&snapshot, "client", "10.9.0.2:80"), RouteError::NotUnderstood { .. }), "a lost service");
}

#[test]
fn an_address_shared_with_a_service_that_was_not_understood_gets_no_plaintext() {
    let line =
        |name: &str| format!("{{name: {name}, namespace: d, hostname: {name}, vips: [/10.9.0.1], ports: {{80: 80}}}}");
    let mut store = Store::new("");
    store.apply(changes(&format!(
        "
workloads:
- {{uid: a, name: client, namespace: d, workloadIps: [10.0.0.1], protocol: HBONE}}
- {{uid: b, name: b, namespace: d, workloadIps: [10.0.0.2], services: {{d/s: {{80: 80}}}}}}
services: [{}, {}]
",
        line("s"),
        line("t")
    )));
    assert!(matches!(routed(store.snapshot(), "client", "10.9.0.1:80"), Route::Direct { .. }));
    store.apply([Change::address("d/t", &[0xff])]);
    let error = rejected(store.snapshot(), "client", "10.9.0.1:80");
    assert!(error.to_string().contains("10.9.0.1:80 belongs to d/t"), "{error}");
}

#[test]
fn another_network_is_rejected_by_name() {
    let snapshot = mesh("
workloads:
- {uid: a, name: client, namespace: d, workloadIps: [10.0.0.1], protocol: HBONE}
- {uid: b, name: b, namespace: d, network: n2, workloadIps: [10.0.0.2], protocol: HBONE, networkGateway: {destination: n2/9.9.9.9}, services: {d/s: {80: 80}, d/both: {80: 80}}}
- {uid: c, name: c, namespace: d, workloadIps: [10.0.0.3], protocol: HBONE, services: {d/both: {80: 80}}}
services:
- {name: s, namespace: d, hostname: s, vips: [/10.9.0.1], ports: {80: 80}}
- {name: both, namespace: d, hostname: both, vips: [/10.9.0.2], ports: {80: 80}}
- {name: w, namespace: d, hostname: w, vips: [/10.9.0.3], ports: {80: 80}, waypoint: {destination: n2/10.0.0.2}}
");
    let error = rejected(&snapshot, "client", "10.9.0.1:80");
    assert_eq!(error, RouteError::OtherNetwork { workload: "b".into(), network: "n2".into() });
    assert_eq!(leg(&snapshot, "client", "10.9.0.2:80"), pair("10.0.0.3:15008", "10.0.0.3:80"), "while one is near");
    assert!(matches!(rejected(&snapshot, "client", "10.9.0.3:80"), RouteError::Waypoint { .. }));
}

#[test]
fn a_workload_known_by_name_only_is_rejected_by_that_name() {
    let snapshot = mesh(
        "
workloads:
- {uid: a, name: client, namespace: d, workloadIps: [10.0.0.1], protocol: HBONE}
- {uid: b, name: b, namespace: d, workloadIps: [], hostname: api.example, services: {d/s: {80: 80}}}
services: [{name: s, namespace: d, hostname: s, vips: [/10.9.0.1], ports: {80: 80}}]
",
    );
    let error = rejected(&snapshot, "client", "10.9.0.1:80");
    assert_eq!(error, RouteError::HostNameOnly { workload: "b".into(), hostname: "api.example".into() });
}

#[test]
fn a_service_hidden_from_the_client_does_not_exist_for_it() {
    let snapshot = mesh(
        "
workloads:
- {uid: a, name: mine, namespace: d, workloadIps: [], protocol: HBONE}
- {uid: b, name: theirs, namespace: e, workloadIps: [10.0.0.2], protocol: HBONE, services: {d/s: {80: 80}}}
services: [{name: s, namespace: d, hostname: s, vips: [/10.9.0.1], ports: {80: 80}, visibility: Namespace}]
",
    );
    assert!(matches!(routed(&snapshot, "mine", "10.9.0.1:80"), Route::Hbone(_)));
    assert!(matches!(routed(&snapshot, "theirs", "10.9.0.1:80"), Route::Passthrough { .. }));
}

#[test]
fn a_client_without_identity_is_not_sent_in_plaintext_instead() {
    let snapshot = mesh(
        "
workloads:
- {uid: a, name: client, namespace: 'no good', workloadIps: []}
- {uid: b, name: b, namespace: d, workloadIps: [10.0.0.2], protocol: HBONE}
",
    );
    assert_eq!(rejected(&snapshot, "client", "10.0.0.2:80"), RouteError::NoIdentity("a".into()));
}

#[test]
fn expected_identities_are_a_key_for_tunnels() {
    let snapshot = shop();
    let by_ip = over_hbone(&snapshot, "client", "10.0.1.2:80").expected;
    let other_pod = over_hbone(&snapshot, "client", "10.0.2.2:80");
    assert_eq!(other_pod.expected.iter().next(), by_ip.iter().next(), "same account");
    let through_service = over_hbone(&snapshot, "client", "10.9.0.1:80").expected;
    assert_ne!(through_service, by_ip, "more may answer");
    let mut seen = std::collections::HashSet::new();
    assert!(seen.insert(by_ip.clone()) && !seen.insert(by_ip) && seen.insert(through_service));
}

#[test]
fn the_identities_that_may_answer_are_told_in_one_line() {
    let expected = over_hbone(&shop(), "client", "10.9.0.1:80").expected;
    let all: Vec<_> = expected.iter().map(ToString::to_string).collect();
    assert!(all.len() > 1);
    assert_eq!(expected.to_string(), all.join(", "));
}
