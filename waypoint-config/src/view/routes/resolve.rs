// SPDX-License-Identifier: Apache-2.0
//! All routes of one service -> the rules of its ports, and what each route's author hears. Called by `build` for every service whose routes, backends or
//! ports changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gateway_api::experimental::{
    grpcroutes::GrpcRoute, httproutes::HttpRoute, tcproutes::TcpRoute, tlsroutes::TlsRoute,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    backends::{Asking, Lookup},
    draft::Draft,
    matches::{Precedence, precedence},
    parent::{Layer, ParentKind, ParentService},
    read, rules,
    shadow::Shadows,
    status::{Findings, Problem, Reason, RouteStatus, conditions},
};
use crate::{
    api::{Key, ParentRef},
    view::{
        Name,
        rule::{HttpEntry, HttpMatch, HttpRule, Origin, PortRules, TcpRule},
    },
};

/// The most rules of a route.
const MAX_RULES: usize = 256;
/// The most matches of all rules of a route.
const MAX_MATCHES: usize = 1024;
/// The most matches on a port, of all routes together.
const MAX_ENTRIES: usize = 8192;

/// A route and its key.
#[derive(Clone, Debug)]
pub struct RouteRef<'a> {
    /// Its key.
    pub key: Key,
    /// The object.
    pub route: AnyRoute<'a>,
}

/// A route of any kind.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum AnyRoute<'a> {
    Http(&'a HttpRoute),
    Grpc(&'a GrpcRoute),
    Tcp(&'a TcpRoute),
    Tls(&'a TlsRoute),
}

impl AnyRoute<'_> {
    fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Http(route) => &route.metadata,
            Self::Grpc(route) => &route.metadata,
            Self::Tcp(route) => &route.metadata,
            Self::Tls(route) => &route.metadata,
        }
    }

    /// As a grant names it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => "HTTPRoute",
            Self::Grpc(_) => "GRPCRoute",
            Self::Tcp(_) => "TCPRoute",
            Self::Tls(_) => "TLSRoute",
        }
    }

    fn layer(&self) -> Layer {
        match self {
            Self::Http(_) | Self::Grpc(_) => Layer::Requests,
            Self::Tcp(_) | Self::Tls(_) => Layer::Connections,
        }
    }

    fn draft(&self) -> Draft {
        match self {
            Self::Http(route) => read::http(route),
            Self::Grpc(route) => read::grpc(route),
            Self::Tcp(route) => read::tcp(route),
            Self::Tls(route) => read::tls(route),
        }
    }
}

impl RouteRef<'_> {
    /// The services a route names as parents: what `build` keeps its index by. Gateways are left out.
    pub fn parents(&self) -> BTreeSet<(ParentKind, Name)> {
        self.route.draft().parents.iter().filter_map(|parent| parent.service(&self.key.namespace)).collect()
    }

    /// The Gateways a route names as parents, and how.
    pub fn gateways(&self) -> Vec<(ParentRef, Name)> {
        let parents = self.route.draft().parents.into_iter();
        parents.filter_map(|parent| parent.gateway(&self.key.namespace).map(|name| (parent, name))).collect()
    }

    /// The services a route sends to, in backends and mirrors: when one of them comes, goes or changes its ports, or a grant in its namespace does, the
    /// route is to be resolved again. Host names are told apart.
    pub fn backends(&self) -> (BTreeSet<Name>, BTreeSet<Arc<str>>) {
        let draft = self.route.draft();
        super::backends::mentioned(&draft, &self.key.namespace)
    }

    /// For references to services that do not exist: nobody else will tell the author.
    pub fn orphaned(&self, exists: &dyn Fn(ParentKind, &Name) -> bool) -> Vec<RouteStatus> {
        let draft = self.route.draft();
        let told = |parent: &ParentRef| {
            let (kind, name) = parent.service(&self.key.namespace)?;
            if exists(kind, &name) {
                return None;
            }
            let text = format!("there is no {kind:?} {}", super::syntax::quoted(&name.to_string()));
            let refused = Problem::new(Reason::NoMatchingParent, text);
            Some(RouteStatus {
                route: self.key.clone(),
                parent: parent.clone(),
                conditions: conditions(Some(&refused), &Findings::default()),
            })
        };
        draft.parents.iter().filter_map(told).collect()
    }
}

