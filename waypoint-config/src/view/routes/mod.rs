// SPDX-License-Identifier: Apache-2.0
//! Routes of the Gateway API -> [`rule`](super::rule), for one service at a time. Pure: [`resolve`] takes the service, the routes that name it and a
//! [`Lookup`], and returns the rules of its ports and a status for every reference.
//!
//! Order of rules: those of clients' namespaces first, then a whole path before the longest start of one, before regular expressions, before rules that match
//! every path; then rules with a method, with more headers, with more query parameters; then the older route, its namespace and name, the earlier rule.

mod backends;
mod draft;
mod features;
mod filters;
mod matches;
mod parent;
mod read;
mod regex;
mod resolve;
mod rules;
mod shadow;
mod status;
mod syntax;

#[cfg(test)]
mod tests;

pub use backends::{Found, Lookup, permits};
pub use features::{Feature, supported_features};
pub use parent::{ParentKind, ParentPort, ParentService};
pub use regex::MAX_PROGRAM_SIZE;
pub use resolve::{AnyRoute, RouteRef, resolve};
pub use status::{CONTROLLER, ConditionKind, Reason, RouteCondition, RouteStatus};
