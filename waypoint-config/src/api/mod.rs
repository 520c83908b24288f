// SPDX-License-Identifier: Apache-2.0
//! The objects people write: Istio's kinds in full, Kubernetes' own from `k8s-openapi`, those of the Gateway API from `gateway-api`, and what is the
//! same for all of them (keys, strict reading, checks). Pure: no file, no network.

mod authentication;
mod check;
mod entry;
mod object;
mod policy;
mod reference;
mod selector;
mod shape;

pub use authentication::{
    ClaimToHeader, JwtHeader, JwtRule, KeySource, RequestAuthentication, RequestAuthenticationSpec,
};
pub use check::{is_dns_label, is_dns_subdomain, is_header_name, parse_range, regex_fault};
pub use entry::{
    AllottedAddress, EntryPort, EntrySelector, Health, Location, Resolution, ServiceEntry, ServiceEntrySpec,
    ServiceEntryStatus, WorkloadEntry, WorkloadEntrySpec, WorkloadEntryStatus,
};
pub use gateway_api::experimental::{
    gatewayclasses::GatewayClass, gateways::Gateway, grpcroutes::GrpcRoute, httproutes::HttpRoute,
    referencegrants::ReferenceGrant, tcproutes::TcpRoute, tlsroutes::TlsRoute,
};
pub use object::{Key, Kind, Object, ObjectError, Stored, UnknownKind};
pub use policy::{
    Action, AuthorizationPolicy, AuthorizationPolicySpec, Condition, FromEntry, Mode, MutualTls, Operation,
    PeerAuthentication, PeerAuthenticationSpec, Provider, Rule, Source, TargetReference, ToEntry,
};
pub use reference::ParentRef;
pub use selector::{Labels, WorkloadSelector, selects};
