// SPDX-License-Identifier: Apache-2.0
//! One object of the kinds the control plane reads, its key, and the strict way from a plain value to it.
//! Called by the sources; it must never accept an object it does not understand whole.

use std::{fmt, sync::Arc};

use gateway_api::experimental::{
    gatewayclasses::GatewayClass, gateways::Gateway, grpcroutes::GrpcRoute, httproutes::HttpRoute,
    referencegrants::ReferenceGrant, tcproutes::TcpRoute, tlsroutes::TlsRoute,
};
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
    authentication::RequestAuthentication,
    check,
    entry::{ServiceEntry, WorkloadEntry},
    policy::{AuthorizationPolicy, PeerAuthentication},
    shape,
};

/// One line for every kind: its variant and type, the word people use, where it lives, and the versions of it that are read.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal $namespaced:literal [$first:literal $($version:literal)*])+) => {
        /// The kinds the control plane reads.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[$doc])* $kind,)+
        }

        impl Kind {
            /// From `apiVersion` and `kind`.
            pub fn of(api_version: &str, kind: &str) -> Result<Self, UnknownKind> {
                match (kind, api_version) {
                    $(($name, $first $(| $version)*) => Ok(Self::$kind),)+
                    _ => Err(UnknownKind),
                }
            }

            /// Whether its objects live in a namespace.
            pub fn is_namespaced(self) -> bool {
                match self {
                    $(Self::$kind => $namespaced,)+
                }
            }

            /// The newest version of it, as `apiVersion` names it.
            pub fn api_version(self) -> &'static str {
                match self {
                    $(Self::$kind => $first,)+
                }
            }

            /// The word people use.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }
        }

        /// An object; cheap to clone.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Object {
            $($(#[$doc])* $kind(Arc<$kind>),)+
        }

        $(impl Stored for $kind {
            fn of(object: &Object) -> Option<&Arc<Self>> {
                match object {
                    Object::$kind(object) => Some(object),
                    _ => None,
                }
            }
        })+

        impl Object {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)+
                }
            }

            /// Its metadata.
            pub fn metadata(&self) -> &ObjectMeta {
                match self {
                    $(Self::$kind(object) => &object.metadata,)+
                }
            }

            fn typed(kind: Kind, value: Value) -> Result<Self, ObjectError> {
                match kind {
                    $(Kind::$kind => typed(value).map(Self::$kind),)+
                }
            }
        }
    };
}

kinds! {
    /// `v1/Namespace`
    Namespace "Namespace" false ["v1"]
    /// `v1/Node`
    Node "Node" false ["v1"]
    /// `v1/Pod`
    Pod "Pod" true ["v1"]
    /// `v1/Service`
    Service "Service" true ["v1"]
    /// `v1/ServiceAccount`
    ServiceAccount "ServiceAccount" true ["v1"]
    /// `discovery.k8s.io/v1/EndpointSlice`
    EndpointSlice "EndpointSlice" true ["discovery.k8s.io/v1"]
    /// `gateway.networking.k8s.io/GatewayClass`
    GatewayClass "GatewayClass" false ["gateway.networking.k8s.io/v1" "gateway.networking.k8s.io/v1beta1"]
    /// `gateway.networking.k8s.io/Gateway`
    Gateway "Gateway" true ["gateway.networking.k8s.io/v1" "gateway.networking.k8s.io/v1beta1"]
    /// `gateway.networking.k8s.io/HTTPRoute`
    HttpRoute "HTTPRoute" true ["gateway.networking.k8s.io/v1" "gateway.networking.k8s.io/v1beta1"]
    /// `gateway.networking.k8s.io/GRPCRoute`
    GrpcRoute "GRPCRoute" true ["gateway.networking.k8s.io/v1" "gateway.networking.k8s.io/v1alpha2"]
    /// `gateway.networking.k8s.io/TCPRoute`
    TcpRoute "TCPRoute" true ["gateway.networking.k8s.io/v1" "gateway.networking.k8s.io/v1alpha2"]
    /// `gateway.networking.k8s.io/TLSRoute`
    TlsRoute "TLSRoute" true ["gateway.networking.k8s.io/v1" "gateway.networking.k8s.io/v1alpha3" "gateway.networking.k8s.io/v1alpha2"]
    /// `gateway.networking.k8s.io/ReferenceGrant`
    ReferenceGrant "ReferenceGrant" true ["gateway.networking.k8s.io/v1" "gateway.networking.k8s.io/v1beta1" "gateway.networking.k8s.io/v1alpha2"]
    /// `networking.istio.io/ServiceEntry`
    ServiceEntry "ServiceEntry" true ["networking.istio.io/v1" "networking.istio.io/v1beta1" "networking.istio.io/v1alpha3"]
    /// `networking.istio.io/WorkloadEntry`
    WorkloadEntry "WorkloadEntry" true ["networking.istio.io/v1" "networking.istio.io/v1beta1" "networking.istio.io/v1alpha3"]
    /// `security.istio.io/AuthorizationPolicy`
    AuthorizationPolicy "AuthorizationPolicy" true ["security.istio.io/v1" "security.istio.io/v1beta1"]
    /// `security.istio.io/PeerAuthentication`
    PeerAuthentication "PeerAuthentication" true ["security.istio.io/v1" "security.istio.io/v1beta1"]
    /// `security.istio.io/RequestAuthentication`
    RequestAuthentication "RequestAuthentication" true ["security.istio.io/v1" "security.istio.io/v1beta1"]
}

/// A type an [`Object`] can be of.
pub trait Stored: Sized {
    /// The object, if it is of this type.
    fn of(object: &Object) -> Option<&Arc<Self>>;
}

impl Kind {
    /// Whether it is a kind of route.
    pub fn is_route(self) -> bool {
        matches!(self, Self::HttpRoute | Self::GrpcRoute | Self::TcpRoute | Self::TlsRoute)
    }

    /// What a reference means: references name group and kind, without a version. The core group is empty, or `core`.
    pub fn of_reference(group: &str, kind: &str) -> Option<Self> {
        let version = match group {
            "" | "core" => "v1".to_owned(),
            group => format!("{group}/v1"),
        };
        Self::of(&version, kind).ok()
    }
}

/// The kind is none the control plane reads. Not a mistake: a directory may hold a Deployment, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKind;

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
        shape::shape(kind, &mut value);
        check::value(kind, &value)?;
        let object = Self::typed(kind, value)?;
        check::object(&object)?;
        Ok(object)
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
