// SPDX-License-Identifier: Apache-2.0
//! Policies of layer 7 as Envoy's filters (control-plane.md §6.4). What cannot be expressed makes a policy stricter, never wider, and is said.
//! `guard` puts the filters in order, `rule` and `attribute` translate AuthorizationPolicies, `gate` refuses connections at once, `custom` asks
//! others, `token` judges tokens.

mod attribute;
mod custom;
mod gate;
mod guard;
mod rule;
mod text;
mod token;

pub(super) use gate::Refused;
pub(super) use guard::{of_connections, of_requests};
pub use said::{About, Said};

mod said;
