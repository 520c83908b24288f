// SPDX-License-Identifier: Apache-2.0
//! Pure decisions: one snapshot in, one whole decision out. The data threads call them per connection and obey.
//!
//! * [`route`]: where an outbound connection goes, and who must answer there (*why was this sent there?*).
//! * [`inbound`] and [`inbound_plaintext`]: where an arriving connection is delivered.
//! * [`authz`]: whether it may be (*why was this refused?*). Only it makes an [`Admitted`].
//!
//! A decision that lacks a fact answers `Need(..)`; the caller waits for a newer snapshot and asks again.

mod authz;
mod balance;
mod expected;
mod inbound;
mod matcher;
mod route;
#[cfg(test)]
mod tests;
mod traffic;
mod waypoint;

pub use authz::{Admitted, Denied, DenyReason, DryRun, Inquiry, authz};
pub use expected::Expected;
pub use inbound::{
    Delivery, DialFrom, Inbound, InboundError, InboundRequest, ProxyHeader, Requested, inbound, inbound_plaintext,
};
pub use route::{Hbone, Lookup, Query, Route, RouteError, Via, route};
pub use traffic::{Baggage, Described, Party, Security, ServiceRef, Traffic};
