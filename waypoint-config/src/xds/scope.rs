// SPDX-License-Identifier: Apache-2.0
//! What of everything published a client may see: node proxies the mesh as they enforce it, a waypoint its own resources. Used by `stream`.

use std::sync::Arc;

use super::delta::{Catalog, Catalogs};
use crate::fleet::Rendered;
use crate::line::{Published, Wish};
use crate::{ambient, envoy, view::Name};

/// Whose client it is.
#[derive(Debug)]
pub(super) enum Scope {
    /// Of the mesh as a whole.
    Mesh,
    /// Of one waypoint.
    Waypoint {
        /// It is made while this is held.
        wish: Wish,
        /// Which life of it the client has seen.
        life: Option<u64>,
    },
}

/// One moment of what a client may see. A clone is cheap.
#[derive(Clone, Debug)]
pub(super) enum Moment {
    Mesh(ambient::Resources),
    Waypoint(Arc<envoy::Resources>),
}

/// What there is to be seen.
#[derive(Clone, Debug)]
pub(super) enum Sight {
    Now(Moment),
    /// Not yet.
    Wait,
    /// No more.
    Gone(&'static str),
}

impl Scope {
    /// The waypoint it is.
    pub(super) fn waypoint(&self) -> Option<&Name> {
        match self {
            Self::Mesh => None,
            Self::Waypoint { wish, .. } => Some(&wish.key().waypoint),
        }
    }

    /// What can be seen now.
    pub(super) fn look(&mut self, published: &Published) -> Sight {
        let Self::Waypoint { wish, life } = self else {
            return Sight::Now(Moment::Mesh(published.resources.clone()));
        };
        match published.waypoints.get(wish.key()) {
            Some(Rendered { life: now, .. }) if life.is_some_and(|seen| seen != *now) => {
                Sight::Gone("its waypoint is another one now")
            }
            Some(rendered) => {
                *life = Some(rendered.life);
                Sight::Now(Moment::Waypoint(Arc::clone(&rendered.resources)))
            }
            None if !published.snapshot.waypoints.contains_key(&wish.key().waypoint) => {
                Sight::Gone("its waypoint is no longer there")
            }
            None if life.is_some() => Sight::Gone("its waypoint was made anew"),
            None => Sight::Wait,
        }
    }
}

impl Catalogs for Moment {
    fn catalog<'a>(&'a self, type_url: &str) -> Option<Box<dyn Catalog + 'a>> {
        match self {
            Self::Mesh(resources) => resources.catalog(type_url),
            Self::Waypoint(resources) => resources.catalog(type_url),
        }
    }
}
