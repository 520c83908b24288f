// SPDX-License-Identifier: Apache-2.0
//! What happens to a connection that reaches a waypoint (control-plane.md §5.1): `terminate` takes it out of HBONE, `internal` finds the chain of its
//! service, `requests` and `tcp` are those chains, `originate` wraps what goes on to a workload into HBONE again.

mod chain;
mod internal;
mod log;
mod matcher;
mod metrics;
mod originate;
mod part;
mod requests;
mod state;
mod tcp;
mod terminate;

pub(super) use chain::{Chains, direct, of_service};
pub(super) use internal::{Tables, main, sniff};
pub(super) use metrics::{DESCRIBED, are_kept};
pub(super) use originate::originate;
pub(super) use part::{ads, http_filter, network_filter};
pub(super) use requests::tracing_upstream;
pub(super) use state::{IDENTITY, ORIGINAL_DST, REMOTE_IP};
pub(super) use terminate::{terminate, trust_domains};
