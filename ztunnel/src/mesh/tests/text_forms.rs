// SPDX-License-Identifier: Apache-2.0
//! The static file and `config_dump`.

use serde_json::{Value, json};

use crate::mesh::sample::{changes, changes_of, mesh, recorded};
use crate::mesh::*;

const RESPONSES: &str = include_str!("../../../tests/wire/small-control-plane-responses.jsonl");
const CONFIG_DUMP: &str = include_str!("../../../tests/wire/config-dump-ztunnel.json");

#[test]
fn the_dump_is_that_of_the_program_we_stand_in_for() {
    let mut store = Store::new("node1");
    for response in recorded(RESPONSES) {
        assert_eq!(store.apply(changes_of(&response)).rejected, []);
    }
    let dump = serde_json::to_value(store.snapshot().dump()).unwrap();
    assert_eq!(dump, serde_json::from_str::<Value>(CONFIG_DUMP).unwrap());
}

#[test]
fn policies_are_dumped_with_the_names_istioctl_reads() {
    let mut store = Store::new("node1");
    for response in recorded(RESPONSES).iter().take(4) {
        store.apply(changes_of(response));
    }
    let dump = serde_json::to_value(store.snapshot().dump()).unwrap();
    assert_eq!(
        dump["policies"],
        json!([{
            "name": "deny", "namespace": "default", "scope": "Namespace", "action": "Deny", "dryRun": false,
            "rules": [[[{"principals": [{"Exact": "cluster.local/ns/default/sa/peer"}]}]]],
        }])
    );
}

#[test]
fn every_field_of_a_static_file_is_read() {
    let snapshot = mesh(EVERYTHING);
    let workload = snapshot.workload("cluster1//v1/Pod/default/local").unwrap();
    assert_eq!(workload.services.get("default/local.default.svc").unwrap().target(80), Some(8080));
    assert_eq!(workload.waypoint.as_ref().unwrap().to_string(), "net1/10.10.10.1:15008");
    assert_eq!(workload.network_gateway.as_ref().unwrap().to_string(), "istio-gateways/gw.istio-gateways.svc:15009");
    let tunnel = ApplicationTunnel { protocol: TunnelProtocol::Proxy, port: Some(8081) };
    assert_eq!(workload.application_tunnel, Some(tunnel));
    assert_eq!((workload.status, workload.capacity), (Health::Unhealthy, 2));
    assert_eq!(workload.locality.subzone, "s");
    assert_eq!(workload.workload_type, WorkloadType::CronJob);

    let service = snapshot.service("default/local.default.svc").unwrap();
    assert_eq!(service.preferences(), [Scope::Region, Scope::Zone]);
    assert_eq!((service.mode(), service.ip_families), (Mode::Failover, Some(IpFamilies::Dual)));
    assert!(service.takes(Health::Unhealthy));
    assert_eq!(service.visibility, Visibility::Namespace);
    assert_eq!(service.weighted_waypoints[0].weight, 10);
    assert_eq!(service.cidr_vips[0].cidr.to_string(), "10.1.0.0/16");
    let uids: Vec<_> =
        snapshot.endpoints(service.key()).iter().map(|endpoint| endpoint.workload.uid.as_str()).collect();
    assert_eq!(uids, ["cluster1//v1/Pod/default/local", "vm"], "listed by the workload, and written into the service");

    let PolicyEntry::Known { policy, .. } = snapshot.policy("default/p").unwrap() else { panic!("refused") };
    assert_eq!((policy.scope, policy.action, policy.dry_run), (PolicyScope::WorkloadSelector, Action::Deny, true));
    let one = &policy.rules[0].0[0].0[0];
    assert_eq!(one.principals.len(), 3);
    assert_eq!(one.not_principals, [StringMatch::Presence()]);
    assert_eq!(one.source_ips[0].to_string(), "10.0.0.0/8");
    assert_eq!(one.destination_ports, [80, 443]);
    assert_eq!(one.service_accounts[0].service_account, "sa");
}

#[test]
fn a_static_file_may_be_json() {
    let config: StaticConfig =
        serde_saphyr::from_str(r#"{"workloads": [{"namespace": "d", "workloadIps": ["::1"], "services": {}}]}"#)
            .unwrap();
    assert_eq!(config.into_changes().unwrap().len(), 1);
}

#[test]
fn a_static_workload_without_uid_gets_one() {
    let snapshot =
        mesh("workloads: [{name: a, namespace: d, workloadIps: []}, {namespace: d, workloadIps: [10.0.0.1]}]");
    assert!(snapshot.workload("static//d/a").is_some());
    assert!(snapshot.workload("static//d/10.0.0.1").is_some());
}

#[test]
fn unknown_keys_in_a_static_file_are_an_error() {
    for yaml in [
        "gateways: []",
        "workloads: [{namespace: d, workloadIps: [], colour: red}]",
        "policies: [{name: p, namespace: d, scope: Global, action: Deny, rules: [[[{paths: [/]}]]]}]",
        "policies: [{name: p, namespace: d, scope: Global, action: Audit}]",
    ] {
        assert!(serde_saphyr::from_str::<StaticConfig>(yaml).is_err(), "{yaml}");
    }
}

#[test]
fn all_mistakes_of_a_static_file_are_told_together() {
    let yaml = "
workloads:
- {uid: a, namespace: '', protocol: HBONE, workloadIps: []}
- {uid: b, namespace: d, workloadIps: []}
- {uid: b, namespace: d, workloadIps: []}
services:
- {name: s, namespace: d, hostname: '', vips: [], ports: {}}
- {name: t, namespace: d, hostname: t, vips: [], ports: {}, endpoints: {x: {workloadUid: x, port: {80: 80}}}}
policies:
- {name: p, namespace: '', scope: Namespace, action: Deny}
- {name: q, namespace: d, scope: Global, action: Deny, rules: [[[{serviceAccounts: [{namespace: '', serviceAccount: a}]}]]]}
";
    let config: StaticConfig = serde_saphyr::from_str(yaml).unwrap();
    let errors: Vec<_> = config.into_changes().unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 6, "{errors:#?}");
}

