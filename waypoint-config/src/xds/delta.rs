// SPDX-License-Identifier: Apache-2.0
//! One client's delta discovery session (the incremental variant of Envoy's xDS protocol), without I/O.
//!
//! The server gives it each request and each new generation of resources; it answers with the responses to send. It
//! remembers what the client was sent or said it has, by content version, so that only differences travel and a
//! reconnect resends nothing. Each response carries its own nonce, and a rejected resource is simply not sent again
//! until it changes.
//!
//! Make before break: an Envoy puts a new cluster to use only when it has its endpoints, but new routes and listeners at once. So what speaks of clusters
//! waits until the clusters that were sent have been taken with their endpoints, and what is removed waits until everything that is new has been taken.
//! Neither waits longer than `taken::PATIENCE`. Nothing else waits for an acknowledgement.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use mesh_proto::contract::type_url::ADDRESS;
use mesh_proto::discovery::{Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};

use super::names::Names;
use super::order::{Awaited, breaks_last, in_order, speaks_of_clusters};
use super::outstanding::Outstanding;
use super::taken::Taken;
use crate::envoy::Type;

/// One resource as it is sent. Its version is a hash of its content.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The primary name.
    pub name: Arc<str>,
    /// Equal versions mean equal content.
    pub version: Arc<str>,
    /// Other names a client may have asked by.
    pub aliases: Vec<Arc<str>>,
    /// The resource.
    pub body: Any,
}

/// The resources of one type, of one generation.
pub trait Catalog {
    /// All of them, for wildcard subscribers.
    fn entries(&self) -> Box<dyn Iterator<Item = Entry> + '_>;
    /// The one of this primary name.
    fn get(&self, name: &str) -> Option<Entry>;
    /// What a client gets that asked for `name`, which may be an alias and may stand for several.
    fn resolve(&self, name: &str) -> Vec<Entry>;
    /// Which generation this is.
    fn generation(&self) -> u64;
    /// The primary names that differ from those of an earlier generation; `None` if that was too long ago to tell.
    fn changed_since(&self, generation: u64) -> Option<BTreeSet<Arc<str>>>;
    /// The version of the one of this primary name.
    fn version(&self, name: &str) -> Option<Arc<str>> {
        self.get(name).map(|entry| entry.version)
    }
    /// Whether what a whole state leaves out is gone; else it stays as it was. Only the state-of-the-world variant asks.
    fn is_whole(&self) -> bool {
        true
    }
    /// Type and name of what a client waits for once it has taken this entry, even if it has that already: an Envoy does not use a changed cluster
    /// before it has been sent its endpoints again.
    fn awaits(&self, _entry: &Entry) -> Option<(&'static str, String)> {
        None
    }
    /// Types and names of what a client will ask for once it has taken the entry of this name, unless it has done so before: an Envoy does not use the
    /// new part of a listener before it has the routes.
    fn asks(&self, _name: &str) -> Vec<(&'static str, Arc<str>)> {
        Vec::new()
    }
}

/// What the server holds: a catalog per type URL.
pub trait Catalogs {
    /// The catalog of `type_url`; `None` if this server has no such type.
    fn catalog<'a>(&'a self, type_url: &str) -> Option<Box<dyn Catalog + 'a>>;
}

/// What a request led to, beside the responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A subscription was made or changed.
    Subscribed,
    /// The last response was taken.
    Acknowledged,
    /// The last response, or part of it, was refused, for this reason.
    Rejected(String),
    /// The nonce is not that of the last response: the subscription changes in it count, the acknowledgement does not.
    Stale,
    /// This many names are more, or longer, than a client may ask for; it is told that they do not exist.
    TooMany(usize),
    /// This server has no such type; the client is told that what it asks for does not exist.
    UnknownType,
}

/// A client's session: lives as long as its stream.
#[derive(Debug, Default)]
pub struct Session {
    watches: BTreeMap<String, Watch>,
    sent: u64,
    awaited: Awaited,
    taken: Taken,
}

/// What a request asks for by name.
#[derive(Debug, Default)]
struct Asked {
    added: BTreeSet<String>,
    /// Beyond [`MAX_NAMES`] and [`MAX_NAME_BYTES`].
    refused: BTreeSet<String>,
}

impl Asked {
    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.refused.is_empty()
    }
}

#[derive(Debug, Default)]
struct Watch {
    wildcard: bool,
    /// Names asked for one by one.
    names: Names,
    /// What the client has, as far as we know: name to version.
    known: HashMap<Arc<str>, Arc<str>>,
    /// The generation that was compared last; `None` before the first answer.
    seen: Option<u64>,
    last_nonce: String,
    /// That of the first half, when the last push was made of two.
    half_nonce: Option<String>,
    outstanding: Outstanding,
    /// What is to be removed once everything new has been taken.
    going: BTreeSet<String>,
}

