// SPDX-License-Identifier: Apache-2.0
//! What happens to a connection that reaches a waypoint (control-plane.md §5.1): `terminate` takes it out of HBONE, `internal` finds the chain of its
//! service, `http` and `tcp` are those chains, `originate` wraps what goes on to a workload into HBONE again.

mod chain;
mod http;
mod internal;
mod log;
mod matcher;
mod originate;
mod part;
mod state;
mod tcp;
mod terminate;

pub(super) use chain::{Chains, direct, of_service};
pub(super) use http::tracing_upstream;
pub(super) use internal::{Tables, main, sniff};
pub(super) use originate::originate;
pub(super) use part::{ads, http_filter, network_filter};
pub(super) use state::{IDENTITY, ORIGINAL_DST};
pub(super) use terminate::{terminate, trust_domains};
