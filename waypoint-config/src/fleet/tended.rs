// SPDX-License-Identifier: Apache-2.0
//! One waypoint that somebody asks for: what it serves, kept in step with the snapshot touch by touch, and its resources for each kind of Envoy that
//! asks. Called by [`Fleet`](super::Fleet).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    claims::Claims,
    gather::{World, hosts, targets},
    kept::Keep,
    rules::Ruled,
};
use crate::{
    api::JwtRule,
    envoy::{
        Profile, Renderer, Unit,
        input::{Endpoints, Serving},
    },
    view::{
        Name, Touched,
        waypoint::{Access, Subject, Waypoint},
    },
};

/// A waypoint and what it serves.
#[derive(Clone, Debug)]
pub(super) struct Tended {
    serving: Serving,
    renderers: BTreeMap<Profile, Renderer>,
    /// The host names of the services bound to it.
    bound: Claims,
    /// The host names of other services it speaks of.
    others: Claims,
    /// Which ports' rules speak of a service; without any, the settings do.
    mentions: BTreeMap<Name, BTreeSet<(Name, u16)>>,
    /// The way back: of whom a service's rules speak, on which port.
    speaks: BTreeMap<Name, BTreeSet<(Name, u16)>>,
}

impl Tended {
    /// Everything, from the beginning.
    pub(super) fn new(world: World<'_>, waypoint: &Arc<Waypoint>) -> Self {
        let name = &waypoint.name;
        let serving = Serving {
            waypoint: Arc::clone(waypoint),
            mesh: Arc::clone(&world.snapshot.mesh),
            settings: Arc::clone(world.settings),
            keys: Arc::clone(world.keys),
            access: world.access(&Subject::Waypoint(name.clone())),
            services: BTreeMap::new(),
            others: BTreeMap::new(),
            workloads: world.workloads(name),
        };
        let mut tended = Self {
            serving,
            renderers: BTreeMap::new(),
            bound: Claims::default(),
            others: Claims::default(),
            mentions: world.of_settings(name).into_iter().map(|service| (service, BTreeSet::new())).collect(),
            speaks: BTreeMap::new(),
        };
        let mut units = BTreeSet::new();
        let bound = world.snapshot.services_through(name).chain(world.kept.services(name));
        let bound: Vec<Name> = bound.cloned().collect();
        for service in tended.mentions.keys().cloned().collect::<Vec<_>>().into_iter().chain(bound) {
            tended.take_service(world, &service, &mut units);
        }
        tended
    }

    /// Has resources for this kind of Envoy from now on, if it has not yet.
    pub(super) fn want(&mut self, profile: &Profile) {
        if !self.renderers.contains_key(profile) {
            let mut renderer = Renderer::new(profile.clone());
            renderer.refresh(&self.serving, &whole());
            self.renderers.insert(profile.clone(), renderer);
        }
    }

    /// Forgets the kinds of Envoy that nobody asks for.
    pub(super) fn keep(&mut self, wanted: &BTreeSet<&Profile>) {
        self.renderers.retain(|profile, _| wanted.contains(profile));
    }

    /// The resources for each kind of Envoy.
    pub(super) fn renderers(&self) -> impl Iterator<Item = (&Profile, &Renderer)> {
        self.renderers.iter()
    }

    pub(super) fn serving(&self) -> &Serving {
        &self.serving
    }

