// SPDX-License-Identifier: Apache-2.0
//! What waits for what, in a session with an Envoy.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_proto::discovery::Status;

use super::*;

/// Resources by type and name, with a version and what they speak of: clusters of endpoints, listeners of routes.
#[derive(Clone, Default)]
struct World {
    all: BTreeMap<(Type, String), u32>,
    generation: u64,
}

impl World {
    fn with(mut self, kind: Type, name: &str, version: u32) -> Self {
        self.all.insert((kind, name.to_owned()), version);
        self.generation += 1;
        self
    }

    fn without(mut self, kind: Type, name: &str) -> Self {
        self.all.remove(&(kind, name.to_owned()));
        self.generation += 1;
        self
    }

    /// A service with all that belongs to it.
    fn with_service(self, name: &str) -> Self {
        Type::ALL.into_iter().fold(self, |world, kind| world.with(kind, name, 1))
    }

    fn without_service(self, name: &str) -> Self {
        Type::ALL.into_iter().fold(self, |world, kind| world.without(kind, name))
    }
}

struct OfType<'a>(&'a World, Type);

impl Catalog for OfType<'_> {
    fn entries(&self) -> Box<dyn Iterator<Item = Entry> + '_> {
        let of_type = self.0.all.iter().filter(|((kind, _), _)| *kind == self.1);
        Box::new(of_type.map(|((_, name), version)| Entry {
            name: name.as_str().into(),
            version: version.to_string().into(),
            aliases: Vec::new(),
            body: Any::default(),
        }))
    }

    fn get(&self, name: &str) -> Option<Entry> {
        self.entries().find(|entry| &*entry.name == name)
    }

    fn resolve(&self, name: &str) -> Vec<Entry> {
        self.get(name).into_iter().collect()
    }

    fn generation(&self) -> u64 {
        self.0.generation
    }

    fn changed_since(&self, _: u64) -> Option<BTreeSet<Arc<str>>> {
        None
    }

    fn awaits(&self, entry: &Entry) -> Option<(&'static str, String)> {
        (self.1 == Type::Cluster).then(|| (Type::Endpoints.url(), entry.name.to_string()))
    }

    fn asks(&self, name: &str) -> Vec<(&'static str, Arc<str>)> {
        if self.1 == Type::Listener { vec![(Type::Routes.url(), name.into())] } else { Vec::new() }
    }
}

impl Catalogs for World {
    fn catalog<'a>(&'a self, type_url: &str) -> Option<Box<dyn Catalog + 'a>> {
        Type::of(type_url).map(|kind| Box::new(OfType(self, kind)) as Box<dyn Catalog>)
    }
}

/// An Envoy that answers only when it is told to.
struct Client {
    session: Session,
    world: World,
    now: Instant,
    open: Vec<DeltaDiscoveryResponse>,
}

/// Type, what is new, what is removed.
type Told = (Type, Vec<String>, Vec<String>);

impl Client {
    fn new(world: World) -> Self {
        let mut client = Self { session: Session::default(), world, now: Instant::now(), open: Vec::new() };
        client.session.announce(1);
        for kind in [Type::Cluster, Type::Listener] {
            client.ask(kind, &[]);
        }
        for kind in [Type::Endpoints, Type::Routes] {
            let names: Vec<String> =
                client.world.all.keys().filter(|one| one.0 == kind).map(|one| one.1.clone()).collect();
            client.ask(kind, &names.iter().map(String::as_str).collect::<Vec<_>>());
        }
        assert_eq!(client.session.taken(), 0);
        client.take_all();
        assert_eq!(client.session.taken(), 1);
        client
    }

    /// Gives what is sent.
    fn change(&mut self, publication: u64, world: World) -> Vec<Told> {
        self.world = world;
        self.session.announce(publication);
        self.go_on(Vec::new())
    }

    fn ask(&mut self, kind: Type, names: &[&str]) -> Vec<Told> {
        self.send(DeltaDiscoveryRequest {
            type_url: kind.url().to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        })
    }

    /// Takes the oldest response of a type.
    fn take(&mut self, kind: Type) -> Vec<Told> {
        self.answer(kind, None)
    }

    fn refuse(&mut self, kind: Type) -> Vec<Told> {
        self.answer(kind, Some(Status { message: "no".into(), ..Default::default() }))
    }

    fn answer(&mut self, kind: Type, error_detail: Option<Status>) -> Vec<Told> {
        let at = self.open.iter().position(|response| response.type_url == kind.url()).unwrap();
        let response = self.open.remove(at);
        let (type_url, response_nonce) = (response.type_url, response.nonce);
        self.send(DeltaDiscoveryRequest { type_url, response_nonce, error_detail, ..Default::default() })
    }

    fn take_all(&mut self) {
        while let Some(response) = self.open.first() {
            self.take(Type::of(&response.type_url).unwrap());
        }
    }

    fn send(&mut self, request: DeltaDiscoveryRequest) -> Vec<Told> {
        let responses = self.session.handle_request(&request, &self.world).1.into_iter().collect();
        self.go_on(responses)
    }

