// SPDX-License-Identifier: Apache-2.0
//! What the room promises, one file for each decision.

mod authorization;
mod balancing;
mod delivery;
mod labels;
mod reference;
mod routing;
mod safety;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{Hbone, Query, Route, RouteError, route};
use crate::mesh::Snapshot;
use crate::mesh::sample::pod;

/// Where the pod of that name is sent that asks for that address.
fn routed(snapshot: &Snapshot, from: &str, target: &str) -> Route {
    let query = Query { pod: &pod(snapshot, from), target: target.parse().unwrap() };
    route(snapshot, query, &mut StdRng::seed_from_u64(7))
}

fn rejected(snapshot: &Snapshot, from: &str, target: &str) -> RouteError {
    match routed(snapshot, from, target) {
        Route::Reject { error, .. } => error,
        other => panic!("{from} to {target} is not rejected: {other:?}"),
    }
}

fn over_hbone(snapshot: &Snapshot, from: &str, target: &str) -> Hbone {
    match routed(snapshot, from, target) {
        Route::Hbone(hbone) => hbone,
        other => panic!("{from} to {target} does not go over HBONE: {other:?}"),
    }
}

/// The hop and authority of a route over HBONE.
fn leg(snapshot: &Snapshot, from: &str, target: &str) -> (String, String) {
    let hbone = over_hbone(snapshot, from, target);
    (hbone.hop.to_string(), hbone.authority.to_string())
}

fn pair(hop: &str, authority: &str) -> (String, String) {
    (hop.to_owned(), authority.to_owned())
}