impl Session {
    /// Takes a request; gives what it meant and the response to send at once, if any.
    pub fn handle_request(
        &mut self,
        request: &DeltaDiscoveryRequest,
        catalogs: &dyn Catalogs,
    ) -> (Outcome, Option<DeltaDiscoveryResponse>) {
        let Some(catalog) = catalogs.catalog(&request.type_url) else {
            // No state is kept for it: type URLs are the client's to invent.
            let response = request.response_nonce.is_empty().then(|| {
                let asked = request.resource_names_subscribe.iter().filter(|name| *name != "*");
                self.respond(&request.type_url, Vec::new(), asked.cloned().collect())
            });
            return (Outcome::UnknownType, response);
        };
        let first = !self.watches.contains_key(&request.type_url);
        let watch = self.watches.entry(request.type_url.clone()).or_default();
        let rejected = request.error_detail.as_ref();
        let is_known = match rejected {
            Some(error) => {
                self.taken.handle_refusal(&request.response_nonce);
                watch.outstanding.rejected(&request.response_nonce, &error.message)
            }
            None => {
                let names = watch.outstanding.acknowledged(&request.response_nonce);
                let taken = names.iter().flatten();
                taken.for_each(|name| self.taken.handle_taken(&request.type_url, name, &request.response_nonce));
                names.is_some()
            }
        };
        if first {
            for (name, version) in &request.initial_resource_versions {
                watch.known.insert(name.as_str().into(), version.as_str().into());
            }
        }
        let asked = watch.subscribe(request, first);
        let subscribed =
            if asked.refused.is_empty() { Outcome::Subscribed } else { Outcome::TooMany(asked.refused.len()) };
        let outcome = if first {
            subscribed
        } else if watch.is_current(&request.response_nonce) || (rejected.is_some() && is_known) {
            match rejected {
                Some(error) => Outcome::Rejected(error.message.clone()),
                None if asked.is_empty() => Outcome::Acknowledged,
                None => subscribed,
            }
        } else {
            Outcome::Stale
        };
        let response = match (first, asked.is_empty()) {
            (true, _) => self.push(&request.type_url, &*catalog, asked),
            (false, false) => Some(self.push_names(&request.type_url, &*catalog, asked)),
            (false, true) => None,
        };
        (outcome, response)
    }

    /// Takes a new generation, or goes on with one that had to wait for the client; gives the responses to send, in order. Types without a difference are
    /// left out.
    pub fn handle_generation(&mut self, catalogs: &dyn Catalogs, now: Instant) -> Vec<DeltaDiscoveryResponse> {
        let mut responses = Vec::new();
        let types = in_order(self.watches.keys());
        self.taken.forget(|type_url, name| catalogs.catalog(type_url).is_none_or(|all| all.version(name).is_none()));
        let is_late = self.taken.is_late(now);
        let mut is_held = false;
        for type_url in &types {
            let Some(catalog) = catalogs.catalog(type_url) else { continue };
            let is_seen = self.watches.get(type_url).is_some_and(|watch| watch.seen == Some(catalog.generation()));
            if is_seen && !self.awaited.has(type_url) {
                continue;
            }
            if speaks_of_clusters(type_url) && !is_late && !self.has_clusters() {
                is_held = true;
                continue;
            }
            responses.extend(self.push(type_url, &*catalog, Asked::default()));
        }
        if is_late || (!is_held && self.has_all()) {
            for type_url in types.iter().rev() {
                responses.extend(self.remove(type_url));
            }
        }
        let is_going = self.watches.values().any(|watch| !watch.going.is_empty());
        self.taken.waits(is_held || is_going, now);
        if !is_held {
            self.taken.mark(self.sent);
        }
        responses
    }

    /// When to go on without the client, by [`Self::handle_generation`].
    pub fn next_deadline(&self) -> Option<Instant> {
        self.taken.next_deadline()
    }

    /// That the catalogs given from now on are those of this publication, or a later one.
    pub fn announce(&mut self, publication: u64) {
        self.taken.announce(publication);
    }

    /// The last publication of which the client has taken everything that it was sent; 0 before that.
    pub fn taken(&mut self) -> u64 {
        let oldest = self.watches.values().filter_map(|watch| watch.outstanding.oldest()).min();
        match self.has_begun() {
            true => self.taken.taken(oldest),
            false => 0,
        }
    }

