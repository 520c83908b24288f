// SPDX-License-Identifier: Apache-2.0
//! Keeps the resources of one waypoint in step with what it serves: makes anew what was touched, and only that. Called by whoever keeps the snapshot, once
//! per waypoint and profile.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Profile,
    access::Said,
    cluster,
    input::{Destination, Endpoints, ServedService, Serving, Speech, ports},
    listener::{self, Chains, Tables},
    resources::{Resource, Resources, Type, Update},
    route,
};
use crate::view::{Name, ServicePort};

/// A part of what a waypoint serves that changes by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// The waypoint, its policies, the settings, the keys of issuers: everything is made anew.
    Waypoint,
    /// The workloads addressed by themselves.
    Workloads,
    /// A service came, went or changed, in [`Serving::services`] or [`Serving::others`], or its policies did.
    Service(Name),
    /// Only the endpoints of a service.
    Endpoints(Name),
    /// Only the rules of a port.
    Rules(Name, u16),
}

/// The resources of one waypoint for one kind of Envoy, and the way to the next generation.
#[derive(Clone, Debug, Default)]
pub struct Renderer {
    profile: Profile,
    resources: Resources,
    chains: BTreeMap<Name, Chains>,
    /// The services whose chains have something to say: few among many.
    outspoken: BTreeSet<Name>,
    direct: Chains,
    /// What each part has brought, so that it can be taken away again.
    brought: BTreeMap<Part, BTreeSet<(Type, Arc<str>)>>,
    made: usize,
    retold: bool,
}

/// Who brings resources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Fixed,
    Providers,
    Workloads,
    Service(Name),
}

impl Renderer {
    /// Nothing yet; refresh it with [`Unit::Waypoint`].
    pub fn new(profile: Profile) -> Self {
        Self { profile, ..Self::default() }
    }

    /// The resources as they are.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// How many resources the last refresh translated, changed or not.
    pub fn made(&self) -> usize {
        self.made
    }

    /// Whether after the last refresh other things must be said about policies than before.
    pub fn retold(&self) -> bool {
        self.retold
    }

    /// What must be said about policies.
    pub fn said(&self) -> BTreeSet<&Said> {
        let of_services = self.outspoken.iter().filter_map(|name| self.chains.get(name));
        of_services.chain([&self.direct]).flat_map(|chains| &chains.said).collect()
    }

    /// Makes a new generation of what was touched; none if no byte differs.
    pub fn refresh(&mut self, serving: &Serving, touched: &BTreeSet<Unit>) -> bool {
        let mut updates = Vec::new();
        self.retold = false;
        let whole = touched.contains(&Unit::Waypoint);
        let mut listeners = whole;
        // What went is found among what was brought.
        let before: Vec<Name> =
            if whole { self.brought.keys().filter_map(Part::service).collect() } else { Vec::new() };
        let mut services: BTreeSet<&Name> = before.iter().collect();
        if whole {
            services.extend(serving.services.keys().chain(serving.others.keys()));
            let told = &mut self.retold;
            let outspoken = &mut self.outspoken;
            self.chains.retain(|name, chains| {
                let stays = serving.services.get(name).is_some_and(|served| !served.is_leaving);
                *told |= !stays && !chains.said.is_empty();
                if !stays {
                    outspoken.remove(name);
                }
                stays
            });
        }
        services.extend(touched.iter().filter_map(|unit| match unit {
            Unit::Service(name) => Some(name),
            // Endpoints behind names stand in the cluster itself.
            Unit::Endpoints(name) => is_by_name(serving, name).then_some(name),
            Unit::Waypoint | Unit::Workloads | Unit::Rules(..) => None,
        }));
        for name in &services {
            let resources = service_resources(serving, &self.profile, name);
            self.bring(Part::Service((*name).clone()), resources, &mut updates);
            listeners |= self.refresh_chains(serving, name);
        }
        if whole || !services.is_empty() {
            self.bring(Part::Providers, providers(serving), &mut updates);
        }
        if whole || touched.contains(&Unit::Workloads) {
            let direct = listener::direct(serving, &self.profile);
            listeners |= direct != self.direct;
            self.retold |= direct.said != self.direct.said;
            self.direct = direct;
            let encaps = cluster::encaps(serving);
            self.bring(
                Part::Workloads,
                encaps.iter().map(|one| Resource::new(Type::Cluster, &one.name, one)).collect(),
                &mut updates,
            );
        }
        for unit in touched {
            match unit {
                Unit::Endpoints(name) if !services.contains(name) => {
                    let resources = endpoint_resources(serving, &self.profile, name);
                    updates.extend(resources.into_iter().map(Update::Put));
                }
                Unit::Rules(name, port) if !services.contains(name) => {
                    let (resource, has_tcp) = rule_resources(serving, name, *port);
                    updates.extend(resource.map(Update::Put));
                    listeners |= has_tcp && self.refresh_chains(serving, name);
                }
                _ => {}
            }
        }
        if whole {
            self.bring(Part::Fixed, fixed(serving, &self.profile), &mut updates);
        }
        if listeners {
            updates.extend(self.internal_listeners(serving).map(Update::Put));
        }
        self.made = updates.iter().filter(|update| matches!(update, Update::Put(_))).count();
        match self.resources.next(updates) {
            Some(next) => {
                self.resources = next;
                true
            }
            None => false,
        }
    }

