// SPDX-License-Identifier: Apache-2.0
//! One client's discovery session in the state-of-the-world variant of Envoy's xDS protocol, without I/O.
//!
//! Of types that travel whole (clusters, listeners) every response holds all there is; of types that are asked for by name (endpoints, routes) only what
//! differs. The version of a response is a hash of everything the client is to have of the type, so that a client which comes back with it is sent
//! nothing. Like the [delta](super::delta) session it never waits for an acknowledgement before the next push.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hasher as _;
use std::sync::Arc;

use mesh_proto::discovery::{DiscoveryRequest, DiscoveryResponse};
use twox_hash::XxHash64;

use super::delta::{Catalog, Catalogs, Entry, Outcome};
use super::names::Names;
use super::order::{Awaited, in_order};
use super::outstanding::Outstanding;
use crate::envoy::Type;

/// A client's session: lives as long as its stream.
#[derive(Debug, Default)]
pub struct Session {
    watches: BTreeMap<String, Watch>,
    sent: u64,
    awaited: Awaited,
    announced: u64,
    taken: u64,
}

#[derive(Debug, Default)]
struct Watch {
    wildcard: bool,
    names: Names,
    /// What the client has, as far as we know: name to version.
    known: HashMap<Arc<str>, Arc<str>>,
    /// The generation that was compared last; `None` before the first answer.
    seen: Option<u64>,
    last_nonce: String,
    /// Whether the last response has been answered.
    is_answered: bool,
    outstanding: Outstanding,
}

impl Session {
    /// Takes a request; gives what it meant and the response to send at once, if any.
    pub fn handle_request(
        &mut self,
        request: &DiscoveryRequest,
        catalogs: &dyn Catalogs,
    ) -> (Outcome, Option<DiscoveryResponse>) {
        let type_url = request.type_url.as_str();
        let Some(catalog) = catalogs.catalog(type_url) else {
            // No state is kept for it: type URLs are the client's to invent.
            let response = request.response_nonce.is_empty().then(|| self.respond(type_url, Vec::new(), String::new()));
            return (Outcome::UnknownType, response);
        };
        if !self.watches.contains_key(type_url) {
            return self.begin(request, &*catalog);
        }
        let watch = self.watches.entry(request.type_url.clone()).or_default();
        let rejected = request.error_detail.as_ref();
        let is_known = match rejected {
            Some(error) => watch.outstanding.rejected(&request.response_nonce, &error.message),
            None => watch.outstanding.acknowledged(&request.response_nonce).is_some(),
        };
        let outcome = match rejected {
            Some(error) => Outcome::Rejected(error.message.clone()),
            None => Outcome::Acknowledged,
        };
        if !request.response_nonce.is_empty() && request.response_nonce != watch.last_nonce {
            // Of an older response of ours it may be the answer; the names that count come with the answer to the last.
            return (if is_known { outcome } else { Outcome::Stale }, None);
        }
        let is_again = std::mem::replace(&mut watch.is_answered, true);
        let (added, refused, differs) = watch.ask(&request.resource_names);
        let wanted: Vec<Entry> = if !added.is_empty() && !catalog.is_whole() {
            added.iter().filter_map(|name| catalog.get(name)).collect()
        } else if !added.is_empty() || (is_again && !differs && rejected.is_none() && !catalog.is_whole()) {
            // It asks for what it has: it has dropped it, or waits for it anew.
            watch.wanted(&*catalog)
        } else {
            return (outcome, None);
        };
        let outcome = if refused > 0 { Outcome::TooMany(refused) } else { Outcome::Subscribed };
        (outcome, Some(self.send(type_url, &*catalog, wanted)))
    }