/// The rules of the ports of `parent` (ports without routes are absent), and one status for each reference to it. `routes` may hold others, too, in any
/// order. Time and space are bounded: a port has room for 8192 matches.
pub fn resolve(
    parent: &ParentService,
    routes: &[RouteRef<'_>],
    lookup: &dyn Lookup,
) -> (BTreeMap<u16, PortRules>, Vec<RouteStatus>) {
    let mut sorted: Vec<&RouteRef<'_>> = routes.iter().collect();
    // The oldest wins, then the name; an object without a time is from a directory, where all are.
    sorted.sort_by_cached_key(|route| {
        let created = route.route.metadata().creation_timestamp.as_ref().map(|time| time.0);
        // Of routes for connections those for TLS come first.
        let order = u8::from(!matches!(route.route, AnyRoute::Tls(_)));
        (order, created, route.key.namespace.clone(), route.key.name.clone(), route.route.kind())
    });
    let mut resolving = Resolving { parent, lookup, ports: BTreeMap::new(), statuses: Vec::new() };
    for (age, route) in sorted.into_iter().enumerate() {
        resolving.add(age, route);
    }
    resolving.finish()
}

struct Resolving<'a> {
    parent: &'a ParentService,
    lookup: &'a dyn Lookup,
    ports: BTreeMap<u16, Port>,
    statuses: Vec<RouteStatus>,
}

/// A route, and the ports on which it stands.
struct Taken<'a> {
    route: &'a RouteRef<'a>,
    draft: &'a Draft,
    ports: BTreeSet<u16>,
}

#[derive(Default)]
struct Port {
    http: Vec<(Rank, HttpEntry)>,
    tcp: Option<Arc<TcpRule>>,
}

/// Consumers' first, then the most exact match, then the oldest route, then the first rule.
type Rank = (bool, Precedence, usize, usize, usize);

