// SPDX-License-Identifier: Apache-2.0
//! What the authors of objects are told: conditions as plain values, in Istio's words where it has some (control-plane.md §1.7, §4.7). Asked by whoever
//! writes status; `Touched::judged` says of which objects the answer may have changed. What is no longer said is to be removed.
//!
//! Conditions that belong to other rooms are merged by `line`: those of routes ([`Status::parents`]) by whoever resolves routes, `ZtunnelAccepted` by
//! `ambient`.

use super::{
    access, entry,
    gateway::{self, is_hbone},
    model::Name,
    pod, policy,
    scene::{self, Scene},
    service,
    snapshot::Snapshot,
    waypoint::{Binding, Unbound},
};
use crate::{
    api::{Gateway, Key, Kind, Object, ParentRef, ServiceEntry, TargetReference},
    store::Store,
};

/// Everything said of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Of the object itself.
    pub conditions: Vec<Condition>,
    /// Of the listeners of a Gateway.
    pub listeners: Vec<ListenerStatus>,
    /// Of the parents of a route; filled by whoever resolves routes.
    pub parents: Vec<ParentStatus>,
}

/// One thing said. When it was said first is for the writer to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// About what.
    pub kind: &'static str,
    /// Whether it is so.
    pub holds: bool,
    /// Why, as a word.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
}

/// What is said of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// How many routes it serves.
    pub attached_routes: usize,
    /// The kinds of routes it can serve.
    pub supported_kinds: Vec<Kind>,
    /// What is said.
    pub conditions: Vec<Condition>,
}

/// What is said of a route at one of its parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentStatus {
    /// Which, as the route names it.
    pub parent: ParentRef,
    /// What is said.
    pub conditions: Vec<Condition>,
}

impl Condition {
    /// A condition.
    pub fn new(kind: &'static str, holds: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds, reason, message: message.into() }
    }

    /// Whether it says that something is not as its author wishes.
    pub fn is_bad(&self) -> bool {
        match self.kind {
            "Conflicted" | "PartiallyInvalid" | WAYPOINT_MISSING => self.holds,
            _ => !self.holds,
        }
    }
}

impl Status {
    /// What is said of an object, as far as this room knows; nothing of one that is not there.
    pub fn of(store: &Store, snapshot: &Snapshot, key: &Key) -> Self {
        let Some(object) = store.object(key) else { return Self::default() };
        let network = scene::network(store, &snapshot.mesh);
        let scene = Scene { mesh: &snapshot.mesh, store, waypoints: &snapshot.waypoints, network: &network };
        let conditions = match object {
            Object::Service(object) => bound(&service::binding(&scene, object)).into_iter().collect(),
            Object::ServiceEntry(object) => {
                let binding = entry::binding(&scene, object);
                bound(&binding).into_iter().chain(missing(object, &binding)).collect()
            }
            Object::WorkloadEntry(object) => bound(&entry::lone_binding(&scene, object)).into_iter().collect(),
            Object::AuthorizationPolicy(object) => attached(&scene, snapshot, key, object.spec.targets()),
            Object::RequestAuthentication(object) => attached(&scene, snapshot, key, object.spec.targets()),
            Object::Gateway(object) => return of_gateway(&scene, object),
            Object::GatewayClass(_) if gateway::is_ours(store, &key.name) => {
                vec![Condition::new("Accepted", true, "Accepted", "waypoints of this class are looked after")]
            }
            _ => Vec::new(),
        };
        Self { conditions, ..Self::default() }
    }
}

/// Whether there is a Gateway of that name that is a waypoint of ours.
pub fn is_waypoint(store: &Store, name: &Name) -> bool {
    let gateway = store.gateway(&name.namespace, &name.name);
    gateway.is_some_and(|gateway| gateway::is_ours(store, &gateway.spec.gateway_class_name))
}

/// Through which waypoint traffic to an object goes, and why; `None` for an object traffic does not go to.
pub fn binding(store: &Store, snapshot: &Snapshot, key: &Key) -> Option<Binding> {
    let network = scene::network(store, &snapshot.mesh);
    let scene = Scene { mesh: &snapshot.mesh, store, waypoints: &snapshot.waypoints, network: &network };
    match store.object(key)? {
        Object::Service(object) => Some(service::binding(&scene, object)),
        Object::ServiceEntry(object) => Some(entry::binding(&scene, object)),
        Object::WorkloadEntry(object) => Some(entry::lone_binding(&scene, object)),
        Object::Pod(object) => Some(pod::binding(&scene, object)),
        _ => None,
    }
}

