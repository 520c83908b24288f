// SPDX-License-Identifier: Apache-2.0
//! Sessions against a small catalog, step by step.

use mesh_proto::discovery::{Any, Status};

use super::*;
use crate::envoy::Type;

/// Clusters and endpoints by name, with versions; cluster `x` waits for endpoints `x`.
#[derive(Clone, Default)]
struct Fixed {
    clusters: BTreeMap<String, u32>,
    endpoints: BTreeMap<String, u32>,
    generation: u64,
}

impl Fixed {
    fn of(generation: u64, clusters: &[(&str, u32)], endpoints: &[(&str, u32)]) -> Self {
        let map = |all: &[(&str, u32)]| all.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect();
        Self { clusters: map(clusters), endpoints: map(endpoints), generation }
    }
}

struct OfType<'a>(&'a BTreeMap<String, u32>, Type, u64);

impl Catalog for OfType<'_> {
    fn entries(&self) -> Box<dyn Iterator<Item = Entry> + '_> {
        Box::new(self.0.iter().map(|(name, version)| Entry {
            name: name.as_str().into(),
            version: version.to_string().into(),
            aliases: Vec::new(),
            body: Any { type_url: name.clone(), value: Vec::new() },
        }))
    }

    fn get(&self, name: &str) -> Option<Entry> {
        self.entries().find(|entry| &*entry.name == name)
    }

    fn resolve(&self, name: &str) -> Vec<Entry> {
        self.get(name).into_iter().collect()
    }

    fn generation(&self) -> u64 {
        self.2
    }

    fn changed_since(&self, _: u64) -> Option<BTreeSet<Arc<str>>> {
        None
    }

    fn is_whole(&self) -> bool {
        self.1 == Type::Cluster
    }

    fn awaits(&self, entry: &Entry) -> Option<(&'static str, String)> {
        self.is_whole().then(|| (Type::Endpoints.url(), entry.name.to_string()))
    }
}

impl Catalogs for Fixed {
    fn catalog<'a>(&'a self, type_url: &str) -> Option<Box<dyn Catalog + 'a>> {
        let of = |map, kind| Box::new(OfType(map, kind, self.generation)) as Box<dyn Catalog>;
        match Type::of(type_url)? {
            Type::Cluster => Some(of(&self.clusters, Type::Cluster)),
            Type::Endpoints => Some(of(&self.endpoints, Type::Endpoints)),
            _ => None,
        }
    }
}

fn ask(kind: Type, names: &[&str]) -> DiscoveryRequest {
    let resource_names = names.iter().map(|name| (*name).to_owned()).collect();
    DiscoveryRequest { type_url: kind.url().to_owned(), resource_names, ..Default::default() }
}

fn answer(response: &DiscoveryResponse, names: &[&str]) -> DiscoveryRequest {
    let kind = Type::of(&response.type_url).unwrap();
    DiscoveryRequest {
        response_nonce: response.nonce.clone(),
        version_info: response.version_info.clone(),
        ..ask(kind, names)
    }
}

fn told(response: &DiscoveryResponse) -> (Type, Vec<&str>) {
    let names = response.resources.iter().map(|resource| resource.type_url.as_str()).collect();
    (Type::of(&response.type_url).unwrap(), names)
}

/// A client that has clusters and endpoints of this world, and has said so.
fn settled(world: &Fixed) -> (Session, DiscoveryResponse, DiscoveryResponse) {
    let mut session = Session::default();
    let clusters = session.handle_request(&ask(Type::Cluster, &[]), world).1.unwrap();
    assert_eq!(session.handle_request(&answer(&clusters, &[]), world), (Outcome::Acknowledged, None));
    let names: Vec<&str> = world.endpoints.keys().map(String::as_str).collect();
    let endpoints = session.handle_request(&ask(Type::Endpoints, &names), world).1.unwrap();
    assert_eq!(session.handle_request(&answer(&endpoints, &names), world), (Outcome::Acknowledged, None));
    (session, clusters, endpoints)
}

#[test]
fn a_change_of_endpoints_touches_nothing_else() {
    let world = Fixed::of(1, &[("a", 1), ("b", 1)], &[("a", 1), ("b", 1)]);
    let (mut session, _, _) = settled(&world);
    let next = Fixed::of(2, &[("a", 1), ("b", 1)], &[("a", 1), ("b", 2)]);
    let pushed = session.handle_generation(&world, &next);
    assert_eq!(pushed.iter().map(told).collect::<Vec<_>>(), [(Type::Endpoints, vec!["b"])]);
    assert!(session.handle_generation(&next, &next).is_empty());
}

#[test]
fn a_changed_cluster_is_followed_by_its_endpoints_though_they_are_the_same() {
    let world = Fixed::of(1, &[("a", 1), ("b", 1)], &[("a", 1), ("b", 1)]);
    let (mut session, _, _) = settled(&world);
    let next = Fixed::of(2, &[("a", 2), ("b", 1)], &[("a", 1), ("b", 1)]);
    let pushed = session.handle_generation(&world, &next);
    assert_eq!(
        pushed.iter().map(told).collect::<Vec<_>>(),
        [(Type::Cluster, vec!["a", "b"]), (Type::Endpoints, vec!["a"])]
    );
}

#[test]
fn what_is_removed_stays_until_what_is_new_has_been_sent() {
    let world = Fixed::of(1, &[("a", 1), ("b", 1)], &[("a", 1), ("b", 1)]);
    let (mut session, _, _) = settled(&world);
    let next = Fixed::of(2, &[("b", 1), ("c", 1)], &[("b", 1), ("c", 1)]);
    let pushed = session.handle_generation(&world, &next);
    let pushed: Vec<_> = pushed.iter().map(told).collect();
    assert_eq!(pushed, [(Type::Cluster, vec!["b", "c", "a"]), (Type::Cluster, vec!["b", "c"])]);
}