impl Resolving<'_> {
    fn add(&mut self, age: usize, route: &RouteRef<'_>) {
        let draft = route.route.draft();
        let layer = route.route.layer();
        let named = Some((self.parent.kind, self.parent.object.clone()));
        let references: Vec<&ParentRef> =
            draft.parents.iter().filter(|parent| parent.service(&route.key.namespace) == named).collect();
        if references.is_empty() {
            return;
        }
        let whole = self.refused(route, &draft);
        let mut found: Vec<Result<BTreeSet<u16>, Problem>> = references
            .iter()
            .map(|reference| match &whole {
                Some(problem) => Err(problem.clone()),
                None => {
                    self.parent.ports_of(reference, layer).map_err(|text| Problem::new(Reason::NoMatchingParent, text))
                }
            })
            .collect();
        let ports: BTreeSet<u16> = found.iter().flatten().flatten().copied().collect();
        let mut findings = Findings::default();
        if !ports.is_empty() {
            let taken = Taken { route, draft: &draft, ports };
            let lost = match layer {
                Layer::Requests => self.add_requests(age, &taken, &mut findings),
                Layer::Connections => self.add_connections(&taken, &mut findings),
            };
            for ports in &mut found {
                if let Some(problem) = ports.as_ref().ok().and_then(|ports| lost_all(ports, &lost)) {
                    *ports = Err(problem);
                }
            }
        }
        for (reference, found) in references.into_iter().zip(found) {
            self.statuses.push(RouteStatus {
                route: route.key.clone(),
                parent: reference.clone(),
                conditions: conditions(found.as_ref().err(), &findings),
            });
        }
    }

    /// Why no reference of a route counts.
    fn refused(&self, route: &RouteRef<'_>, draft: &Draft) -> Option<Problem> {
        let matches: usize = draft.rules.iter().map(|rule| rule.matches.len().max(1)).sum();
        if draft.rules.len() > MAX_RULES || matches > MAX_MATCHES {
            return Some(Problem::new(
                Reason::UnsupportedValue,
                format!(
                    "the route has {} rules with {matches} matches, more than {MAX_RULES} with {MAX_MATCHES}: it is left out whole, split it",
                    draft.rules.len()
                ),
            ));
        }
        if route.route.layer() == Layer::Connections && *route.key.namespace != *self.parent.object.namespace {
            return Some(Problem::new(
                Reason::UnsupportedValue,
                "a TCPRoute or TLSRoute of clients is not supported: it must be in the namespace of its service",
            ));
        }
        let names_it = draft.hostnames.is_empty() || draft.hostnames.iter().any(|name| **name == *self.parent.hostname);
        if matches!(route.route, AnyRoute::Tls(_)) && !names_it {
            return Some(Problem::new(
                Reason::NoMatchingListenerHostname,
                format!("spec.hostnames must name {}: no other name is asked for here", self.parent.hostname),
            ));
        }
        None
    }

    fn asking<'b>(&'b self, route: &'b RouteRef<'_>) -> Asking<'b> {
        Asking {
            kind: route.route.kind(),
            namespace: &route.key.namespace,
            parent: self.parent,
            lookup: self.lookup,
            is_http: route.route.layer() == Layer::Requests,
        }
    }

    /// The ports that have no room for it, and why.
    fn add_requests(&mut self, age: usize, taken: &Taken<'_>, findings: &mut Findings) -> BTreeMap<u16, Problem> {
        let route = taken.route;
        let asking = self.asking(route);
        let rules: Vec<(Vec<HttpMatch>, Arc<HttpRule>)> = taken
            .draft
            .rules
            .iter()
            .enumerate()
            .map(|(index, rule)| rules::http(rule, origin(route, index, rule.name.as_deref()), &asking, findings))
            .collect();
        let is_of_clients = *route.key.namespace != *self.parent.object.namespace;
        let matches: usize = rules.iter().map(|(matches, _)| matches.len()).sum();
        let mut lost = BTreeMap::new();
        for number in &taken.ports {
            let port = self.ports.entry(*number).or_default();
            if port.http.len() + matches > MAX_ENTRIES {
                let text =
                    format!("older routes have filled port {number} with {} matches: remove some", port.http.len());
                lost.insert(*number, Problem::new(Reason::UnsupportedValue, text));
                continue;
            }
            for (index, (matches, rule)) in rules.iter().enumerate() {
                for (position, wanted) in matches.iter().enumerate() {
                    let entry = HttpEntry {
                        client_namespace: is_of_clients.then(|| route.key.namespace.clone()),
                        matches: wanted.clone(),
                        rule: rule.clone(),
                    };
                    port.http.push(((!is_of_clients, precedence(wanted), age, index, position), entry));
                }
            }
        }
        lost
    }

    /// The ports that an older route has already, and which.
    fn add_connections(&mut self, taken: &Taken<'_>, findings: &mut Findings) -> BTreeMap<u16, Problem> {
        let route = taken.route;
        let mut rules = taken.draft.rules.iter().enumerate();
        let Some((index, rule)) = rules.next() else { return BTreeMap::new() };
        let asking = self.asking(route);
        let rule = Arc::new(rules::tcp(rule, origin(route, index, rule.name.as_deref()), &asking, findings));
        if rules.next().is_some() {
            findings.problems.push(Problem::new(
                Reason::UnsupportedValue,
                "only the first rule counts: nothing tells connections apart",
            ));
        }
        let mut lost = BTreeMap::new();
        for number in &taken.ports {
            let port = self.ports.entry(*number).or_default();
            match &port.tcp {
                Some(other) => {
                    let text = format!("port {number} belongs to {}", other.origin.route);
                    lost.insert(*number, Problem::new(Reason::Conflicted, text));
                }
                None => port.tcp = Some(rule.clone()),
            }
        }
        lost
    }

    fn finish(mut self) -> (BTreeMap<u16, PortRules>, Vec<RouteStatus>) {
        let mut shadows = Shadows::default();
        let mut found = BTreeMap::new();
        for (number, mut port) in self.ports {
            port.http.sort_by_key(|(rank, _)| *rank);
            let http: Vec<HttpEntry> = port.http.into_iter().map(|(_, entry)| entry).collect();
            shadows.note(&http);
            if !http.is_empty() || port.tcp.is_some() {
                found.insert(number, PortRules { http, tcp: port.tcp });
            }
        }
        shadows.tell(&mut self.statuses);
        (found, self.statuses)
    }
}

fn origin(route: &RouteRef<'_>, rule: usize, name: Option<&str>) -> Origin {
    Origin { route: route.key.clone(), rule, name: name.map(Arc::from) }
}

/// A reference whose ports are all lost is not accepted.
fn lost_all(ports: &BTreeSet<u16>, lost: &BTreeMap<u16, Problem>) -> Option<Problem> {
    if ports.iter().any(|port| !lost.contains_key(port)) {
        return None;
    }
    ports.first().and_then(|port| lost.get(port)).cloned()
}