    /// Takes in what was touched; gives the parts that are to be made anew. The waypoint is there.
    pub(super) fn refresh(
        &mut self,
        world: World<'_>,
        waypoint: &Arc<Waypoint>,
        touched: &Touched,
        ruled: &Ruled,
    ) -> BTreeSet<Unit> {
        let name = &waypoint.name;
        let own = Subject::Waypoint(name.clone());
        let of_settings = hosts(world.settings);
        let concerns_settings = |service: &Name| of_settings.contains(&*world.snapshot.mesh.hostname(service));
        let is_other = *self.serving.settings != **world.settings;
        if is_other || touched.services.iter().any(concerns_settings) {
            // Rare, and everything may speak of it.
            let renderers = std::mem::take(&mut self.renderers);
            *self = Self { renderers, ..Self::new(world, waypoint) };
            return self.render(whole());
        }
        let mut units = BTreeSet::new();
        self.take_keys(world, &mut units);
        if touched.waypoints.contains(name) || touched.access.contains(&own) {
            self.serving.waypoint = Arc::clone(waypoint);
            self.serving.access = world.access(&own);
            units.extend(whole());
        }
        for service in &touched.services {
            self.take_service(world, service, &mut units);
        }
        for (service, port) in ruled {
            self.take_rules(world, service, *port, &mut units);
        }
        for subject in &touched.access {
            if let Subject::Service(service) = subject
                && let Some(served) = self.serving.services.get_mut(service)
            {
                served.access = world.access(subject);
                units.insert(Unit::Service(service.clone()));
            }
        }
        for service in &touched.endpoints {
            self.take_endpoints(world, service, &mut units);
        }
        let has = |workload: &crate::view::WorkloadId| {
            let now = world.snapshot.workloads.get(workload).and_then(|workload| workload.waypoint.as_ref());
            now == Some(name)
                || self.serving.workloads.iter().any(|one| one.id == *workload)
                || world.kept.workloads(name).any(|kept| kept == workload)
        };
        if touched.workloads.iter().any(has) {
            self.serving.workloads = world.workloads(name);
            units.insert(Unit::Workloads);
        }
        self.render(units)
    }

    fn render(&mut self, units: BTreeSet<Unit>) -> BTreeSet<Unit> {
        if !units.is_empty() {
            for renderer in self.renderers.values_mut() {
                renderer.refresh(&self.serving, &units);
            }
        }
        units
    }

    /// A service that came, went or changed, wherever it is bound.
    fn take_service(&mut self, world: World<'_>, service: &Name, units: &mut BTreeSet<Unit>) {
        let now = world.snapshot.services.get(service);
        let waypoint = &self.serving.waypoint.name;
        let is_kept = world.kept.service(waypoint, service).is_some();
        let is_bound = |of: &Arc<crate::view::Service>| is_kept || of.waypoint.as_ref() == Some(waypoint);
        let host = now.filter(|service| is_bound(service)).map(|service| &service.hostname);
        for concerned in self.bound.set(service, host) {
            self.place(world, &concerned, units);
        }
    }

    /// Puts a service where it belongs now: among those served, those spoken of, or nowhere.
    fn place(&mut self, world: World<'_>, service: &Name, units: &mut BTreeSet<Unit>) {
        let now = world.snapshot.services.get(service);
        let served = now.filter(|_| self.bound.wins(service)).map(|now| world.served(service, now));
        let had = self.serving.services.contains_key(service);
        let has = served.is_some();
        let ports: BTreeSet<u16> = match served {
            Some(mut served) => {
                let ports = served.rules.keys().copied().collect();
                served.is_leaving = world.kept.service(&self.serving.waypoint.name, service) == Some(Keep::Open);
                self.serving.services.insert(service.clone(), served);
                ports
            }
            None => {
                self.serving.services.remove(service);
                BTreeSet::new()
            }
        };
        if had || has {
            units.insert(Unit::Service(service.clone()));
            self.mention(world, service, &ports, units);
        }
        self.place_other(world, service, units);
        self.remind(service, units);
    }

    /// The same for one that rules or settings speak of.
    fn place_other(&mut self, world: World<'_>, service: &Name, units: &mut BTreeSet<Unit>) {
        let wanted = self.mentions.contains_key(service) && !self.serving.services.contains_key(service);
        let now = world.snapshot.services.get(service).filter(|_| wanted);
        for concerned in self.others.set(service, now.map(|now| &now.hostname)) {
            let now = world.snapshot.services.get(&concerned).filter(|_| self.others.wins(&concerned));
            let old = match now {
                Some(now) => {
                    let destination = world.destination(&concerned, now);
                    self.serving.others.insert(concerned.clone(), destination);
                    true
                }
                None => self.serving.others.remove(&concerned).is_some(),
            };
            if old {
                units.insert(Unit::Service(concerned.clone()));
            }
            if concerned != *service {
                self.remind(&concerned, units);
            }
        }
    }

