// SPDX-License-Identifier: Apache-2.0
//! The routes of every service, resolved, and kept in step with the store: only services whose routes, ports, backends or grants were touched are resolved
//! again. Called by [`Fleet`](super::Fleet).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    api::{Key, Kind, Object},
    store::{Dirty, Store},
    view::{
        Name, Service, Snapshot, Touched,
        routes::{
            AnyRoute, Found, Lookup, ParentKind, ParentPort, ParentService, RouteRef, RouteStatus, permits, resolve,
        },
        rule::PortRules,
    },
};

/// The rules of all services that have any.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    of: BTreeMap<Name, Ruling>,
    /// Which services' routes speak of something.
    mentioned: BTreeMap<Mention, BTreeSet<Name>>,
    /// The services at which something is said of a route.
    told: BTreeMap<Key, BTreeSet<Name>>,
    /// The routes of which the last refresh says something else.
    retold: BTreeSet<Key>,
}

/// What the routes of one service came to.
#[derive(Clone, Debug, Default)]
struct Ruling {
    ports: BTreeMap<u16, PortRules>,
    statuses: Vec<RouteStatus>,
    mentions: BTreeSet<Mention>,
}

/// The ports whose rules differ.
pub type Ruled = BTreeSet<(Name, u16)>;

/// How a route names where it sends to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mention {
    Service(Name),
    Host(Arc<str>),
}

impl Rules {
    /// The rules of a service's ports; ports without are absent.
    pub fn of(&self, service: &Name) -> Option<&BTreeMap<u16, PortRules>> {
        self.of.get(service).map(|ruling| &ruling.ports)
    }

    /// What the author of a route is told of the services that are its parents.
    pub fn statuses<'a>(&'a self, route: &'a Key) -> impl Iterator<Item = &'a RouteStatus> {
        let services = self.told.get(route).into_iter().flatten().filter_map(|service| self.of.get(service));
        services.flat_map(|ruling| &ruling.statuses).filter(move |status| status.route == *route)
    }

    /// The routes whose authors are told something else since the last refresh.
    pub fn retold(&self) -> &BTreeSet<Key> {
        &self.retold
    }

    /// Resolves again what the changes may have a say in.
    pub fn refresh(&mut self, store: &Store, snapshot: &Snapshot, dirty: &Dirty, touched: &Touched) -> Ruled {
        let mut parents = BTreeSet::new();
        for (key, old) in dirty {
            for object in old.iter().chain(store.object(key)) {
                self.parents_of(store, snapshot, object, &mut parents);
            }
        }
        for service in &touched.services {
            parents.insert(service.clone());
            let by_name = Mention::Service(service.clone());
            let by_host = Mention::Host(snapshot.mesh.hostname(service).into());
            for mention in [by_name, by_host] {
                parents.extend(self.mentioned.get(&mention).into_iter().flatten().cloned());
            }
        }
        let mut ruled = Ruled::new();
        self.retold.clear();
        for parent in parents {
            self.resolve(store, snapshot, &parent, &mut ruled);
        }
        ruled
    }

    /// The services whose rules one version of an object may have a say in.
    fn parents_of(&self, store: &Store, snapshot: &Snapshot, object: &Object, parents: &mut BTreeSet<Name>) {
        let mesh = &snapshot.mesh;
        let namespace = object.metadata().namespace.as_deref().unwrap_or_default();
        let name = object.metadata().name.as_deref().unwrap_or_default();
        let hosts = |entry: &crate::api::ServiceEntry, namespace: &str| -> Vec<Name> {
            entry.spec.hosts.iter().map(|host| mesh.service_key(namespace, host)).collect()
        };
        match object {
            // The names of its ports are not part of the snapshot.
            Object::Service(_) => _ = parents.insert(Name::new(namespace, name)),
            Object::ServiceEntry(entry) => parents.extend(hosts(entry, namespace)),
            Object::ReferenceGrant(_) => {
                let first = Mention::Service(Name::new(namespace, ""));
                let of_namespace = self.mentioned.range(first..).take_while(
                    |(mention, _)| matches!(mention, Mention::Service(name) if *name.namespace == *namespace),
                );
                parents.extend(of_namespace.flat_map(|(_, services)| services).cloned());
            }
            _ => {
                let Some(route) = route(object) else { return };
                for (kind, name) in route.parents() {
                    match kind {
                        ParentKind::Service => _ = parents.insert(name),
                        ParentKind::ServiceEntry => {
                            let entry = store.service_entry(&name.namespace, &name.name);
                            parents.extend(entry.into_iter().flat_map(|entry| hosts(entry, &name.namespace)));
                        }
                    }
                }
            }
        }
    }