fn bound(binding: &Binding) -> Option<Condition> {
    let says = |holds, reason, message| Some(Condition::new(WAYPOINT_BOUND, holds, reason, message));
    match binding {
        Binding::Bound { waypoint, ingress } => {
            let sentence = if *ingress { ". Ingress traffic will traverse the waypoint" } else { "" };
            says(true, "WaypointAccepted", format!("Successfully attached to waypoint {waypoint}{sentence}"))
        }
        Binding::Unbound(unbound) if !unbound.tells() => None,
        Binding::Unbound(Unbound::NotReady { waypoint }) => says(
            false,
            "WaypointIsNotReady",
            format!("waypoint {waypoint} is not ready: there is no such Gateway, or it has no address. {DIRECT}"),
        ),
        Binding::Unbound(Unbound::NotAdmitted { waypoint }) => says(
            false,
            "AttachmentDenied",
            format!("waypoint {waypoint} does not admit this namespace; see allowedRoutes of its listener. {DIRECT}"),
        ),
        Binding::Unbound(Unbound::WrongTraffic { waypoint, .. }) => says(
            false,
            "UnsupportedTrafficType",
            format!(
                "waypoint {waypoint} does not take traffic of this kind; see its label istio.io/waypoint-for. {DIRECT}"
            ),
        ),
        Binding::Unbound(_) => None,
    }
}

/// A wildcard has no address by which a node proxy could tell it; only a waypoint sees the name.
fn missing(entry: &ServiceEntry, binding: &Binding) -> Option<Condition> {
    let is_missing = binding.waypoint().is_none() && entry.spec.hosts.iter().any(|host| host.starts_with("*."));
    is_missing.then(|| {
        Condition::new(
            WAYPOINT_MISSING,
            true,
            "NoWaypointForWildcardService",
            "a host with a wildcard works only through a waypoint; label this ServiceEntry or its namespace istio.io/use-waypoint",
        )
    })
}

/// Where a policy found what it is attached to.
enum Attachment {
    Bound(Name),
    /// A class: as many waypoints as there are.
    Class(String),
    NotFound,
    /// There, but behind no waypoint.
    NotBound,
    Invalid(&'static str),
}

fn attached<'a>(
    scene: &Scene<'_>,
    snapshot: &Snapshot,
    key: &Key,
    targets: impl Iterator<Item = &'a TargetReference>,
) -> Vec<Condition> {
    let (mut good, mut bad, mut reason) = (Vec::new(), Vec::new(), None);
    for target in targets {
        let called = called(&key.namespace, target);
        match attach(scene, snapshot, &key.namespace, target) {
            Attachment::Bound(waypoint) => good.push(waypoint.to_string()),
            Attachment::Class(class) => good.push(class),
            Attachment::NotFound => {
                reason.get_or_insert("TargetNotFound");
                bad.push(format!("{called} is not there"));
            }
            Attachment::NotBound => {
                reason.get_or_insert(NOT_BOUND);
                bad.push(format!("{called} goes through no waypoint, so nobody enforces this"));
            }
            Attachment::Invalid(why) => {
                reason.get_or_insert("Invalid");
                bad.push(format!("{called} {why}"));
            }
        }
    }
    good.sort();
    good.dedup();
    let says = |holds, reason, message| vec![Condition::new(WAYPOINT_ACCEPTED, holds, reason, message)];
    match (good.is_empty(), reason) {
        (true, None) => Vec::new(),
        (false, None) => says(true, "Accepted", format!("bound to {}", good.join(", "))),
        (true, Some(NOT_BOUND)) => says(false, NOT_BOUND, bad.join("; ")),
        (true, Some(reason)) => says(false, reason, format!("Invalid targetRefs: {}", bad.join("; "))),
        (false, Some(_)) => says(
            false,
            "PartiallyInvalid",
            format!("bound to {}. Invalid targetRefs: {}", good.join(", "), bad.join("; ")),
        ),
    }
}

fn attach(scene: &Scene<'_>, snapshot: &Snapshot, namespace: &str, target: &TargetReference) -> Attachment {
    let name = target.name.as_str();
    match Kind::of_reference(&target.group, &target.kind) {
        Some(Kind::Gateway) => match scene.store.gateway(namespace, name) {
            Some(_) => Attachment::Bound(Name::new(namespace, name)),
            None => Attachment::NotFound,
        },
        Some(Kind::GatewayClass) if namespace != scene.mesh.root_namespace => {
            Attachment::Invalid("counts only in the root namespace of the mesh")
        }
        Some(Kind::GatewayClass) => match gateway::controller(scene.store, name) {
            Some(_) => Attachment::Class(format!("every Gateway of class {name}")),
            None => Attachment::NotFound,
        },
        Some(Kind::Service) => {
            let services = std::iter::once(Name::new(namespace, name));
            through(snapshot, Kind::Service, services)
        }
        Some(Kind::ServiceEntry) => {
            let object = scene.store.service_entry(namespace, name);
            let keys = object.into_iter().flat_map(|entry| entry::own_hosts(scene, entry).collect::<Vec<_>>());
            through(snapshot, Kind::ServiceEntry, keys)
        }
        _ => Attachment::Invalid("is of a kind policies cannot be attached to"),
    }
}

