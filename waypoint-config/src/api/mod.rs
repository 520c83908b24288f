// SPDX-License-Identifier: Apache-2.0
//! The objects people write: Istio's kinds in full, Kubernetes' own from `k8s-openapi`, and what is the same for all of them
//! (keys, strict reading, checks). Pure: no file, no network.

mod authentication;
mod check;
mod object;
mod policy;
mod selector;

pub use authentication::{ClaimToHeader, JwtHeader, JwtRule, RequestAuthentication, RequestAuthenticationSpec};
pub use check::{is_dns_label, is_dns_subdomain, parse_range};
pub use object::{Key, Kind, Object, ObjectError, UnknownKind};
pub use policy::{
    Action, AuthorizationPolicy, AuthorizationPolicySpec, Condition, FromEntry, Mode, MutualTls, Operation,
    PeerAuthentication, PeerAuthenticationSpec, Provider, Rule, Source, TargetReference, ToEntry,
};
pub use selector::{Labels, WorkloadSelector};