    fn resolve(&mut self, store: &Store, snapshot: &Snapshot, key: &Name, ruled: &mut Ruled) {
        let new = snapshot.services.get(key).map(|service| ruling(store, snapshot, key, service)).unwrap_or_default();
        let is_empty = new.ports.is_empty() && new.statuses.is_empty();
        let mentions = new.mentions.clone();
        let old = match is_empty {
            true => self.of.remove(key),
            false => self.of.insert(key.clone(), new),
        };
        let old = old.unwrap_or_default();
        self.retell(key, &old.statuses);
        let none = BTreeMap::new();
        let now = self.of(key).unwrap_or(&none);
        let ports: BTreeSet<u16> = old.ports.keys().chain(now.keys()).copied().collect();
        let differing = ports.into_iter().filter(|port| old.ports.get(port) != now.get(port));
        ruled.extend(differing.map(|port| (key.clone(), port)));
        for gone in old.mentions.difference(&mentions) {
            if let Some(services) = self.mentioned.get_mut(gone) {
                services.remove(key);
                if services.is_empty() {
                    self.mentioned.remove(gone);
                }
            }
        }
        for mention in mentions {
            self.mentioned.entry(mention).or_default().insert(key.clone());
        }
    }

    /// Notes of which routes something is said at a service, and of which something else than before.
    fn retell(&mut self, service: &Name, old: &[RouteStatus]) {
        let now = self.of.get(service).map_or(&[][..], |ruling| &ruling.statuses);
        if now == old {
            return;
        }
        let routes = |all: &[RouteStatus]| all.iter().map(|status| status.route.clone()).collect::<BTreeSet<_>>();
        let (before, after) = (routes(old), routes(now));
        for gone in before.difference(&after) {
            if let Some(services) = self.told.get_mut(gone) {
                services.remove(service);
                if services.is_empty() {
                    self.told.remove(gone);
                }
            }
        }
        for route in &after {
            self.told.entry(route.clone()).or_default().insert(service.clone());
        }
        self.retold.extend(before.into_iter().chain(after));
    }
}

fn ruling(store: &Store, snapshot: &Snapshot, key: &Name, service: &Service) -> Ruling {
    let object = Name::new(Arc::clone(&service.namespace), Arc::clone(&service.name));
    let (kind, of) = match service.resolution {
        None => (ParentKind::Service, Kind::Service),
        Some(_) => (ParentKind::ServiceEntry, Kind::ServiceEntry),
    };
    let routes: Vec<RouteRef<'_>> = store.routes_of(of, &object.namespace, &object.name).filter_map(route).collect();
    if routes.is_empty() {
        return Ruling::default();
    }
    let mut mentions = BTreeSet::new();
    for route in &routes {
        let (services, hosts) = route.backends();
        mentions.extend(services.into_iter().map(Mention::Service));
        mentions.extend(hosts.into_iter().map(Mention::Host));
    }
    let names = port_names(store, of, &object);
    let port = |port: &crate::view::ServicePort| ParentPort {
        port: port.port,
        name: names.get(&port.port).cloned(),
        protocol: port.protocol,
    };
    let parent = ParentService {
        kind,
        object,
        service: key.clone(),
        hostname: Arc::clone(&service.hostname),
        ports: service.ports.iter().map(port).collect(),
    };
    let (ports, statuses) = resolve(&parent, &routes, &Known { store, snapshot });
    Ruling { ports, statuses, mentions }
}

fn port_names(store: &Store, kind: Kind, object: &Name) -> BTreeMap<u16, Arc<str>> {
    let named = |number: i64, name: &str| {
        let number = u16::try_from(number).ok()?;
        (!name.is_empty()).then(|| (number, Arc::from(name)))
    };
    match store.object(&Key::new(kind, &object.namespace, &object.name)) {
        Some(Object::Service(service)) => {
            let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
            ports.filter_map(|port| named(port.port.into(), port.name.as_deref().unwrap_or_default())).collect()
        }
        Some(Object::ServiceEntry(entry)) => {
            entry.spec.ports.iter().filter_map(|port| named(port.number.into(), &port.name)).collect()
        }
        _ => BTreeMap::new(),
    }
}

/// An object as a route, if it is one.
pub(crate) fn route(object: &Object) -> Option<RouteRef<'_>> {
    let route = match object {
        Object::HttpRoute(route) => AnyRoute::Http(route),
        Object::GrpcRoute(route) => AnyRoute::Grpc(route),
        Object::TcpRoute(route) => AnyRoute::Tcp(route),
        Object::TlsRoute(route) => AnyRoute::Tls(route),
        _ => return None,
    };
    Some(RouteRef { key: object.key(), route })
}

/// The rest of the mesh, as routes ask for it.
struct Known<'a> {
    store: &'a Store,
    snapshot: &'a Snapshot,
}

impl Known<'_> {
    fn found(&self, service: &Service) -> Found {
        let ports = service.ports.iter().map(|port| (port.port, port.protocol)).collect();
        Found { service: service.key(&self.snapshot.mesh), ports }
    }
}

impl Lookup for Known<'_> {
    fn service(&self, name: &Name) -> Option<Found> {
        let service = self.snapshot.services.get(name).filter(|service| service.resolution.is_none())?;
        Some(self.found(service))
    }

    fn hostname(&self, hostname: &str, from: &str) -> Option<Found> {
        self.snapshot.service_of_host(from, hostname).map(|service| self.found(service))
    }

    fn is_granted(&self, kind: &str, from: &str, to: &Name) -> bool {
        self.store.reference_grants(&to.namespace).any(|grant| permits(grant, kind, from, to))
    }
}
