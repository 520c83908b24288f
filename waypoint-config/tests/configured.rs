// SPDX-License-Identifier: Apache-2.0
//! What the operator decides and which keys come, as waypoints and the authors of policies see it.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use waypoint_config::{
    api::{Key, KeySource, Kind},
    envoy::{
        Profile, Type,
        input::{KeySets, Settings},
    },
    fleet,
    line::Line,
    source::{Ledger, Reading, Role},
    view::{Mesh, Name},
};

const KEYS: &str =
    r#"{"keys":[{"crv":"Ed25519","kid":"seen","kty":"OKP","x":"bm9ib2R5LWhhcy10aGlzLWtleS1ub2JvZHktaGFzLS0"}]}"#;

/// A waypoint with many services, one of which asks for tokens; somebody asks for the waypoint.
fn line() -> Line {
    let mut yaml = String::from(
        "{apiVersion: v1, kind: Namespace, metadata: {name: d, labels: {istio.io/use-waypoint: w}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {namespace: d, name: w}, spec: {gatewayClassName: istio-waypoint, addresses: [{value: 10.0.9.9}], listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {namespace: d, name: tokens}
spec:
  targetRefs: [{group: '', kind: Service, name: s7}]
  jwtRules:
  - {issuer: one, jwksUri: 'https://one/keys', timeout: 2s}
  - {issuer: 'https://two'}
  - {issuer: three, jwks: '{\"keys\": []}'}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {namespace: d, name: again}
spec: {targetRefs: [{group: '', kind: Service, name: s8}], jwtRules: [{issuer: one, jwksUri: 'https://one/keys'}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {namespace: d, name: of-nobody}
spec: {jwtRules: [{issuer: four, jwksUri: 'https://four/keys'}]}
",
    );
    for number in 0..30 {
        yaml.push_str(&format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{namespace: d, name: s{number}}}, spec: {{clusterIP: 10.96.0.{number}, ports: [{{port: 80, appProtocol: http}}]}}}}\n"
        ));
    }
    let mut ledger = Ledger::default();
    let reading = Reading::of(yaml.as_bytes(), Role::Objects);
    let changes = ledger.update([("mesh".into(), Role::Objects, Some(reading))]);
    assert_eq!(ledger.faults(), []);
    let mut line = Line::new(Mesh::default());
    line.apply(changes);
    line.want([key()].into());
    line
}

fn key() -> fleet::Key {
    fleet::Key { waypoint: Name::new("d", "w"), profile: Profile::default() }
}

fn listeners_say(line: &Line, text: &str) -> bool {
    let rendered = line.fleet().waypoints().get(&key()).unwrap();
    let mut all = rendered.resources.all(Type::Listener);
    all.any(|one| String::from_utf8_lossy(&one.body.value).contains(text))
}

fn sources() -> [KeySource; 2] {
    [KeySource::Url("https://one/keys".into()), KeySource::Issuer("https://two".into())]
}

#[test]
fn keys_are_wanted_once_for_all_who_name_them_and_only_if_a_waypoint_goes_by_them() {
    let [one, two] = sources();
    let wanted = BTreeMap::from([(one, Duration::from_secs(5)), (two, Duration::from_secs(5))]);
    assert_eq!(line().wanted_keys(), wanted);
}

#[test]
fn the_author_is_told_why_there_are_no_keys_until_there_are() {
    let mut line = line();
    let again = Key::new(Kind::RequestAuthentication, "d", "again");
    let said = |line: &Line| {
        let conditions = line.status(&again).conditions;
        conditions.into_iter().find(|one| one.reason == "NoKeys").map(|one| one.message)
    };
    assert!(said(&line).unwrap().contains("not been fetched"));
    let [one, two] = sources();
    let settings: Arc<Settings> = Arc::default();
    let failed = KeySets::from([(one.clone(), Err("connection refused".to_owned()))]);
    line.configure(Arc::clone(&settings), Arc::new(failed));
    assert!(said(&line).unwrap().contains("connection refused"));
    assert!(!listeners_say(&line, "seen"));
    let good = KeySets::from([(one, Ok(KEYS.into())), (two, Err("gone".to_owned()))]);
    line.configure(settings, Arc::new(good));
    assert_eq!(said(&line), None);
    assert!(listeners_say(&line, "seen"));
    let tokens = line.status(&Key::new(Kind::RequestAuthentication, "d", "tokens"));
    let told = tokens.conditions.iter().find(|one| one.kind == "lateen.io/EnforcedAsWritten").unwrap();
    assert!(!told.holds && told.message.contains("gone") && told.message.contains("three"), "{told:?}");
}

#[test]
fn keys_that_change_make_only_those_services_anew_that_go_by_them() {
    let mut line = line();
    let [one, two] = sources();
    line.configure(Arc::default(), Arc::new(KeySets::from([(one.clone(), Ok(KEYS.into()))])));
    let of_two_services = line.fleet().made();
    assert!((1..15).contains(&of_two_services), "{of_two_services} resources for two services of thirty");
    let both = KeySets::from([(one, Ok(KEYS.into())), (two, Ok(KEYS.into()))]);
    line.configure(Arc::default(), Arc::new(both.clone()));
    assert!(line.fleet().made() < of_two_services, "{} resources for one service", line.fleet().made());
    line.configure(Arc::default(), Arc::new(both));
    assert_eq!(line.fleet().made(), 0, "equal keys");
}

#[test]
fn what_the_operator_decides_reaches_waypoints_that_are_there_already() {
    let mut line = line();
    let log = Settings { access_log: Some("/tmp/some-log".into()), ..Settings::default() };
    assert!(!listeners_say(&line, "/tmp/some-log"));
    line.configure(Arc::new(log), Arc::default());
    assert!(listeners_say(&line, "/tmp/some-log"));
}
