// SPDX-License-Identifier: Apache-2.0
//! From the name of a receiver to the receiver, or to the reason why there is none.
//!
//! **Receivers in other namespaces.** The Gateway API asks for a ReferenceGrant in the receiver's namespace whenever a route names a receiver outside its
//! own, and this is kept for services as parents, too: a waypoint calls receivers with its own identity, so without it whoever may write a route for a
//! service could send through that waypoint to places that only the waypoint may reach. One thing needs no grant: the parent itself, which is what a
//! route of its clients names as a rule, and which its traffic would reach without the route. Istio asks for no grant in the mesh.

use std::{collections::BTreeSet, sync::Arc};

use gateway_api::experimental::referencegrants::ReferenceGrant;

use super::{
    draft::{BackendRef, Draft, Filter},
    parent::{ISTIO_GROUP, ParentService},
    status::{Problem, Reason},
    syntax::{port, quoted},
};
use crate::{
    api::is_dns_subdomain,
    view::{AppProtocol, Name, rule::Target},
};

/// What is known of the rest of the mesh while routes are resolved.
pub trait Lookup {
    /// The Kubernetes service of that name.
    fn service(&self, name: &Name) -> Option<Found>;

    /// The service of that host name, as the objects of a namespace see it.
    fn hostname(&self, hostname: &str, from: &str) -> Option<Found>;

    /// Whether a ReferenceGrant lets routes of `kind` in the namespace `from` name the service `to` ([`permits`] reads one).
    fn is_granted(&self, kind: &str, from: &str, to: &Name) -> bool;
}

/// A service that was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its key in the snapshot.
    pub service: Name,
    /// Its ports.
    pub ports: Vec<(u16, AppProtocol)>,
}

/// Whether this grant, which counts in its own namespace only, lets routes of `kind` in the namespace `from` name the service `to`.
pub fn permits(grant: &ReferenceGrant, kind: &str, from: &str, to: &Name) -> bool {
    grant.metadata.namespace.as_deref() == Some(&*to.namespace)
        && grant
            .spec
            .from
            .iter()
            .any(|entry| entry.group == "gateway.networking.k8s.io" && entry.kind == kind && entry.namespace == from)
        && grant.spec.to.iter().any(|entry| {
            (entry.group.is_empty() || entry.group == "core")
                && entry.kind == "Service"
                && entry.name.as_deref().is_none_or(|name| name.is_empty() || name == &*to.name)
        })
}

/// Whose references are resolved.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    /// The kind of the route, as a grant names it.
    pub(super) kind: &'static str,
    /// Its namespace.
    pub(super) namespace: &'a str,
    /// The service whose traffic it directs.
    pub(super) parent: &'a ParentService,
    pub(super) lookup: &'a dyn Lookup,
    /// Whether HTTP is what is sent on.
    pub(super) is_http: bool,
}

impl Asking<'_> {
    /// The receiver; what is wrong is told, and its share goes to nobody.
    pub(super) fn target(&self, reference: &BackendRef, problems: &mut Vec<Problem>) -> Target {
        match self.find(reference) {
            Ok(target) => target,
            Err(problem) => {
                let reason = problem.text.clone();
                problems.push(problem);
                Target::Invalid { reason }
            }
        }
    }

    fn find(&self, reference: &BackendRef) -> Result<Target, Problem> {
        let destination = |text: String| Problem::new(Reason::InvalidDestination, text);
        let (name, found) = match (reference.group.as_deref().unwrap_or_default(), reference.kind.as_deref()) {
            ("" | "core", None | Some("Service")) => self.service(reference)?,
            (ISTIO_GROUP, Some("Hostname")) => self.hostname(reference)?,
            (group, kind) => {
                return Err(Problem::new(
                    Reason::InvalidKind,
                    format!(
                        "a backend of kind {} of group {} is not supported: Service and Hostname of {ISTIO_GROUP} are",
                        quoted(kind.unwrap_or("Service")),
                        quoted(group)
                    ),
                ));
            }
        };
        let number = reference.port.ok_or_else(|| destination(format!("the backend {name} needs a port")))?;
        let number = port(number).map_err(|text| destination(format!("backend {name}: {text}")))?;
        let Some((_, protocol)) = found.ports.iter().find(|(port, _)| *port == number) else {
            return Err(Problem::new(
                Reason::BackendNotFound,
                format!("the service {name} has no port {number}: see its spec.ports"),
            ));
        };
        if self.is_http && matches!(protocol, AppProtocol::Tcp | AppProtocol::Tls) {
            return Err(Problem::new(
                Reason::UnsupportedProtocol,
                format!(
                    "port {number} of {name} is declared {protocol:?} and gets requests: see its appProtocol and name"
                ),
            ));
        }
        Ok(Target::Service { service: found.service, port: number })
    }

    fn service(&self, reference: &BackendRef) -> Result<(String, Found), Problem> {
        let namespace = reference.namespace.as_deref().unwrap_or(self.namespace);
        let name = Name::new(namespace, reference.name.as_str());
        let shown = quoted(&name.to_string());
        // The permission first: a route must not tell what exists where its author may not look.
        if namespace != self.namespace
            && name != self.parent.service
            && !self.lookup.is_granted(self.kind, self.namespace, &name)
        {
            return Err(Problem::new(
                Reason::RefNotPermitted,
                format!(
                    "{shown} is in another namespace: a ReferenceGrant there must have from {} of {} and to Service",
                    self.kind,
                    quoted(self.namespace)
                ),
            ));
        }
        let found = self
            .lookup
            .service(&name)
            .ok_or_else(|| Problem::new(Reason::BackendNotFound, format!("there is no service {shown}")))?;
        Ok((shown, found))
    }

    fn hostname(&self, reference: &BackendRef) -> Result<(String, Found), Problem> {
        let shown = quoted(&reference.name);
        if reference.namespace.is_some() {
            return Err(Problem::new(
                Reason::InvalidDestination,
                format!("the Hostname {shown} is known to the whole mesh: leave out its namespace"),
            ));
        }
        let found = Some(reference.name.as_str())
            .filter(|name| is_dns_subdomain(name))
            .and_then(|name| self.lookup.hostname(name, self.namespace))
            .ok_or_else(|| {
                Problem::new(Reason::BackendNotFound, format!("no Service and no ServiceEntry has the host {shown}"))
            })?;
        Ok((shown, found))
    }
}

/// What the backends and mirrors of a route name, whether it exists or not.
pub(super) fn mentioned(draft: &Draft, namespace: &str) -> (BTreeSet<Name>, BTreeSet<Arc<str>>) {
    let (mut services, mut hostnames) = (BTreeSet::new(), BTreeSet::new());
    let mirrors = |filter: &'_ Filter| match filter {
        Filter::Mirror(mirror) => Some(mirror.backend.clone()),
        _ => None,
    };
    for rule in &draft.rules {
        let named = rule.backends.iter().map(|backend| backend.reference.clone());
        for reference in named.chain(rule.filters.iter().filter_map(mirrors)) {
            if reference.kind.as_deref() == Some("Hostname") {
                hostnames.insert(reference.name.as_str().into());
            } else {
                let namespace = reference.namespace.as_deref().unwrap_or(namespace);
                services.insert(Name::new(namespace, reference.name.as_str()));
            }
        }
    }
    (services, hostnames)
}
