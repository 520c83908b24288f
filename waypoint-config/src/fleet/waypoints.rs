// SPDX-License-Identifier: Apache-2.0
//! All waypoints that somebody asks for, and what is published of them. Called by `line`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rpds::RedBlackTreeMapSync;

use super::{
    gather::World,
    kept::Kept,
    rules::{Ruled, Rules},
    tended::Tended,
};
use crate::{
    api,
    envoy::{
        Profile, Resources, Said,
        input::{KeySets, Settings},
    },
    store::{Dirty, Store},
    view::{Name, Snapshot, Touched},
};

/// A waypoint for one kind of Envoy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The waypoint.
    pub waypoint: Name,
    /// The kind of Envoy.
    pub profile: Profile,
}

/// What one waypoint's Envoys of one kind are sent. A clone is cheap and never changes.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// Which life of the waypoint this is of; generations of one life cannot be compared with those of another.
    pub life: u64,
    /// The resources.
    pub resources: Arc<Resources>,
}

/// The resources of all waypoints that are asked for. A clone is cheap and never changes.
#[derive(Clone, Debug, Default)]
pub struct Waypoints {
    all: RedBlackTreeMapSync<Key, Rendered>,
}

impl Waypoints {
    /// Those of one waypoint; `None` while nobody has asked, or where there is no such waypoint.
    pub fn get(&self, key: &Key) -> Option<&Rendered> {
        self.all.get(key)
    }

    /// All.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Rendered)> {
        self.all.iter()
    }
}

/// The waypoints that are asked for, in step with the snapshot. What nobody asks for costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    settings: Arc<Settings>,
    keys: Arc<KeySets>,
    rules: Rules,
    kept: Kept,
    wanted: BTreeSet<Key>,
    tended: BTreeMap<Name, (u64, Tended)>,
    lives: u64,
    made: usize,
    published: Waypoints,
}

impl Fleet {
    /// What the mesh's operator decided, and the keys of token issuers. Counts from the next refresh on.
    pub fn configure(&mut self, settings: Arc<Settings>, keys: Arc<KeySets>) {
        (self.settings, self.keys) = (settings, keys);
    }

    /// Who is still to be served after leaving its waypoint. Counts from the next refresh on, for what that says is touched.
    pub fn keep(&mut self, kept: Kept) {
        self.kept = kept;
    }

    /// What is published.
    pub fn waypoints(&self) -> &Waypoints {
        &self.published
    }

    /// The rules of all services.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// How many resources the last refresh translated, of all waypoints together.
    pub fn made(&self) -> usize {
        self.made
    }

    /// What must be said about policies, as the waypoints that are asked for see them.
    pub fn said(&self) -> BTreeSet<&Said> {
        let renderers = self.tended.values().flat_map(|(_, tended)| tended.renderers());
        renderers.flat_map(|(_, renderer)| renderer.said()).collect()
    }

    /// Who asks for what, from now on. Whether anything differs by that.
    pub fn want(&mut self, snapshot: &Snapshot, wanted: BTreeSet<Key>) -> bool {
        if wanted == self.wanted {
            return false;
        }
        self.wanted = wanted;
        self.tend(snapshot);
        true
    }

    /// Takes in what was touched.
    pub fn refresh(&mut self, store: &Store, snapshot: &Snapshot, dirty: &Dirty, touched: &Touched) {
        let ruled = self.rules.refresh(store, snapshot, dirty, touched);
        self.follow(snapshot, touched, &ruled);
        self.tend(snapshot);
    }

    fn follow(&mut self, snapshot: &Snapshot, touched: &Touched, ruled: &Ruled) {
        let Self { settings, keys, rules, kept, tended, published, made, .. } = self;
        let world = World { snapshot, rules, settings, keys, kept };
        *made = 0;
        tended.retain(|name, (life, tended)| {
            let Some(waypoint) = snapshot.waypoints.get(name) else { return false };
            if tended.refresh(world, waypoint, touched, ruled).is_empty() {
                return true;
            }
            for (profile, renderer) in tended.renderers() {
                *made += renderer.made();
                let key = Key { waypoint: name.clone(), profile: profile.clone() };
                let old = published.all.get(&key).map(|old| old.resources.generation());
                if old != Some(renderer.resources().generation()) {
                    let resources = Arc::new(renderer.resources().clone());
                    published.all.insert_mut(key, Rendered { life: *life, resources });
                }
            }
            true
        });
    }

    /// Begins with what is asked for now and there, ends with what is not.
    fn tend(&mut self, snapshot: &Snapshot) {
        let Self { settings, keys, rules, kept, wanted, tended, lives, published, .. } = self;
        let world = World { snapshot, rules, settings, keys, kept };
        let mut profiles: BTreeMap<&Name, BTreeSet<&Profile>> = BTreeMap::new();
        for Key { waypoint: name, profile } in wanted.iter() {
            profiles.entry(name).or_default().insert(profile);
            let Some(waypoint) = snapshot.waypoints.get(name) else { continue };
            let (_, tended) = tended.entry(name.clone()).or_insert_with(|| {
                *lives += 1;
                (*lives, Tended::new(world, waypoint))
            });
            tended.want(profile);
        }
        tended.retain(|name, (life, tended)| {
            let Some(profiles) = profiles.get(name) else { return false };
            tended.keep(profiles);
            for (profile, renderer) in tended.renderers() {
                let key = Key { waypoint: name.clone(), profile: profile.clone() };
                if published.all.get(&key).is_none_or(|old| old.life != *life) {
                    let resources = Arc::new(renderer.resources().clone());
                    published.all.insert_mut(key, Rendered { life: *life, resources });
                }
            }
            true
        });
        let gone: Vec<Key> = published
            .all
            .keys()
            .filter(|key| !wanted.contains(key) || !tended.contains_key(&key.waypoint))
            .cloned()
            .collect();
        for key in gone {
            published.all.remove_mut(&key);
        }
    }

    /// The objects from which a resource of a waypoint was made, as far as its name tells: for whoever must be told that Envoy refuses it.
    pub fn made_from(&self, waypoint: &Name, resource: &str) -> BTreeSet<api::Key> {
        let Some((_, tended)) = self.tended.get(waypoint) else { return BTreeSet::new() };
        let serving = tended.serving();
        let mut found = BTreeSet::new();
        for (key, served) in &serving.services {
            let service = &served.destination.service;
            if !resource.ends_with(&*format!("|{}", service.hostname)) {
                continue;
            }
            let routes = self.rules.of(key).into_iter().flat_map(|ports| ports.iter()).flat_map(|(port, rules)| {
                let of_port = resource.starts_with(&format!("inbound-vip|{port}|"));
                let http = rules.http.iter().map(|entry| entry.rule.origin.route.clone());
                http.chain(rules.tcp.iter().map(|rule| rule.origin.route.clone())).filter(move |_| of_port)
            });
            found.extend(routes);
            let kind = if service.resolution.is_none() { api::Kind::Service } else { api::Kind::ServiceEntry };
            found.insert(api::Key::new(kind, &service.namespace, &service.name));
        }
        if found.is_empty() {
            found.insert(api::Key::new(api::Kind::Gateway, &waypoint.namespace, &waypoint.name));
        }
        found
    }
}
