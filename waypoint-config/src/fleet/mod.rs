// SPDX-License-Identifier: Apache-2.0
//! What every waypoint that somebody asks for is to be sent: the routes of services resolved (`rules`), what one waypoint serves gathered (`tended`), and the
//! resources of all of them (`tended` by waypoint and kind of Envoy). Pure. `line` drives it with every change; the discovery server reads what it publishes.

mod claims;
mod gather;
mod kept;
mod rules;
mod tended;
mod waypoints;

pub use kept::{Keep, Kept};
pub use rules::{Ruled, Rules};
pub use waypoints::{Fleet, Key, Rendered, Waypoints};