    /// Whether the client has asked for everything it cannot do without.
    fn has_begun(&self) -> bool {
        let has = |type_url: &str| self.watches.get(type_url).is_some_and(|watch| watch.seen.is_some());
        (has(Type::Cluster.url()) && has(Type::Listener.url())) || has(ADDRESS)
    }

    /// Whether the client has taken the clusters it was sent, and what they wait for.
    fn has_clusters(&self) -> bool {
        !self.taken.awaits(Type::Endpoints.url()) && self.has_answered(Type::Cluster.url())
    }

    /// Whether it has taken everything that is not about endpoints, which come and go all the time.
    fn has_all(&self) -> bool {
        let types = [Type::Cluster.url(), Type::Listener.url(), Type::Routes.url()];
        self.has_begun() && self.taken.awaits_nothing() && types.iter().all(|type_url| self.has_answered(type_url))
    }

    fn has_answered(&self, type_url: &str) -> bool {
        self.watches.get(type_url).is_none_or(|watch| watch.outstanding.oldest().is_none())
    }

    /// What is to be removed of a type.
    fn remove(&mut self, type_url: &str) -> Option<DeltaDiscoveryResponse> {
        let watch = self.watches.get_mut(type_url)?;
        let going: Vec<String> = std::mem::take(&mut watch.going).into_iter().collect();
        if going.is_empty() {
            return None;
        }
        let half = watch.last_nonce.clone();
        let response = self.respond(type_url, Vec::new(), going);
        if let Some(watch) = self.watches.get_mut(type_url) {
            watch.half_nonce = Some(half);
        }
        Some(response)
    }

    /// What the client has refused and not taken since: type, name, reason.
    pub fn refused(&self) -> impl Iterator<Item = (&str, &Arc<str>, &Arc<str>)> {
        self.watches.iter().flat_map(|(type_url, watch)| {
            watch.outstanding.refused().map(move |(name, reason)| (type_url.as_str(), name, reason))
        })
    }

    /// All differences of one type. The first answer to a subscription goes out even if it is empty: the client waits
    /// for it.
    fn push(&mut self, type_url: &str, catalog: &dyn Catalog, asked: Asked) -> Option<DeltaDiscoveryResponse> {
        let watch = self.watches.get_mut(type_url)?;
        let recent = watch.seen.filter(|_| watch.wildcard).and_then(|seen| catalog.changed_since(seen));
        let (mut changed, mut removed) = match recent {
            Some(names) => watch.differences_among(&names, catalog),
            None => watch.differences(catalog),
        };
        if breaks_last(type_url) {
            watch.going.append(&mut removed);
        }
        let nowhere = |name: &String| !watch.wildcard && catalog.resolve(name).is_empty();
        removed.extend(asked.added.into_iter().filter(nowhere));
        removed.extend(asked.refused);
        let awaited = self.awaited.take(type_url).into_iter();
        let awaited =
            awaited.filter(|name| watch.names.contains(name) && changed.iter().all(|one| *one.name != **name));
        let awaited: Vec<Entry> = awaited.filter_map(|name| catalog.get(&name)).collect();
        changed.extend(awaited);
        let first = watch.seen.replace(catalog.generation()).is_none();
        if changed.is_empty() && removed.is_empty() && !first {
            return None;
        }
        self.awaited.add(catalog, &changed);
        let mut expected: Vec<(&'static str, Arc<str>)> = Vec::new();
        for entry in &changed {
            expected.extend(catalog.awaits(entry).map(|(type_url, name)| (type_url, name.into())));
            let is_new = |(type_url, name): &(&str, Arc<str>)| {
                self.watches.get(*type_url).is_none_or(|watch| !watch.names.contains(name))
            };
            expected.extend(catalog.asks(&entry.name).into_iter().filter(is_new));
        }
        let response = self.respond(type_url, changed, removed.into_iter().collect());
        self.taken.expect(expected, self.sent);
        Some(response)
    }

    /// What was newly asked for by name.
    fn push_names(&mut self, type_url: &str, catalog: &dyn Catalog, asked: Asked) -> DeltaDiscoveryResponse {
        let mut entries = BTreeMap::new();
        let mut removed: Vec<String> = asked.refused.into_iter().collect();
        for name in asked.added {
            let found = catalog.resolve(&name);
            if found.is_empty() {
                removed.push(name);
            }
            entries.extend(found.into_iter().map(|entry| (entry.name.clone(), entry)));
        }
        // A name asked for again is sent again: that is how a client recovers one it dropped.
        self.respond(type_url, entries.into_values().collect(), removed)
    }

    fn respond(&mut self, type_url: &str, entries: Vec<Entry>, removed: Vec<String>) -> DeltaDiscoveryResponse {
        self.sent += 1;
        let nonce = self.sent.to_string();
        if let Some(watch) = self.watches.get_mut(type_url) {
            watch.last_nonce.clone_from(&nonce);
            watch.half_nonce = None;
            let names = entries.iter().map(|entry| Arc::clone(&entry.name)).collect();
            watch.outstanding.sent(&nonce, names, &removed);
            let named = !watch.wildcard;
            for entry in &entries {
                watch.going.remove(&*entry.name);
                watch.known.insert(entry.name.clone(), entry.version.clone());
                // Later changes follow the primary name, whatever it was asked by.
                if named {
                    watch.names.insert(&entry.name);
                }
            }
        }
        let aliased = self.watches.get(type_url).is_some_and(|watch| !watch.wildcard);
        let resources = entries.into_iter().map(|entry| resource(entry, aliased)).collect();
        DeltaDiscoveryResponse {
            resources,
            type_url: type_url.to_owned(),
            removed_resources: removed,
            nonce,
            ..Default::default()
        }
    }
}

impl Watch {
    /// Whether a nonce is that of the last push.
    fn is_current(&self, nonce: &str) -> bool {
        nonce.is_empty() || nonce == self.last_nonce || self.half_nonce.as_deref() == Some(nonce)
    }