#[test]
fn staged_endpoints_and_refusals_are_dumped() {
    let mut store = Store::new("");
    store.apply(changes("workloads: [{uid: u, namespace: d, workloadIps: [], services: {d/web: {80: 8080}}}]"));
    store.apply([Change::address("bad", &[0xff])]);
    let dump = serde_json::to_value(store.snapshot().dump()).unwrap();
    let endpoint = json!({"workloadUid": "u", "port": {"80": 8080}, "status": "Healthy"});
    assert_eq!(dump["stagedServices"], json!({"d/web": {"u": endpoint}}));
    assert_eq!(dump["refused"][0]["name"], "bad");
}

#[test]
fn a_service_is_dumped_with_its_endpoints() {
    let snapshot = mesh(EVERYTHING);
    let dump = serde_json::to_value(snapshot.dump()).unwrap();
    let service = &dump["services"][0];
    assert_eq!(service["endpoints"]["vm"], json!({"workloadUid": "vm", "port": {"80": 9000}, "status": "Healthy"}));
    assert_eq!(
        service["loadBalancer"],
        json!({"routingPreferences": ["Region", "Zone"], "mode": "Failover", "healthPolicy": "AllowAll"})
    );
    assert_eq!(
        service["weightedWaypoints"][0]["destination"],
        json!({"destination": "default/wp", "hboneMtlsPort": 15008})
    );
    assert_eq!(service["cidrVips"], json!([{"network": "net1", "cidr": "10.1.0.0/16"}]));
    assert_eq!(service["vips"], json!(["/127.10.0.1"]));
    let workload = &dump["workloads"][0];
    assert_eq!(workload["services"], json!(["default/local.default.svc"]));
    assert_eq!(workload["applicationTunnel"], json!({"protocol": "PROXY", "port": 8081}));
}

const EVERYTHING: &str = "
workloads:
- uid: cluster1//v1/Pod/default/local
  name: local
  namespace: default
  trustDomain: td
  serviceAccount: sa
  network: ''
  workloadIps: [127.0.0.1, '::1']
  hostname: local.example
  protocol: HBONE
  networkMode: Standard
  waypoint: {destination: net1/10.10.10.1, hboneMtlsPort: 15008}
  networkGateway: {destination: istio-gateways/gw.istio-gateways.svc, hboneMtlsPort: 15009}
  workloadName: local
  workloadType: cronjob
  canonicalName: local
  canonicalRevision: v1
  node: n
  nativeTunnel: true
  applicationTunnel: {protocol: PROXY, port: 8081}
  services: {default/local.default.svc: {80: 8080}}
  authorizationPolicies: [default/p]
  status: Unhealthy
  clusterId: c
  locality: {region: r, zone: z, subzone: s}
  capacity: 2
- {uid: vm, namespace: default, workloadIps: [10.0.0.9], services: {}}
services:
- name: local
  namespace: default
  hostname: local.default.svc
  vips: [/127.10.0.1]
  cidrVips: [{network: net1, cidr: 10.1.0.0/16}]
  ports: {80: 8080}
  endpoints: {vm: {workloadUid: vm, port: {80: 9000}, status: Healthy}}
  subjectAltNames: [spiffe://td/ns/a/sa/b, nonsense]
  waypoint: {destination: default/wp, hboneMtlsPort: 15008}
  weightedWaypoints: [{destination: {destination: default/wp}, weight: 10}]
  loadBalancer: {routingPreferences: [Region, Zone], mode: Failover, healthPolicy: AllowAll}
  ipFamilies: Dual
  canonical: true
  visibility: Namespace
policies:
- name: p
  namespace: default
  scope: WorkloadSelector
  action: Deny
  dryRun: true
  rules:
  - - - principals: [{Exact: a}, {Prefix: b}, {Suffix: c}]
        notPrincipals: [{Presence: []}]
        namespaces: [{Exact: n}]
        sourceIps: [10.0.0.0/8]
        destinationPorts: [80, 443]
        serviceAccounts: [{namespace: ns, serviceAccount: sa}]
";
