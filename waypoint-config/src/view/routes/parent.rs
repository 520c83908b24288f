// SPDX-License-Identifier: Apache-2.0
//! The service whose traffic routes direct, and what a route's `parentRefs` say of it.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    api::ParentRef,
    view::{AppProtocol, Name},
};

/// The group of the Gateway API.
const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// The group of Istio's own kinds.
pub(super) const ISTIO_GROUP: &str = "networking.istio.io";

/// A service in the role of a parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentService {
    /// As what it was written.
    pub kind: ParentKind,
    /// The name of that object; its namespace tells the routes of its own people from those of its clients.
    pub object: Name,
    /// Its key in the snapshot. One ServiceEntry is a service per host.
    pub service: Name,
    /// Its full name.
    pub hostname: Arc<str>,
    /// Its ports.
    pub ports: Vec<ParentPort>,
}

/// A kind of object that is a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParentKind {
    /// Kubernetes' own.
    Service,
    /// Istio's.
    ServiceEntry,
}

/// A port of a parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentPort {
    /// The number.
    pub port: u16,
    /// Its name, for `sectionName`.
    pub name: Option<Arc<str>>,
    /// What is spoken there.
    pub protocol: AppProtocol,
}

impl ParentRef {
    /// The service it names, as seen from a route in `namespace`; `None` when it names something else, like a Gateway.
    pub fn service(&self, namespace: &str) -> Option<(ParentKind, Name)> {
        let kind = match (self.group.as_deref()?, self.kind.as_deref()?) {
            ("" | "core", "Service") => ParentKind::Service,
            (ISTIO_GROUP, "ServiceEntry") => ParentKind::ServiceEntry,
            _ => return None,
        };
        Some((kind, Name::new(self.namespace.as_deref().unwrap_or(namespace), self.name.as_str())))
    }

    /// The Gateway it names, likewise.
    pub fn gateway(&self, namespace: &str) -> Option<Name> {
        let is_gateway = self.group.as_deref().is_none_or(|group| group == GATEWAY_GROUP)
            && self.kind.as_deref().is_none_or(|kind| kind == "Gateway");
        is_gateway.then(|| Name::new(self.namespace.as_deref().unwrap_or(namespace), self.name.as_str()))
    }
}

/// What a kind of route directs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Requests,
    Connections,
}

impl Layer {
    fn is_on(self, protocol: AppProtocol) -> bool {
        match protocol {
            AppProtocol::Unknown => true,
            AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc => self == Self::Requests,
            AppProtocol::Tcp | AppProtocol::Tls => self == Self::Connections,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Requests => "HTTP",
            Self::Connections => "TCP or TLS",
        }
    }
}

impl ParentService {
    /// The ports of this service which a reference to it means; never none.
    pub(super) fn ports_of(&self, reference: &ParentRef, layer: Layer) -> Result<BTreeSet<u16>, String> {
        let named = self.ports.iter().filter(|port| {
            reference.port.is_none_or(|wanted| wanted == i32::from(port.port))
                && reference.section_name.as_deref().is_none_or(|wanted| port.name.as_deref() == Some(wanted))
        });
        let named: Vec<&ParentPort> = named.collect();
        if named.is_empty() {
            let wanted = match (reference.port, &reference.section_name) {
                (Some(port), _) => format!("no such port {port}"),
                (None, Some(name)) => format!("no port named {}", super::syntax::quoted(name)),
                (None, None) => "no port".to_owned(),
            };
            return Err(format!("{} has {wanted}", self.hostname));
        }
        let fit: BTreeSet<u16> = named.iter().filter(|port| layer.is_on(port.protocol)).map(|port| port.port).collect();
        if fit.is_empty() {
            let ports: Vec<String> =
                named.iter().take(8).map(|port| format!("{} ({:?})", port.port, port.protocol)).collect();
            return Err(format!(
                "{} is not spoken on {} of {}: see appProtocol and the port's name",
                layer.name(),
                ports.join(", "),
                self.hostname
            ));
        }
        Ok(fit)
    }
}