    /// Where rules lead depends on what is at the other end.
    fn remind(&self, service: &Name, units: &mut BTreeSet<Unit>) {
        let ports = self.mentions.get(service).into_iter().flatten();
        units.extend(ports.map(|(service, port)| Unit::Rules(service.clone(), *port)));
    }

    fn take_rules(&mut self, world: World<'_>, service: &Name, port: u16, units: &mut BTreeSet<Unit>) {
        let Some(served) = self.serving.services.get_mut(service) else { return };
        match world.rules.of(service).and_then(|ports| ports.get(&port)) {
            Some(rules) => _ = served.rules.insert(port, rules.clone()),
            None => _ = served.rules.remove(&port),
        }
        units.insert(Unit::Rules(service.clone(), port));
        let ports = served.rules.keys().copied().collect();
        self.mention(world, service, &ports, units);
    }

    /// Notes whom the rules of a service's ports speak of now.
    fn mention(&mut self, world: World<'_>, service: &Name, ports: &BTreeSet<u16>, units: &mut BTreeSet<Unit>) {
        let mut now: BTreeSet<(Name, u16)> = BTreeSet::new();
        let rules = self.serving.services.get(service).map(|served| &served.rules);
        for port in ports {
            let of_port = rules.and_then(|rules| rules.get(port)).map(targets).into_iter().flatten();
            now.extend(of_port.map(|target| (target.clone(), *port)));
        }
        let old = match now.is_empty() {
            true => self.speaks.remove(service),
            false => self.speaks.insert(service.clone(), now.clone()),
        };
        let old = old.unwrap_or_default();
        let mut differ = BTreeSet::new();
        let of_settings = world.of_settings(&self.serving.waypoint.name);
        for (target, port) in old.difference(&now) {
            let Some(by) = self.mentions.get_mut(target) else { continue };
            by.remove(&(service.clone(), *port));
            if by.is_empty() && !of_settings.contains(target) {
                self.mentions.remove(target);
                differ.insert(target.clone());
            }
        }
        for (target, port) in now.difference(&old) {
            let known = self.mentions.contains_key(target);
            self.mentions.entry(target.clone()).or_default().insert((service.clone(), *port));
            if !known {
                differ.insert(target.clone());
            }
        }
        for target in differ {
            self.place_other(world, &target, units);
        }
    }

    /// The keys of issuers: only who goes by one that changed is made anew.
    fn take_keys(&mut self, world: World<'_>, units: &mut BTreeSet<Unit>) {
        if Arc::ptr_eq(&self.serving.keys, world.keys) {
            return;
        }
        let old = std::mem::replace(&mut self.serving.keys, Arc::clone(world.keys));
        let concerns = |access: &Access| {
            let rules = access.authentication.iter().flat_map(|object| &object.spec.jwt_rules);
            let mut sources = rules.filter_map(JwtRule::key_source);
            sources.any(|source| old.get(&source) != world.keys.get(&source))
        };
        if concerns(&self.serving.access) {
            units.extend(whole());
        }
        let services = self.serving.services.iter().filter(|(_, served)| concerns(&served.access));
        units.extend(services.map(|(name, _)| Unit::Service(name.clone())));
    }

    fn take_endpoints(&mut self, world: World<'_>, service: &Name, units: &mut BTreeSet<Unit>) {
        let Some(now) = world.snapshot.services.get(service) else { return };
        let destination = match self.serving.services.get_mut(service) {
            Some(served) => &mut served.destination,
            None => match self.serving.others.get_mut(service) {
                Some(other) => other,
                None => return,
            },
        };
        destination.endpoints = world.endpoints(service, now);
        // Names are part of the cluster itself.
        units.insert(match destination.endpoints {
            Endpoints::Workloads(_) => Unit::Endpoints(service.clone()),
            Endpoints::Names(_) => Unit::Service(service.clone()),
        });
    }
}

fn whole() -> BTreeSet<Unit> {
    BTreeSet::from([Unit::Waypoint, Unit::Workloads])
}