    /// Takes a new generation, and the one before it; gives the responses to send, in order. Types without a difference are left out. What is removed
    /// stays until everything that is new has been sent, and goes in reverse order: make before break.
    pub fn handle_generation(&mut self, before: &dyn Catalogs, now: &dyn Catalogs) -> Vec<DiscoveryResponse> {
        let (mut makes, mut breaks) = (Vec::new(), Vec::new());
        for type_url in in_order(self.watches.keys()) {
            let Some(catalog) = now.catalog(&type_url) else { continue };
            let Some(watch) = self.watches.get_mut(&type_url) else { continue };
            if watch.seen == Some(catalog.generation()) && !self.awaited.has(&type_url) {
                continue;
            }
            let (changed, removed) = watch.differences(&*catalog);
            watch.seen = Some(catalog.generation());
            if !catalog.is_whole() {
                let awaited = self.awaited.take(&type_url).into_iter().filter(|name| watch.names.contains(name));
                let names: BTreeSet<Arc<str>> = changed.into_iter().chain(awaited.map(Arc::from)).collect();
                let entries: Vec<Entry> = names.iter().filter_map(|name| catalog.get(name)).collect();
                for name in removed {
                    watch.known.remove(&name);
                }
                if !entries.is_empty() {
                    makes.push(self.send(&type_url, &*catalog, entries));
                }
                continue;
            }
            if !changed.is_empty() {
                let mut entries = watch.wanted(&*catalog);
                if !removed.is_empty()
                    && let Some(old) = before.catalog(&type_url)
                {
                    entries.extend(removed.iter().filter_map(|name| old.get(name)));
                }
                makes.push(self.send(&type_url, &*catalog, entries));
            }
            if !removed.is_empty() {
                breaks.push(type_url);
            }
        }
        for type_url in breaks.into_iter().rev() {
            let Some(catalog) = now.catalog(&type_url) else { continue };
            let entries = self.watches.get(&type_url).map(|watch| watch.wanted(&*catalog)).unwrap_or_default();
            makes.push(self.send(&type_url, &*catalog, entries));
        }
        makes
    }

    /// What the client has refused and not taken since: type, name, reason.
    pub fn refused(&self) -> impl Iterator<Item = (&str, &Arc<str>, &Arc<str>)> {
        self.watches.iter().flat_map(|(type_url, watch)| {
            watch.outstanding.refused().map(move |(name, reason)| (type_url.as_str(), name, reason))
        })
    }

    /// That the catalogs given from now on are those of this publication, or a later one.
    pub fn announce(&mut self, publication: u64) {
        self.announced = publication;
    }

    /// The last publication of which the client has taken everything that it was sent; 0 before that.
    pub fn taken(&mut self) -> u64 {
        let has = |type_url: &str| self.watches.contains_key(type_url);
        let is_settled = self.watches.values().all(|watch| watch.outstanding.oldest().is_none());
        if is_settled && has(Type::Cluster.url()) && has(Type::Listener.url()) {
            self.taken = self.announced;
        }
        self.taken
    }

    /// The first request for a type.
    fn begin(&mut self, request: &DiscoveryRequest, catalog: &dyn Catalog) -> (Outcome, Option<DiscoveryResponse>) {
        let type_url = request.type_url.as_str();
        let mut watch = Watch::default();
        let names = &request.resource_names;
        watch.wildcard = names.iter().any(|name| name == "*") || (names.is_empty() && catalog.is_whole());
        let (_, refused, _) = watch.ask(names);
        let outcome = if refused > 0 { Outcome::TooMany(refused) } else { Outcome::Subscribed };
        watch.seen = Some(catalog.generation());
        watch.is_answered = true;
        let awaited = self.awaited.take(type_url);
        let is_awaited = awaited.iter().any(|name| watch.names.contains(name));
        let version = watch.version(catalog);
        let has_all = !is_awaited && !request.version_info.is_empty() && request.version_info == version;
        if has_all {
            watch.known = watch.versions(catalog).collect();
        }
        let wanted = watch.wanted(catalog);
        let asks = watch.wildcard || catalog.is_whole() || watch.names.iter().next().is_some();
        self.watches.insert(request.type_url.clone(), watch);
        // Nothing exists of what it asks for: it waits until there is something, except for whole types, of which nothing is an answer.
        let answers = asks && !has_all && (catalog.is_whole() || !wanted.is_empty());
        (outcome, answers.then(|| self.send(type_url, catalog, wanted)))
    }