    /// Applies the names of a request; gives those newly asked for.
    fn subscribe(&mut self, request: &DeltaDiscoveryRequest, first: bool) -> Asked {
        let subscribe = &request.resource_names_subscribe;
        if first && subscribe.is_empty() && request.resource_names_unsubscribe.is_empty() {
            self.wildcard = true;
        }
        let mut asked = Asked::default();
        for name in subscribe {
            if name == "*" {
                self.wildcard = true;
            } else if self.names.insert(name) {
                asked.added.insert(name.clone());
            } else if self.known.contains_key(name.as_str()) {
                // The client has it by another name: to call it removed would take that away too.
                asked.added.insert(name.clone());
            } else {
                asked.refused.insert(name.clone());
            }
        }
        for name in &request.resource_names_unsubscribe {
            if name == "*" {
                self.wildcard = false;
            } else {
                self.names.remove(name);
                self.known.remove(name.as_str());
                asked.added.remove(name);
                asked.refused.remove(name);
            }
        }
        if self.wildcard {
            // It has all there is without our remembering the names.
            asked.added.append(&mut asked.refused);
        }
        asked
    }

    /// What differs between what the client has and what it should have, all of it compared.
    fn differences(&mut self, catalog: &dyn Catalog) -> (Vec<Entry>, BTreeSet<String>) {
        let wanted: BTreeMap<Arc<str>, Entry> = if self.wildcard {
            catalog.entries().map(|entry| (entry.name.clone(), entry)).collect()
        } else {
            self.names.iter().flat_map(|name| catalog.resolve(name)).map(|entry| (entry.name.clone(), entry)).collect()
        };
        let mut removed = BTreeSet::new();
        self.known.retain(|name, _| {
            let stays = wanted.contains_key(name);
            if !stays {
                removed.insert(name.to_string());
            }
            stays
        });
        let changed = wanted.into_values().filter(|entry| self.known.get(&entry.name) != Some(&entry.version));
        (changed.collect(), removed)
    }

    /// The same for a wildcard client, of which all but `names` is known to be equal.
    fn differences_among(
        &mut self,
        names: &BTreeSet<Arc<str>>,
        catalog: &dyn Catalog,
    ) -> (Vec<Entry>, BTreeSet<String>) {
        let mut changed = Vec::new();
        let mut removed = BTreeSet::new();
        for name in names {
            match catalog.get(name) {
                Some(entry) if self.known.get(name) != Some(&entry.version) => changed.push(entry),
                Some(_) => {}
                None => {
                    if self.known.remove(name).is_some() {
                        removed.insert(name.to_string());
                    }
                }
            }
        }
        (changed, removed)
    }
}

/// Aliases go only to clients that asked by name: that is what Istio does, and wildcard clients have no use for them.
fn resource(entry: Entry, aliased: bool) -> Resource {
    Resource {
        name: entry.name.to_string(),
        aliases: if aliased { entry.aliases.iter().map(ToString::to_string).collect() } else { Vec::new() },
        version: entry.version.to_string(),
        resource: Some(entry.body),
        ..Default::default()
    }
}

#[cfg(test)]
#[path = "delta/order_tests.rs"]
mod order_tests;
#[cfg(test)]
#[path = "delta/tests.rs"]
mod tests;
