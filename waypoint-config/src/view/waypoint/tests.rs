// SPDX-License-Identifier: Apache-2.0
//! Who goes through which waypoint, question by question.

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn waypoint(namespace: &str, name: &str, traffic: TrafficType, admits: Admits) -> Waypoint {
    Waypoint {
        name: Name::new(namespace, name),
        class: "istio-waypoint".into(),
        is_ours: true,
        traffic,
        hostname: None,
        addresses: vec!["10.0.0.1".parse().unwrap()],
        network: "".into(),
        admits,
        identities: BTreeSet::new(),
        inbound: None,
    }
}

fn bind(asker: Asker, own: &[(&str, &str)], of_namespace: &[(&str, &str)]) -> Binding {
    let matching = LabelSelector { match_labels: Some(labels(&[("team", "x")])), ..LabelSelector::default() };
    let all = [
        waypoint("a", "services", TrafficType::Service, Admits::Same),
        waypoint("a", "workloads", TrafficType::Workload, Admits::Same),
        waypoint("a", "all", TrafficType::All, Admits::Same),
        waypoint("a", "nothing", TrafficType::None, Admits::Same),
        waypoint("b", "same", TrafficType::All, Admits::Same),
        waypoint("b", "open", TrafficType::All, Admits::All),
        waypoint("b", "some", TrafficType::All, Admits::Selected(matching)),
    ];
    let asking = Asking { asker, namespace: "a", own: &labels(own), of_namespace: &labels(of_namespace) };
    asking.bind(|name| all.iter().find(|one| one.name == *name))
}

fn to(namespace: &str, name: &str) -> Binding {
    Binding::Bound { waypoint: Name::new(namespace, name), ingress: false }
}

const USE: &str = label::USE_WAYPOINT;
const FROM: &str = label::USE_WAYPOINT_NAMESPACE;

#[test]
fn the_objects_own_label_counts_before_its_namespaces() {
    assert_eq!(bind(Asker::Service, &[], &[]), Binding::Unbound(Unbound::NotAsked));
    assert_eq!(bind(Asker::Service, &[], &[(USE, "services")]), to("a", "services"));
    assert_eq!(bind(Asker::Service, &[(USE, "all")], &[(USE, "services")]), to("a", "all"));
    assert_eq!(bind(Asker::Service, &[(USE, "none")], &[(USE, "services")]), Binding::Unbound(Unbound::OptedOut));
    assert_eq!(bind(Asker::Service, &[(USE, "")], &[(USE, "services")]), to("a", "services"));
}

#[test]
fn whoever_names_a_waypoint_that_is_not_there_goes_through_none() {
    let missing = Binding::Unbound(Unbound::NotReady { waypoint: Name::new("a", "missing") });
    assert_eq!(bind(Asker::Service, &[(USE, "missing")], &[(USE, "services")]), missing);
    assert_eq!(bind(Asker::Workload, &[], &[(USE, "missing")]), missing);
}

#[test]
fn a_waypoint_takes_only_its_kind_of_traffic_and_only_who_asked_himself_is_told() {
    let wrong =
        |name: &str, own_label| Binding::Unbound(Unbound::WrongTraffic { waypoint: Name::new("a", name), own_label });
    assert_eq!(bind(Asker::Workload, &[(USE, "workloads")], &[]), to("a", "workloads"));
    assert_eq!(bind(Asker::Workload, &[], &[(USE, "services")]), wrong("services", false));
    assert_eq!(bind(Asker::Workload, &[(USE, "services")], &[]), wrong("services", true));
    assert_eq!(bind(Asker::Service, &[(USE, "workloads")], &[]), wrong("workloads", true));
    assert_eq!(bind(Asker::Service, &[(USE, "nothing")], &[]), wrong("nothing", true));
    let tells = |binding| matches!(binding, Binding::Unbound(unbound) if unbound.tells());
    assert!(tells(wrong("services", true)) && !tells(wrong("services", false)));
}

#[test]
fn a_waypoint_of_another_namespace_must_admit() {
    let denied = |name: &str| Binding::Unbound(Unbound::NotAdmitted { waypoint: Name::new("b", name) });
    assert_eq!(bind(Asker::Service, &[(USE, "open"), (FROM, "b")], &[]), to("b", "open"));
    assert_eq!(bind(Asker::Service, &[(USE, "same"), (FROM, "b")], &[]), denied("same"));
    assert_eq!(bind(Asker::Service, &[(USE, "some"), (FROM, "b")], &[]), denied("some"));
    assert_eq!(bind(Asker::Service, &[(USE, "some"), (FROM, "b")], &[("team", "x")]), to("b", "some"));
}

#[test]
fn ingress_goes_through_it_where_the_service_or_its_namespace_says_so() {
    let ingress = |own: &[(&str, &str)], of: &[(&str, &str)]| {
        let own: Vec<_> = own.iter().copied().chain([(USE, "all")]).collect();
        matches!(bind(Asker::Service, &own, of), Binding::Bound { ingress: true, .. })
    };
    let yes = (label::INGRESS_USE_WAYPOINT, "true");
    let no = (label::INGRESS_USE_WAYPOINT, "false");
    assert!(!ingress(&[], &[]));
    assert!(ingress(&[yes], &[]));
    assert!(ingress(&[], &[yes]));
    assert!(!ingress(&[no], &[yes]));
    assert_eq!(bind(Asker::Workload, &[(USE, "all"), yes], &[]), to("a", "all"));
}
