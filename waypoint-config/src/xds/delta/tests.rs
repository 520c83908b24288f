// SPDX-License-Identifier: Apache-2.0
//! Sessions against a small catalog, step by step, and a client's view after any sequence of changes.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use mesh_proto::discovery::Status;
use proptest::prelude::*;

use super::*;
use crate::xds::names::{MAX_NAME_BYTES, MAX_NAMES};

const TYPE: &str = ADDRESS;

/// Resources by name; generations are told apart by their content's order of appearance in a test.
#[derive(Default)]
struct Fixed(BTreeMap<String, (String, Vec<String>)>, Option<(u64, BTreeSet<Arc<str>>)>);

impl Fixed {
    fn with(entries: &[(&str, &str)]) -> Self {
        Self(
            entries.iter().map(|(name, version)| ((*name).to_owned(), ((*version).to_owned(), Vec::new()))).collect(),
            None,
        )
    }

    fn alias(mut self, name: &str, alias: &str) -> Self {
        self.0.get_mut(name).unwrap().1.push(alias.to_owned());
        self
    }
}

impl Catalog for &Fixed {
    fn entries(&self) -> Box<dyn Iterator<Item = Entry> + '_> {
        Box::new(self.0.iter().map(|(name, (version, aliases))| Entry {
            name: name.as_str().into(),
            version: version.as_str().into(),
            aliases: aliases.iter().map(|alias| alias.as_str().into()).collect(),
            body: Any::default(),
        }))
    }

    fn get(&self, name: &str) -> Option<Entry> {
        self.entries().find(|entry| &*entry.name == name)
    }

    fn resolve(&self, wanted: &str) -> Vec<Entry> {
        self.entries().filter(|entry| &*entry.name == wanted || entry.aliases.iter().any(|a| &**a == wanted)).collect()
    }

    fn generation(&self) -> u64 {
        // Another content is another generation.
        self.1.as_ref().map_or_else(
            || BuildHasherDefault::<DefaultHasher>::default().hash_one(&self.0),
            |(generation, _)| *generation,
        )
    }

    fn changed_since(&self, generation: u64) -> Option<BTreeSet<Arc<str>>> {
        let (this, changed) = self.1.as_ref()?;
        (generation + 1 == *this).then(|| changed.clone())
    }
}

impl Catalogs for Fixed {
    fn catalog<'a>(&'a self, type_url: &str) -> Option<Box<dyn Catalog + 'a>> {
        (type_url == TYPE).then(|| Box::new(self) as Box<dyn Catalog>)
    }
}

fn request() -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: TYPE.to_owned(), ..Default::default() }
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { resource_names_subscribe: names.iter().map(|n| (*n).to_owned()).collect(), ..request() }
}

fn ack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { response_nonce: response.nonce.clone(), ..request() }
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

#[test]
fn a_wildcard_client_gets_everything_once_and_then_only_differences() {
    let mut session = Session::default();
    let (outcome, response) = session.handle_request(&request(), &Fixed::with(&[("a", "1"), ("b", "1")]));
    assert_eq!(outcome, Outcome::Subscribed);
    let response = response.unwrap();
    assert_eq!(names(&response), ["a", "b"]);
    let (outcome, none) = session.handle_request(&ack(&response), &Fixed::with(&[("a", "1"), ("b", "1")]));
    assert_eq!((outcome, none), (Outcome::Acknowledged, None));
    assert!(session.handle_generation(&Fixed::with(&[("a", "1"), ("b", "1")]), Instant::now()).is_empty());

    let pushed = session.handle_generation(&Fixed::with(&[("a", "2"), ("c", "1")]), Instant::now());
    assert_eq!(pushed.len(), 1);
    assert_eq!(names(&pushed[0]), ["a", "c"]);
    assert_eq!(pushed[0].removed_resources, ["b"]);
}

#[test]
fn the_first_answer_goes_out_even_if_there_is_nothing() {
    let mut session = Session::default();
    let (_, response) = session.handle_request(&request(), &Fixed::default());
    assert!(response.unwrap().resources.is_empty());
    assert!(session.handle_generation(&Fixed::default(), Instant::now()).is_empty());
}

#[test]
fn a_reconnect_resends_nothing_the_client_has_and_names_what_is_gone() {
    let mut session = Session::default();
    let mut first = request();
    first.initial_resource_versions =
        [("a", "1"), ("b", "old"), ("gone", "1")].map(|(n, v)| (n.into(), v.into())).into();
    let (_, response) = session.handle_request(&first, &Fixed::with(&[("a", "1"), ("b", "1")]));
    let response = response.unwrap();
    assert_eq!(names(&response), ["b"]);
    assert_eq!(response.removed_resources, ["gone"]);
}