    fn send(&mut self, type_url: &str, catalog: &dyn Catalog, entries: Vec<Entry>) -> DiscoveryResponse {
        let differing = |entry: &&Entry| {
            let watch = self.watches.get(type_url);
            watch.and_then(|watch| watch.known.get(&entry.name)) != Some(&entry.version)
        };
        let news: Vec<Entry> = entries.iter().filter(differing).cloned().collect();
        self.awaited.add(catalog, &news);
        let mut version = String::new();
        if let Some(watch) = self.watches.get_mut(type_url) {
            if catalog.is_whole() {
                watch.known.clear();
            }
            watch.known.extend(entries.iter().map(|entry| (Arc::clone(&entry.name), Arc::clone(&entry.version))));
            version = match catalog.is_whole() {
                true => hash(watch.known.iter().collect()),
                false => watch.version(catalog),
            };
        }
        self.respond(type_url, entries, version)
    }

    fn respond(&mut self, type_url: &str, entries: Vec<Entry>, version_info: String) -> DiscoveryResponse {
        self.sent += 1;
        let nonce = self.sent.to_string();
        if let Some(watch) = self.watches.get_mut(type_url) {
            watch.last_nonce.clone_from(&nonce);
            watch.is_answered = false;
            let names = entries.iter().map(|entry| Arc::clone(&entry.name)).collect();
            watch.outstanding.sent(&nonce, names, &[]);
        }
        DiscoveryResponse {
            version_info,
            resources: entries.into_iter().map(|entry| entry.body).collect(),
            type_url: type_url.to_owned(),
            nonce,
            ..Default::default()
        }
    }
}

impl Watch {
    /// Follows these names and no others; gives the new ones, how many are too many, and whether anything differs.
    fn ask(&mut self, names: &[String]) -> (BTreeSet<String>, usize, bool) {
        let names: BTreeSet<&str> = names.iter().map(String::as_str).filter(|name| *name != "*").collect();
        let gone: Vec<String> = self.names.iter().filter(|name| !names.contains(name)).map(str::to_owned).collect();
        let (mut added, mut refused) = (BTreeSet::new(), 0);
        for name in &gone {
            self.names.remove(name);
            self.known.remove(name.as_str());
        }
        for name in names {
            if self.names.contains(name) {
                continue;
            }
            match self.names.insert(name) {
                true => _ = added.insert(name.to_owned()),
                false => refused += 1,
            }
        }
        let differs = !gone.is_empty() || !added.is_empty();
        (added, refused, differs)
    }

    fn wanted(&self, catalog: &dyn Catalog) -> Vec<Entry> {
        match self.wildcard {
            true => catalog.entries().collect(),
            false => self.names.iter().filter_map(|name| catalog.get(name)).collect(),
        }
    }

    fn versions(&self, catalog: &dyn Catalog) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
        let versions: Vec<_> = match self.wildcard {
            true => catalog.entries().map(|entry| (entry.name, entry.version)).collect(),
            false => self.names.iter().filter_map(|name| Some((Arc::from(name), catalog.version(name)?))).collect(),
        };
        versions.into_iter()
    }

    fn version(&self, catalog: &dyn Catalog) -> String {
        let versions: Vec<_> = self.versions(catalog).collect();
        hash(versions.iter().map(|(name, version)| (name, version)).collect())
    }

    /// The names of what differs from what the client has, and of what it has and should not.
    fn differences(&self, catalog: &dyn Catalog) -> (BTreeSet<Arc<str>>, BTreeSet<Arc<str>>) {
        let candidates = self.seen.and_then(|seen| catalog.changed_since(seen)).unwrap_or_else(|| {
            self.known.keys().cloned().chain(self.versions(catalog).map(|(name, _)| name)).collect()
        });
        let (mut changed, mut removed) = (BTreeSet::new(), BTreeSet::new());
        for name in candidates {
            let is_followed = self.wildcard || self.names.contains(&name);
            match catalog.version(&name).filter(|_| is_followed) {
                Some(version) if self.known.get(&name) != Some(&version) => _ = changed.insert(name),
                Some(_) => {}
                None if self.known.contains_key(&name) => _ = removed.insert(name),
                None => {}
            }
        }
        (changed, removed)
    }
}

/// One word for names and versions, in whatever order.
fn hash(mut all: Vec<(&Arc<str>, &Arc<str>)>) -> String {
    all.sort();
    let mut hasher = XxHash64::with_seed(0);
    for (name, version) in all {
        for part in [name, version] {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part.as_bytes());
        }
    }
    format!("{:x}", hasher.finish())
}

#[cfg(test)]
#[path = "sotw/tests.rs"]
mod tests;