#[test]
fn a_client_that_comes_back_with_what_there_is_is_sent_nothing() {
    let world = Fixed::of(1, &[("a", 1), ("b", 1)], &[("a", 1), ("b", 1)]);
    let (_, clusters, endpoints) = settled(&world);
    let mut session = Session::default();
    let again = |response: &DiscoveryResponse, names| DiscoveryRequest {
        response_nonce: String::new(),
        ..answer(response, names)
    };
    assert_eq!(session.handle_request(&again(&clusters, &[]), &world), (Outcome::Subscribed, None));
    assert_eq!(session.handle_request(&again(&endpoints, &["a", "b"]), &world), (Outcome::Subscribed, None));
    // And with what there was, everything that differs later.
    let next = Fixed::of(2, &[("a", 1), ("b", 1)], &[("a", 2), ("b", 1)]);
    let pushed = session.handle_generation(&world, &next);
    assert_eq!(pushed.iter().map(told).collect::<Vec<_>>(), [(Type::Endpoints, vec!["a"])]);
}

#[test]
fn a_client_that_comes_back_to_a_changed_cluster_is_sent_its_endpoints_again() {
    let world = Fixed::of(1, &[("a", 1)], &[("a", 1)]);
    let (_, clusters, endpoints) = settled(&world);
    let next = Fixed::of(2, &[("a", 2)], &[("a", 1)]);
    let mut session = Session::default();
    let again = |response: &DiscoveryResponse, names| DiscoveryRequest {
        response_nonce: String::new(),
        ..answer(response, names)
    };
    assert!(session.handle_request(&again(&clusters, &[]), &next).1.is_some());
    assert!(session.handle_request(&again(&endpoints, &["a"]), &next).1.is_some());
}

#[test]
fn new_names_are_answered_and_what_is_asked_for_again_is_sent_again() {
    let world = Fixed::of(1, &[], &[("a", 1), ("b", 1)]);
    let mut session = Session::default();
    let first = session.handle_request(&ask(Type::Endpoints, &["a"]), &world).1.unwrap();
    let (outcome, second) = session.handle_request(&answer(&first, &["a", "b"]), &world);
    let second = second.unwrap();
    assert_eq!((outcome, told(&second)), (Outcome::Subscribed, (Type::Endpoints, vec!["b"])));
    let ack = answer(&second, &["a", "b"]);
    assert_eq!(session.handle_request(&ack, &world), (Outcome::Acknowledged, None));
    let again = session.handle_request(&ack, &world).1.unwrap();
    assert_eq!(told(&again), (Type::Endpoints, vec!["a", "b"]));
    // Only fewer names is no question.
    assert_eq!(session.handle_request(&answer(&again, &["a"]), &world).1, None);
    assert_eq!(session.handle_request(&answer(&again, &[]), &world).1, None);
}

#[test]
fn names_that_do_not_exist_are_answered_once_they_do() {
    let world = Fixed::of(1, &[], &[]);
    let mut session = Session::default();
    assert_eq!(session.handle_request(&ask(Type::Endpoints, &["late"]), &world).1, None);
    let next = Fixed::of(2, &[], &[("late", 1)]);
    let pushed = session.handle_generation(&world, &next);
    assert_eq!(pushed.iter().map(told).collect::<Vec<_>>(), [(Type::Endpoints, vec!["late"])]);
}

#[test]
fn a_refusal_is_remembered_until_the_resource_is_taken() {
    let world = Fixed::of(1, &[("bad", 1), ("fine", 1)], &[]);
    let mut session = Session::default();
    let first = session.handle_request(&ask(Type::Cluster, &[]), &world).1.unwrap();
    let mut nack = answer(&first, &[]);
    nack.error_detail = Some(Status { message: "cluster bad: no".to_owned(), ..Default::default() });
    assert_eq!(session.handle_request(&nack, &world), (Outcome::Rejected("cluster bad: no".to_owned()), None));
    let refused: Vec<_> = session.refused().map(|(_, name, reason)| (name.to_string(), reason.to_string())).collect();
    assert_eq!(refused, [("bad".to_owned(), "cluster bad: no".to_owned())]);
    assert!(session.handle_generation(&world, &world).is_empty());
    let next = Fixed::of(2, &[("bad", 2), ("fine", 1)], &[]);
    let second = session.handle_generation(&world, &next).remove(0);
    session.handle_request(&answer(&second, &[]), &next);
    assert_eq!(session.refused().count(), 0);
}

#[test]
fn an_answer_to_an_older_response_changes_nothing() {
    let world = Fixed::of(1, &[], &[("a", 1)]);
    let mut session = Session::default();
    let first = session.handle_request(&ask(Type::Endpoints, &["a"]), &world).1.unwrap();
    session.handle_generation(&world, &Fixed::of(2, &[], &[("a", 2)]));
    assert_eq!(session.handle_request(&answer(&first, &[]), &world), (Outcome::Acknowledged, None));
    assert_eq!(session.handle_request(&answer(&first, &[]), &world), (Outcome::Stale, None));
    assert_eq!(session.handle_generation(&world, &Fixed::of(3, &[], &[("a", 3)])).len(), 1);
}

#[test]
fn an_unknown_type_is_answered_with_nothing() {
    let mut session = Session::default();
    let unknown = DiscoveryRequest { type_url: "type.googleapis.com/x".to_owned(), ..Default::default() };
    let (outcome, response) = session.handle_request(&unknown, &Fixed::default());
    assert_eq!((outcome, response.unwrap().resources.len()), (Outcome::UnknownType, 0));
}