    /// What a part has now, and the removal of what it had before.
    fn bring(&mut self, part: Part, resources: Vec<Arc<Resource>>, updates: &mut Vec<Update>) {
        let now: BTreeSet<_> = resources.iter().map(|one| (one.kind, Arc::clone(&one.name))).collect();
        let before = match now.is_empty() {
            true => self.brought.remove(&part),
            false => self.brought.insert(part, now.clone()),
        };
        let gone = before.into_iter().flatten().filter(|one| !now.contains(one));
        updates.extend(gone.map(|(kind, name)| Update::Remove(kind, name)));
        updates.extend(resources.into_iter().map(Update::Put));
    }

    /// Whether the chains of that service are others than before.
    fn refresh_chains(&mut self, serving: &Serving, name: &Name) -> bool {
        match serving.services.get(name).filter(|served| !served.is_leaving) {
            Some(served) => {
                let chains = listener::of_service(serving, &self.profile, served);
                match chains.said.is_empty() {
                    true => _ = self.outspoken.remove(name),
                    false => _ = self.outspoken.insert(name.clone()),
                }
                let said = chains.said.clone();
                let old = self.chains.insert(name.clone(), chains);
                self.retold |= old.as_ref().map_or(&[][..], |old| &old.said) != said;
                old.as_ref() != self.chains.get(name)
            }
            None => {
                self.outspoken.remove(name);
                let old = self.chains.remove(name);
                self.retold |= old.as_ref().is_some_and(|old| !old.said.is_empty());
                old.is_some()
            }
        }
    }

    fn internal_listeners(&self, serving: &Serving) -> impl Iterator<Item = Arc<Resource>> + use<> {
        let (mut main, mut sniffed) = (Tables::default(), Tables::default());
        for chains in self.chains.values().chain([&self.direct]) {
            main.add(&chains.main);
            sniffed.add(&chains.sniffed);
        }
        let listeners = [listener::main(serving, &self.profile, main), listener::sniff(serving, sniffed)];
        listeners.into_iter().map(|one| Resource::listener(&one))
    }
}

impl Part {
    fn service(&self) -> Option<Name> {
        match self {
            Self::Service(name) => Some(name.clone()),
            Self::Fixed | Self::Providers | Self::Workloads => None,
        }
    }
}

fn fixed(serving: &Serving, profile: &Profile) -> Vec<Arc<Resource>> {
    let clusters = cluster::fixed(serving, profile);
    let listeners = [listener::terminate(serving, profile), listener::originate(serving)];
    let clusters = clusters.iter().map(|one| Resource::new(Type::Cluster, &one.name, one));
    clusters.chain(listeners.iter().map(|one| Resource::new(Type::Listener, &one.name, one))).collect()
}

/// Servers of the mesh's operator.
fn providers(serving: &Serving) -> Vec<Arc<Resource>> {
    use super::input::AuthorizerProtocol;
    let authorizers = serving.settings.authorizers.values();
    let authorizers = authorizers.map(|one| (&one.upstream, one.speaks == AuthorizerProtocol::Grpc));
    let wanted: BTreeSet<_> = authorizers.chain(listener::tracing_upstream(serving).map(|one| (one, true))).collect();
    let clusters = wanted.into_iter().map(|(upstream, http2)| cluster::upstream(serving, upstream, http2));
    clusters.map(|one| Resource::new(Type::Cluster, &one.name, &one)).collect()
}

fn service_resources(serving: &Serving, profile: &Profile, name: &Name) -> Vec<Arc<Resource>> {
    let mut made = endpoint_resources(serving, profile, name);
    if let Some(served) = serving.services.get(name) {
        for port in ports(&served.destination.service) {
            let clusters = cluster::inbound(serving, &served.destination, port);
            made.extend(clusters.iter().map(|one| Resource::new(Type::Cluster, &one.name, one)));
            made.extend(routes_of(serving, served, port));
        }
    } else if let Some(other) = serving.others.get(name) {
        let clusters = ports(&other.service).into_iter().map(|port| cluster::outbound(serving, other, port));
        made.extend(clusters.map(|one| Resource::new(Type::Cluster, &one.name, &one)));
    }
    made
}

fn is_by_name(serving: &Serving, name: &Name) -> bool {
    serving.destination(name).is_some_and(|(destination, _)| matches!(destination.endpoints, Endpoints::Names(_)))
}

/// Those Envoy looks up by name are part of their clusters.
fn endpoint_resources(serving: &Serving, profile: &Profile, name: &Name) -> Vec<Arc<Resource>> {
    let Some((destination, _)) = serving.destination(name) else { return Vec::new() };
    let Destination { service, endpoints: Endpoints::Workloads(_) } = destination else { return Vec::new() };
    let made =
        ports(service).into_iter().filter_map(|port| cluster::assignment(serving, profile, destination, port.port));
    made.map(|one| Resource::new(Type::Endpoints, &one.cluster_name, &one)).collect()
}

/// The routes of a port, and whether bytes may be carried there, too.
fn rule_resources(serving: &Serving, name: &Name, port: u16) -> (Option<Arc<Resource>>, bool) {
    let Some(served) = serving.services.get(name) else { return (None, false) };
    let Some(port) = ports(&served.destination.service).into_iter().find(|one| one.port == port) else {
        return (None, false);
    };
    (routes_of(serving, served, port), Speech::of(port.protocol).has_tcp())
}

fn routes_of(serving: &Serving, served: &ServedService, port: ServicePort) -> Option<Arc<Resource>> {
    let service = &*served.destination.service;
    if !Speech::of(port.protocol).has_http() {
        return None;
    }
    let cluster_of = |name: &Name, port, protocol| serving.cluster_of(name, port, protocol);
    let made = route::route_configuration(&service.hostname, port.port, served.rules(port.port), &cluster_of);
    Some(Resource::new(Type::Routes, &made.name, &made))
}
