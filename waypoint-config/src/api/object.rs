// SPDX-License-Identifier: Apache-2.0
//! One object of the kinds the control plane reads, its key, and the strict way from a plain value to it.
//! Called by the sources; it must never accept an object it does not understand whole.

use std::{fmt, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod, Service, ServiceAccount},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use super::{
    check,
    policy::{AuthorizationPolicy, PeerAuthentication},
};

/// The kinds the control plane reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1/Namespace`
    Namespace,
    /// `v1/Node`
    Node,
    /// `v1/Pod`
    Pod,
    /// `v1/Service`
    Service,
    /// `v1/ServiceAccount`
    ServiceAccount,
    /// `discovery.k8s.io/v1/EndpointSlice`
    EndpointSlice,
    /// `security.istio.io/AuthorizationPolicy`
    AuthorizationPolicy,
    /// `security.istio.io/PeerAuthentication`
    PeerAuthentication,
}

/// The kind is none the control plane reads. Not a mistake: a directory may hold a Deployment, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKind;

impl Kind {
    /// From `apiVersion` and `kind`.
    pub fn of(api_version: &str, kind: &str) -> Result<Self, UnknownKind> {
        match (api_version, kind) {
            ("v1", "Namespace") => Ok(Self::Namespace),
            ("v1", "Node") => Ok(Self::Node),
            ("v1", "Pod") => Ok(Self::Pod),
            ("v1", "Service") => Ok(Self::Service),
            ("v1", "ServiceAccount") => Ok(Self::ServiceAccount),
            ("discovery.k8s.io/v1", "EndpointSlice") => Ok(Self::EndpointSlice),
            ("security.istio.io/v1" | "security.istio.io/v1beta1", "AuthorizationPolicy") => {
                Ok(Self::AuthorizationPolicy)
            }
            ("security.istio.io/v1" | "security.istio.io/v1beta1", "PeerAuthentication") => {
                Ok(Self::PeerAuthentication)
            }
            _ => Err(UnknownKind),
        }
    }

    /// Whether its objects live in a namespace.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node)
    }

    /// The word people use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::ServiceAccount => "ServiceAccount",
            Self::EndpointSlice => "EndpointSlice",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::PeerAuthentication => "PeerAuthentication",
        }
    }
}

/// What there is one of: kind, namespace (empty for cluster-wide kinds), name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Kind.
    pub kind: Kind,
    /// Namespace, or empty.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl Key {
    /// A key.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        f.write_str(" ")?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// An object; cheap to clone.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Object {
    Namespace(Arc<Namespace>),
    Node(Arc<Node>),
    Pod(Arc<Pod>),
    Service(Arc<Service>),
    ServiceAccount(Arc<ServiceAccount>),
    EndpointSlice(Arc<EndpointSlice>),
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
    PeerAuthentication(Arc<PeerAuthentication>),
}

/// Why a value is not the object it says it is.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{path}: {reason}")]
pub struct ObjectError {
    /// Where in the object, e.g. `spec.rules[0].from[1].source.ipBlocks[0]`.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

impl ObjectError {
    pub(crate) fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }
}

impl Object {
    /// Reads a value strictly: a wrong type, a field the kind does not have, or a value the API server would refuse is an error
    /// that names the field. `null` means absent, as in Kubernetes.
    pub fn read(kind: Kind, mut value: Value) -> Result<Self, ObjectError> {
        drop_nulls(&mut value);
        let object = match kind {
            Kind::Namespace => Self::Namespace(typed(value)?),
            Kind::Node => Self::Node(typed(value)?),
            Kind::Pod => Self::Pod(typed(value)?),
            Kind::Service => Self::Service(typed(value)?),
            Kind::ServiceAccount => Self::ServiceAccount(typed(value)?),
            Kind::EndpointSlice => Self::EndpointSlice(typed(value)?),
            Kind::AuthorizationPolicy => Self::AuthorizationPolicy(typed(value)?),
            Kind::PeerAuthentication => Self::PeerAuthentication(typed(value)?),
        };
        check::object(&object)?;
        Ok(object)
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespace,
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::ServiceAccount(_) => Kind::ServiceAccount,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
            Self::PeerAuthentication(_) => Kind::PeerAuthentication,
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Namespace(object) => &object.metadata,
            Self::Node(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::ServiceAccount(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::AuthorizationPolicy(object) => &object.metadata,
            Self::PeerAuthentication(object) => &object.metadata,
        }
    }

    /// Its key.
    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        Key::new(
            self.kind(),
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        )
    }
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<Arc<T>, ObjectError> {
    let mut unknown = None;
    let mut note = |path: serde_ignored::Path<'_>| {
        unknown.get_or_insert_with(|| field_path(&path));
    };
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let read = T::deserialize(serde_ignored::Deserializer::new(tracked, &mut note));
    let object = read.map_err(|error| ObjectError::new(track.path().to_string(), error.to_string()))?;
    match unknown {
        None => Ok(Arc::new(object)),
        Some(path) => Err(ObjectError::new(path, "there is no such field; check its spelling and indentation")),
    }
}

/// `serde_ignored` writes `spec.rules.0.?.from`; people write `spec.rules[0].from`.
fn field_path(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", field_path(parent)),
        Path::Map { parent, key } => match field_path(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => field_path(parent),
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