#[test]
fn a_rejection_is_told_and_not_answered_by_the_same_content() {
    let mut session = Session::default();
    let catalog = Fixed::with(&[("a", "1")]);
    let response = session.handle_request(&request(), &catalog).1.unwrap();
    let mut nack = ack(&response);
    nack.error_detail = Some(Status { message: "a: no".to_owned(), ..Default::default() });
    let (outcome, answer) = session.handle_request(&nack, &catalog);
    assert_eq!((outcome, answer), (Outcome::Rejected("a: no".to_owned()), None));
    assert!(session.handle_generation(&catalog, Instant::now()).is_empty());
    assert_eq!(session.handle_generation(&Fixed::with(&[("a", "2")]), Instant::now()).len(), 1);
}

#[test]
fn an_old_nonce_loses_the_acknowledgement_and_not_the_subscription() {
    let mut session = Session::default();
    let catalog = Fixed::with(&[("a", "1"), ("b", "1")]);
    let first = session.handle_request(&subscribe(&["a"]), &catalog).1.unwrap();
    session.handle_generation(&Fixed::with(&[("a", "2"), ("b", "1")]), Instant::now());
    let mut late = subscribe(&["b"]);
    late.response_nonce = first.nonce;
    let (outcome, response) = session.handle_request(&late, &catalog);
    assert_eq!(outcome, Outcome::Stale);
    assert_eq!(names(&response.unwrap()), ["b"]);
}

#[test]
fn a_client_that_asks_by_alias_gets_the_primary_name_with_its_aliases_and_later_changes() {
    let mut session = Session::default();
    let at = |version| Fixed::with(&[("uid", version)]).alias("uid", "/10.0.0.1");
    // Subscribe and unsubscribe to everything: nothing yet.
    let mut nothing = subscribe(&["*"]);
    nothing.resource_names_unsubscribe = vec!["*".to_owned()];
    assert!(session.handle_request(&nothing, &at("1")).1.unwrap().resources.is_empty());

    let response = session.handle_request(&subscribe(&["/10.0.0.1"]), &at("1")).1.unwrap();
    assert_eq!(names(&response), ["uid"]);
    assert_eq!(response.resources[0].aliases, ["/10.0.0.1"]);
    let pushed = session.handle_generation(&at("2"), Instant::now());
    assert_eq!(names(&pushed[0]), ["uid"]);
    let pushed = session.handle_generation(&Fixed::default(), Instant::now());
    assert_eq!(pushed[0].removed_resources, ["uid"]);
}

#[test]
fn a_name_that_does_not_exist_is_answered_as_removed() {
    let mut session = Session::default();
    let response = session.handle_request(&subscribe(&["/10.9.9.9"]), &Fixed::default()).1.unwrap();
    assert_eq!(response.removed_resources, ["/10.9.9.9"]);
    let response = session.handle_request(&subscribe(&["other"]), &Fixed::default()).1.unwrap();
    assert_eq!(response.removed_resources, ["other"]);
}

/// Names `0` and on, one more than `count` with `last` at the end.
fn numbered(count: usize, last: &str) -> DeltaDiscoveryRequest {
    let names = (0..count).map(|number| number.to_string()).chain([last.to_owned()]);
    DeltaDiscoveryRequest { resource_names_subscribe: names.collect(), ..request() }
}

#[test]
fn a_name_beyond_the_most_a_client_may_ask_for_is_answered_as_removed() {
    let catalog = Fixed::with(&[("0", "1"), ("late", "1")]).alias("0", "/10.0.0.1");
    let mut session = Session::default();
    let (outcome, response) = session.handle_request(&numbered(MAX_NAMES, "late"), &catalog);
    assert_eq!(outcome, Outcome::TooMany(1));
    let response = response.unwrap();
    assert_eq!(names(&response), ["0"]);
    assert!(response.removed_resources.contains(&"late".to_owned()));

    // On a running stream too, where what is already followed is still served.
    let (outcome, response) = session.handle_request(&subscribe(&["0", "late"]), &catalog);
    assert_eq!(outcome, Outcome::TooMany(1));
    let response = response.unwrap();
    assert_eq!((names(&response), &response.removed_resources[..]), (vec!["0"], &["late".to_owned()][..]));

    // Room that was given back can be used.
    session.handle_request(
        &DeltaDiscoveryRequest { resource_names_unsubscribe: vec!["7".to_owned()], ..request() },
        &catalog,
    );
    let (outcome, response) = session.handle_request(&subscribe(&["late"]), &catalog);
    assert_eq!((outcome, names(&response.unwrap())), (Outcome::Subscribed, vec!["late"]));
}