    fn go_on(&mut self, mut responses: Vec<DeltaDiscoveryResponse>) -> Vec<Told> {
        responses.extend(self.session.handle_generation(&self.world, self.now));
        let told = responses.iter().map(|response| {
            let new = response.resources.iter().map(|resource| resource.name.clone()).collect();
            (Type::of(&response.type_url).unwrap(), new, response.removed_resources.clone())
        });
        let told = told.collect();
        self.open.extend(responses);
        told
    }
}

fn new(kind: Type, name: &str) -> Told {
    (kind, vec![name.to_owned()], Vec::new())
}

fn gone(kind: Type, name: &str) -> Told {
    (kind, Vec::new(), vec![name.to_owned()])
}

#[test]
fn routes_and_listeners_wait_for_the_endpoints_of_new_clusters() {
    let mut client = Client::new(World::default().with_service("a"));
    let next = client.world.clone().with_service("b").with(Type::Routes, "a", 2);
    assert_eq!(client.change(2, next), [new(Type::Cluster, "b")]);
    assert_eq!(client.take(Type::Cluster), []);
    assert_eq!(client.ask(Type::Endpoints, &["b"]), [new(Type::Endpoints, "b")]);
    assert_eq!(client.session.taken(), 1);
    assert_eq!(client.take(Type::Endpoints), [new(Type::Listener, "b"), new(Type::Routes, "a")]);
    client.take_all();
    assert_eq!(client.session.taken(), 1, "the new part of the listener has no routes yet");
    assert_eq!(client.ask(Type::Routes, &["b"]), [new(Type::Routes, "b")]);
    client.take_all();
    assert_eq!((client.session.taken(), client.session.next_deadline()), (2, None));
}

#[test]
fn a_changed_cluster_has_its_endpoints_again_before_routes_go_on() {
    let mut client = Client::new(World::default().with_service("a"));
    let next = client.world.clone().with(Type::Cluster, "a", 2).with(Type::Routes, "a", 2);
    assert_eq!(client.change(2, next), [new(Type::Cluster, "a"), new(Type::Endpoints, "a")]);
    assert_eq!(client.take(Type::Endpoints), []);
    assert_eq!(client.take(Type::Cluster), [new(Type::Routes, "a")]);
}

#[test]
fn endpoints_alone_hold_nothing_up() {
    let mut client = Client::new(World::default().with_service("a"));
    let next = client.world.clone().with(Type::Endpoints, "a", 2);
    assert_eq!(client.change(2, next), [new(Type::Endpoints, "a")]);
    let next = client.world.clone().with(Type::Routes, "a", 2);
    assert_eq!(client.change(3, next), [new(Type::Routes, "a")]);
    client.take(Type::Routes);
    assert_eq!(client.session.taken(), 1);
    client.take(Type::Endpoints);
    assert_eq!(client.session.taken(), 3);
}

#[test]
fn what_goes_waits_until_what_is_new_has_been_taken_and_goes_in_reverse() {
    let mut client = Client::new(World::default().with_service("a").with_service("b"));
    let next = client.world.clone().without_service("b").with(Type::Listener, "a", 2);
    assert_eq!(client.change(2, next), [new(Type::Listener, "a")]);
    let removals = [Type::Routes, Type::Listener, Type::Endpoints, Type::Cluster].map(|kind| gone(kind, "b"));
    assert_eq!(client.take(Type::Listener), removals);
    client.take_all();
    assert_eq!(client.session.taken(), 2);
}

#[test]
fn what_comes_back_in_time_is_not_removed() {
    let before = World::default().with_service("a").with_service("b");
    let mut client = Client::new(before.clone());
    let next = client.world.clone().without_service("b").with(Type::Listener, "a", 2);
    client.change(2, next);
    let again = World { generation: 99, ..before.with(Type::Listener, "a", 2) };
    client.change(3, World { generation: 100, ..again });
    loop {
        let told: Vec<Told> = match client.open.first().map(|response| Type::of(&response.type_url).unwrap()) {
            Some(kind) => client.take(kind),
            None => break,
        };
        assert!(told.iter().all(|(_, _, removed)| removed.is_empty()), "{told:?}");
    }
    assert_eq!(client.session.taken(), 3);
}

#[test]
fn a_refused_cluster_and_a_silent_envoy_hold_nothing_up_for_ever() {
    let mut client = Client::new(World::default().with_service("a"));
    let next = client.world.clone().with_service("b");
    client.change(2, next);
    assert_eq!(client.refuse(Type::Cluster), [new(Type::Listener, "b")]);
    client.take_all();
    let next = client.world.clone().with_service("c").without_service("a");
    assert_eq!(client.change(3, next), [new(Type::Cluster, "c")]);
    let deadline = client.session.next_deadline().unwrap();
    client.now = deadline.checked_sub(Duration::from_millis(1)).unwrap();
    assert_eq!(client.go_on(Vec::new()), []);
    client.now = deadline;
    let told = client.go_on(Vec::new());
    assert_eq!(told[0], new(Type::Listener, "c"));
    assert_eq!(told[1..], [Type::Routes, Type::Listener, Type::Endpoints, Type::Cluster].map(|kind| gone(kind, "a")));
}
