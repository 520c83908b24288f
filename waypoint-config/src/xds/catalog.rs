// SPDX-License-Identifier: Apache-2.0
//! The resources of node proxies and of waypoints, as sessions read them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::delta::{Catalog, Catalogs, Entry};
use crate::ambient::{Changes, Resource, Resources, Type};
use crate::envoy;

impl Catalogs for Resources {
    fn catalog<'a>(&'a self, type_url: &str) -> Option<Box<dyn Catalog + 'a>> {
        Type::of(type_url).map(|kind| Box::new(OfType { resources: self, kind }) as Box<dyn Catalog>)
    }
}

struct OfType<'a> {
    resources: &'a Resources,
    kind: Type,
}

impl Catalog for OfType<'_> {
    fn entries(&self) -> Box<dyn Iterator<Item = Entry> + '_> {
        Box::new(self.resources.all(self.kind).map(|resource| entry(resource)))
    }

    fn get(&self, name: &str) -> Option<Entry> {
        self.resources.named(self.kind, name).map(|resource| entry(resource))
    }

    fn resolve(&self, name: &str) -> Vec<Entry> {
        match self.kind {
            Type::Address => self.resources.look_up(name).iter().map(|resource| entry(resource)).collect(),
            Type::Authorization => self.get(name).into_iter().collect(),
        }
    }

    fn generation(&self) -> u64 {
        self.resources.generation()
    }

    fn changed_since(&self, generation: u64) -> Option<BTreeSet<Arc<str>>> {
        match self.resources.changed_since(self.kind, generation) {
            Changes::Names(names) => Some(names),
            Changes::Everything => None,
        }
    }
}

fn entry(resource: &Resource) -> Entry {
    Entry {
        name: Arc::clone(&resource.name),
        version: Arc::clone(&resource.version),
        aliases: resource.aliases.clone(),
        body: resource.body.clone(),
    }
}

impl Catalogs for envoy::Resources {
    fn catalog<'a>(&'a self, type_url: &str) -> Option<Box<dyn Catalog + 'a>> {
        envoy::Type::of(type_url).map(|kind| Box::new(OfWaypoint { resources: self, kind }) as Box<dyn Catalog>)
    }
}

struct OfWaypoint<'a> {
    resources: &'a envoy::Resources,
    kind: envoy::Type,
}

impl Catalog for OfWaypoint<'_> {
    fn entries(&self) -> Box<dyn Iterator<Item = Entry> + '_> {
        Box::new(self.resources.all(self.kind).map(|resource| waypoint_entry(resource)))
    }

    fn get(&self, name: &str) -> Option<Entry> {
        self.resources.named(self.kind, name).map(|resource| waypoint_entry(resource))
    }

    fn resolve(&self, name: &str) -> Vec<Entry> {
        self.get(name).into_iter().collect()
    }

    fn generation(&self) -> u64 {
        self.resources.generation()
    }

    fn changed_since(&self, generation: u64) -> Option<BTreeSet<Arc<str>>> {
        self.resources.changed_since(self.kind, generation)
    }

    fn version(&self, name: &str) -> Option<Arc<str>> {
        self.resources.named(self.kind, name).map(|resource| Arc::clone(&resource.version))
    }

    fn is_whole(&self) -> bool {
        matches!(self.kind, envoy::Type::Cluster | envoy::Type::Listener)
    }

    fn awaits(&self, entry: &Entry) -> Option<(&'static str, String)> {
        let resource = self.resources.named(self.kind, &entry.name)?;
        Some((envoy::Type::Endpoints.url(), resource.endpoints()?))
    }

    fn asks(&self, name: &str) -> Vec<(&'static str, Arc<str>)> {
        let Some(resource) = self.resources.named(self.kind, name) else { return Vec::new() };
        let is_there = |name: &&Arc<str>| self.resources.named(envoy::Type::Routes, name).is_some();
        resource.routes.iter().filter(is_there).map(|name| (envoy::Type::Routes.url(), Arc::clone(name))).collect()
    }
}

fn waypoint_entry(resource: &envoy::Resource) -> Entry {
    Entry {
        name: Arc::clone(&resource.name),
        version: Arc::clone(&resource.version),
        aliases: Vec::new(),
        body: resource.body.clone(),
    }
}