/// The first waypoint of these services.
fn through(snapshot: &Snapshot, kind: Kind, keys: impl Iterator<Item = Name>) -> Attachment {
    let services = keys.filter_map(|key| snapshot.services.get(&key));
    let mut services = services.filter(|service| access::kind_of(service) == kind).peekable();
    if services.peek().is_none() {
        return Attachment::NotFound;
    }
    match services.find_map(|service| service.waypoint.clone()) {
        Some(waypoint) => Attachment::Bound(waypoint),
        None => Attachment::NotBound,
    }
}

fn called(namespace: &str, target: &TargetReference) -> String {
    let group = if target.group.is_empty() { String::new() } else { format!(".{}", target.group) };
    format!("{}{group}:{namespace}/{}", target.kind, target.name)
}

/// Of a Gateway that is a waypoint by its class; others have controllers of their own.
fn of_gateway(scene: &Scene<'_>, object: &Gateway) -> Status {
    if !gateway::is_ours(scene.store, &object.spec.gateway_class_name) {
        return Status::default();
    }
    let waypoint = scene.waypoints.get(&policy::name(&object.metadata));
    let listeners = &object.spec.listeners;
    let fits = matches!(listeners.as_slice(), [one] if is_hbone(one));
    let accepted = match fits {
        true => Condition::new("Accepted", true, "Accepted", "Resource accepted"),
        false => Condition::new("Accepted", false, "ListenersNotValid", WANTED_LISTENER),
    };
    let programmed = match (fits, waypoint) {
        (false, _) => Condition::new("Programmed", false, "Invalid", WANTED_LISTENER),
        (true, Some(waypoint)) => {
            let place = waypoint.hostname.as_deref().map(str::to_owned);
            let place = place.or_else(|| waypoint.addresses.first().map(ToString::to_string)).unwrap_or_default();
            Condition::new(
                "Programmed",
                true,
                "Programmed",
                format!("Resource programmed, assigned to service(s) {place}:15008"),
            )
        }
        (true, None) => Condition::new(
            "Programmed",
            false,
            "AddressNotAssigned",
            "has no address yet: status.addresses and spec.addresses are empty, so nothing goes through it",
        ),
    };
    let listener = |name: &str| {
        let good = |kind, holds, reason| Condition::new(kind, holds, reason, "No errors found");
        let conditions = match fits {
            true => vec![
                good("Accepted", true, "Accepted"),
                good("Conflicted", false, "NoConflicts"),
                good("Programmed", true, "Programmed"),
                good("ResolvedRefs", true, "ResolvedRefs"),
            ],
            false => vec![
                Condition::new("Accepted", false, "UnsupportedProtocol", WANTED_LISTENER),
                good("Conflicted", false, "NoConflicts"),
                Condition::new("Programmed", false, "Invalid", WANTED_LISTENER),
                good("ResolvedRefs", true, "ResolvedRefs"),
            ],
        };
        // Routes of a waypoint have services for parents, not its listener.
        ListenerStatus { name: name.to_owned(), attached_routes: 0, supported_kinds: Vec::new(), conditions }
    };
    Status {
        conditions: vec![
            accepted,
            programmed,
            Condition::new("ResolvedRefs", true, "ResolvedRefs", "All references resolved"),
        ],
        listeners: listeners.iter().map(|one| listener(&one.name)).collect(),
        parents: Vec::new(),
    }
}

/// On objects traffic goes to.
const WAYPOINT_BOUND: &str = "istio.io/WaypointBound";
/// On ServiceEntries that need a waypoint and have none.
const WAYPOINT_MISSING: &str = "istio.io/WaypointMissing";
/// On policies for waypoints.
pub const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";
/// The reason of a policy on something no waypoint stands before.
const NOT_BOUND: &str = "AncestorNotBound";

const WANTED_LISTENER: &str = "Expected a single listener on port 15008 with protocol \"HBONE\"";
const DIRECT: &str = "Traffic goes straight to its destination meanwhile, and policies for the waypoint do not apply";