#[test]
fn names_have_so_many_bytes_together() {
    let catalog = Fixed::with(&[("late", "1")]);
    let mut session = Session::default();
    let long: Vec<String> = (0..20).map(|number| format!("{number:02}{}", "x".repeat(999_998))).collect();
    let asked = DeltaDiscoveryRequest { resource_names_subscribe: long, ..request() };
    let (outcome, response) = session.handle_request(&asked, &catalog);
    assert_eq!(outcome, Outcome::TooMany(4));
    assert_eq!(response.unwrap().removed_resources.len(), 20, "none of them exists, remembered or not");
    assert!(session.watches[TYPE].names.bytes <= MAX_NAME_BYTES);
    let (outcome, response) = session.handle_request(&subscribe(&["late"]), &catalog);
    assert_eq!((outcome, names(&response.unwrap())), (Outcome::Subscribed, vec!["late"]));
    // What is taken back makes room.
    let names: Vec<String> = session.watches[TYPE].names.iter().map(str::to_owned).collect();
    session.handle_request(&DeltaDiscoveryRequest { resource_names_unsubscribe: names, ..request() }, &catalog);
    assert_eq!(session.watches[TYPE].names.bytes, 0);
}

#[test]
fn beyond_the_most_what_a_client_has_anyway_is_not_called_removed() {
    // By its other name.
    let catalog = Fixed::with(&[("uid", "1")]).alias("uid", "/10.0.0.1");
    let mut session = Session::default();
    session.handle_request(&numbered(MAX_NAMES - 1, "/10.0.0.1"), &catalog);
    let response = session.handle_request(&subscribe(&["uid"]), &catalog).1.unwrap();
    assert_eq!((names(&response), response.removed_resources.len()), (vec!["uid"], 0));
    // By a wildcard.
    let mut session = Session::default();
    let mut all = numbered(MAX_NAMES, "uid");
    all.resource_names_subscribe.push("*".to_owned());
    let (outcome, response) = session.handle_request(&all, &catalog);
    assert_eq!((outcome, names(&response.unwrap())), (Outcome::Subscribed, vec!["uid"]));
}

#[test]
fn an_unknown_type_is_answered_once_and_remembered_never() {
    let mut session = Session::default();
    let mut ask = request();
    ask.type_url = "type.googleapis.com/none.Such".to_owned();
    let (outcome, response) = session.handle_request(&ask, &Fixed::default());
    assert_eq!(outcome, Outcome::UnknownType);
    ask.response_nonce = response.unwrap().nonce;
    assert_eq!(session.handle_request(&ask, &Fixed::default()), (Outcome::UnknownType, None));
    assert!(session.watches.is_empty());
}

type Generation = BTreeMap<u8, u8>;

/// Generation `number`, with what changed from the one before.
fn fixed(number: u64, before: &Generation, generation: &Generation) -> Fixed {
    let changed = (0..6u8).filter(|name| before.get(name) != generation.get(name)).map(|name| name.to_string().into());
    let entries = generation.iter().map(|(name, version)| (name.to_string(), (version.to_string(), Vec::new())));
    Fixed(entries.collect(), Some((number, changed.collect())))
}

fn take(client: &mut BTreeMap<String, String>, response: &DeltaDiscoveryResponse) {
    for resource in &response.resources {
        client.insert(resource.name.clone(), resource.version.clone());
    }
    for name in &response.removed_resources {
        client.remove(name);
    }
}

proptest! {
    /// Whatever generations come and wherever the stream breaks, the client ends with what the server has.
    #[test]
    fn a_client_always_converges(
        generations in prop::collection::vec((prop::collection::btree_map(0u8..6, 0u8..3, 0..6), any::<bool>()), 1..12)
    ) {
        let mut session = Session::default();
        let mut client = BTreeMap::new();
        let mut started = false;
        let mut before = Generation::new();
        for (number, (generation, reconnect)) in generations.iter().enumerate() {
            let catalog = fixed(number as u64, &before, generation);
            before.clone_from(generation);
            if reconnect | !started {
                session = Session::default();
                let mut first = request();
                first.initial_resource_versions = client.clone().into_iter().collect();
                take(&mut client, &session.handle_request(&first, &catalog).1.unwrap());
                started = true;
            } else {
                for response in session.handle_generation(&catalog, Instant::now()) {
                    take(&mut client, &response);
                }
            }
            let expected: BTreeMap<String, String> =
                generation.iter().map(|(name, version)| (name.to_string(), version.to_string())).collect();
            prop_assert_eq!(&client, &expected);
        }
    }
}
